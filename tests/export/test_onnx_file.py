import dataclasses
import json
from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnxruntime
import pytest
from tolerances import assert_close

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import TOLERANCE, compare
from pit_keras.export.onnx_file import export_onnx, fused, run_onnx

# With (LayerNormalization, GELU): two norms and one GELU a block, and one norm at the end.
MODELS = [
    ("pit_ti_distilled", (7, 3)),
    ("vit_ti", (3, 1)),
    pytest.param("pit_ti", (7, 3), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def written(exported, make_trained, tmp_path_factory):
    """Gives a trained model and its file, by name; each is written once."""
    folder = tmp_path_factory.mktemp("onnx")
    files = {"pit_ti_distilled": (exported.trained, exported.folder / "model.onnx")}

    def give(name):
        if name not in files:
            files[name] = make_trained(name), folder / f"{name}.onnx"
            export_onnx(*files[name])
        return files[name]

    return give


def crops_of(images, data):
    return [np.uint8(resize_and_crop(image, data.image_size, data.eval_crop)) for image in images]


@pytest.mark.parametrize(("name", "fusions"), MODELS)
def test_it_computes_what_the_keras_model_does(written, photographs, tmp_path, name, fusions):
    trained, path = written(name)
    expected, crops = trained.logits(photographs), crops_of(photographs, trained.data)
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    assert compare(expected, run_onnx(path, crops)).within()
    assert_fused(path, fusions, tmp_path)


def assert_fused(path, fusions, folder):
    """That norms and GELUs have forms that ONNX Runtime knows, so many of each."""
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(options.optimized_model_filepath)
    operations = Counter(node.op_type for node in optimized.graph.node)
    # A sum before a norm may join it.
    norms = operations["LayerNormalization"] + operations["SkipLayerNormalization"]
    assert (norms, operations["Gelu"] + operations["BiasGelu"]) == fusions
    assert not {"Reciprocal", "Sqrt", "ReduceMean", "Erf"} & set(operations)


def test_norms_of_a_model_before_its_training_are_recognised(make_trained, tmp_path):
    export_onnx(make_trained("vit_ti", fresh=True), tmp_path / "new.onnx")
    assert_fused(tmp_path / "new.onnx", (3, 1), tmp_path)


def test_it_takes_any_number_of_images_at_once(written, photographs):
    trained, path = written("pit_ti_distilled")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 40, 24, 3],
    )
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])
    (outputs,) = session.run(None, {"images": np.stack(crops_of(photographs, trained.data))})
    assert compare(trained.logits(photographs), outputs).within()


def test_names_and_preprocessing_travel_with_it(written):
    trained, path = written("pit_ti_distilled")
    metadata = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert tuple(metadata["classes.txt"].splitlines()) == trained.class_names
    preprocessing = json.loads(metadata["preprocessing.json"])
    assert preprocessing["image_size"] == [40, 24]
    assert preprocessing["mean"] == [0.4, 0.5, 0.6]


def test_the_same_model_gives_the_same_bytes(written, tmp_path):
    trained, path = written("vit_ti")
    export_onnx(trained, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_line_break_in_a_name_is_an_error(make_trained, tmp_path):
    trained = dataclasses.replace(make_trained(), class_names=("cat\ndog", *"bcdefghij"))
    with pytest.raises(ValueError, match=r"'cat\\ndog' holds a line break"):
        export_onnx(trained, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


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
    scaled = Mul(x, root)
    error = Erf(scaled)
    shifted = Add(one, error)
    y = Mul(halved, shifted)
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
    # A norm of three: two means, a square, a root and seven other operations, of numbers no larger
    # than the input times the scale. GELU: six operations.
    scale = np.abs(x).max() * 3 / 0.1**0.5
    assert_close(actual, expected, roundings=2 * 3 + 9, scale=scale)
