"""Data sets of TensorFlow Datasets (TFDS): finding them, preparing those whose files the user has.

Nothing is downloaded on the user's behalf, except what a data set that is prepared from a
`manual_dir` asks for besides.
"""

import difflib
import logging
import os

import tensorflow_datasets as tfds

logger = logging.getLogger(__name__)


def prepared_builder(name, data_dir=None, manual_dir=None):
    """The builder of a data set that is prepared, that is stored in record files.

    Args:
        name: a TFDS name, as "imagenet2012" or "imagenet2012:5.1.0".
        data_dir: where TFDS keeps its data sets; default: TFDS's own place.
        manual_dir: a folder of the files that the user has downloaded by hand, as ImageNet's
            archives. A data set that is not prepared is then prepared from them, as TFRecord files
            in `data_dir`, all or nothing; of one that is, the folder is not looked at.

    Raises:
        ValueError: no such data set, or not prepared, and the sentence says how to prepare it; or
            it cannot be prepared from `manual_dir`.
    """
    data_dir = os.path.expanduser(data_dir) if data_dir else None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise ValueError(_why_not_opened(name, error)) from error
    if builder.is_prepared():
        if manual_dir:
            where = builder.data_dir
            logger.warning("%s is prepared in %s; --manual_dir is not needed.", name, where)
        return builder
    if not manual_dir:  # the builder's splits would be empty rather than an error
        raise ValueError(
            f"The TFDS data set {name} is not prepared in {builder.data_dir}; "
            f"{_how_to_prepare(builder, name, data_dir)}"
        )
    _prepare(builder, name, data_dir, os.path.expanduser(manual_dir))
    return builder


def _prepare(builder, name, data_dir, manual_dir):
    """Prepares a data set in a temporary folder, which in the end is renamed.

    Raises:
        ValueError: it is not made of such files, or they are not in `manual_dir`.
    """
    expected = _manual_files(builder)
    if not expected:
        raise ValueError(
            f"The TFDS data set {name} is not made of files downloaded by hand, so it takes no "
            f"--manual_dir; {_how_to_prepare(builder, name, data_dir)}"
        )
    if not os.path.isdir(manual_dir):
        raise ValueError(f"There is no folder {manual_dir} (--manual_dir). TFDS asks: {expected}")
    # Otherwise TFDS would look for a copy in Google's cloud first.
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder.download_and_prepare(
            download_config=config, file_format=tfds.core.FileFormat.TFRECORD
        )
    except Exception as error:  # the data set's own script runs here and may raise anything
        raise ValueError(
            f"TFDS cannot prepare the data set {name} from {manual_dir} (--manual_dir): "
            f"{_first_line(error)} TFDS asks: {expected}"
        ) from error


def _how_to_prepare(builder, name, data_dir):
    command = f"tfds build {name}" + (f" --data_dir={data_dir}" if data_dir else "")
    expected = _manual_files(builder)
    if not expected:
        return f"prepare it with `{command}`."
    return (
        f"prepare it with `{command} --manual_dir=FOLDER`, or give --manual_dir=FOLDER here. "
        f"TFDS asks of this folder: {expected}"
    )


def _manual_files(builder):
    """What TFDS says of the files to download by hand, on one line; empty if there are none."""
    return " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())


def _why_not_opened(name, error):
    if os.path.isdir(os.path.expanduser(name)):
        return f"{name} is a folder; write folder:{name} to read images from it."
    if not isinstance(error, tfds.core.DatasetNotFoundError):
        return f"TFDS cannot open the data set {name}: {_first_line(error)}"
    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return (
        f"There is no data set {name!r}: give digits, folder:PATH or the name of a TFDS data set"
        f"{hint}"
    )


def _first_line(error):
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
