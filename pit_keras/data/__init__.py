"""Image sources, preprocessing, augmentation, mixing, COCO's form, and the tf.data pipelines.

Nothing here knows a model or a run, and chance is a function of seed, epoch and example.
"""
