"""What a run is told: the fields with their rules, and the recipes.

Nothing here builds a model, opens a data set or knows a flag.
"""
