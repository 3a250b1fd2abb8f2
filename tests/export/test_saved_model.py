import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.preprocessing import preprocess_evaluation
from pit_keras.export.agreement import compare
from pit_keras.export.formats import TOLERANCE
from pit_keras.export.saved_model import export_saved_model, run_saved_model
from pit_keras.runs.trained_model import TrainedModel
from pit_keras.runs.versioned_folder import version_folder

MODELS = ("pit_ti", "pit_ti_distilled", "vit_ti")
CLASSIFIERS = ("serving_default", "serving_float", "serve_bytes", "serve", "serve of floats")

# What somebody else's program does: TensorFlow alone, batches, images of several sizes.
PROGRAM = """
import json, pathlib, sys
sys.modules["pit_keras"] = None
import numpy as np
import tensorflow as tf

folder = pathlib.Path(sys.argv[1])
batches = [tf.constant(batch) for batch in np.load(folder / "images.npz").values()]
files = tf.constant([tf.io.encode_png(image).numpy() for batch in batches for image in batch])
for path in sorted(folder.glob("*_model")):
    loaded = tf.saved_model.load(str(path / "1"))
    call, floats = loaded.signatures, [tf.cast(batch, tf.float32) for batch in batches]
    outputs = {
        "serving_default": [call["serving_default"](images=batch) for batch in batches],
        "serving_float": [call["serving_float"](images=batch) for batch in floats],
        "serve_bytes": [call["serve_bytes"](image_bytes=files)],
        "features": [call["features"](images=batch) for batch in batches],
        "serve": [loaded.serve(batch) for batch in batches],
        "serve of floats": [loaded.serve(batch) for batch in floats],
    }
    results = {
        f"{name}: {key}": np.concatenate([output[key] for output in outputs[name]])
        for name in outputs for key in outputs[name][0]
    }
    results = {  # of strings NumPy's files hold those of a fixed length
        key: values.astype(bytes) if values.dtype == object else values
        for key, values in results.items()
    }
    np.savez(folder / f"{path.name}.npz", **results)
    assets = {name: pathlib.Path(getattr(loaded, name).asset_path.numpy().decode())
        for name in ("classes", "preprocessing")}
    report = {
        "names": assets["classes"].read_text(encoding="utf-8").splitlines(),
        "preprocessing": json.loads(assets["preprocessing"].read_text()),
        "assets": [str(asset.relative_to(path)) for asset in assets.values()],
        "inputs": {name: [str(spec) for spec in call[name].structured_input_signature[1].values()]
            for name in call},
    }
    (folder / f"{path.name}.json").write_text(json.dumps(report))
"""


@pytest.fixture(scope="module")
def batches(photographs):
    """Batches of real images: (2, 427, 640, 3) and (3, 50, 40, 3)."""
    small = photographs[1]
    return {
        "large": np.stack([photographs[0], photographs[4]]),
        "small": np.stack([small[at : at + 50, at : at + 40] for at in (100, 150, 200)]),
    }


@pytest.fixture(scope="module")
def exported(make_trained, tmp_path_factory):
    """A folder with `NAME_model` for each of `MODELS`, and the trained models by name."""
    folder = tmp_path_factory.mktemp("served")
    trained = {name: make_trained(name) for name in MODELS}
    for name in MODELS:
        export_saved_model(trained[name], folder / f"{name}_model")
    return folder, trained


@pytest.fixture(scope="module")
def served(exported, batches):
    """By model name: the trained model, what every function gives elsewhere, and a report."""
    folder, trained = exported
    np.savez(folder / "images.npz", **batches)
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, folder], cwd=folder, check=True)
    return {
        name: (
            trained[name],
            np.load(folder / f"{name}_model.npz"),
            json.loads((folder / f"{name}_model.json").read_text()),
        )
        for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_another_program_computes_the_same(served, batches, name):
    trained, outputs, _ = served[name]
    expected = trained.logits([image for batch in batches.values() for image in batch])
    assert expected.shape == (5, 10)
    # The images do make a difference, one that the comparison would see.
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    probabilities = tf.nn.softmax(expected).numpy()
    order = np.argsort(-probabilities, axis=-1)[:, :5]
    for function in CLASSIFIERS:
        assert compare(expected, outputs[f"{function}: logits"]).within()
        np.testing.assert_allclose(
            outputs[f"{function}: probabilities"], probabilities, rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(
            outputs[f"{function}: top_probabilities"],
            np.take_along_axis(probabilities, order, axis=-1),
            rtol=0,
            atol=1e-5,
        )
        names = [[trained.class_names[index].encode() for index in row] for row in order]
        assert outputs[f"{function}: top_classes"].tolist() == names


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_the_classifier_sees(served, batches, name):
    trained, outputs, _ = served[name]
    model = pit_keras.pre_logits(trained.model)
    expected = [model(preprocess_evaluation(batch, trained.data)) for batch in batches.values()]
    assert compare(np.concatenate(expected), outputs["features: features"]).within()


def test_names_and_preprocessing_travel_with_it(served):
    trained, _, report = served["pit_ti"]
    assert tuple(report["names"]) == trained.class_names
    assert report["assets"] == ["1/assets/classes.txt", "1/assets/preprocessing.json"]
    assert report["preprocessing"] == {
        "image_size": [32, 32],
        "eval_crop": 0.9,
        "interpolation": "bicubic",
        "antialias": True,
        "channels": "RGB",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
    }
    images = "TensorSpec(shape=(None, None, None, 3), dtype={}, name='images')"
    assert report["inputs"] == {
        "serving_default": [images.format("tf.uint8")],
        "serving_float": [images.format("tf.float32")],
        "serve_bytes": ["TensorSpec(shape=(None,), dtype=tf.string, name='image_bytes')"],
        "features": [images.format("tf.uint8")],
    }


def test_weights_are_stored_once(exported):
    folder, trained = exported
    (stored,) = version_folder(folder / "pit_ti_model").glob("variables/*.data*")
    weights = sum(array.nbytes for array in trained["pit_ti"].model.get_weights())
    assert weights <= stored.stat().st_size < 1.1 * weights


def test_keras_reads_each_function_as_a_layer(exported, photographs):
    folder, trained = exported
    path, image = version_folder(folder / "pit_ti_model"), photographs[2]
    expected = trained["pit_ti"].logits([image])
    inputs = {
        "serve": image[None],
        "serving_default": image[None],
        "serving_float": np.float32(image[None]),
        "serve_bytes": tf.io.encode_png(image)[None],
        "features": image[None],
    }
    outputs = {
        endpoint: keras.layers.TFSMLayer(path, call_endpoint=endpoint)(tf.constant(given))
        for endpoint, given in inputs.items()
    }
    features = pit_keras.pre_logits(trained["pit_ti"].model)
    assert compare(
        features(preprocess_evaluation(image, trained["pit_ti"].data)[None]),
        outputs.pop("features")["features"],
    ).within()
    for output in outputs.values():
        assert compare(expected, output["logits"]).within()


def test_bytes_that_are_no_image_are_an_error(exported, photographs):
    loaded = tf.saved_model.load(str(version_folder(exported[0] / "pit_ti_model")))
    png = tf.io.encode_png(photographs[3]).numpy()
    jpeg = tf.io.encode_jpeg(photographs[3]).numpy()
    for broken, message in [
        (b"text", "Unknown image file format"),
        (b"", "Input is empty"),
        (png[:-100], "Invalid PNG data"),
        (jpeg[:-100], "Invalid JPEG data"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            loaded.signatures["serve_bytes"](image_bytes=tf.constant([png, broken]))


def test_a_model_from_elsewhere_has_its_classes_and_no_features(tmp_path, photographs):
    images = keras.Input((32, 32, 3))
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(images))
    data = DataConfig(image_size=(32, 32))
    trained = TrainedModel(keras.Model(images, outputs), ("a", "b", "c"), data)
    export_saved_model(trained, tmp_path / "model")
    loaded = tf.saved_model.load(str(version_folder(tmp_path / "model")))
    assert "features" not in loaded.signatures
    top = loaded.serve(photographs[3][None])["top_classes"].numpy()
    assert top.shape == (1, 3)
    assert sorted(top[0]) == [b"a", b"b", b"c"]


def test_it_runs_from_its_folder_and_from_that_of_its_versions(exported, photographs):
    folder, trained = exported
    path, expected = folder / "vit_ti_model", trained["vit_ti"].logits(photographs[:2])
    for given in (path, str(path), version_folder(path)):
        assert compare(expected, run_saved_model(given, photographs[:2])).within()
    with pytest.raises(FileNotFoundError, match="There is no SavedModel in "):
        run_saved_model(folder, photographs[:2])


def test_bfloat16_agrees_as_closely_as_16_bits_can(exported, photographs, tmp_path):
    _, trained = exported
    export_saved_model(trained["pit_ti_distilled"], tmp_path / "half", "bfloat16")
    expected = trained["pit_ti_distilled"].logits(photographs)
    actual = run_saved_model(tmp_path / "half", photographs)
    assert actual.dtype == np.float32
    assert compare(expected, actual).within(0.03)
    assert not compare(expected, actual).within(1e-4)  # or it would not be in bfloat16
    loaded = tf.saved_model.load(str(version_folder(tmp_path / "half")))
    assert set(loaded.signatures) == {"serving_default", "serving_float", "serve_bytes"}


def test_another_kind_is_an_error(make_trained, tmp_path):
    with pytest.raises(ValueError, match="Unknown kind of SavedModel 'int4'; known are float32"):
        export_saved_model(make_trained(), tmp_path / "model", "int4")


def test_a_line_break_in_a_name_is_an_error(make_trained, tmp_path):
    trained = dataclasses.replace(make_trained(), class_names=("cat\ndog", *"bcdefghij"))
    with pytest.raises(ValueError, match=r"'cat\\ndog' holds a line break"):
        export_saved_model(trained, tmp_path / "model")
    assert not (tmp_path / "model").exists()
