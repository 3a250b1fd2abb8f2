"""The forms in which a model is exported: one row each."""

from typing import NamedTuple

from pit_keras.runs.versioned_folder import VERSION

# Largest difference between logits that counts as none, as a share of the largest logit.
TOLERANCE = 1e-4
LEAST_CALIBRATION_IMAGES = 32


class Format(NamedTuple):
    """One form of an exported model.

    Attributes:
        target: Name of the file or folder in the output folder.
        family: What writes and runs it: "saved_model", "tflite" or "onnx".
        kind: How its numbers are stored; see `pit_keras.export.tflite`.
        min_agreement: Share of the images, 0..1, whose likeliest class must be the Keras model's;
            of a detector the share of its objects. None for a form that computes the same numbers:
            they must be within `TOLERANCE`.
        by_default: Whether it is written where no format is asked for.
    """

    target: str
    family: str
    kind: str = "float32"
    min_agreement: float | None = None
    by_default: bool = True


FORMATS = {
    "saved_model": Format(f"saved_model/{VERSION}", "saved_model"),
    # For servers whose processor multiplies such numbers; on others it is slower.
    "saved_model_bfloat16": Format(
        f"saved_model_bfloat16/{VERSION}", "saved_model", "bfloat16", 0.99, by_default=False
    ),
    "tflite": Format("model.tflite", "tflite"),
    "tflite_float16": Format("model_float16.tflite", "tflite", "float16", 0.99),
    "tflite_dynamic": Format("model_dynamic.tflite", "tflite", "dynamic", 0.99),
    "tflite_int8": Format("model_int8.tflite", "tflite", "int8", 0.97),
    "onnx": Format("model.onnx", "onnx"),
}
# int8 needs a calibration of its own, and ONNX files hold no detector.
DETECTOR_FORMATS = ("saved_model", "tflite", "tflite_float16", "tflite_dynamic")
DEFAULT_FORMATS = tuple(name for name, format_ in FORMATS.items() if format_.by_default)


def check_formats(names):
    """Checks that formats are known.

    Raises:
        ValueError: If one is not, or there are none.
    """
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"Unknown format {name!r}; known are {', '.join(FORMATS)}.")
    if not names:
        raise ValueError(f"No format to export to; known are {', '.join(FORMATS)}.")


def checked_limits(min_agreement, names):
    """The least agreement of each format: its own, or what is asked for.

    Args:
        min_agreement: `{name: share}` of those that are to differ from `FORMATS`.
        names: The formats to be written.

    Returns:
        `{name: share}`, None for a format that is held to `TOLERANCE`.

    Raises:
        ValueError: If a share is not in 0..1, or is of a format that has none or is not written.
    """
    for name, share in min_agreement.items():
        check_formats([name])
        if name not in names:
            raise ValueError(f"An agreement is asked of {name}, which is not to be exported.")
        if FORMATS[name].min_agreement is None:
            raise ValueError(
                f"{name} computes what the Keras model does and is held to {TOLERANCE:.0e} of the "
                "largest logit, not to a share of the images."
            )
        if not 0 <= share <= 1:
            raise ValueError(f"The agreement of {name} is a share in 0..1; got {share}.")
    return {name: min_agreement.get(name, FORMATS[name].min_agreement) for name in names}
