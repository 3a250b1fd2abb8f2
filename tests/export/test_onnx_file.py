import dataclasses
import json
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import TOLERANCE, compare
from pit_keras.export.onnx_file import export_onnx, onnx_latency, run_onnx

# With (LayerNormalization, GELU): two norms and one GELU a block, and one norm at the end.
MODELS = {"pit_ti": (9, 4), "pit_ti_distilled": (9, 4), "vit_ti": (5, 2)}


def after_training(trained):
    """With norms that scale and shift, which those of a new model do not."""
    random = np.random.default_rng(0)
    for weight in trained.model.weights:
        if weight.path.endswith(("gamma", "beta")):
            weight.assign(random.normal(size=weight.shape))
    return trained


@pytest.fixture(scope="module")
def exported(make_trained, tmp_path_factory):
    """By model name: the trained model and its file."""
    folder = tmp_path_factory.mktemp("onnx")
    models = {name: after_training(make_trained(name, (32, 40))) for name in MODELS}
    for name, trained in models.items():
        export_onnx(trained, folder / f"{name}.onnx")
    return {name: (trained, folder / f"{name}.onnx") for name, trained in models.items()}


@pytest.fixture(scope="module")
def crops(photographs):
    crops = [resize_and_crop(image, (32, 40), 0.9) for image in photographs]
    return [np.uint8(crop) for crop in crops]


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_keras_model_does(exported, photographs, crops, name):
    trained, path = exported[name]
    expected = trained.logits(photographs)
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    assert compare(expected, run_onnx(path, crops)).within()
    assert compare(expected, run_onnx(path, iter(crops), threads=2)).within()


def test_it_takes_any_number_of_images_at_once(exported, photographs, crops):
    trained, path = exported["pit_ti"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 32, 40, 3],
    )
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])
    (outputs,) = session.run(None, {"images": np.stack(crops)})
    assert compare(trained.logits(photographs), outputs).within()


@pytest.mark.parametrize(("name", "new"), [*((name, False) for name in MODELS), ("pit_ti", True)])
def test_norms_and_gelus_have_forms_that_runtimes_know(exported, make_trained, tmp_path, name, new):
    path = exported[name][1]
    if new:
        path = tmp_path / "new.onnx"
        export_onnx(make_trained(name), path)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    operations = Counter(node.op_type for node in model.graph.node)
    assert (operations["LayerNormalization"], operations["Erf"]) == MODELS[name]
    assert not {"Reciprocal", "Sqrt", "ReduceMean", "Neg", "Erfc"} & set(operations)


def test_names_and_preprocessing_travel_with_it(exported):
    trained, path = exported["pit_ti"]
    metadata = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert tuple(metadata["classes.txt"].splitlines()) == trained.class_names
    preprocessing = json.loads(metadata["preprocessing.json"])
    assert preprocessing["image_size"] == [32, 40]
    assert preprocessing["mean"] == [0.4, 0.5, 0.6]


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    trained, path = exported["pit_ti_distilled"]
    export_onnx(trained, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_latency_is_that_of_the_calls_after_the_first(exported, crops):
    assert 0 < onnx_latency(exported["vit_ti"][1], crops[0], threads=1, calls=5) < 1000


def test_a_line_break_in_a_name_is_an_error(make_trained, tmp_path):
    trained = dataclasses.replace(make_trained(), class_names=("cat\ndog", *"bcdefghij"))
    with pytest.raises(ValueError, match=r"'cat\\ndog' holds a line break"):
        export_onnx(trained, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("module", ["onnx", "tf2onnx", "onnxscript.rewriter", "onnxruntime"])
def test_a_package_that_is_missing_is_named(exported, crops, tmp_path, monkeypatch, module):
    (trained, path), package = exported["vit_ti"], module.partition(".")[0]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"package {package}: pip install pit_keras\[onnx\]\.$"):
        run_onnx(path, crops) if module == "onnxruntime" else export_onnx(trained, tmp_path / "x")
    assert not (tmp_path / "x").exists()
