"""Data sets and augmentation for `fit`: `tf.data` of (images, labels), on any backend.

Images are float32 (B, H, W, 3), normalised, labels float32 (B, classes), one-hot or mixed: the loss
is `keras.losses.CategoricalCrossentropy(from_logits=True)`. Like a data set of `keras.utils`, each
has `class_names`. The functions for `dataset.map` act on the batches of any data set.
"""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

from pit_keras.config import recipes
from pit_keras.config.fields import Config
from pit_keras.data import augmentation, augmentation_policy, mixing
from pit_keras.data.labelled_images import open_source, oriented
from pit_keras.data.pipeline import check_train_batches, evaluation_batches, train_batches
from pit_keras.data.source import as_written
from pit_keras.imagenet import IMAGENET_MEAN

Size = int | tuple[int, int]  # a side, or (height, width)


def image_folder(
    path: str | os.PathLike,
    image_size: Size = 224,
    batch_size: int = 32,
    training: bool = True,
    recipe: str | Config = "vanilla",
    seed: int = 0,
    holdout: float = 0.1,
) -> tf.data.Dataset:
    """A folder of JPEG and PNG files: PATH/train/CLASS/* and PATH/val/CLASS/*, or PATH/CLASS/*.

    Args:
        image_size: A side, or (height, width).
        training: Whether to give the training images, shuffled and augmented, full batches only and
            anew in each epoch; else the validation images, resized and cropped.
        recipe: Whose augmentation and mixing to apply: a name, or a `pit_keras.recipe(...)`.
        seed: Decides order and augmentation of all epochs.
        holdout: The share of each class that is for validation where there is no PATH/val.

    Raises:
        ValueError, FileNotFoundError: For a folder or a recipe that is not of this form, or fewer
            training images than a batch.
    """
    source = open_source(f"folder:{path}", holdout=holdout)
    return _dataset(source, image_size, batch_size, training, recipe, seed)


def digits(
    image_size: Size = 32,
    batch_size: int = 32,
    training: bool = True,
    recipe: str | Config = "vanilla",
    seed: int = 0,
) -> tf.data.Dataset:
    """scikit-learn's 1,797 scans of digits; arguments as for `image_folder`."""
    return _dataset(open_source("digits"), image_size, batch_size, training, recipe, seed)


def tfds(
    name: str,
    image_size: Size = 224,
    batch_size: int = 32,
    training: bool = True,
    recipe: str | Config = "vanilla",
    seed: int = 0,
    data_dir: str | None = None,
) -> tf.data.Dataset:
    """A data set of TensorFlow Datasets, such as "imagenet2012", that was prepared in `data_dir`.

    The other arguments are those of `image_folder`.
    """
    source = open_source(name, data_dir=data_dir)
    return _dataset(source, image_size, batch_size, training, recipe, seed)


def cutmix(alpha: float = 1.0, seed: int = 0) -> Callable:
    """CutMix of a batch (images, labels), see `mixing.cutmix`, as a function for `dataset.map`.

    Chance is a function of `seed` and the batch itself: a data set that is shuffled anew in each
    epoch is mixed anew. Labels are float (B, classes).
    """
    return _mapped(seed, lambda *batch: mixing.cutmix(*batch, alpha), mixes=True)


def mixup(alpha: float = 0.8, seed: int = 0) -> Callable:
    """MixUp, see `mixing.mixup`; as `cutmix`. The images become float32."""

    def of_batch(images, labels, seed):
        return mixing.mixup(tf.cast(images, tf.float32), labels, seed, alpha)

    return _mapped(seed, of_batch, mixes=True)


def rand_augment(magnitude: float = 9.0, std: float = 0.5, seed: int = 0) -> Callable:
    """RandAugment of each image of a batch in 0..255, before `preprocess_input`; as `cutmix`.

    The arguments are those of `augmentation_policy.rand_augment`.
    """
    fill = [round(255 * mean) for mean in IMAGENET_MEAN]

    def of_image(image, seed):
        pixels = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        pixels = augmentation_policy.rand_augment(pixels, seed, magnitude, std, fill)
        return tf.cast(pixels, image.dtype)

    return _mapped(seed, _each(of_image))


def random_erasing(probability: float = 0.25, seed: int = 0) -> Callable:
    """Random erasing of each image of a batch, after `preprocess_input`; as `cutmix`."""
    return _mapped(
        seed, _each(lambda image, seed: augmentation.random_erasing(image, seed, probability))
    )


def _mapped(seed, function, mixes=False):
    """`function(images, labels, seed)` with a seed (2,) that is made of `seed` and the batch."""

    @as_written
    def of_batch(images, labels):
        if mixes and (labels.shape.rank != 2 or not labels.dtype.is_floating):
            raise ValueError(
                "CutMix and MixUp mix labels, which must be float (B, classes), such as "
                f"label_mode='categorical' gives; got {labels.dtype.name} {labels.shape}."
            )
        if mixes:
            labels = tf.cast(labels, tf.float32)
        # A sixteenth of the rows tells batches apart.
        contents = [tf.io.serialize_tensor(part) for part in (images[:, ::16], labels)]
        number = tf.strings.to_hash_bucket_fast(tf.strings.join(contents), 2**62)
        return function(images, labels, tf.stack([tf.cast(seed, tf.int64), number]))

    return of_batch


def _each(function):
    """A function of a batch that maps its images by `function(image, seed)`."""

    def of_batch(images, labels, seed):
        def of_image(numbered):
            place, image = numbered
            return function(image, tf.random.experimental.stateless_fold_in(seed, place))

        places = tf.range(tf.shape(images, tf.int64)[0])
        return tf.map_fn(of_image, (places, images), fn_output_signature=images.dtype), labels

    return of_batch


def _dataset(source, image_size, batch_size, training, recipe, seed):
    if isinstance(recipe, str):
        recipe = recipes.recipe(recipe, "pit_s")
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    config = dataclasses.replace(recipe.data, image_size=sides)
    source = oriented(source, config.apply_orientation)
    batches = (_training if training else _validation)(source, config, batch_size, seed)
    batches.class_names = list(source.class_names)
    return batches


@as_written
def _training(source, config, batch_size, seed):
    steps = check_train_batches(source, config, batch_size) // batch_size

    def epoch(seed):
        batches = train_batches(source, config, batch_size=batch_size, seed=seed).take(steps)
        return batches.map(lambda batch: (batch["image"], batch["label"]))

    # One number for each pass, so that each epoch has an order and augmentation of its own.
    numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    epochs = numbers.flat_map(epoch).prefetch(tf.data.AUTOTUNE)
    return epochs.apply(tf.data.experimental.assert_cardinality(steps))


@as_written
def _validation(source, config, batch_size, seed):
    classes, steps = len(source.class_names), -(-source.sizes["val"] // batch_size)

    def without_filler(batch):
        count = tf.math.count_nonzero(batch["weight"])
        return batch["image"][:count], tf.one_hot(batch["label"][:count], classes)

    batches = evaluation_batches(source, "val", config, batch_size=batch_size).map(without_filler)
    return batches.apply(tf.data.experimental.assert_cardinality(steps))
