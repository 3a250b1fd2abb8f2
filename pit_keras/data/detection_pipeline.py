"""From a detection source to the batches that training and evaluation of a detector take.

As in `pipeline`, every random decision is a stateless function of (seed, epoch, example), so that
a resumed run receives what it would have received.

Images have sizes of their own and are padded, at the right and below, to one size for all images of
a worker's step. So that a model is traced for few sizes, a side is one of three: the largest short
side, the largest long side, or half-way. With COCO's images in DETR's augmentation 45% of the
pixels of a step of 4 images are padding, and 53% with 8 images. It would be 34% and 44% with each
step's own smallest size, 53% and 59% with three shapes (landscape, upright, square).
"""

import functools

import tensorflow as tf

from pit_keras.data.coco_annotations import MAX_OBJECTS
from pit_keras.data.detection_augmentation import augment
from pit_keras.data.detection_preprocessing import fit, masked_inputs, padded_size
from pit_keras.data.pipeline import check_train_batches, evaluation_part, in_order
from pit_keras.data.seeds import example_seed
from pit_keras.data.source import Shard, as_written
from pit_keras.data.unreadable import UnreadableImages, load_images


def padded_sides(image_size):
    """The sides that padded training images have, ascending; `image_size` is short, long."""
    short, long = image_size
    return tuple(sorted({short, (short + long) // 2, long}))


@as_written
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

    The arguments are those of `pipeline.train_batches`, and a `DetectionConfig`. `data.image_size`
    is the largest short side and the largest long side.

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
    """
    epoch_length = check_train_batches(source, data, batch_size, replicas)
    source = source.oriented(data.apply_orientation)
    shard = Shard(worker, workers, batch_size // workers)
    examples = source.train_stream(seed, start, epoch_length, shard=shard)
    limit = epoch_length // workers if data.skip_unreadable else None
    examples = load_images(examples, source, "train", unreadable or UnreadableImages(), limit)
    prepare = functools.partial(_augmented, seed=seed, data=data, detection=detection)
    pad = functools.partial(_padded_to_sides, sides=padded_sides(data.image_size))
    steps = (
        examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(shard.block, drop_remainder=True)
        .map(pad, num_parallel_calls=tf.data.AUTOTUNE)
    )
    return _finished(steps, replicas // workers, batch_size // replicas, data)


@as_written
def detection_evaluation_batches(
    source, split, data, *, batch_size, unreadable=None, replicas=1, worker=0, workers=1
):
    """One pass over a split, every example exactly once over all workers; filler completes it.

    Each image is resized to the largest short side, its long side at most the largest long side.
    Upright images are in batches of their own, so the examples are not in the order of the split.
    An image that cannot be read ends the pass with an error. The arguments are those of
    `detection_train_batches`.

    Returns:
        A `tf.data.Dataset` of dicts, with B = batch_size / replicas, and (H, W) the image size,
        short and long, or for a step of upright images long and short. Every worker gets as many,
        one for each of its replicas in turn:
            "image", "padding_mask", "content": as in training;
            "size": int32 (B, 2), height and width of the stored image;
            "id": int64 (B,), -1 for filler;
            "weight": float32 (B,), 1, or 0 for filler.
    """
    source = source.oriented(data.apply_orientation)
    replica_batch = evaluation_part(batch_size, replicas, source.sizes[split])
    batch_size = replica_batch * replicas
    shard = Shard(worker, workers, batch_size // workers)
    examples = source.scan(split, shard)
    examples = load_images(examples, source, split, unreadable or UnreadableImages())

    def filled_up(is_upright, window):
        filler = _filler(tf.cast(is_upright, tf.bool), data)
        return window.concatenate(filler).batch(shard.block).take(1)

    resize = functools.partial(_resized, data=data)
    steps = examples.map(resize, num_parallel_calls=tf.data.AUTOTUNE).group_by_window(
        key_func=lambda example: tf.cast(example["size"][0] > example["size"][1], tf.int64),
        reduce_func=filled_up,
        window_size=shard.block,
    )
    if workers > 1:
        # Two kinds of batches, each with its rest: no worker has more than one beyond the others'.
        steps = steps.concatenate(_filler(False, data).batch(shard.block))
        steps = steps.take(-(-source.sizes[split] // batch_size) + 1)
    return _finished(steps, replicas // workers, replica_batch, data)


def _augmented(example, seed, data, detection):
    """One training example, its boxes and labels filled up to `MAX_OBJECTS`."""
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
    rest = MAX_OBJECTS - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, [[0, rest], [0, 0]])
    labels = tf.pad(tf.cast(labels, tf.int32), [[0, rest]], constant_values=-1)
    return {
        "image": image,
        "content": tf.shape(image)[:2],
        "boxes": tf.ensure_shape(boxes, (MAX_OBJECTS, 4)),
        "labels": tf.ensure_shape(labels, (MAX_OBJECTS,)),
        "id": example["id"],
        "position": example["position"] + 1,
    }


def _padded_to_sides(step, sides):
    size = tf.shape(step["image"])[1:3]
    down, across = (
        tf.reduce_min(tf.boolean_mask(sides, sides >= size[axis])) - size[axis] for axis in range(2)
    )
    images = tf.pad(step["image"], [[0, 0], [0, down], [0, across], [0, 0]])
    return {**step, "image": tf.ensure_shape(images, (None, None, None, 3))}


def _resized(example, data):
    """One evaluation example, its image padded to the size of all upright or all other ones."""
    images, content = fit(example["image"][tf.newaxis], data.image_size)
    return {
        "image": images[0],
        "size": tf.shape(example["image"])[:2],
        "content": content,
        "id": example["id"],
        "weight": tf.constant(1.0),
    }


def _filler(is_upright, data):
    size = padded_size(is_upright, data.image_size)
    filler = {
        "image": tf.zeros(tf.concat([size, [3]], axis=0), tf.uint8),
        "size": tf.ones(2, tf.int32),
        "content": tf.ones(2, tf.int32),
        "id": tf.constant(-1, tf.int64),
        "weight": tf.constant(0.0),
    }
    return tf.data.Dataset.from_tensors(filler).repeat()


def _finished(steps, replicas, part, data):
    """Divides each step of a worker among its replicas, `part` examples each, for the model."""

    def divided(values):
        shape = tf.concat([[replicas, part], tf.shape(values)[1:]], axis=0)
        return tf.ensure_shape(tf.reshape(values, shape), (replicas, part, *values.shape[1:]))

    def finish(batch):
        inputs = masked_inputs(batch["image"], batch["content"], data)
        return {**batch, "image": inputs["images"], "padding_mask": inputs["padding_mask"]}

    batches = steps.map(lambda step: tf.nest.map_structure(divided, step)).unbatch()
    return in_order(batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE))
