import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import pit_keras
from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.evaluation.trained_model import TrainedModel
from pit_keras.export.agreement import compare
from pit_keras.export.formats import TOLERANCE
from pit_keras.export.litert import run_tflite
from pit_keras.export.tflite import export_tflite
from pit_keras.export.tflite_model import load_tflite_model
from pit_keras.training.config import DataConfig


def crops_of(images, data):
    """What a device would hand over: uint8 images of the model's own size."""
    crops = [resize_and_crop(image, data.image_size, data.eval_crop) for image in images]
    return [crop.numpy().astype(np.uint8) for crop in crops]


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


def test_the_smallest_model_in_full(photographs, tmp_path):
    trained = TrainedModel(pit_keras.create_model("pit_ti"), ("class",) * 1000, DataConfig())
    export_tflite(trained, tmp_path / "model.tflite")
    assert_agrees(trained, tmp_path / "model.tflite", photographs[::4])  # one of each


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
        assert json.loads(archive.read("preprocessing.json")) == {"eval_crop": 0.9}


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


def test_the_same_model_gives_the_same_file(make_trained, tmp_path):
    trained, paths = make_trained("vit_ti"), [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for path in paths:
        export_tflite(trained, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
