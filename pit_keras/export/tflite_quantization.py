"""A transformer's matrix products in 8-bit integers, by ai-edge-quantizer.

Only the products with weights become integers, FULLY_CONNECTED and CONV_2D, with a scale for each
output channel; all else stays float32. LayerNorm, softmax, GELU, the residual stream and the
products within the attention lose too much in 8 bits, and integers there cut the graph into pieces
that LiteRT's CPU library, XNNPACK, cannot join: a PiT wholly in int8 is both wrong and slow
(`results/quantisation.csv`).
"""

import contextlib
import io

from pit_keras.export.saved_model import SIGNATURE

_PRODUCTS = ("FULLY_CONNECTED", "CONV_2D")
# The quantizer tells operations apart by the names of their outputs. The converter calls the output
# of the whole model by the second name.
_CLASSIFIERS = "head|StatefulPartitionedCall"
_BITS = 8


def int8_products(model, samples):
    """The bytes of a float32 TFLite file with the products' weights, inputs and outputs in int8.

    Their ranges reach from the smallest to the largest value in the samples. Only the classifiers
    measure their inputs while they run and give float32: logits beyond those of the samples would
    be clipped.

    `samples` are calibration images as arguments of the model's signature, by name.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

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
