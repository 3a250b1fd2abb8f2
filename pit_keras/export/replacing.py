"""Putting files and folders in their place, so that a reader sees the old ones or the new."""

import ctypes
import os
import pathlib
import sys

_AT_FDCWD = -100  # paths are relative to the current folder
_RENAME_EXCHANGE = 2


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
