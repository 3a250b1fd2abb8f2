"""What a trained network is worth: accuracy, COCO's metrics, the report, the suites of table 5.

Nothing here changes a weight; speed belongs to `measure`.
"""
