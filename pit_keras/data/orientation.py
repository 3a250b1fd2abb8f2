"""The orientation that a camera writes into a JPEG's EXIF part: read, applied, and counted.

A number from 1 to 8 says how the stored picture is turned and mirrored; 1 is as it is shown. All is
done by TensorFlow's operations, so that a pipeline's threads and an exported model do it too.
"""

import concurrent.futures
import struct

import tensorflow as tf

SETTING = "--config.data.apply_orientation"
_HEAD = 2**16  # bytes of a file that are searched in counting
_MOST_SEGMENTS = 64  # before the one with EXIF, which is the first or second; others cost time
# All is read as numbers of two bytes.
_APP0, _APP1, _APP15, _COMMENT, _FILL = 0xFFE0, 0xFFE1, 0xFFEF, 0xFFFE, 0xFFFF
_EXIF = (_APP1, 0x4578, 0x6966, 0)  # "Exif" and zeros; the length stands after the marker
_LITTLE_ENDIAN, _BIG_ENDIAN, _MAGIC = 0x4949, 0x4D4D, 42
_TAG, _SHORT = 0x0112, 3


def orientation_of(contents):
    """The orientation, int32 1..8, in the bytes of a file; 1 where there is none or a wrong one.

    Only a JPEG's EXIF is read, among the segments before the first that is needed to decode it. No
    bytes raise an error, whatever they are.
    """

    def is_exif(segment):
        return tf.reduce_all(tf.gather(segment, (0, 2, 3, 4)) == _EXIF)

    def goes_on(_, segment):
        marker = segment[0]
        return (marker >= _APP0) & (marker <= _APP15) & ~is_exif(segment) | (marker >= _COMMENT)

    def next_segment(start, segment):
        start += tf.where(segment[0] == _FILL, 1, 2 + segment[1])
        return start, _numbers(contents, start, 5)

    first = tf.constant(2)  # after a JPEG's first mark; there is no marker in any other file
    start, segment = tf.while_loop(
        goes_on,
        next_segment,
        (first, _numbers(contents, first, 5)),
        maximum_iterations=_MOST_SEGMENTS,
        parallel_iterations=1,
    )
    return tf.cond(is_exif(segment), lambda: _in_tiff(contents, start + 10), lambda: tf.constant(1))


def _in_tiff(contents, start):
    """The orientation in the TIFF structure that begins at a byte."""
    is_little = _numbers(contents, start, 1)[0] == _LITTLE_ENDIAN

    def read(place, count):
        numbers = _numbers(contents, start + place, count)
        return tf.where(is_little, numbers % 256 * 256 + numbers // 256, numbers)

    order, magic, *offset = tf.unstack(read(0, 4))
    # Numbers of four bytes have their low half first or last.
    low_first = tf.where(is_little, offset, offset[::-1])
    directory = low_first[0]  # the first; all of it is below 2**16, as EXIF is no longer
    count = tf.maximum(read(directory, 1)[0], 1)
    entries = tf.reshape(read(directory + 2, 6 * count), (-1, 6))  # tag, type, count, value
    wanted = (_TAG, _SHORT, *tf.unstack(tf.where(is_little, (1, 0), (0, 1))))
    is_wanted = tf.reduce_all(entries[:, :4] == wanted, axis=1)
    value = tf.reduce_max(tf.where(is_wanted, entries[:, 4], 0))
    is_tiff = ((order == _LITTLE_ENDIAN) | (order == _BIG_ENDIAN)) & (magic == _MAGIC)
    is_valid = is_tiff & (low_first[1] == 0) & (value >= 1) & (value <= 8)
    return tf.where(is_valid, value, 1)


def _numbers(contents, start, count):
    """`count` big-endian numbers of two bytes, int32, from a byte on; zeros beyond the end."""
    start = tf.minimum(start, tf.strings.length(contents))
    part = tf.strings.substr(contents, start, 2 * count)
    numbers = tf.io.decode_raw(part, tf.uint16, little_endian=False, fixed_length=2 * count)
    known = None if tf.is_tensor(count) else count
    return tf.ensure_shape(tf.cast(numbers, tf.int32), (known,))


def turned(image, orientation):
    """A stored image (H, W, C) as its orientation shows it, like Pillow's `exif_transpose`."""

    def turn():
        is_lying, is_flipped = _steps(orientation)
        upright = tf.cond(is_lying, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        return tf.raw_ops.Reverse(tensor=upright, dims=tf.concat([is_flipped, [False]], axis=0))

    return tf.ensure_shape(
        tf.cond(orientation == 1, lambda: image, turn), (None, None, image.shape[-1])
    )


def turned_size(size, orientation):
    """The height and width, (2,), of a stored image once it is turned; and the reverse."""
    return tf.where(_steps(orientation)[0], size[::-1], size)


def box_before_turning(choose_box, orientation):
    """`choose_box`, see `preprocessing.decode_box`, of a turned image, as one of the stored."""
    _, is_flipped = _steps(orientation)

    def choose(height, width):
        size = turned_size(tf.stack([height, width]), orientation)
        box = choose_box(*tf.unstack(size))
        corner, sides = box[:2], box[2:]
        corner = tf.where(is_flipped, size - corner - sides, corner)
        return tf.concat([turned_size(part, orientation) for part in (corner, sides)], axis=0)

    return choose


def _steps(orientation):
    """Whether height and width change places first, and which of the two is mirrored then, (2,)."""
    mirrored = (orientation - 1) % 4  # neither, the width, both, the height
    return orientation > 4, tf.stack([mirrored >= 2, (mirrored == 1) | (mirrored == 2)])


def count_turned(paths):
    """How many files have an orientation that turns or mirrors them, by their first bytes.

    The entry is searched for rather than walked to, which is many times as fast as a graph.
    """
    with concurrent.futures.ThreadPoolExecutor() as threads:  # each waits for a disk or network
        return sum(threads.map(_is_turned, paths))


def _is_turned(path):
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False  # it is named when it is loaded
    tiff = head.partition(b"Exif\0\0")[2]
    order = "<" if tiff.startswith(b"II") else ">"
    value = tiff.partition(struct.pack(f"{order}HHI", _TAG, _SHORT, 1))[2][:2]
    return value in [struct.pack(f"{order}H", number) for number in range(2, 9)]
