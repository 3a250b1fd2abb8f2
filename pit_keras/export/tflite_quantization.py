"""Matrix products of a TFLite file in 8-bit integers, by ai-edge-quantizer.

Only the products with weights become integers: FULLY_CONNECTED and CONV_2D, with a scale for each
output channel. All else stays float32. LayerNorm, softmax, GELU, the residual stream and the
products within the attention lose too much in 8 bits, and integers there cut the graph into pieces
that LiteRT's CPU library, XNNPACK, cannot join: the whole of a PiT in int8 is both wrong and slow.
`benchmarks/quantisation.py` measures these and other ways.
"""

import contextlib
import io

import numpy as np

from pit_keras.export.litert import batches
from pit_keras.export.saved_model import SIGNATURE

MIN_CALIBRATION_IMAGES = 32

_PRODUCTS = ("FULLY_CONNECTED", "CONV_2D")
# Where operations are told apart by name, it is that of their output. The converter calls the
# output of the whole model by the second name.
_CLASSIFIERS = "head|StatefulPartitionedCall"
_BITS = 8


def dynamic_int8(model):
    """Weights in int8; activations are quantised while it runs, each row with a range of its own.

    Args:
        model: Bytes of a float32 TFLite file.

    Raises:
        ImportError: If ai-edge-quantizer is not installed.
    """
    quantizer = _quantizer(model)
    for operation in _PRODUCTS:
        quantizer.add_dynamic_config(".*", operation, _BITS)
    return _quantised(quantizer)


def calibrated_int8(model, calibration, batch):
    """Weights and the products' inputs and outputs in int8, with ranges known beforehand.

    The ranges reach from the smallest to the largest value that the calibration images bring about.
    The classifiers are quantised as in `dynamic_int8`: logits beyond the calibration's would be
    clipped.

    Args:
        model: Bytes of a float32 TFLite file.
        calibration: See `check_calibration`.
        batch: Number of images that the file takes at once.

    Raises:
        ImportError: If ai-edge-quantizer is not installed.
    """
    quantizer = _quantizer(model)
    for operation in _PRODUCTS:
        quantizer.add_static_config(".*", operation, _BITS, _BITS)
    quantizer.add_dynamic_config(_CLASSIFIERS, "FULLY_CONNECTED", _BITS)
    return _quantised(quantizer, _ranges(quantizer, model, calibration, batch))


def check_calibration(calibration, image_size):
    """Checks calibration images: uint8 (N, H, W, 3) of the model's size, N at least 32.

    Raises:
        ValueError: If they are not.
    """
    expected = f"uint8 (N, {image_size[0]}, {image_size[1]}, 3)"
    if calibration is None:
        raise ValueError(
            f"The kind int8 needs calibration images: {expected}, at least "
            f"{MIN_CALIBRATION_IMAGES} of those that the model is for."
        )
    calibration = np.asarray(calibration)
    if calibration.dtype != np.uint8 or calibration.shape[1:] != (*image_size, 3):
        raise ValueError(
            f"Calibration images must be {expected}, the model's own size; got "
            f"{calibration.dtype} of shape {calibration.shape}."
        )
    if len(calibration) < MIN_CALIBRATION_IMAGES:
        raise ValueError(
            f"Calibration needs at least {MIN_CALIBRATION_IMAGES} images, not {len(calibration)}."
        )


def _quantizer(model):
    try:
        from ai_edge_quantizer.quantizer import Quantizer
    except ImportError as error:
        raise ImportError(
            "TFLite files of the kinds dynamic and int8 need the package ai-edge-quantizer: pip "
            "install pit_keras[export]."
        ) from error
    return Quantizer(model)


def _ranges(quantizer, model, calibration, batch):
    """The smallest and largest value of each tensor, {name: {"min": ..., "max": ...}}."""
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    recipe = RecipeManager()
    recipe.load_quantization_recipe(quantizer.get_quantization_recipe())
    # `Quantizer.calibrate` has moving averages instead, which clip what is rare: the largest error
    # of a logit was four times as large.
    calibrator = Calibrator(model, num_threads=1, qsv_update_func=min_max_update)
    samples = [{"images": images} for images, _ in batches(calibration, batch)]
    with _without_progress_bars():
        calibrator.calibrate({SIGNATURE: samples}, recipe)
    return calibrator.get_model_qsvs()


def _quantised(quantizer, ranges=None):
    with _without_progress_bars():
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _without_progress_bars():
    # Not all of them can be switched off.
    return contextlib.redirect_stderr(io.StringIO())
