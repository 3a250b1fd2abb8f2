import dataclasses
import functools
import json

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.preprocessing import decode, preprocess_evaluation
from pit_keras.export.agreement import compare
from pit_keras.export.formats import TOLERANCE
from pit_keras.export.saved_model import export_saved_model, run_saved_model
from pit_keras.runs.trained_model import TrainedModel

MODELS = ("pit_ti_distilled", "vit_ti", pytest.param("pit_ti", marks=pytest.mark.slow))
CLASSIFIERS = ("serving_default", "serving_float", "serve_bytes", "serve", "serve of floats")

# What somebody else's program does: TensorFlow alone, batches, images of several sizes.
PROGRAM = """
import json, pathlib, sys
sys.modules["pit_keras"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

path = pathlib.Path(PATH)
batches = [tf.constant(batch) for batch in np.load("images.npz").values()]
files = tf.constant([tf.io.encode_png(image).numpy() for batch in batches for image in batch])
loaded = tf.saved_model.load(str(path))
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
np.savez("outputs.npz", **results)
assets = {name: pathlib.Path(getattr(loaded, name).asset_path.numpy().decode())
    for name in ("classes", "preprocessing")}
report = {
    "names": assets["classes"].read_text(encoding="utf-8").splitlines(),
    "preprocessing": json.loads(assets["preprocessing"].read_text()),
    "assets": [str(asset.relative_to(path)) for asset in assets.values()],
    "inputs": {name: [str(spec) for spec in call[name].structured_input_signature[1].values()]
        for name in call},
}
pathlib.Path("report.json").write_text(json.dumps(report))
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
def written(exported, make_trained, tmp_path_factory):
    """Gives a trained model and its SavedModel's folder, by name; each written once."""
    models = {"pit_ti_distilled": (exported.trained, exported.folder / "saved_model/1")}

    def give(name):
        if name not in models:
            models[name] = make_trained(name), tmp_path_factory.mktemp(name) / "model"
            export_saved_model(*models[name])
        return models[name]

    return give


@pytest.fixture(scope="module")
def served(written, batches, tmp_path_factory):
    """Gives what every function of a SavedModel gives elsewhere, and a report; run once each."""

    @functools.cache
    def give(name):
        folder = tmp_path_factory.mktemp("served")
        np.savez(folder / "images.npz", **batches)
        done = forked.run_code(f"PATH = {str(written(name)[1])!r}\n{PROGRAM}", folder)
        assert done.returncode == 0, done.stderr
        report = json.loads((folder / "report.json").read_text())
        return np.load(folder / "outputs.npz"), report

    return give


@pytest.fixture(scope="module")
def loaded(written):
    return tf.saved_model.load(str(written("pit_ti_distilled")[1]))


@pytest.mark.parametrize("name", MODELS)
def test_another_program_computes_the_same(written, served, batches, name):
    trained, outputs = written(name)[0], served(name)[0]
    expected = trained.logits([image for batch in batches.values() for image in batch])
    assert expected.shape == (5, 10)
    # The images do make a difference, one that the comparison would see.
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    for function in CLASSIFIERS:
        logits = outputs[f"{function}: logits"]
        assert compare(expected, logits).within()
        probabilities = np.exp(np.float64(logits) - logits.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        order = np.argsort(-probabilities, axis=-1)[:, :5]
        likeliest = np.take_along_axis(probabilities, order, axis=-1)
        # A softmax of ten: a difference, an exponential, a sum of ten terms, a division. The
        # difference's rounding is of the size of the logits, and its exponential's relative.
        roundings = 13 + 2 * np.abs(logits).max()
        assert_close(outputs[f"{function}: probabilities"], probabilities, roundings=roundings)
        assert_close(outputs[f"{function}: top_probabilities"], likeliest, roundings=roundings)
        names = [[trained.class_names[index].encode() for index in row] for row in order]
        assert outputs[f"{function}: top_classes"].tolist() == names


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_the_classifier_sees(written, served, batches, name):
    trained, outputs = written(name)[0], served(name)[0]
    model = pit_keras.pre_logits(trained.model)
    expected = [model(preprocess_evaluation(batch, trained.data)) for batch in batches.values()]
    assert compare(np.concatenate(expected), outputs["features: features"]).within()


def test_names_and_preprocessing_travel_with_it(written, served):
    trained, report = written("pit_ti_distilled")[0], served("pit_ti_distilled")[1]
    assert tuple(report["names"]) == trained.class_names
    assert report["assets"] == ["assets/classes.txt", "assets/preprocessing.json"]
    assert report["preprocessing"] == {
        "image_size": [40, 24],
        "eval_crop": 0.9,
        "apply_orientation": False,
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


def test_weights_are_stored_once(written):
    trained, path = written("vit_ti")
    (stored,) = path.glob("variables/*.data*")
    weights = sum(array.nbytes for array in trained.model.get_weights())
    assert weights <= stored.stat().st_size < 1.1 * weights


def test_keras_reads_a_function_as_a_layer(written, photographs):
    trained, path = written("vit_ti")
    image, expected = photographs[2], trained.logits(photographs[2:3])
    inputs = {"serve": image[None], "serve_bytes": tf.io.encode_png(image)[None]}
    for endpoint, given in inputs.items():
        layer = keras.layers.TFSMLayer(path, call_endpoint=endpoint)
        assert compare(expected, layer(tf.constant(given))["logits"]).within()


def test_bytes_that_are_no_image_are_an_error(loaded, photographs):
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
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert "features" not in loaded.signatures
    top = loaded.serve(photographs[3][None])["top_classes"].numpy()
    assert top.shape == (1, 3)
    assert sorted(top[0]) == [b"a", b"b", b"c"]


def test_bfloat16_agrees_as_closely_as_16_bits_can(make_trained, photographs, tmp_path):
    trained = make_trained("vit_ti")
    export_saved_model(trained, tmp_path / "half", "bfloat16")
    expected = trained.logits(photographs)
    actual = run_saved_model(tmp_path / "half", photographs)
    assert actual.dtype == np.float32
    # A block has twelve operations, and there are embedding, positions, norm and head; each rounds
    # what it gives, and six of them their kernels. Only one of both sides rounds, by half a unit.
    assert_close(actual, expected, roundings=(12 + 4 + 6) / 2, dtype="bfloat16")
    assert not compare(expected, actual).within()  # or it would not be in bfloat16
    loaded = tf.saved_model.load(str(tmp_path / "half"))
    assert set(loaded.signatures) == {"serving_default", "serving_float", "serve_bytes"}


def test_a_line_break_in_a_name_is_an_error(make_trained, tmp_path):
    trained = dataclasses.replace(make_trained(), class_names=("cat\ndog", *"bcdefghij"))
    with pytest.raises(ValueError, match=r"'cat\\ndog' holds a line break"):
        export_saved_model(trained, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("applied", [False, True])
def test_files_are_turned_where_the_training_turned_them(tmp_path, lying, applied):
    data = DataConfig(image_size=(40, 24), apply_orientation=applied)
    model = keras.Sequential(
        [keras.Input((40, 24, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    trained = TrainedModel(model, ("a", "b"), data)
    export_saved_model(trained, tmp_path / "1")
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    contents, shown = lying
    found = loaded.signatures["serve_bytes"](image_bytes=tf.constant([contents, contents]))
    pixels = shown if applied else decode(contents)
    expected = trained.logits([pixels, pixels])
    assert compare(expected, found["logits"].numpy()).within()
    assert not compare(trained.logits([shown, decode(contents)]), expected).within()
    told = json.loads(tf.io.read_file(loaded.preprocessing.asset_path).numpy())
    assert told["apply_orientation"] == applied
