"""Every picture that is drawn: images with predictions or boxes, curves, charts.

Nothing is computed here that a table would hold; what is drawn is given.
"""
