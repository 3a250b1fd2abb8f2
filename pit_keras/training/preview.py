"""A preview of a run's first training batches."""

import numpy as np
from keras import ops

from pit_keras.data.unreadable import UnreadableImages
from pit_keras.models.boxes import centres_to_corners
from pit_keras.plots.galleries import MOST_BATCH_IMAGES, draw_batches
from pit_keras.runs.found_objects import FoundObject
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.tasks import task_of


def draw_preview(config, source, count, output_dir, replicas=1):
    """Draws the first `count` batches of a run, as one replica's model sees them.

    Writes nothing but `preview.png`, whose path it returns; a run may follow in the same folder.
    """
    folder = RunFolder(output_dir)
    folder.check(config)
    batches = first_batches(config, source, count, replicas)
    folder.make()
    if config.model.is_detector:
        batches = [_with_objects(batch, source.class_names) for batch in batches]
    draw_batches(
        batches,
        source.class_names,
        folder.preview,
        batch_size=config.training.images_of_update // replicas,
        mean=config.data.mean,
        std=config.data.std,
    )
    return folder.preview


def first_batches(config, source, count, replicas=1):
    """The images of a run's first batches that are drawn, and their labels or boxes, as arrays.

    Tuples of float32 (n, H, W, 3), normalised, and float32 (n, classes); for a detector instead of
    the latter `padding_mask`, `boxes` and `labels`, see `detection_train_batches`.
    """
    unreadable = UnreadableImages()
    batches = task_of(config, source).train_batches(
        batch_size=config.training.images_of_update,
        seed=config.training.seed,
        unreadable=unreadable,
        replicas=replicas,
    )
    known = ("padding_mask", "boxes", "labels") if config.model.is_detector else ("label",)
    with unreadable.plain_errors():
        # TensorFlow takes the slices, so that whole batches are not kept.
        return [
            tuple(batch[name][:MOST_BATCH_IMAGES].numpy() for name in ("image", *known))
            for batch in batches.take(count)
        ]


def _with_objects(batch, class_names):
    """Images, and for each a list of its objects with boxes in its pixels."""
    images, masks, boxes, labels = batch
    heights, widths = ((~masks).any(axis=axis).sum(axis=1) for axis in (2, 1))  # without padding
    sides = np.stack([widths, heights, widths, heights], axis=1)[:, None]  # (n, 1, 4)
    corners = ops.convert_to_numpy(centres_to_corners(boxes)) * sides  # (n, M, 4)
    return images, [
        [
            FoundObject(class_names[label], None, tuple(box.tolist()), int(label))
            for box, label in zip(*of_image, strict=True)
            if label >= 0
        ]
        for of_image in zip(corners, labels, strict=True)
    ]
