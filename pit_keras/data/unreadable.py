"""Loading images of which some may be broken: skip, name and count them, or fail by name.

A TensorFlow graph knows no try and except, and an error inside tf.data reaches the consumer as a
long `tf.errors` message that names no file. Here a broken image becomes an empty one, which is then
filtered out; only for those does Python run.
"""

import collections
import contextlib
import functools
import logging
import threading

import tensorflow as tf

logger = logging.getLogger(__name__)

NOT_AN_IMAGE = "cannot be read as a JPEG or PNG image"


class UnreadableImageError(ValueError):
    """An example that cannot be used; the message names it in one sentence."""


class UnreadableImages:
    """A report of the images that a pipeline could not read. Safe to use from several threads.

    It runs ahead of the batches received by what the pipeline prefetches.

    Args:
        positions: what is known already, as `positions`, of the part of a run that was done before.

    Attributes:
        positions: what was unreadable, {name: position in the training stream where it was first
            met}; unlike the order of finding it does not depend on how far the pipeline ran ahead.
        names: the same names, a tuple.
        counts: how many were skipped in each epoch, {epoch: count}; each view of an image counts.
        error: the `UnreadableImageError` that ended the pipeline, or None.
    """

    def __init__(self, positions=()):
        self.positions = dict(positions)
        self.counts = collections.Counter()
        self.error = None
        self._lock = threading.Lock()

    @property
    def names(self):
        return tuple(self.positions)

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
        """Records a skipped image; `problem` ends the sentence that begins with its name.

        Raises:
            UnreadableImageError: it is one too many, more than half of an epoch's.
        """
        with self._lock:
            self.counts[epoch] += 1
            if name not in self.positions:
                self.positions[name] = position
                logger.warning("Skipping %s: it %s.", name, problem)
        if 2 * self.counts[epoch] > epoch_length:
            self.fail(
                f"More than half of the {epoch_length} images drawn in epoch {epoch} cannot be "
                f"read, among them {self.names[0]}."
            )

    def fail(self, message):
        """Raises `UnreadableImageError` and keeps it for `plain_errors`."""
        self.error = UnreadableImageError(message)
        raise self.error


def load_images(dataset, source, split, report, epoch_length=None, choose_box=None):
    """Replaces the "image" of each element by its pixels, in the same order.

    An image whose element has a "stated_size" (height, width) that is not its own counts as broken.

    Args:
        dataset: elements of `source` (see `source.Source`).
        source: loads and names them.
        split: the split that the elements belong to.
        report: the `UnreadableImages` that learns of broken ones.
        epoch_length: skip broken images, unless more than half of the so many drawn in an epoch
            are; if None, fail at the first.
        choose_box: load only this box of each image; function of the element and the image's height
            and width, see `preprocessing.decode_box`.

    Returns:
        A dataset whose "image" is uint8 (H, W, 3). Iterating over it raises `tf.errors.OpError`
        (see `UnreadableImages.plain_errors`) for an image that must not be skipped and for a label
        outside the classes.
    """

    def judge(example_id, label, epoch, position, size, stated):
        name = source.describe(split, int(example_id))
        if size.all() and (size == stated).all():
            report.fail(f"The label {label} of {name} is not one of {len(source.class_names)}.")
        problem = NOT_AN_IMAGE
        if size.all():
            problem = (
                f"is {size[1]} pixels wide and {size[0]} high, not {stated[1]} and {stated[0]} as "
                "its annotations say"
            )
        if epoch_length is None:
            report.fail(f"{name} {problem}.")
        report.skip(name, int(epoch), epoch_length, int(position), problem)

    def is_refused(*arguments):
        # The error goes on in the graph: TensorFlow logs a traceback for those raised in Python.
        try:
            judge(*arguments)
        except UnreadableImageError:
            return True
        return False

    @tf.autograph.experimental.do_not_convert
    def is_usable(element):
        label = element.get("label", tf.constant(0, tf.int64))
        is_known = (label >= 0) & (label < len(source.class_names))
        size = tf.shape(element["image"])[:2]
        stated = element.get("stated_size", size)
        is_whole = tf.reduce_all((size > 0) & (size == stated))
        epoch, position = (
            element.get(name, tf.constant(0, tf.int64)) for name in ("epoch", "position")
        )

        def leave_out():
            refused = tf.numpy_function(
                is_refused, [element["id"], label, epoch, position, size, stated], tf.bool
            )
            refused = tf.ensure_shape(refused, ())
            with tf.control_dependencies([tf.debugging.Assert(~refused, ["refused"])]):
                return tf.identity(False)

        return tf.cond(is_known & is_whole, lambda: True, leave_out)

    @tf.autograph.experimental.do_not_convert
    def load(element):
        box = choose_box and functools.partial(choose_box, element)
        return {**element, "image": _load_or_empty(source, element["image"], box)}

    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).filter(is_usable)


def _load_or_empty(source, image, choose_box):
    """The pixels of `image`, or an empty image (0, 0, 3) if it cannot be loaded.

    `Dataset.ignore_errors` is TensorFlow's one way to go on after an error. Around a data set of a
    single image it keeps order and parallelism, and costs about 5% of the pipeline's time.
    """
    loaded = tf.data.Dataset.from_tensors(image).map(lambda i: source.load(i, choose_box))
    loaded = loaded.ignore_errors()
    empty = tf.data.Dataset.from_tensors(tf.zeros((0, 0, 3), tf.uint8))
    return loaded.concatenate(empty).take(1).get_single_element()
