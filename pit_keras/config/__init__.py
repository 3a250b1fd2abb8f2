"""The configuration of a run: its fields with their ranges, and the recipes.

Nothing here builds a model, opens a data set or knows a flag.
"""
