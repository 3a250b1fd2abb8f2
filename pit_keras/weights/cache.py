"""Converted checkpoints in the Keras cache: safetensors files in Keras' layout.

They are mapped into memory instead of read, so that a large model loads about as fast as its bytes
can be copied once; the safetensors package copies them twice.
"""

import concurrent.futures
import json
import os
import pathlib
import tempfile
import zlib

import keras
import numpy as np

from pit_keras.weights.checkpoint import Checkpoint

_LENGTH = np.dtype("<u8")  # of the header, which a safetensors file begins with
_FORMAT = "pit_keras 1"


def cache_folder():
    """`pit_keras` in Keras' own folder: `$KERAS_HOME`, or else `~/.keras`."""
    # Keras has no public function for it, and reads the variable once, when it is imported.
    home = os.environ.get("KERAS_HOME") or pathlib.Path("~/.keras").expanduser()
    return pathlib.Path(home) / "pit_keras"


def write(path, checkpoint, provenance):
    """Writes a converted checkpoint, so that no other process ever sees a part of it.

    Args:
        path: The file, replaced if it is there.
        checkpoint: A `Checkpoint`.
        provenance: Mapping from words to words: repository, commit and hash that it came from.

    Raises:
        OSError: If there is no room, or no permission. Nothing is left behind.
    """
    import safetensors.numpy

    values = {
        name: np.asarray(value, "<f4", order="C") for name, value in checkpoint.values.items()
    }
    metadata = {**provenance, "format": _FORMAT, "checksum": _checksum(values)}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = safetensors.numpy.save(values, metadata)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            pathlib.Path(temporary).unlink(missing_ok=True)
        megabytes = sum(value.nbytes for value in values.values()) / 1e6
        raise OSError(
            f"The converted weights ({megabytes:.0f} MB) cannot be written to {path.parent} "
            f"({error.strerror}): make room there, or set KERAS_HOME to another folder."
        ) from error


def read(path):
    """The checkpoint in a file that `write` wrote, and its provenance.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is damaged.
    """
    try:
        content = np.memmap(path, np.uint8, "r")
        start = _LENGTH.itemsize + int(content[: _LENGTH.itemsize].view(_LENGTH)[0])
        header = json.loads(content[_LENGTH.itemsize : start].tobytes())
        metadata = header.pop("__metadata__")
        values = {name: _tensor(content[start:], entry) for name, entry in header.items()}
        intact = metadata["format"] == _FORMAT and metadata["checksum"] == _checksum(values)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
    if not intact:
        raise ValueError(f"{path} is damaged (its checksum does not match).")
    return Checkpoint(metadata.get("source", str(path)), values), metadata


def _tensor(body, entry):
    begin, end = entry["data_offsets"]
    value = body[begin:end].view("<f4").reshape(entry["shape"])
    # JAX may keep the mapped memory itself instead of copying it; what happens to the file must
    # not happen to the model.
    return np.array(value) if keras.backend.backend() == "jax" else value.view(np.ndarray)


def _checksum(values):
    """A sum over all values' bits, and a CRC of names and shapes.

    The sum finds damage at the speed of the memory, which a CRC of 300 MB would not. Neither is a
    defence against intent: who can write the file can write its checksum.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:  # NumPy sums without Python's lock
        total = sum(pool.map(_sum_of_bits, values.values()))
    names = sorted((name, tuple(value.shape)) for name, value in values.items())
    return f"{total % 2**64:016x}{zlib.crc32(repr(names).encode()):08x}"


def _sum_of_bits(value):
    numbers = value.reshape(-1).view("<u4")
    even = numbers.size - numbers.size % 2
    pairs = numbers[:even].view("<u8")
    return int(pairs.sum(dtype=np.uint64)) + int(numbers[even:].sum(dtype=np.uint64))
