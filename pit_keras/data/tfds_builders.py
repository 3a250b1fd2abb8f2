"""Data sets of TensorFlow Datasets (TFDS): finding them, preparing those whose files the user has.

Nothing is downloaded, except what a data set prepared from a `manual_dir` asks for besides.
"""

import difflib
import logging
import os

import tensorflow_datasets as tfds

logger = logging.getLogger(__name__)


def prepared_info(name, data_dir=None, manual_dir=None):
    """The `DatasetInfo` of a data set that is prepared as TFRecord files.

    A data set that is not prepared yet is prepared, all or nothing, from `manual_dir`, a folder of
    files that the user has downloaded by hand, such as ImageNet's archives; where it cannot be, a
    ValueError says why.
    """
    data_dir = os.path.expanduser(data_dir) if data_dir else None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise ValueError(_why_not_opened(name, error)) from error
    if not builder.is_prepared():  # its splits would be empty rather than an error
        _prepare(builder, name, data_dir, manual_dir)
    elif manual_dir:
        logger.warning("%s is prepared; --manual_dir is not needed.", builder.data_dir)
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"The TFDS data set {name} is stored as {builder.info.file_format.value}; prepare it "
            "with `--file_format=tfrecord`."
        )
    return builder.info


def _prepare(builder, name, data_dir, manual_dir):
    """Prepares a data set in a temporary folder, which TFDS renames in the end."""
    # TFDS's own words on the files to download by hand, on one line.
    wanted = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    command = f"tfds build {name}" + (f" --data_dir={data_dir}" if data_dir else "")
    problem = f"The TFDS data set {name} is not prepared in {builder.data_dir}"
    if not wanted:
        remedy = ", which needs no --manual_dir" if manual_dir else ""
        raise ValueError(f"{problem}; run `{command}`{remedy}.")
    if not manual_dir:
        raise ValueError(
            f"{problem}; run `{command} --manual_dir=FOLDER`, or train with --manual_dir=FOLDER. "
            f"TFDS asks: {wanted}"
        )
    manual_dir = os.path.expanduser(manual_dir)
    if not os.path.isdir(manual_dir):
        raise ValueError(f"There is no folder --manual_dir={manual_dir}. TFDS asks: {wanted}")
    # Otherwise TFDS would look for a copy in Google's cloud first.
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder.download_and_prepare(
            download_config=config, file_format=tfds.core.FileFormat.TFRECORD
        )
    except Exception as error:  # the data set's own script runs here and may raise anything
        raise ValueError(
            f"{name} cannot be prepared from --manual_dir={manual_dir}: {_first_line(error)} TFDS "
            f"asks: {wanted}"
        ) from error


def _why_not_opened(name, error):
    if os.path.isdir(os.path.expanduser(name)):
        return f"{name} is a folder; write folder:{name} to read images from it."
    if not isinstance(error, tfds.core.DatasetNotFoundError):
        return f"TFDS cannot open the data set {name}: {_first_line(error)}"
    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name, known, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "give digits, folder:PATH or a TFDS name."
    )
    return f"There is no data set {name!r}; {hint}"


def _first_line(error):
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
