"""Loading images that may be broken: skip, name and count them, or fail by name.

A TensorFlow graph knows no try and except, and an error inside tf.data reaches the consumer as a
long `tf.errors` message that names no file. Here a broken image becomes an empty one, which is then
filtered out; Python runs only for those.
"""

import collections
import contextlib
import functools
import logging
import threading

import tensorflow as tf

from pit_keras.data.orientation import SETTING
from pit_keras.data.source import as_written
from pit_keras.errors import visible

logger = logging.getLogger(__name__)

NOT_AN_IMAGE = "cannot be read as a JPEG or PNG image"


class UnreadableImageError(ValueError):
    """An example that cannot be used; the message names it."""


class UnreadableImages:
    """The images that a pipeline could not read, those ahead that it prefetched included.

    Attributes:
        positions: {name: position in the training stream where the image was first met}.
        counts: {epoch: images skipped}, each view counted.
        error: the `UnreadableImageError` that ended the pipeline, or None.
    """

    def __init__(self):
        self.positions = {}
        self.counts = collections.Counter()
        self.error = None
        self._lock = threading.Lock()

    def until(self, position):
        """`positions` of the images first met before a position of the training stream."""
        with self._lock:
            return {name: first for name, first in self.positions.items() if first < position}

    @contextlib.contextmanager
    def plain_errors(self):
        """Within it, an error of the pipeline is raised as the `UnreadableImageError` it was."""
        try:
            yield
        except tf.errors.OpError:
            if self.error is None:
                raise
            raise self.error from None

    def skip(self, name, epoch, epoch_length, position=0, problem=NOT_AN_IMAGE):
        """Records a skipped image; more than half of an epoch's are an `error`."""
        with self._lock:
            self.counts[epoch] += 1
            if name not in self.positions:
                self.positions[name] = position
                logger.warning("Skipping %s: it %s.", visible(name), problem)
        if 2 * self.counts[epoch] > epoch_length:
            self.error = UnreadableImageError(
                f"More than half of the {epoch_length} images of epoch {epoch} cannot be read, for "
                f"example {next(iter(self.positions))}."
            )


@as_written
def load_images(dataset, source, split, report, epoch_length=None, choose_box=None):
    """Replaces the "image" of each element by its pixels, uint8 (H, W, 3), in the same order.

    Broken images, and those of another size (height, width) than an element's "stated_size", are
    entered in the report and skipped. Where `epoch_length` is None or less than twice their number
    in an epoch, and for a label outside the classes, iterating raises `tf.errors.OpError` instead
    (see `UnreadableImages.plain_errors`).

    `choose_box`, a function of the element, height and width, loads only this box of each image,
    see `preprocessing.decode_box`.
    """

    def refuses(example_id, label, epoch, position, size, stated):
        name, skips = source.describe(split, int(example_id)), epoch_length is not None
        if not size.all():
            problem = NOT_AN_IMAGE
        elif (size != stated).any():
            problem = (
                f"is {size[1]} x {size[0]} pixels, its annotations say {stated[1]} x {stated[0]}"
            )
            if (size == stated[::-1]).all():
                if source.apply_orientation:
                    remark = f"an EXIF orientation is applied; {SETTING}=false leaves it"
                else:
                    remark = f"an EXIF orientation is not applied; {SETTING}=true applies it"
                problem += f" ({remark})"
        else:
            problem = f"has the label {label}, but there are {len(source.class_names)} classes"
            skips = False
        if skips:
            report.skip(name, int(epoch), epoch_length, int(position), problem)
        else:
            report.error = UnreadableImageError(f"{name} {problem}.")
        return report.error is not None

    def is_usable(element):
        label, epoch, position = (
            element.get(name, tf.constant(0, tf.int64)) for name in ("label", "epoch", "position")
        )
        is_known = (label >= 0) & (label < len(source.class_names))
        size = tf.shape(element["image"])[:2]
        stated = element.get("stated_size", size)
        is_whole = tf.reduce_all((size > 0) & (size == stated))

        def leave_out():
            # TensorFlow logs a traceback for errors raised in Python, so the graph raises it.
            refused = tf.numpy_function(
                refuses, [element["id"], label, epoch, position, size, stated], tf.bool
            )
            refused = tf.ensure_shape(refused, ())
            with tf.control_dependencies([tf.debugging.Assert(~refused, ["refused"])]):
                return tf.identity(False)

        return tf.cond(is_known & is_whole, lambda: True, leave_out)

    def load(element):
        box = choose_box and functools.partial(choose_box, element)
        empty = tf.zeros((0, 0, 3), tf.uint8)
        image = attempt(lambda image: source.load(image, box), element["image"], empty)
        return {**element, "image": image}

    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).filter(is_usable)


def attempt(function, value, otherwise):
    """`function(value)`, or `otherwise` where that raises an error.

    `Dataset.ignore_errors` is TensorFlow's one way to go on after an error. Around a data set of a
    single image it keeps order and parallelism, and costs about 5% of the pipeline's time.
    """
    tried = tf.data.Dataset.from_tensors(value).map(function).ignore_errors()
    return tried.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1).get_single_element()
