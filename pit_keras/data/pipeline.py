"""From a source to the batches that training and evaluation take.

Every random decision is a stateless function of (seed, epoch, example, view), and the order of a
source is one of (seed, position). So the batches do not depend on the number of threads, and
training resumed at a position receives, bit for bit, what it would have received.

A global batch is divided among the replicas of all workers, in this order: worker 0's replicas,
worker 1's, and so on. A worker reads only what its own replicas take.
"""

import functools

import tensorflow as tf

from pit_keras.data.augmentation import crop_box, is_mirrored, random_erasing
from pit_keras.data.augmentation_policy import rand_augment
from pit_keras.data.color_jitter import color_jitter
from pit_keras.data.fast_resize import fast_resize
from pit_keras.data.mixing import mix
from pit_keras.data.preprocessing import normalise, preprocess_evaluation
from pit_keras.data.seeds import example_seed
from pit_keras.data.source import Shard, as_written
from pit_keras.data.unreadable import UnreadableImages, load_images


def steps_per_epoch(source, batch_size):
    """Full batches of the training split."""
    size = source.sizes["train"]
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"The batch size (--batch_size) must be between 1 and the {size} training images of "
            f"{source.name}, got {batch_size}."
        )
    return size // batch_size


def check_train_batches(source, config, batch_size, replicas=1):
    """Raises ValueError where `train_batches` would; returns the images of an epoch."""
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
    return epoch_length


@as_written
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
        replicas: those of all workers together.

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
    epoch_length = check_train_batches(source, config, batch_size, replicas)
    source = source.oriented(config.apply_orientation)
    shard = Shard(worker, workers, batch_size // workers)
    examples = source.train_stream(seed, start, epoch_length, config.views, shard)

    def choose_box(example, height, width):
        box_seed = _view_seed(seed, example, config.views)
        return crop_box(height, width, box_seed, config.crop_scale, config.crop_aspect)

    if source.is_encoded:
        limit = epoch_length // workers if config.skip_unreadable else None
        report = unreadable or UnreadableImages()
        examples = load_images(examples, source, "train", report, limit, choose_box)

    def augment(example):
        image, largest = example["image"], None  # the size of a file's image is not known before
        if not source.is_encoded:
            largest = image.shape[:2]
            image = source.load(image, functools.partial(choose_box, example))
        view_seed = _view_seed(seed, example, config.views)
        return {**example, "image": _augment(image, view_seed, config, largest)}

    classes = len(source.class_names)
    finish = functools.partial(_finish_batch, seed=seed, config=config, classes=classes)
    return in_order(
        examples.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size // replicas, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    )


@as_written
def evaluation_batches(
    source, split, config, *, batch_size, cap=None, unreadable=None, replicas=1, worker=0, workers=1
):
    """One pass over a split, every example exactly once over all workers; filler completes it.

    An image that cannot be read ends the pass with an error. With a `cap` a single worker gets
    at most so many examples, evenly spaced, as the first ones of a folder would belong to a few
    classes. The other arguments are those of `train_batches`.

    Returns:
        A `tf.data.Dataset` of dicts, all of the same shapes, with B = batch_size / replicas. Every
        worker gets as many, one for each of its replicas in turn:
            "image": float32 (B, H, W, 3), normalised;
            "label": int64 (B,);
            "weight": float32 (B,), 1, or 0 for the zeros that fill up the last batches;
            "id": int64 (B,), -1 for those.
    """
    source = source.oriented(config.apply_orientation)
    size = source.sizes[split] if cap is None else min(cap, source.sizes[split])
    replica_batch = evaluation_part(batch_size, replicas, size)
    batch_size = replica_batch * replicas
    shard = Shard(worker, workers, batch_size // workers)
    examples = source.scan(split, shard)
    if size < source.sizes[split]:
        # Exactly `cap` of `whole` positions have a multiple of `cap` with so small a remainder.
        whole = source.sizes[split]
        spaced = examples.enumerate().filter(lambda place, _: place * cap % whole < cap)
        # What follows the last is not read.
        examples = spaced.map(lambda _, example: example).take(cap)
    if source.is_encoded:
        examples = load_images(examples, source, split, unreadable or UnreadableImages())

    def prepare(example):
        image = preprocess_evaluation(example["image"], config)
        return {**example, "image": image, "weight": tf.constant(1.0)}

    filler = {
        "image": tf.zeros((*config.image_size, 3)),
        "label": tf.constant(0, tf.int64),
        "weight": tf.constant(0.0),
        "id": tf.constant(-1, tf.int64),
    }
    steps = -(-size // batch_size)
    return in_order(
        examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .concatenate(tf.data.Dataset.from_tensors(filler).repeat())
        .take(steps * shard.block)
        .batch(replica_batch, drop_remainder=True)
    )


def replica_part(batch_size, replicas, flag):
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"The batch size ({flag}) must be a positive multiple of the number of replicas, "
            f"{replicas}; got {batch_size}."
        )
    return batch_size // replicas


def evaluation_part(batch_size, replicas, size):
    """The images of each replica's batch; a batch is no larger than what there is to evaluate."""
    part = replica_part(batch_size, replicas, "--config.training.eval_batch_size")
    return max(min(part, -(-size // replicas)), 1)


def _augment(image, seed, config, largest):
    """Crops uint8 of any size -> (*image_size, 3), uint8, or normalised if it may be erased."""
    mirrored = is_mirrored(seed) if config.flip else tf.constant(False)
    image = fast_resize(image, config.image_size, mirrored, largest)
    if config.rand_augment:
        magnitude, std = config.rand_augment_magnitude, config.rand_augment_std
        fill = [round(255 * mean) for mean in config.mean]
        image = rand_augment(image, seed, magnitude, std, fill)
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
    return example_seed(seed, example["epoch"], example["id"] * views + example["view"])


def in_order(batches):
    """Lets parallel maps keep the order of their input, and prepares batches ahead."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
