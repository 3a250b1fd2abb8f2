"""A transformer's matrix products in 8-bit integers, by ai-edge-quantizer.

Only the products with weights become integers, FULLY_CONNECTED and CONV_2D, with a scale for each
output channel; all else stays float32. LayerNorm, softmax, GELU, the residual stream and the
products within the attention lose too much in 8 bits, and integers there cut the graph into pieces
that LiteRT's CPU library, XNNPACK, cannot join: the whole of a PiT in int8 is both wrong and slow
(`results/quantisation.csv`).
"""

import contextlib
import io

import numpy as np

from pit_keras.export.formats import LEAST_CALIBRATION_IMAGES
from pit_keras.export.saved_model import SIGNATURE

_PRODUCTS = ("FULLY_CONNECTED", "CONV_2D")
# The quantizer tells operations apart by the names of their outputs. The converter calls the output
# of the whole model by the second name.
_CLASSIFIERS = "head|StatefulPartitionedCall"
_BITS = 8


def int8_products(model, samples):
    """Weights of the products, their inputs and their outputs in int8.

    Their ranges reach from the smallest to the largest value that the samples bring about. The
    classifiers alone measure their inputs while they run and give float32: logits beyond those of
    the samples would be clipped.

    Args:
        model: Bytes of a float32 TFLite file.
        samples: Calibration images as arguments of the model's signature, by name.

    Returns:
        Bytes of another.

    Raises:
        ImportError: If ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer.calibrator import Calibrator
        from ai_edge_quantizer.quantizer import Quantizer
        from ai_edge_quantizer.recipe_manager import RecipeManager
        from ai_edge_quantizer.utils.qsv_utils import min_max_update
    except ImportError as error:
        raise ImportError(
            "A TFLite file of the kind int8 needs the package ai-edge-quantizer: pip install "
            "pit_keras[export]."
        ) from error
    recipe = RecipeManager()
    for product in _PRODUCTS:
        recipe.add_static_config(".*", product, _BITS, _BITS)
    recipe.add_dynamic_config(_CLASSIFIERS, "FULLY_CONNECTED", _BITS)
    quantizer = Quantizer(model, recipe.get_quantization_recipe())
    with contextlib.redirect_stderr(io.StringIO()):  # not all progress bars can be switched off
        # `Quantizer.calibrate` has moving averages instead, which clip what is rare.
        calibrator = Calibrator(model, num_threads=1, qsv_update_func=min_max_update)
        calibrator.calibrate({SIGNATURE: list(samples)}, recipe)
        result = quantizer.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    return bytes(result.quantized_model)


def check_calibration(calibration, image_size):
    """Checks calibration images: uint8 (N, H, W, 3) of the model's size, N at least 32.

    Raises:
        ValueError: If they are not.
    """
    expected = f"uint8 (N, {image_size[0]}, {image_size[1]}, 3)"
    if calibration is None:
        raise ValueError(
            f"The kind int8 needs calibration images: {expected}, at least "
            f"{LEAST_CALIBRATION_IMAGES} such as the model will see."
        )
    calibration = np.asarray(calibration)
    if calibration.dtype != np.uint8 or calibration.shape[1:] != (*image_size, 3):
        raise ValueError(
            f"Calibration images must be {expected}, of the model's own size; got "
            f"{calibration.dtype} of shape {calibration.shape}."
        )
    if len(calibration) < LEAST_CALIBRATION_IMAGES:
        raise ValueError(
            f"Calibration needs at least {LEAST_CALIBRATION_IMAGES} images, not {len(calibration)}."
        )
