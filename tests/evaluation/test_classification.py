"""Exact counts: every image once, padding never, whatever the batch size and the devices."""

import json

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pit_keras import imagenet
from pit_keras.config.fields import DataConfig
from pit_keras.data.class_matching import labels_in
from pit_keras.data.labelled_images import ArraySource, open_source
from pit_keras.evaluation.classification import (
    Evaluator,
    accuracy_interval,
    classification_counts,
    evaluate_source,
    part_sizes,
    recorded_counts,
)
from pit_keras.runs.trained_model import TrainedModel

SIDE = 4
EPS = float(np.finfo("float32").eps)
SUMMED = SIDE**2 * 3 + 10 + 10  # of a logit, the softmax and its logarithm


def linear_model(classes, seed=0):
    """Images (B, 4, 4, 3) -> logits, with a bias that makes an image of zeros class 0."""
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
    rng = np.random.default_rng(seed)
    bias = np.zeros(classes)
    bias[0] = 3
    model.layers[-1].set_weights([rng.normal(size=(SIDE * SIDE * 3, classes)) * 0.3, bias])
    return model


def numpy_results(model, images, labels):
    """Top-1, top-5 and cross-entropy from their definitions, in float64."""
    kernel, bias = (np.asarray(weight, "float64") for weight in model.layers[-1].get_weights())
    logits = images.reshape(len(images), -1).astype("float64") @ kernel + bias
    own = logits[np.arange(len(labels)), labels]
    better = (logits > own[:, None]).sum(axis=1)
    losses = np.log(np.exp(logits).sum(axis=1)) - own
    error = (SUMMED + len(images)) * EPS * np.abs(logits).max()
    return {
        "top1": (better < 1).mean(),
        "top5": (better < 5).mean(),
        "loss": pytest.approx(losses.mean(), rel=0, abs=error),
        "images": len(images),
    }


def random_pixels(images, classes, seed=1):
    """uint8 (N, 4, 4, 3) and labels (N,)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(images, SIDE, SIDE, 3), dtype=np.uint8)
    return pixels, rng.integers(classes, size=images)


def array_source(train, val, class_names):
    parts = {"train": train, "val": val}
    return ArraySource(
        name="pixels",
        class_names=class_names,
        images={split: tf.constant(pixels) for split, (pixels, _) in parts.items()},
        labels={split: tf.constant(labels, tf.int64) for split, (_, labels) in parts.items()},
    )


@pytest.fixture(scope="module")
def trained():
    # With the whole image and its own size there is nothing to resize.
    data = DataConfig(image_size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, eval_crop=1.0)
    return TrainedModel(linear_model(10), tuple("abcdefghij"), data)


@pytest.fixture(scope="module")
def pixels():
    """41 training and 37 validation images of ten classes."""
    return {"train": random_pixels(41, 10, seed=5), "val": random_pixels(37, 10)}


def padded_batches(images, labels, batch_size):
    """What the pipeline gives: the last batch filled up with zeros of weight 0."""
    missing = -len(images) % batch_size
    batches = {
        "image": np.concatenate([images, np.zeros((missing, *images.shape[1:]), "float32")]),
        "label": np.concatenate([labels, np.zeros(missing, "int64")]),
        "weight": np.repeat([1.0, 0.0], [len(images), missing]).astype("float32"),
    }
    return tf.data.Dataset.from_tensor_slices(batches).batch(batch_size, drop_remainder=True)


@pytest.mark.parametrize(
    ("split", "batch_size"),
    [("val", 1), ("val", 5), ("val", 36), ("val", 37), ("val", 100), ("train", 5)],
)
def test_a_source_is_measured_exactly_in_batches_of_any_size(trained, pixels, split, batch_size):
    source = array_source(pixels["train"], pixels["val"], trained.class_names)
    results = evaluate_source(trained, source, split, batch_size=batch_size, progress=False)

    images, labels = pixels[split]
    expected = numpy_results(trained.model, (images / 255 - 0.5) / 0.25, labels)
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert results == {
        "top1": expected["top1"],  # counts are whole numbers, so their shares are exact
        "top5": expected["top5"],
        "loss": expected["loss"],
        "images": len(labels),
        "top1_interval": accuracy_interval(expected["top1"], len(labels)),
        "dataset": "pixels",
        "split": split,
        "eval_crop": 1.0,
    }


def test_another_crop_is_used_and_reported(trained, pixels):
    source = array_source(pixels["train"], pixels["val"], trained.class_names)
    whole = evaluate_source(trained, source, progress=False)
    middle = evaluate_source(trained, source, crop=0.5, progress=False)
    assert (whole["eval_crop"], middle["eval_crop"]) == (1.0, 0.5)
    assert abs(middle["loss"] - whole["loss"]) > 1e-3
    assert trained.data.eval_crop == 1.0


@pytest.mark.parametrize(("split", "batch_size"), [("val", 5), ("all", 100)])
def test_each_image_is_recorded_in_order_and_padding_is_not(trained, pixels, split, batch_size):
    source = array_source(pixels["train"], pixels["val"], trained.class_names)
    recorded, sizes = [], part_sizes(source, split)
    results = evaluate_source(
        trained,
        source,
        split,
        batch_size=batch_size,
        progress=False,
        counts=recorded_counts,
        record=recorded.append,
    )

    assert results == evaluate_source(trained, source, split, batch_size=batch_size, progress=False)
    assert sizes == ({"val": 37} if split == "val" else {"train": 41, "val": 37})
    every = {name: np.concatenate([s[name] for s in recorded]) for name in recorded[0]}
    assert len(every["label"]) == sum(sizes.values())
    for part, start in zip(sizes, (0, 41), strict=False):
        images, labels = pixels[part]
        scores = {name: values[start : start + len(labels)] for name, values in every.items()}
        logits = trained.logits(images).astype("float64")
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        own = shares[np.arange(len(labels)), labels]
        assert set(scores) == {
            "top1", "top5", "loss", "predicted", "probability", "label", "id", "weight",
        }  # fmt: skip
        assert scores["id"].tolist() == list(range(len(labels)))
        assert scores["label"].tolist() == labels.tolist()
        assert scores["predicted"].tolist() == shares.argmax(axis=1).tolist()
        error = SUMMED * EPS * np.abs(logits).max()
        np.testing.assert_allclose(scores["probability"], shares.max(axis=1), rtol=error)
        np.testing.assert_allclose(scores["loss"], -np.log(own), rtol=0, atol=error)
        assert scores["top1"].tolist() == (shares.argmax(axis=1) == labels).tolist()
        assert scores["top5"].tolist() == ((shares > own[:, None]).sum(axis=1) < 5).tolist()


def test_padding_would_be_noticed():
    """The zeros that fill up the last batch are class 0 for the model, and labelled so."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(3, SIDE, SIDE, 3)).astype("float32")
    model, labels = linear_model(10), np.array([1, 2, 3])
    assert np.argmax(model(np.zeros((1, SIDE, SIDE, 3)))) == 0
    results = Evaluator(model)(padded_batches(images, labels, batch_size=50))
    expected = numpy_results(model, images, labels)
    assert results == expected


@pytest.mark.parametrize("classes", [1, 5, 6])
def test_with_five_classes_or_fewer_there_is_no_top_five(classes):
    pixels, labels = random_pixels(20, classes)
    images = (pixels / 127.5 - 1).astype("float32")
    model = linear_model(classes)
    results = Evaluator(model)(padded_batches(images, labels, 8))
    expected = numpy_results(model, images, labels)
    assert results["top1"] == expected["top1"]
    assert ("top5" in results) == (classes > 5)


def test_of_equal_logits_the_first_classes_win():
    """A model that knows nothing is right as often as the first class, not always or never."""
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 0])
    sums = classification_counts(np.zeros((8, 7), "float32"), labels, np.ones(8, "float32"))
    assert {name: float(value) for name, value in sums.items()} == {
        "top1": 2.0,
        "top5": 6.0,
        "loss": pytest.approx(8 * np.log(7)),
        "images": 8.0,
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_judged_in_float32(dtype):
    """Half of the images lose 4096 each; float16 ends at 65504, before their sum."""
    logits = tf.constant(np.tile([[4096.0, 0.0]], (100, 1)), dtype)
    sums = classification_counts(logits, np.arange(100) % 2, np.ones(100, "float32"))
    assert float(sums["loss"]) == pytest.approx(50 * 4096, rel=1e-6)
    assert {value.dtype for value in sums.values()} == {tf.float32}


def test_it_is_compiled_once_and_sees_new_weights():
    traces = []
    kernel = tf.Variable(tf.eye(SIDE * SIDE * 3)[:, :6])

    def model(images, training):
        traces.append(training)
        return tf.reshape(images, (-1, SIDE * SIDE * 3)) @ kernel

    images = np.random.default_rng(4).normal(size=(9, SIDE, SIDE, 3)).astype("float32")
    labels = images.reshape(9, -1)[:, :6].argmax(axis=1)
    evaluator = Evaluator(model)
    assert evaluator(padded_batches(images, labels, 4))["top1"] == 1.0
    first = len(traces)
    kernel.assign(-kernel)
    assert evaluator(padded_batches(images, labels, 4))["top1"] == 0.0
    assert len(traces) == first
    assert set(traces) == {False}


def test_every_replica_counts_its_images_once():
    """On two logical devices, in a process of their own, since devices are configured only once."""
    process = forked.run_code(TWO_DEVICES)
    process.check_returncode()
    results = json.loads(process.stdout)
    assert results["replicas"] == 2
    assert len(results["measured"]) == 4
    for images, two, one in results["measured"]:
        assert two["images"] == one["images"] == images
        assert two["top1"] == one["top1"]
        assert two["top5"] == one["top5"]
        # The logits are up to ten times the loss.
        assert two["loss"] == pytest.approx(one["loss"], rel=10 * (SUMMED + images) * EPS)


TWO_DEVICES = f"""
import json, sys
sys.path.insert(0, {__file__.rpartition("/")[0]!r})
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_classification import Evaluator, linear_model, padded_batches, random_pixels
from test_classification import recorded_counts

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    mirrored = linear_model(10)
on_two = Evaluator(mirrored, strategy, recorded_counts)
on_one = Evaluator(linear_model(10))
measured = []
for images in (1, 4, 7, 32):  # the last batch: one image on one device, full, partial, full
    pixels, labels = random_pixels(images, 10)
    batches = padded_batches((pixels / 127.5 - 1).astype("float32"), labels, batch_size=4)
    spread = strategy.experimental_distribute_dataset(batches)
    kept = []
    measured.append((images, on_two(spread, record=kept.append), on_one(batches)))
    seen = [label for scores in kept for label in scores["label"].tolist()]
    assert seen == labels.tolist(), (seen, labels)
print(json.dumps({{"replicas": strategy.num_replicas_in_sync, "measured": measured}}))
"""


@pytest.mark.parametrize(
    ("right", "images", "interval"),
    # Wilson's: published tables have 17 of 18 in 74.2 to 99.0%.
    [(17, 18, [0.7424, 0.9901]), (0, 10, [0.0, 0.2775]), (10, 10, [0.7225, 1.0])],
)
def test_the_interval_of_an_accuracy(right, images, interval):
    assert accuracy_interval(right / images, images) == interval


@pytest.mark.parametrize("images", [0, 4])
def test_no_images_are_an_error(images):
    batch = {
        "image": np.zeros((images, SIDE, SIDE, 3), "float32"),
        "label": np.zeros(images, "int64"),
        "weight": np.zeros(images, "float32"),  # nothing but padding
    }
    batches = tf.data.Dataset.from_tensor_slices(batch).batch(2, drop_remainder=True)
    with pytest.raises(ValueError, match="There are no images to evaluate"):
        Evaluator(linear_model(10))(batches)


def test_an_image_that_cannot_be_read_is_named(trained, tmp_path):
    for split in ("train", "val"):
        for name in trained.class_names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (6, 5)).save(tmp_path / split / name / "0.png")
    (tmp_path / "val/c/0.png").write_bytes(b"not an image")
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"val/c/0\.png cannot be read as a JPEG or PNG image"):
        evaluate_source(trained, source, progress=False)
    assert evaluate_source(trained, source, "train", progress=False)["images"] == 10


def test_labels_are_matched_by_name_whatever_their_order(trained, pixels):
    in_order = array_source(pixels["train"], pixels["val"], trained.class_names)
    expected = evaluate_source(trained, in_order, progress=False)
    turned = tuple((images, 9 - labels) for images, labels in (pixels["train"], pixels["val"]))
    source = array_source(*turned, trained.class_names[::-1])
    assert evaluate_source(trained, source, progress=False) == expected


def test_some_of_the_models_classes_are_measured_and_that_is_said(trained, pixels):
    images, labels = pixels["val"]
    kept = np.isin(labels, (2, 7))
    own = np.where(labels[kept] == 2, 0, 1)
    source = array_source((images[kept], own), (images[kept], own), ("c", "h"))
    with pytest.warns(UserWarning, match="pixels has images of 2 of the model's 10 classes"):
        results = evaluate_source(trained, source, progress=False)
    expected = numpy_results(trained.model, (images[kept] / 255 - 0.5) / 0.25, labels[kept])
    assert {name: results[name] for name in expected} == expected
    assert results["classes"] == 2


def test_classes_that_the_model_lacks_are_named(trained, pixels):
    source = array_source(pixels["train"], pixels["val"], trained.class_names)
    with pytest.raises(ValueError, match="pixels has 'd', 'e', 'f', 'g', 'h' and 2 more among"):
        labels_in(("a", "b", "c"), source)
    renamed = array_source(pixels["train"], pixels["val"], (*"abcdefghJ", "other"))
    with pytest.raises(ValueError, match=r"'J', 'other' .* the model lacks; perhaps 'j' is meant"):
        evaluate_source(trained, renamed, progress=False)
    numbered = [f"class {index}" for index in range(10)]
    with pytest.raises(ValueError, match=r"has no class names .* in the order of its outputs"):
        labels_in(numbered, source)
    with pytest.raises(ValueError, match="share a name"):
        labels_in(("a", *"abcdefghij"), source)


def test_names_are_the_same_in_each_of_unicodes_forms(pixels):
    source = array_source(pixels["train"], pixels["val"], ("caf\u00e9", "the\u0301"))
    assert labels_in(("th\u00e9", "cafe\u0301"), source) == [1, 0]


def test_wordnets_ids_are_as_good_as_imagenets_names(pixels):
    ids = tuple(synset for synset, _ in imagenet.synsets())
    source = array_source(pixels["train"], pixels["val"], ids)
    assert labels_in(imagenet.class_names(), source) == list(range(1000))
    assert labels_in(ids, source) == list(range(1000))
    assert labels_in((ids[1], ids[0], *ids[2:]), source) == [1, 0, *range(2, 1000)]


def test_anything_can_be_counted_on_every_image_once(trained, pixels):
    """Here the labels and the number of padded images."""

    def counts(model, batch):
        weights = batch["weight"]
        label = tf.reduce_sum(tf.cast(batch["label"], "float32") * weights)
        return {"label": label, "images": tf.reduce_sum(weights)}

    source = array_source(pixels["train"], pixels["val"], trained.class_names)
    measured = evaluate_source(trained, source, "all", batch_size=8, progress=False, counts=counts)
    labels = np.concatenate([pixels["train"][1], pixels["val"][1]])
    assert measured["images"] == len(labels)
    assert measured["label"] == pytest.approx(labels.mean(), rel=1e-12)
    assert set(measured) == {"label", "images", "dataset", "split", "eval_crop"}
