"""The checkpoints of a run as files: written whole or not at all, and checked when they are read.

A checkpoint is one `.npz` file, an archive of arrays that NumPy reads anywhere. The archive has a
checksum (CRC-32) of every array, which reading verifies.
"""

import io
import re

import numpy as np

from pit_keras.runs.run_folder import explained, replacing

_NAME = re.compile(r"step-(\d+)\.npz")


class DamagedCheckpointError(OSError):
    """A checkpoint file that cannot be read."""


class Checkpoints:
    """The newest checkpoints of a run, `step-00001234.npz`, and that of its best epoch, `best.npz`.

    Args:
        folder: A `pathlib.Path`, made when the first checkpoint is written.
        keep: How many of the newest are kept, two or more: one is whole whenever the process ends.
    """

    def __init__(self, folder, keep):
        self.folder, self.keep = folder, keep
        self.best = folder / "best.npz"

    @property
    def paths(self):
        """The checkpoints by their steps, the newest last."""
        named = [path for path in self.folder.glob("step-*.npz") if _NAME.fullmatch(path.name)]
        return sorted(named, key=lambda path: int(_NAME.fullmatch(path.name)[1]))

    def write(self, step, arrays):
        """Writes the checkpoint of a step, {name: array}, and removes those beyond `keep`.

        Returns:
            Its path.

        Raises:
            OSError: If it cannot be written; the older ones are untouched then.
        """
        path = self.folder / f"step-{step:08d}.npz"
        write_arrays(path, arrays)
        for older in self.paths[: -self.keep]:
            older.unlink()
        return path

    def read_newest(self):
        """The newest checkpoint that can be read: (path, arrays), or (None, None) if there is none.

        Damaged ones are named and passed over.

        Raises:
            OSError: If all are damaged: no run starts over without being asked to.
        """
        paths = self.paths
        for path in reversed(paths):
            try:
                return path, read_arrays(path)
            except DamagedCheckpointError as error:
                print(error)
        if paths:
            raise OSError(
                f"None of the checkpoints in {self.folder} can be read; use another --output_dir."
            )
        return None, None


def write_arrays(path, arrays):
    """Writes arrays to an `.npz` file, whole or not at all."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path):
    """The arrays of an `.npz` file; a `DamagedCheckpointError` if it cannot be read as a whole."""
    try:
        return unpacked(path.read_bytes())
    except Exception as error:  # NumPy and zipfile have no error of their own for damage
        raise DamagedCheckpointError(f"Checkpoint {path} cannot be read ({error}).") from error


def packed(arrays):
    """Arrays as the bytes of an `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content):
    """The inverse of `packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
