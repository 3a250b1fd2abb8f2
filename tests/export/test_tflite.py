"""TFLite files of classifiers; `test_exporting_detectors` has those of detectors."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tflite_files import PRODUCTS, operations

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import compare
from pit_keras.export.formats import FORMATS, TOLERANCE
from pit_keras.export.tflite import (
    TFLITE_KINDS,
    batches,
    call_of_tflite,
    export_tflite,
    load_tflite_model,
)
from pit_keras.runs.trained_model import TrainedModel

# Models whose further kinds are the same again, with other layers. Of the convolutional ones each
# has one: all layers that are in one kind of file are in the other.
USUAL = {
    ("vit_ti", "float32"),
    ("vit_ti", "int8"),
    ("resnet50", "float32"),
    ("regnety_160", "int8"),
}
SOME_KINDS = [
    (name, kind) if (name, kind) in USUAL else pytest.param(name, kind, marks=pytest.mark.slow)
    for name in ("vit_ti", "resnet50", "regnety_160")
    for kind in TFLITE_KINDS
]


def crops_of(images, data):
    """What a device would hand over: uint8 images of the model's own size."""
    crops = [resize_and_crop(image, data.image_size, data.eval_crop) for image in images]
    return [crop.numpy().astype(np.uint8) for crop in crops]


def calibration_of(images, data):
    """The images' crops, moved to the side by several distances: 32 of 8."""
    crops = crops_of(images, data)
    return np.stack([np.roll(crop, shift, axis=1) for crop in crops for shift in range(0, 12, 3)])


@pytest.fixture(scope="module")
def written(exported, make_trained, photographs, tmp_path_factory):
    """Gives a small model and the file that it was written to, each made once."""
    folder, files = tmp_path_factory.mktemp("tflite"), {}
    for name, format_ in FORMATS.items():
        if format_.family == "tflite":
            kind = name.partition("_")[2] or "float32"
            path = exported.folder / format_.target
            files["pit_ti_distilled", kind, 1] = exported.trained, path

    def give(name, kind, batch=1):
        if (name, kind, batch) not in files:
            trained, path = make_trained(name), folder / f"{name}_{kind}_{batch}.tflite"
            calibration = calibration_of(photographs, trained.data) if kind == "int8" else None
            export_tflite(trained, path, kind, batch, calibration, license="MIT")
            files[name, kind, batch] = trained, path
        return files[name, kind, batch]

    return give


def logits_of(path, crops):
    return load_tflite_model(path).logits_of_crops(crops)


def allowed(kind, path):
    """The difference of logits, as a share of the largest, that a kind's rounding explains.

    Independent roundings have a deviation of a step over the root of 12 each, and their squares add
    up. Of each product the kernel is rounded, what it takes in int8, and what it gives in `int8`.
    """
    if kind == "float32":
        return TOLERANCE
    products = sum(operation in PRODUCTS for operation, _, _ in operations(path))
    roundings = products * {"float16": 1, "dynamic": 2, "int8": 3}[kind]
    step = 2**-10 if kind == "float16" else 1 / 127
    return 4 * step * (roundings / 12) ** 0.5  # four deviations


@pytest.mark.parametrize(
    ("name", "kind"), [*(("pit_ti_distilled", kind) for kind in TFLITE_KINDS), *SOME_KINDS]
)
def test_every_kind_agrees_with_built_in_operations_alone(written, photographs, name, kind):
    trained, path = written(name, kind)
    expected = trained.logits(photographs)
    # The images do make a difference, one that the comparison would see.
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    logits = logits_of(path, crops_of(photographs, trained.data))
    assert compare(expected, logits).within(allowed(kind, path))
    listed = operations(path)
    assert "CUSTOM" not in {operation for operation, _, _ in listed}
    inputs = [inputs for operation, inputs, _ in listed if operation == "CONV_2D"]
    assert all((types[0] == "INT8") == (kind == "int8") for types in inputs)


def test_its_signature_takes_images_of_the_models_size(written):
    interpreter = Interpreter(str(written("pit_ti_distilled", "float32")[1]))
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (inputs["dtype"], tuple(inputs["shape"])) == (np.uint8, (1, 40, 24, 3))
    assert (outputs["dtype"], tuple(outputs["shape"])) == (np.float32, (1, 10))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["logits"]}
    }


def test_pooling_is_a_depthwise_convolution_and_gelu_one_operation(written):
    listed = [
        operation for operation, _, _ in operations(written("pit_ti_distilled", "float32")[1])
    ]
    assert listed.count("DEPTHWISE_CONV_2D") == 2  # one for each pooling
    assert listed.count("GELU") == 3  # one for each block


def test_class_names_are_an_associated_file(written):
    trained, path = written("pit_ti_distilled", "float32")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["classes.txt", "preprocessing.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("classes.txt").decode().splitlines() == list(trained.class_names)
        preprocessing = json.loads(archive.read("preprocessing.json"))
    assert preprocessing["eval_crop"] == 0.9
    assert preprocessing["apply_orientation"] is False
    assert preprocessing["mean"] == [0.4, 0.5, 0.6]


def test_a_tflite_file_is_a_classifier_of_files_of_any_size(written, photographs):
    trained, path = written("pit_ti_distilled", "float32")
    loaded = load_tflite_model(path)
    assert loaded.class_names == trained.class_names
    assert compare(trained.logits(photographs), loaded.logits(photographs)).within()


@pytest.mark.parametrize(
    ("told", "applied"), [({"apply_orientation": True}, True), ({}, False)], ids=str
)
@pytest.mark.parametrize("task", [{"eval_crop": 0.9}, {"task": "detection"}], ids=str)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_says_whether_photographs_are_turned(written, tmp_path, told, applied, task):
    """Files of earlier versions do not, and they were not."""
    path = shutil.copy(written("pit_ti_distilled", "float32")[1], tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        values = {"image_size": [40, 24], **task, **told}
        archive.writestr("preprocessing.json", json.dumps(values))  # in place of its own
    assert load_tflite_model(path).apply_orientation == applied


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_tflite_model(tmp_path / "none.tflite")
    path = tmp_path / "other.tflite"
    path.write_bytes(b"TFL3")
    with pytest.raises(ValueError, match="was not written by pit-keras export"):
        load_tflite_model(path)
    with zipfile.ZipFile(path, "a") as archive:  # whole names, behind what is no model
        archive.writestr("classes.txt", "a\nb\n")
        archive.writestr("preprocessing.json", '{"eval_crop": 0.9}')
    with pytest.raises(ValueError, match="was not written by pit-keras export, or is damaged"):
        load_tflite_model(path)


@pytest.mark.parametrize(
    "kind",
    [
        "float32",
        pytest.param("float16", marks=pytest.mark.slow),
        pytest.param("dynamic", marks=pytest.mark.slow),
        "int8",
    ],
)
def test_the_same_model_gives_the_same_file(written, photographs, tmp_path, kind):
    trained, path = written("vit_ti", kind)
    calibration = calibration_of(photographs, trained.data) if kind == "int8" else None
    export_tflite(trained, tmp_path / "again", kind, calibration=calibration, license="MIT")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_of_another_batch(written, photographs, kind):
    trained, path = written("vit_ti", kind, batch=3)
    (inputs,) = Interpreter(str(path)).get_input_details()
    assert tuple(inputs["shape"]) == (3, 32, 32, 3)
    _, single = written("vit_ti", kind)
    crops = crops_of(photographs, trained.data)  # 8: two and two thirds of a batch
    assert compare(logits_of(single, crops), logits_of(path, crops)).within()
    logits = load_tflite_model(path).logits(photographs)
    assert compare(trained.logits(photographs), logits).within(allowed(kind, path))


def test_the_last_batch_is_filled_up():
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(5)]
    numbers = [(batch[:, 0, 0, 0].tolist(), count) for batch, count in batches(iter(images), 2)]
    assert numbers == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    assert not list(batches([], 2))


def test_latency_is_of_a_call_with_the_files_whole_batch(written):
    call = call_of_tflite(written("vit_ti", "float32", batch=3)[1], threads=2)
    assert call()["logits"].shape == (3, 10)


@pytest.mark.parametrize(("kind", "share"), [("float16", 0.6), ("int8", 0.35)])
def test_rounded_weights_take_less_room(written, kind, share):
    exact, rounded = (written("vit_ti", each)[1] for each in ("float32", kind))
    assert rounded.stat().st_size < share * exact.stat().st_size


@pytest.mark.slow
def test_a_model_of_full_size(photographs, tmp_path):
    trained = TrainedModel(pit_keras.create_model("pit_ti"), ("class",) * 1000, DataConfig())
    expected, crops = trained.logits(photographs[::4]), crops_of(photographs[::4], trained.data)
    calibration, sizes = calibration_of(photographs, trained.data), {}
    for kind, images in (("float32", None), ("float16", None), ("int8", calibration)):
        path = tmp_path / kind
        export_tflite(trained, path, kind, calibration=images)
        sizes[kind] = path.stat().st_size
        assert compare(expected, logits_of(path, crops)).within(allowed(kind, path))
    assert sizes["float16"] < 0.52 * sizes["float32"]
    assert sizes["int8"] < 0.3 * sizes["float32"]
