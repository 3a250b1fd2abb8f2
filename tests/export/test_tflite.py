import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import compare
from pit_keras.export.formats import TOLERANCE
from pit_keras.export.tflite import TFLITE_KINDS, export_tflite, load_tflite_model, run_tflite
from pit_keras.runs.trained_model import TrainedModel


def crops_of(images, data):
    """What a device would hand over: uint8 images of the model's own size."""
    crops = [resize_and_crop(image, data.image_size, data.eval_crop) for image in images]
    return [crop.numpy().astype(np.uint8) for crop in crops]


# Differences of logits, as a share of the largest, that a kind's rounding explains.
ROUNDING = {"float32": TOLERANCE, "float16": 2e-3, "dynamic": 4e-2, "int8": 8e-2}
OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items()}
TYPES = {code: name for name, code in vars(schema.TensorType).items()}


def calibration_of(images, data):
    """The images' crops, moved to the side by several distances: 32 of 8."""
    crops = crops_of(images, data)
    return np.stack([np.roll(crop, shift, axis=1) for crop in crops for shift in range(0, 12, 3)])


def _give_life(model):
    """Biases, scales and statistics such as training leaves them.

    At the start some are 0 and a unit may be for every image: scales of int8 are then too far apart
    for XNNPACK.
    """
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))


@pytest.fixture(scope="module")
def exported(make_trained, photographs, tmp_path_factory):
    """Gives a small model and the file that it was written to, each made once."""
    folder, models, written = tmp_path_factory.mktemp("tflite"), {}, set()

    def give(name, kind, batch=1):
        if name not in models:
            keras.utils.set_random_seed(0)
            models[name] = make_trained(name)
            _give_life(models[name].model)
        trained, path = models[name], folder / f"{name}_{kind}_{batch}.tflite"
        if path not in written:
            calibration = calibration_of(photographs, trained.data) if kind == "int8" else None
            export_tflite(trained, path, kind, batch, calibration, license="CC-BY-4.0")
            written.add(path)
        return trained, path

    return give


def operations(path):
    """Name, input types and output types of each operation in a file."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (graph,) = model.subgraphs

    def types(indices):
        return [TYPES[graph.tensors[index].type] for index in indices]

    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [
        (
            OPERATIONS[codes[operation.opcodeIndex]],
            types(operation.inputs),
            types(operation.outputs),
        )
        for operation in graph.operators
    ]


def assert_agrees(trained, path, images):
    expected = trained.logits(images)
    # The images do make a difference, one that the comparison would see.
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    assert compare(expected, run_tflite(path, crops_of(images, trained.data))).within()


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("pit_ti", (32, 32)), ("pit_ti_distilled", (40, 24)), ("vit_ti", (32, 32))],
)
def test_computes_what_the_keras_model_does(make_trained, photographs, tmp_path, name, image_size):
    trained, path = make_trained(name, image_size), tmp_path / "model.tflite"
    export_tflite(trained, path)
    # LiteRT alone: an operation that is not built in would not load.
    interpreter = Interpreter(str(path))
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (inputs["dtype"], tuple(inputs["shape"])) == (np.uint8, (1, *image_size, 3))
    assert (outputs["dtype"], tuple(outputs["shape"])) == (np.float32, (1, 10))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["logits"]}
    }
    assert_agrees(trained, path, photographs)


def test_pooling_is_a_depthwise_convolution_and_gelu_one_operation(make_trained, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    export_tflite(make_trained("pit_ti"), path)
    tf.lite.experimental.Analyzer.analyze(model_path=str(path))
    listing = capsys.readouterr().out
    assert listing.count("DEPTHWISE_CONV_2D(") == 2  # one for each pooling
    assert listing.count("GELU(") == 4  # one for each block
    assert "FlexErf" not in listing


def test_class_names_are_an_associated_file(make_trained, tmp_path):
    trained, path = make_trained(), tmp_path / "model.tflite"
    export_tflite(trained, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["classes.txt", "preprocessing.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("classes.txt").decode().splitlines() == list(trained.class_names)
        preprocessing = json.loads(archive.read("preprocessing.json"))
    assert preprocessing["eval_crop"] == 0.9
    assert preprocessing["mean"] == [0.4, 0.5, 0.6]


def test_a_tflite_file_is_a_classifier_of_files_of_any_size(make_trained, photographs, tmp_path):
    trained, path = make_trained(), tmp_path / "model.tflite"
    export_tflite(trained, path)
    loaded = load_tflite_model(path)
    assert loaded.class_names == trained.class_names
    expected = trained.logits(photographs)
    np.testing.assert_allclose(loaded.logits(photographs), expected, atol=1e-4)


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


@pytest.mark.parametrize("kind", TFLITE_KINDS)
@pytest.mark.parametrize("name", ["pit_ti_distilled", "vit_ti"])
def test_every_kind_agrees_with_built_in_operations_alone(exported, photographs, name, kind):
    trained, path = exported(name, kind)
    logits = run_tflite(path, crops_of(photographs, trained.data))
    assert compare(trained.logits(photographs), logits).within(ROUNDING[kind])
    assert "CUSTOM" not in {operation for operation, _, _ in operations(path)}


@pytest.mark.parametrize("kind", TFLITE_KINDS)
@pytest.mark.parametrize("name", ["resnet50", "regnety_160"])
def test_convolutional_networks_too(exported, photographs, name, kind):
    trained, path = exported(name, kind)
    logits = run_tflite(path, crops_of(photographs, trained.data))
    assert compare(trained.logits(photographs), logits).within(ROUNDING[kind])
    products = [inputs for operation, inputs, _ in operations(path) if operation == "CONV_2D"]
    assert all((inputs[0] == "INT8") == (kind == "int8") for inputs in products)


def test_int8_is_the_products_alone(exported):
    listed = operations(exported("pit_ti_distilled", "int8")[1])
    assert [entry for entry in listed if entry[0] == "CONV_2D"] == [
        ("CONV_2D", ["INT8", "INT8", "INT32"], ["INT8"])
    ]
    *products, first, second = [entry for entry in listed if entry[0] == "FULLY_CONNECTED"]
    assert len(products) == 4 * 4 + 2  # of four blocks, and for the class tokens of two poolings
    for _, inputs, outputs in products:
        assert (inputs, outputs) == (["INT8", "INT8", "INT32"], ["INT8"])
    for _, inputs, outputs in (first, second):  # the classifiers, whose logits nothing may clip
        assert (inputs, outputs) == (["FLOAT32", "INT8", "FLOAT32"], ["FLOAT32"])
    others = [entry for entry in listed if entry[0] in ("RSQRT", "SOFTMAX", "GELU", "BATCH_MATMUL")]
    assert {operation for operation, _, _ in others} == {
        "RSQRT",
        "SOFTMAX",
        "GELU",
        "BATCH_MATMUL",
    }
    assert all({*inputs, *outputs} == {"FLOAT32"} for _, inputs, outputs in others)


@pytest.mark.parametrize("kind", TFLITE_KINDS)
def test_the_same_model_gives_the_same_file(exported, photographs, tmp_path, kind):
    trained, path = exported("vit_ti", kind)
    calibration = calibration_of(photographs, trained.data) if kind == "int8" else None
    export_tflite(trained, tmp_path / "again", kind, calibration=calibration, license="CC-BY-4.0")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_of_another_batch(exported, photographs, kind):
    trained, path = exported("vit_ti", kind, batch=3)
    (inputs,) = Interpreter(str(path)).get_input_details()
    assert tuple(inputs["shape"]) == (3, 32, 32, 3)
    _, single = exported("vit_ti", kind)
    crops = crops_of(photographs, trained.data)  # 8: two and two thirds of a batch
    np.testing.assert_allclose(run_tflite(path, crops), run_tflite(single, crops), atol=1e-5)
    loaded = load_tflite_model(path)
    assert compare(trained.logits(photographs), loaded.logits(photographs)).within(ROUNDING[kind])


def test_a_model_of_full_size_shrinks(photographs, tmp_path):
    trained = TrainedModel(pit_keras.create_model("pit_ti"), ("class",) * 1000, DataConfig())
    calibration = calibration_of(photographs, trained.data)
    sizes = {}
    for kind, images in (("float32", None), ("float16", None), ("int8", calibration)):
        export_tflite(trained, tmp_path / kind, kind, calibration=images)
        sizes[kind] = (tmp_path / kind).stat().st_size
    assert_agrees(trained, tmp_path / "float32", photographs[::4])  # one of each
    assert sizes["float16"] < 0.52 * sizes["float32"]
    assert sizes["int8"] < 0.3 * sizes["float32"]
    expected = trained.logits(photographs[::4])
    logits = run_tflite(tmp_path / "int8", crops_of(photographs[::4], trained.data))
    assert compare(expected, logits).within(ROUNDING["int8"])


@pytest.mark.parametrize(
    ("kind", "calibration", "message"),
    [
        ("int8", None, r"needs calibration images: uint8 \(N, 32, 32, 3\), at least 32"),
        ("int8", np.zeros((31, 32, 32, 3), np.uint8), "at least 32 images, not 31"),
        (
            "int8",
            np.zeros((32, 32, 24, 3), np.uint8),
            r"own size; got uint8 of shape \(32, 32, 24,",
        ),
        ("int8", np.zeros((32, 32, 32, 3), np.float32), "got float32 of shape"),
        ("int8", np.zeros((32, 32, 3), np.uint8), r"got uint8 of shape \(32, 32, 3\)"),
        ("dynamic", np.zeros((32, 32, 32, 3), np.uint8), "dynamic has no use for them"),
        ("int4", None, "Unknown kind of TFLite file 'int4'; known are float32, float16, dynamic"),
    ],
)
def test_what_cannot_be_exported(make_trained, tmp_path, kind, calibration, message):
    with pytest.raises(ValueError, match=message):
        export_tflite(make_trained("vit_ti"), tmp_path / "m.tflite", kind, calibration=calibration)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [0, -1, 2.0, True])
def test_a_batch_is_a_positive_integer(make_trained, tmp_path, batch):
    with pytest.raises(ValueError, match="must be a positive integer, not"):
        export_tflite(make_trained("vit_ti"), tmp_path / "m.tflite", batch=batch)
