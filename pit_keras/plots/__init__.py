"""Every picture: images with predictions or boxes, curves, charts.

Nothing is computed here that a table would hold.
"""
