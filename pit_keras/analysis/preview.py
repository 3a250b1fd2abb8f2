"""What a run would train on, drawn before it begins."""

from pit_keras.analysis.plots import MOST_BATCH_IMAGES, draw_batches
from pit_keras.data.pipeline import train_batches
from pit_keras.data.unreadable import UnreadableImages
from pit_keras.training.run_folder import RunFolder


def draw_preview(config, source, count, output_dir, replicas=1):
    """Draws a run's first batches as the model will see them, see `plots.draw_batches`.

    No run is begun: nothing but `preview.png` is written, and a run may follow in the same folder.

    Args:
        config: A valid `Config`.
        source: What `pit_keras.data.sources.open_source` returns.
        count: How many batches.
        output_dir: The run folder; made if need be.
        replicas: On how many the model is trained; a batch that is drawn is that of one of them.

    Returns:
        The path of the picture.

    Raises:
        ValueError: If a run of this configuration may not use the folder, or its batches cannot be
            made.
        OSError: If the folder cannot be written to.
    """
    folder = RunFolder(output_dir)
    folder.check(config)
    batches = first_batches(config, source, count, replicas)
    folder.make()
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
    """The first batches of a run, of each the images that are drawn and their labels.

    Returns:
        A list of pairs of arrays: float32 (n, H, W, 3), normalised, and float32 (n, classes).
    """
    unreadable = UnreadableImages()
    batches = train_batches(
        source,
        config.data,
        batch_size=config.training.images_of_update,
        seed=config.training.seed,
        unreadable=unreadable,
        replicas=replicas,
    )
    with unreadable.plain_errors():
        # Slices are taken in TensorFlow, so that whole batches are not kept.
        return [
            tuple(batch[name][:MOST_BATCH_IMAGES].numpy() for name in ("image", "label"))
            for batch in batches.take(count)
        ]
