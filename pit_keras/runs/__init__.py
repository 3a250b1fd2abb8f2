"""A run folder: configuration, checkpoints, history, and the trained model, opened for use.

Nothing here trains, measures or draws.
"""
