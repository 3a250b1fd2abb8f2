"""From a detection source to the batches that training and evaluation of a detector take.

As in `pipeline`, every random decision is a stateless function of (seed, epoch, example), so that
training is carried on with what it would have received.

Images have sizes of their own and are filled up, at the right and below, to one size for all images
of a worker's step. So that a model is traced for few sizes, a side is one of three: the largest
short side, the largest long side, or what lies half-way. With the sizes of COCO's images in DETR's
augmentation 45% of the pixels of a step of 4 images are padding, and 53% with 8 images. It would be
34% and 44% with each step's own smallest size, 53% and 59% with three shapes (landscape, upright,
square).
"""

import functools

import tensorflow as tf

from pit_keras.data.coco_annotations import MAX_OBJECTS
from pit_keras.data.detection_augmentation import augment, resize, resized_size
from pit_keras.data.detection_preprocessing import masked_inputs
from pit_keras.data.pipeline import in_order, replica_part, steps_per_epoch, worker_shard
from pit_keras.data.seeds import example_seed
from pit_keras.data.unreadable import UnreadableImages, load_images

# Rewriting functions so that `if` and `for` take tensors, which none here needs, takes seconds.
_as_written = tf.autograph.experimental.do_not_convert


def padded_sides(image_size):
    """The sides that padded training images have, ascending; `image_size` is short, long."""
    short, long = image_size
    return tuple(sorted({short, (short + long) // 2, long}))


def check_detection_train_batches(source, data, detection, batch_size, replicas=1):
    """Checks what `detection_train_batches` is given, before long work.

    Raises:
        ValueError: a batch is more than an epoch holds, the replicas do not divide it, or the image
            size is none.
    """
    steps_per_epoch(source, batch_size)
    replica_part(batch_size, replicas, "--batch_size")
    _check_image_size(data.image_size)


def detection_train_batches(
    source,
    data,
    detection,
    *,
    batch_size,
    seed,
    start=0,
    unreadable=None,
    replicas=1,
    worker=0,
    workers=1,
):
    """Endless augmented training batches, see `detection_augmentation.augment`.

    Args:
        source: a `coco.DetectionSource`.
        data: a `DataConfig`; its image_size is the largest short side and the largest long side.
        detection: a `DetectionConfig`.
        batch_size, seed, start, unreadable, replicas, worker, workers: as for
            `pipeline.train_batches`.

    Returns:
        A `tf.data.Dataset` of dicts, one for each replica of this worker in turn, with
        B = batch_size / replicas and M = `MAX_OBJECTS`:
            "image": float32 (B, H, W, 3), normalised, zeros where it is padded;
            "padding_mask": bool (B, H, W), true there;
            "content": int32 (B, 2), height and width of the image inside the padding;
            "boxes": float32 (B, M, 4), centre x, centre y, width and height as shares of the image
                without its padding, zeros where there is none;
            "labels": int32 (B, M), -1 where there is no box;
            "id", "position": int64 (B,), see `pipeline.train_batches`.
        H and W are of `padded_sides`, alike for all replicas of a worker in one step.

    Raises:
        ValueError: see `check_detection_train_batches`; or the workers do not divide the replicas.
    """
    check_detection_train_batches(source, data, detection, batch_size, replicas)
    shard = worker_shard(batch_size, replicas, worker, workers)
    epoch_length = steps_per_epoch(source, batch_size) * batch_size
    examples = source.train_stream(seed, start, epoch_length, shard=shard)
    limit = epoch_length // workers if data.skip_unreadable else None
    examples = load_images(examples, source, "train", unreadable or UnreadableImages(), limit)
    prepare = functools.partial(_augmented, seed=seed, data=data, detection=detection)
    steps = (
        examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(shard.block, drop_remainder=True)
        .map(
            functools.partial(_padded_to_sides, sides=padded_sides(data.image_size)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    batches = _of_replicas(steps, replicas // workers, batch_size // replicas)
    finish = functools.partial(_finished, data=data)
    return in_order(batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE))


def detection_evaluation_batches(
    source,
    split,
    data,
    *,
    batch_size,
    unreadable=None,
    replicas=1,
    worker=0,
    workers=1,
):
    """One pass over a split, every example exactly once over all workers; what lacks is filled up.

    Each image is resized to the largest short side, its long side at most the largest long side.
    Upright images are in batches of their own, so the examples are not in the order of the split.
    An image that cannot be read ends the pass with an error, whatever `data.skip_unreadable`.

    Args:
        source, data, batch_size, unreadable, replicas, worker, workers: as for
            `detection_train_batches`.
        split: "train" or "val".

    Returns:
        A `tf.data.Dataset` of dicts, with B = batch_size / replicas, and (H, W) the image size,
        short and long, or for a step of upright images long and short. Every worker gets as many,
        one for each of its replicas in turn:
            "image", "padding_mask", "content": as in training;
            "size": int32 (B, 2), height and width of the stored image;
            "id": int64 (B,), -1 for filler;
            "weight": float32 (B,), 1, or 0 for filler.

    Raises:
        ValueError: the batch size is less than 1, the replicas do not divide it, the workers do not
            divide the replicas, or the image size is none.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size must be 1 or more, got {batch_size}.")
    replica_part(batch_size, replicas, "--config.training.eval_batch_size")
    _check_image_size(data.image_size)
    shard = worker_shard(batch_size, replicas, worker, workers)
    examples = source.scan(split, shard)
    examples = load_images(examples, source, split, unreadable or UnreadableImages())

    @_as_written
    def filled_up(upright, window):
        return window.concatenate(_fillers(upright, data)).batch(shard.block).take(1)

    steps = examples.map(
        functools.partial(_resized, data=data), num_parallel_calls=tf.data.AUTOTUNE
    ).group_by_window(
        key_func=lambda example: tf.cast(_is_upright(example["size"]), tf.int64),
        reduce_func=filled_up,
        window_size=shard.block,
    )
    if workers > 1:
        # Two kinds of batches, each with its rest: no worker has more than one beyond the others'.
        steps = steps.concatenate(_fillers(False, data).batch(shard.block))
        steps = steps.take(-(-source.sizes[split] // batch_size) + 1)
    batches = _of_replicas(steps, replicas // workers, batch_size // replicas)
    finish = functools.partial(_finished, data=data)
    return in_order(batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE))


def _check_image_size(image_size):
    short, long = image_size
    if not 1 <= short <= long:
        raise ValueError(
            "A detector's --image_size is the short and the long side of its images, 400,600 for "
            f"example, got {short},{long}."
        )


@_as_written
def _augmented(example, seed, data, detection):
    """One training example: its image of any size, boxes and labels filled up to `MAX_OBJECTS`."""
    image, boxes, labels = augment(
        example["image"],
        example["boxes"],
        example["labels"],
        example_seed(seed, example["epoch"], example["id"]),
        data.image_size,
        flip=data.flip,
        multi_scale=detection.multi_scale,
        random_crop=detection.random_crop,
    )
    return {
        "image": image,
        "content": tf.shape(image)[:2],
        **_filled_up(boxes, labels),
        "id": example["id"],
        "position": example["position"] + 1,
    }


@_as_written
def _padded_to_sides(step, sides):
    """A step whose images are filled up to the next of these heights and widths."""
    largest = tf.shape(step["image"])[1:3]
    height, width = (
        tf.reduce_min(tf.boolean_mask(sides, sides >= largest[axis])) for axis in range(2)
    )
    return {**step, "image": _padded(step["image"], height, width)}


@_as_written
def _resized(example, data):
    """One evaluation example, its image filled up to the size of all upright or all other ones."""
    image, size = example["image"], tf.shape(example["image"])[:2]
    image = resize(image, resized_size(size[0], size[1], *data.image_size))
    return {
        "image": _padded(image[tf.newaxis], *_evaluation_size(_is_upright(size), data))[0],
        "size": size,
        "content": tf.shape(image)[:2],
        "id": example["id"],
        "weight": tf.constant(1.0),
    }


def _fillers(upright, data):
    """Endless evaluation examples that do not count."""
    filler = {
        "image": tf.zeros(tf.stack([*_evaluation_size(upright, data), 3]), tf.uint8),
        "size": tf.ones(2, tf.int32),
        "content": tf.ones(2, tf.int32),
        "id": tf.constant(-1, tf.int64),
        "weight": tf.constant(0.0),
    }
    return tf.data.Dataset.from_tensors(filler).repeat()


@_as_written
def _finished(batch, data):
    """A replica's batch as the model takes it."""
    inputs = masked_inputs(batch["image"], batch["content"], data)
    return {**batch, "image": inputs["images"], "padding_mask": inputs["padding_mask"]}


def _filled_up(boxes, labels):
    """The boxes and labels of one image filled up to `MAX_OBJECTS`."""
    rest = MAX_OBJECTS - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, [[0, rest], [0, 0]])
    labels = tf.pad(tf.cast(labels, tf.int32), [[0, rest]], constant_values=-1)
    return {
        "boxes": tf.ensure_shape(boxes, (MAX_OBJECTS, 4)),
        "labels": tf.ensure_shape(labels, (MAX_OBJECTS,)),
    }


def _padded(images, height, width):
    """Fills images (B, H, W, 3) up, at the right and below."""
    shape = tf.shape(images)
    images = tf.pad(images, [[0, 0], [0, height - shape[1]], [0, width - shape[2]], [0, 0]])
    return tf.ensure_shape(images, (None, None, None, 3))


def _of_replicas(steps, replicas, part):
    """Divides each step of a worker among its replicas, `part` examples each."""

    @_as_written
    def divided(values):
        shape = tf.concat([[replicas, part], tf.shape(values)[1:]], axis=0)
        return tf.ensure_shape(tf.reshape(values, shape), (replicas, part, *values.shape[1:]))

    return steps.map(lambda step: tf.nest.map_structure(divided, step)).unbatch()


def _is_upright(size):
    return size[0] > size[1]


def _evaluation_size(upright, data):
    """The height and width that evaluation images are filled up to, int32 scalars."""
    short, long = data.image_size
    upright = tf.cast(upright, tf.bool)
    return tf.where(upright, long, short), tf.where(upright, short, long)
