"""The folder of an export: what may be replaced in it, and how it gets its files."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile

import filelock
import tensorflow as tf

from pit_keras.export.export_report import REPORT_FILE
from pit_keras.export.formats import FORMATS
from pit_keras.export.model_card import CARD_FILE, MARK
from pit_keras.export.sidecars import CLASSES_FILE

# A folder is an export's if it has the card: written first, removed last.
TEXTS = (CARD_FILE, CLASSES_FILE, REPORT_FILE)
_PREFIX = ".export-"
_LOCK = ".export.lock"


def check_targets(output_dir, formats, overwrite=False):
    """Checks that `formats` can be exported to a folder; leaves no trace.

    What an export did not write is never replaced, what one did only with `overwrite`.
    """
    output_dir = pathlib.Path(output_dir)
    targets = [output_dir / FORMATS[name].target for name in formats]
    for target in targets:
        if os.path.lexists(target) and not overwrite:
            raise FileExistsError(
                f"{target} exists already; replace it with --overwrite, or choose another folder "
                "with --output_dir."
            )
    for path in filter(os.path.lexists, _foreign(output_dir, targets)):
        raise FileExistsError(
            f"{path} was not written by pit-keras export; move it away, or choose another folder "
            "with --output_dir."
        )
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=existing, prefix=".check-").cleanup()
    except OSError as error:
        raise OSError(f"{existing} cannot be written to: {error.strerror}.") from error


def _foreign(output_dir, targets):
    """Paths that, if they exist, an export did not write."""
    card = output_dir / CARD_FILE
    if not (card.is_file() and card.read_text("utf-8", errors="replace").startswith(MARK)):
        yield from (output_dir / name for name in TEXTS)
    for target in targets:
        if target.parent != output_dir and not _is_folder(target.parent):
            yield target.parent
        is_version = target.name.isdecimal() and (target / "saved_model.pb").is_file()
        if _is_folder(target) and not is_version:
            yield target


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def exclusive_folder(output_dir):
    """Keeps other exports out of a folder, which is made if it is missing.

    Gives a temporary folder in it, and removes those that killed exports have left.
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
        with tempfile.TemporaryDirectory(dir=output_dir, prefix=_PREFIX) as folder:
            yield pathlib.Path(folder)
    finally:
        (output_dir / _LOCK).unlink(missing_ok=True)
        lock.release()
        if is_new and not any(output_dir.iterdir()):
            output_dir.rmdir()


def put_in_place(folder, output_dir, written, removed):
    """Moves the relative paths `written` and `TEXTS` from a temporary folder to an export's.

    Those in `removed` go. The texts are removed first and moved last: whenever this ends, they say
    nothing that is not so.
    """
    for name in reversed(TEXTS):
        (output_dir / name).unlink(missing_ok=True)
    for number, path in enumerate(removed):
        target = output_dir / path
        if os.path.lexists(target):
            os.replace(target, folder / f"removed{number}")
            if target.parent != output_dir and not any(target.parent.iterdir()):
                target.parent.rmdir()
    for path in (*written, *TEXTS):
        (output_dir / path).parent.mkdir(exist_ok=True)
        try:
            move_into_place(folder / path, output_dir / path)
        except OSError as error:
            raise OSError(
                f"{output_dir / path} cannot be replaced ({error.strerror}). The folder is left "
                "without a report; export once more with --overwrite."
            ) from error


def move_into_place(source, target):
    """Moves a file or folder to a path of the same file system.

    A file replaces a file in one step. A folder that is there already is moved aside first, beside
    `source`, and comes back if the move fails.
    """
    try:
        os.replace(source, target)
    except OSError:
        if not os.path.lexists(target):
            raise
        aside = source.with_name(f"{source.name}.replaced")
        os.replace(target, aside)
        try:
            os.replace(source, target)
        except OSError:
            os.replace(aside, target)
            raise


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
    """Turns an error of TensorFlow or the system, such as a full disk, into one sentence."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        sentence = f"{name} cannot be written, nothing was exported: {error}"
        raise OSError(sentence) from error
