"""The file that tells, beside an exported model, what happens to an image before the network."""

import json

PREPROCESSING_FILE = "preprocessing.json"
DETECTION = "detection"


def preprocessing_text(data):
    """JSON of what `preprocess_evaluation` does as a `DataConfig` asks.

    An RGB image, 0..255, is scaled until it covers `image_size` (height, width) / `eval_crop`, of
    which the middle is cut out; then (pixel / 255 - `mean`) / `std`.
    """
    values = {
        "image_size": data.image_size,
        "eval_crop": data.eval_crop,
        "interpolation": "bicubic",
        "antialias": True,
        "channels": "RGB",
        "mean": data.mean,
        "std": data.std,
    }
    return json.dumps(values, indent=2) + "\n"


def detection_preprocessing_text(data, fixed_size=None):
    """JSON of what `preprocess_detection` does as a `DataConfig` asks.

    An RGB image, 0..255, is scaled until it fits into `image_size`, height and width, or turned for
    upright images unless it is `fixed`; (pixel / 255 - `mean`) / `std` is filled up with zeros at
    the right and below.
    """
    values = {
        "task": DETECTION,
        "image_size": fixed_size or data.image_size,
        "fixed": fixed_size is not None,
        "interpolation": "bilinear",
        "antialias": True,
        "channels": "RGB",
        "mean": data.mean,
        "std": data.std,
    }
    return json.dumps(values, indent=2) + "\n"
