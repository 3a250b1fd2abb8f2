"""A preview of a run's first training batches."""

from pit_keras.data.unreadable import UnreadableImages
from pit_keras.plots.pictures import MOST_BATCH_IMAGES, draw_batches, draw_object_batches
from pit_keras.runs.found_objects import FoundObject
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.tasks import task_of


def draw_preview(config, source, count, output_dir, replicas=1):
    """Draws the first `count` batches of a run, as one replica's model sees them.

    Writes nothing but `preview.png`; a run may follow in the same folder.

    Returns:
        The path of the picture.
    """
    folder = RunFolder(output_dir)
    folder.check(config)
    batches = first_batches(config, source, count, replicas)
    folder.make()
    settings = {
        "batch_size": config.training.images_of_update // replicas,
        "mean": config.data.mean,
        "std": config.data.std,
    }
    if config.model.is_detector:
        batches = [_with_objects(batch, source.class_names) for batch in batches]
        draw_object_batches(batches, folder.preview, **settings)
    else:
        draw_batches(batches, source.class_names, folder.preview, **settings)
    return folder.preview


def first_batches(config, source, count, replicas=1):
    """The images of a run's first batches that are drawn, and their labels or boxes.

    Returns:
        A list of tuples of arrays: float32 (n, H, W, 3), normalised, and float32 (n, classes); for
        a detector instead of the labels `padding_mask`, `boxes` and `labels`, see
        `detection_train_batches`.
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
    images, masks, *targets = batch
    contents = [((~mask).any(axis=1).sum(), (~mask).any(axis=0).sum()) for mask in masks]
    return images, [
        [
            FoundObject(class_names[label], None, _corners(box, *content), int(label))
            for box, label in zip(boxes, labels, strict=True)
            if label >= 0
        ]
        for content, boxes, labels in zip(contents, *targets, strict=True)
    ]


def _corners(box, height, width):
    """Left, top, right and bottom in pixels, from centre and size as shares."""
    x, y, box_width, box_height = box.tolist()
    return (
        (x - box_width / 2) * width,
        (y - box_height / 2) * height,
        (x + box_width / 2) * width,
        (y + box_height / 2) * height,
    )
