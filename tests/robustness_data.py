"""Small data sets in the forms that the robustness tests are published in, and a linear model."""

import json
import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from pit_keras import imagenet
from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import ArraySource
from pit_keras.evaluation import imagenet_a
from pit_keras.runs.trained_model import TrainedModel

SIDE = 8
DATA = DataConfig(
    image_size=(SIDE, SIDE), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), eval_crop=1.0
)
MEAN, STD = np.array(DATA.mean), np.array(DATA.std)


def random_pixels(images, seed=0, side=SIDE):
    """uint8 (N, side, side, 3), black and white ones among their pixels."""
    rng = np.random.default_rng(seed)
    return rng.choice([0, 3, 90, 160, 250, 255], size=(images, side, side, 3)).astype("uint8")


def linear_model(classes=10, seed=0):
    """Normalised images (B, 8, 8, 3) -> logits (B, classes), far from certain of anything."""
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(SIDE * SIDE * 3, classes)) * 0.05
    model.layers[-1].set_weights([kernel, rng.normal(size=classes)])
    return model


def linear_logits(model, normalised):
    """What `linear_model` answers, in float64."""
    kernel, bias = (np.asarray(weight, "float64") for weight in model.layers[-1].get_weights())
    return np.reshape(normalised, (len(normalised), -1)).astype("float64") @ kernel + bias


def likely_labels(model, pixels, seed=1):
    """Labels of which the model gets some right: its first, second or third choice."""
    order = np.argsort(-linear_logits(model, (pixels / 255 - MEAN) / STD), axis=1)
    choices = np.random.default_rng(seed).integers(3, size=len(pixels))
    return order[np.arange(len(pixels)), choices]


def pixel_source(pixels, labels, class_names):
    """A source whose validation part is given; it trains on nothing."""
    empty = np.zeros((0, *pixels.shape[1:]), "uint8"), np.zeros(0)
    parts = {"train": empty, "val": (pixels, labels)}
    return ArraySource(
        name="pixels",
        class_names=class_names,
        images={split: tf.constant(images, tf.uint8) for split, (images, _) in parts.items()},
        labels={split: tf.constant(numbers, tf.int64) for split, (_, numbers) in parts.items()},
    )


def imagenet_model(seed=0):
    """A `TrainedModel` of ImageNet's classes."""
    return TrainedModel(linear_model(1000, seed), imagenet.class_names(), DATA)


def imagenet_a_synsets():
    """WordNet's ids of its 200 classes, as folders have them."""
    return [imagenet.synsets()[number][0] for number in imagenet_a.NUMBERS]


def write_imagenet_a(folder, synsets, images=2):
    """Writes FOLDER/n.../0.png and so on.

    Returns:
        The images, uint8 (N, 8, 8, 3), and the number of their class among ImageNet's, (N,).
    """
    place = {synset: number for number, (synset, _) in enumerate(imagenet.synsets())}
    pixels = random_pixels(len(synsets) * images, seed=2)
    for number, image in enumerate(pixels):
        path = folder / synsets[number // images]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / f"{number % images}.png")
    return pixels, np.repeat([place[synset] for synset in synsets], images)


def store_imagenet_a(folder, pixels, classes):
    """Stores images as TFDS keeps ImageNet-A: a test split, labelled by all of ImageNet's."""
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=[synset for synset, _ in imagenet.synsets()]),
    }
    examples = [
        (number, {"image": image, "label": int(label)})
        for number, (image, label) in enumerate(zip(pixels, classes, strict=True))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.dataset_builders.store_as_tfds_dataset(
            name="imagenet_a",
            version="0.1.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={"test": examples},
            data_dir=folder,
        )


NINE = (
    "00_dog",
    "01_bird",
    "02_wheeled vehicle",
    "03_reptile",
    "04_carnivore",
    "05_insect",
    "06_musical instrument",
    "07_primate",
    "08_fish",
)
VARIATIONS = ("original", "mixed_same", "mixed_rand")


def write_challenge(folder, foregrounds=2, backgrounds=2):
    """Writes the backgrounds challenge with so many images for each class, and its mapping.

    Returns:
        The mapping, int (1000,).
    """
    mapping = np.random.default_rng(3).integers(-1, len(NINE), size=1000)
    folder.mkdir(parents=True)
    text = json.dumps({str(number): int(value) for number, value in enumerate(mapping)})
    (folder / "in_to_in9.json").write_text(text)
    counts = dict.fromkeys(VARIATIONS, foregrounds + 1) | {"only_bg_t": backgrounds}
    for seed, (part, count) in enumerate(counts.items()):
        pixels = iter(random_pixels(count * len(NINE), seed=10 + seed))
        for name in NINE:
            path = folder / part / "val" / name
            path.mkdir(parents=True)
            for number in range(count):
                # Despite its name a PNG, which keeps the pixels.
                Image.fromarray(next(pixels)).save(path / f"fg_{number}.JPEG", format="PNG")
    rng = np.random.default_rng(4)
    for name in NINE:
        path = folder / "fg_mask" / "val" / name
        path.mkdir(parents=True)
        for number in range(foregrounds):
            np.save(path / f"fg_{number}.npy", rng.random((SIDE, SIDE)) < 0.9)
    return mapping
