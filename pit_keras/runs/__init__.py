"""What lies in a run folder: configuration, checkpoints, history, and the trained model, opened.

Nothing here trains, measures or draws.
"""
