"""From a source to the batches that training and evaluation take.

Every random decision is a stateless function of (seed, epoch, example, view), and the order of a
source is one of (seed, position). So the batches do not depend on the number of threads, and
training resumed at a position receives, bit for bit, what it would have received.

A global batch is divided among the replicas of all workers, in this order: worker 0's replicas,
worker 1's, and so on. A worker reads only what its own replicas take.
"""

import functools

import tensorflow as tf

from pit_keras.data.augmentation import crop_box, is_mirrored
from pit_keras.data.color_jitter import color_jitter
from pit_keras.data.erasing import random_erasing
from pit_keras.data.fast_resize import fast_resize
from pit_keras.data.mixing import mix
from pit_keras.data.preprocessing import normalise, preprocess_evaluation
from pit_keras.data.rand_augment import RandAugment, rand_augment
from pit_keras.data.seeds import example_seed
from pit_keras.data.sharding import Shard
from pit_keras.data.unreadable import UnreadableImages, load_images

# Rewriting functions so that `if` and `for` take tensors, which none here needs, takes seconds.
as_written = tf.autograph.experimental.do_not_convert


def steps_per_epoch(source, batch_size):
    """How many full batches an epoch of the training split gives."""
    size = source.sizes["train"]
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"The batch size (--batch_size) must be between 1 and the {size} training images of "
            f"{source.name}, got {batch_size}."
        )
    return size // batch_size


def check_train_batches(source, config, batch_size, replicas=1):
    """Raises ValueError where `train_batches` would, before long work."""
    epoch_length = steps_per_epoch(source, batch_size) * batch_size
    replica_batch = replica_part(batch_size, replicas, "--batch_size")
    if replica_batch == 1 and (config.mixup_alpha or config.cutmix_alpha):
        raise ValueError(
            f"MixUp and CutMix need --batch_size={2 * replicas} or more, two images for each "
            "replica; or set --config.data.mixup_alpha and --config.data.cutmix_alpha to 0."
        )
    if not 1 <= config.views <= epoch_length:
        raise ValueError(
            f"--config.data.views must be between 1 and the {epoch_length} images of an epoch, got "
            f"{config.views}."
        )


def train_batches(
    source, config, *, batch_size, seed, start=0, unreadable=None, replicas=1, worker=0, workers=1
):
    """Endless augmented training batches.

    Each image is cropped, resized, flipped and goes through RandAugment or colour jitter in 8 bits.
    Then it is normalised, erased in part, and mixed with the rest of its replica's batch. Where
    nothing but CutMix follows, normalising comes last, so that only the finished batch is float.

    Args:
        config: a `DataConfig`, or anything with its fields.
        batch_size: images in a global batch, that is one step of all replicas.
        start: the last "position" of the last batch received, to resume right after it.
        unreadable: the `UnreadableImages` to enter skipped images in.
        replicas: those of all workers together; each worker has as many.
        worker: the number of this worker, from 0.

    Returns:
        A `tf.data.Dataset` of dicts, one for each replica of this worker in turn, with
        B = batch_size / replicas:
            "image": float32 (B, H, W, 3), normalised;
            "label": float32 (B, classes), one-hot, or mixed;
            "id": int64 (B,);
            "position": int64 (B,), examples drawn since training began, this one included, by all
                workers together.
        An image that one worker skips lets its own later examples move up, and no other's.
    """
    check_train_batches(source, config, batch_size, replicas)
    shard = worker_shard(batch_size, replicas, worker, workers)
    epoch_length = steps_per_epoch(source, batch_size) * batch_size
    examples = source.train_stream(seed, start, epoch_length, config.views, shard)

    def choose_box(example, height, width):
        box_seed = _view_seed(seed, example, config.views)
        return crop_box(height, width, box_seed, config.crop_scale, config.crop_aspect)

    if source.is_encoded:
        limit = epoch_length // workers if config.skip_unreadable else None
        report = unreadable or UnreadableImages()
        examples = load_images(examples, source, "train", report, limit, choose_box)

    @as_written
    def augment(example):
        largest = None  # the size of an image in a file is not known before
        if not source.is_encoded:
            largest = example["image"].shape[:2]
            crop = source.load(example["image"], functools.partial(choose_box, example))
            example = {**example, "image": crop}
        return {**example, "image": _augment(example, seed, config, largest)}

    @as_written
    def finish(batch):
        return _finish_batch(batch, seed, config, len(source.class_names))

    return in_order(
        examples.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size // replicas, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    )


def evaluation_batches(
    source, split, config, *, batch_size, unreadable=None, replicas=1, worker=0, workers=1
):
    """One pass over a split, every example exactly once over all workers; filler completes it.

    An image that cannot be read ends the pass with an error. The arguments are those of
    `train_batches`.

    Returns:
        A `tf.data.Dataset` of dicts, all of the same shapes, with B = batch_size / replicas. Every
        worker gets as many, one for each of its replicas in turn:
            "image": float32 (B, H, W, 3), normalised;
            "label": int64 (B,);
            "weight": float32 (B,), 1, or 0 for the zeros that fill up the last batches;
            "id": int64 (B,), -1 for those.
    """
    replica_batch = replica_part(batch_size, replicas, "--config.training.eval_batch_size")
    shard = worker_shard(batch_size, replicas, worker, workers)
    examples = source.scan(split, shard)
    if source.is_encoded:
        examples = load_images(examples, source, split, unreadable or UnreadableImages())

    @as_written
    def prepare(example):
        image = preprocess_evaluation(example["image"], config)
        return {**example, "image": image, "weight": tf.constant(1.0)}

    filler = {
        "image": tf.zeros((*config.image_size, 3)),
        "label": tf.constant(0, tf.int64),
        "weight": tf.constant(0.0),
        "id": tf.constant(-1, tf.int64),
    }
    steps = -(-source.sizes[split] // batch_size)
    return in_order(
        examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .concatenate(tf.data.Dataset.from_tensors(filler).repeat())
        .take(steps * shard.block)
        .batch(replica_batch, drop_remainder=True)
    )


def replica_part(batch_size, replicas, flag):
    """How many images of a global batch a replica gets."""
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"The batch size ({flag}) must be a positive multiple of the number of replicas, "
            f"{replicas}; got {batch_size}."
        )
    return batch_size // replicas


def worker_shard(batch_size, replicas, worker, workers):
    """The `Shard` of one worker; all workers have as many replicas."""
    if replicas % workers:
        raise ValueError(f"{workers} workers cannot share {replicas} replicas evenly.")
    return Shard(worker, workers, batch_size // workers)


def _augment(example, seed, config, largest=None):
    """Crops uint8 of any size -> (*image_size, 3), uint8, or normalised if it may be erased."""
    seed = _view_seed(seed, example, config.views)
    mirrored = is_mirrored(seed) if config.flip else tf.constant(False)
    image = fast_resize(example["image"], config.image_size, mirrored, largest)
    if config.rand_augment:
        policy = RandAugment(config.rand_augment_magnitude, config.rand_augment_std)
        image = rand_augment(image, seed, policy, [round(255 * mean) for mean in config.mean])
    image = color_jitter(image, seed, config.color_jitter)
    if config.erasing:
        image = random_erasing(normalise(image, config.mean, config.std), seed, config.erasing)
    return image


def _finish_batch(batch, seed, config, classes):
    """Mixing, keyed by the batch's first example, and normalisation if it is still to be done."""
    images, labels = batch["image"], tf.one_hot(batch["label"], classes)
    # Boxes can be moved in 8 bits; whatever blends pixels or values has to see floats.
    late = images.dtype == tf.uint8 and not config.mixup_alpha and config.mix_mode == "batch"
    if images.dtype == tf.uint8 and not late:
        images = normalise(images, config.mean, config.std)
    first = {name: batch[name][0] for name in ("epoch", "id", "view")}
    images, labels = mix(
        images,
        labels,
        _view_seed(seed, first, config.views),
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
        mode=config.mix_mode,
    )
    return {
        "image": normalise(images, config.mean, config.std) if late else images,
        "label": labels,
        "id": batch["id"],
        "position": batch["position"] + 1,
    }


def _view_seed(seed, example, views):
    """The seed of one view of an example: with a single view the example's own."""
    return example_seed(seed, example["epoch"], example["id"] * views + example["view"])


def in_order(batches):
    """Lets parallel maps keep the order of their input, and prepares batches ahead."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
