"""What a trained network is worth, and a folder before: metrics, pages, the suites of table 5.

Nothing here changes a weight; speed belongs to `measure`.
"""
