import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

from pit_keras.export.onnx_file import fused

NORMALISATION = """<ir_version: 8, opset_import: ["": 18]>
network (float[B, 3] x) => (float[B, 3] y)
<float[1, 3] gamma = {1, 2, 3}, float[1, 3] beta = {-1, 0, 1}, float epsilon = {0.1},
 int64[1] axes = {AXIS}>
{
    mean = ReduceMean <keepdims = 1> (x, axes)
    negative = Neg(mean)
    centred = Sub(x, mean)
    square = Mul(centred, centred)
    variance = ReduceMean <keepdims = 1> (square, axes)
    shifted = Add(variance, epsilon)
    deviation = Sqrt(shifted)
    inverse = Reciprocal(deviation)
    scale = Mul(inverse, gamma)
    scaled = Mul(x, scale)
    offset = Mul(negative, scale)
    bias = Add(offset, beta)
    y = Add(scaled, bias)
}"""

GELU = """<ir_version: 8, opset_import: ["": 18]>
network (float[B, 3] x) => (float[B, 3] y)
<float half = {HALF}, float one = {1.0}, float root = {0.70710678}>
{
    halved = Mul(half, x)
    negative = Neg(x)
    scaled = Mul(negative, root)
    error = Erf(scaled)
    complement = Sub(one, error)
    y = Mul(halved, complement)
}"""


@pytest.mark.parametrize(
    ("text", "fuses"),
    [
        (NORMALISATION.replace("AXIS", "-1"), True),
        (NORMALISATION.replace("AXIS", "0"), False),
        (GELU.replace("HALF", "0.5"), True),
        (GELU.replace("HALF", "0.4"), False),
    ],
)
def test_only_what_is_a_norm_or_a_gelu_is_replaced_and_computes_the_same(text, fuses):
    model = onnx.parser.parse_model(text)
    x = np.float32(np.random.default_rng(0).normal(size=(4, 3)))
    (expected,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    result = fused(model)
    before, after = ([node.op_type for node in graph.graph.node] for graph in (model, result))
    assert (before != after) == fuses
    assert ("LayerNormalization" in after) == (fuses and "Sqrt" in before)
    (actual,) = onnx.reference.ReferenceEvaluator(result).run(None, {"x": x})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
