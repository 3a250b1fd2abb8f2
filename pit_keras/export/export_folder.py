"""The folder of an export: what may be replaced in it, and how it gets its files."""

import contextlib
import ctypes
import errno
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile

import filelock
import tensorflow as tf

from pit_keras.export.export_report import REPORT_FILE
from pit_keras.export.formats import FORMATS
from pit_keras.export.model_card import CARD_FILE, is_model_card
from pit_keras.export.sidecars import CLASSES_FILE

# By the card a folder is known as an export's: it comes before the others and goes after them.
TEXTS = (CARD_FILE, CLASSES_FILE, REPORT_FILE)
_PREFIX = ".export-"
_LOCK = ".export.lock"
_AT_FDCWD = -100  # paths are relative to the current folder
_RENAME_EXCHANGE = 2


def check_targets(output_dir, formats, overwrite=False):
    """Checks, before long work, that a model can be exported to a folder; leaves no trace.

    Args:
        output_dir: The folder, which may be missing.
        formats: Names in `FORMATS`.
        overwrite: Whether to replace what is there.

    Raises:
        FileExistsError: If a target exists and is not to be overwritten, or a file or folder is
            there that an export does not write.
        OSError: If the folder is a file or cannot be written to.
    """
    output_dir = pathlib.Path(output_dir)
    if os.path.lexists(output_dir) and not output_dir.is_dir():
        raise NotADirectoryError(f"{output_dir} is a file; the exported models need a folder.")
    for name in formats:
        _check_target(output_dir, FORMATS[name].target, overwrite)
    card = output_dir / CARD_FILE
    ours = card.is_file() and is_model_card(card.read_text(encoding="utf-8", errors="replace"))
    for text in (output_dir / name for name in TEXTS):
        if os.path.lexists(text) and not ours:
            raise FileExistsError(
                f"{text} was not written by pit-keras export, which writes a file of that name; "
                "choose another folder with --output_dir."
            )
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    with _temporary_folder(existing, ".check-"):
        pass


def _check_target(output_dir, path, overwrite):
    target, folder = output_dir / path, (output_dir / path).parent
    is_wrong = folder != output_dir and (folder.is_symlink() or not folder.is_dir())
    if os.path.lexists(folder) and is_wrong:
        raise FileExistsError(
            f"{folder} is in the way of a folder of the export; move it away, or choose another "
            "folder with --output_dir."
        )
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise FileExistsError(
            f"{target} exists already; replace it with --overwrite, or choose another folder with "
            "--output_dir."
        )
    is_folder = target.is_dir() and not target.is_symlink()
    is_model = (target / "saved_model.pb").is_file()
    if is_folder and not (is_model and target.name.isdecimal()):
        raise FileExistsError(
            f"{target} is a folder that pit-keras export did not write; move it away, or choose "
            "another folder with --output_dir."
        )


@contextlib.contextmanager
def exclusive_folder(output_dir):
    """Keeps other exports out of a folder, which is made if it is missing.

    Gives a temporary folder in it, and removes those that killed exports have left.

    Raises:
        OSError: If another export is writing to the folder, or it cannot be written to.
    """
    is_new = not output_dir.exists()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(output_dir / _LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OSError(f"Another process is exporting to {output_dir}; wait for it.") from None
    except OSError as error:
        raise OSError(f"{output_dir} cannot be written to: {error.strerror}.") from error
    try:
        for leftover in output_dir.glob(f"{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with _temporary_folder(output_dir, _PREFIX) as folder:
            yield folder
    finally:
        (output_dir / _LOCK).unlink(missing_ok=True)
        lock.release()
        if is_new and not any(output_dir.iterdir()):
            output_dir.rmdir()


@contextlib.contextmanager
def _temporary_folder(parent, prefix):
    try:
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=prefix)
    except OSError as error:
        raise OSError(f"{parent} cannot be written to: {error.strerror}.") from error
    with folder as path:
        yield pathlib.Path(path)


def put_in_place(folder, output_dir, written, removed):
    """Moves files and folders from a temporary folder to an export's.

    The texts are removed first and moved last: whenever this ends, they say nothing that is not so.

    Args:
        folder: The temporary one, which holds `written` and `TEXTS`.
        output_dir: The export's.
        written: Relative paths of what is to be moved.
        removed: Relative paths of what is to go.

    Raises:
        OSError: If one of them cannot be moved.
    """
    for name in reversed(TEXTS):
        (output_dir / name).unlink(missing_ok=True)
    for path in removed:
        if os.path.lexists(output_dir / path):
            os.replace(output_dir / path, folder / "removed")
            _remove_if_empty((output_dir / path).parent, output_dir)
    for path in (*written, *TEXTS):
        (output_dir / path).parent.mkdir(exist_ok=True)
        try:
            move_into_place(folder / path, output_dir / path)
        except OSError as error:
            raise OSError(
                f"{output_dir / path} cannot be replaced ({error.strerror}). What was moved before "
                "it is new; export once more, and the report tells of all."
            ) from error


def _remove_if_empty(folder, output_dir):
    if folder != output_dir and not any(folder.iterdir()):
        folder.rmdir()


def move_into_place(source, target):
    """Moves a file or folder to a path of the same file system; what was there takes its place.

    On Linux a folder is exchanged for another in one step. Elsewhere only files are replaced in
    one; a folder is moved aside first, and comes back if its successor cannot be moved.

    Args:
        source: What is to be moved. If something was at `target`, it lies here afterwards, unless
            both are files.
        target: Where to.

    Raises:
        OSError: If it cannot be moved; `target` is as it was.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    is_file = source.is_file() and not (target.is_dir() and not target.is_symlink())
    if is_file or not os.path.lexists(target):
        os.replace(source, target)
    elif not _exchanged(source, target):
        aside = source.with_name(f"{source.name}.replaced")
        os.replace(target, aside)
        try:
            os.replace(source, target)
        except OSError:
            os.replace(aside, target)
            raise
        os.replace(aside, source)


def _exchanged(source, target):
    """Exchanges two paths in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    try:
        exchange = ctypes.CDLL(None).renameat2
    except AttributeError:  # a C library older than 2018, or another one
        return False
    paths = os.fsencode(source), os.fsencode(target)
    return exchange(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


def size_of(path):
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in _files(path))


def digest_of(path):
    """sha256 of a file, or of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for file in _files(path):
        if file != path:
            digest.update(str(file.relative_to(path)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in files if file.is_file())


@contextlib.contextmanager
def explained(name):
    """Turns what TensorFlow and the system say of a full disk into one sentence."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        full = os.strerror(errno.ENOSPC)
        if full in reason:
            reason = f"{full} there or in {tempfile.gettempdir()}, where conversions keep files"
        elif os.strerror(errno.EFBIG) in reason:
            reason = os.strerror(errno.EFBIG)
        raise OSError(f"{name} cannot be written, nothing was exported: {reason}.") from error
