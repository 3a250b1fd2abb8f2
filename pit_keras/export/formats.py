"""The forms in which a model is exported: one row each."""

from typing import NamedTuple

from pit_keras.runs.versioned_folder import VERSION

TOLERANCE = 1e-4  # the error that an exact form may have, as a share of the largest logit
LEAST_CALIBRATION_IMAGES = 32


class Format(NamedTuple):
    """One form of an exported model.

    `min_agreement` is the least share, 0..1, of images with the Keras model's top-1 class, or of
    objects that both detectors find; None for a form that must be within `TOLERANCE`.
    """

    target: str  # file or folder in the output folder
    family: str
    kind: str = "float32"
    min_agreement: float | None = None
    by_default: bool = True


FORMATS = {
    "saved_model": Format(f"saved_model/{VERSION}", "saved_model"),
    # Only faster on processors that multiply bfloat16.
    "saved_model_bfloat16": Format(
        f"saved_model_bfloat16/{VERSION}", "saved_model", "bfloat16", 0.99, by_default=False
    ),
    "tflite": Format("model.tflite", "tflite"),
    "tflite_float16": Format("model_float16.tflite", "tflite", "float16", 0.99),
    "tflite_dynamic": Format("model_dynamic.tflite", "tflite", "dynamic", 0.99),
    "tflite_int8": Format("model_int8.tflite", "tflite", "int8", 0.97),
    "onnx": Format("model.onnx", "onnx"),
}
DETECTOR_FORMATS = ("saved_model", "tflite", "tflite_float16", "tflite_dynamic")
DEFAULT_FORMATS = tuple(name for name, format_ in FORMATS.items() if format_.by_default)


def checked_limits(min_agreement, names):
    """The least agreement of each format in `names`: `min_agreement[name]`, or else its own."""
    for name in (*names, *min_agreement):
        if name not in FORMATS:
            raise ValueError(f"Unknown format {name!r}; known are {', '.join(FORMATS)}.")
    for name in min_agreement:
        if name not in names:
            raise ValueError(f"--min_agreement names {name}, which is not to be exported.")
        if FORMATS[name].min_agreement is None:
            raise ValueError(
                f"{name} computes what the Keras model does and is held to {TOLERANCE:.0e} of the "
                "largest logit, not to a share of the images."
            )
    return {name: min_agreement.get(name, FORMATS[name].min_agreement) for name in names}
