"""The released ImageNet checkpoints on the Hugging Face Hub: fetched, checked, converted, kept.

Converted checkpoints are safetensors files in Keras' layout in the Keras cache. They are mapped
into memory, so that a large model loads about as fast as its bytes can be copied once; the
safetensors package copies them twice.
"""

import contextlib
import csv
import hashlib
import importlib.resources
import json
import os
import pathlib
import re
import tempfile
import warnings
import zlib
from typing import NamedTuple

import keras
import numpy as np

from pit_keras.errors import undone_at_the_end
from pit_keras.waits import paused, waiting
from pit_keras.weights.recognition import Checkpoint

IMAGENET = "imagenet"
FILE = "model.safetensors"
_LENGTH = np.dtype("<u8")  # of the header, which a safetensors file begins with
_FORMAT = "pit_keras 1"


class Release(NamedTuple):
    """Where a checkpoint is published. The hash that the Hub names is checked in any case."""

    repository: str  # on the Hub
    revision: str  # the commit, or "main" where it is not known
    sha256: str  # of the file; empty where it is not known

    @property
    def url(self):
        """The address for a download with a browser."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{FILE}"


# PiT: the authors' weights. ViT: DeiT's. RegNetY: DeiT's teacher. ResNet50: torchvision's first,
# trained without augmentation beyond crop and flip, as the network that the paper starts from.
_TABLE = importlib.resources.files("pit_keras.weights").joinpath("releases.csv").read_text()
RELEASES = {row.pop("model"): Release(**row) for row in csv.DictReader(_TABLE.splitlines())}


def release_of(name):
    """The `Release` of a model; a ValueError that lists the models if it has none."""
    if name not in RELEASES:
        raise ValueError(
            f"There are no released weights for {name}; there are for "
            f"{', '.join(sorted(RELEASES))} (a model with a name of its own gets them by "
            "create_model(VARIANT, weights='imagenet', name=...))."
        )
    return RELEASES[name]


def cache_folder():
    """`pit_keras` in Keras' own folder: `$KERAS_HOME`, or else `~/.keras`."""
    # Keras has no public function for it, and reads the variable once, when it is imported.
    home = os.environ.get("KERAS_HOME") or pathlib.Path("~/.keras").expanduser()
    return pathlib.Path(home) / "pit_keras"


def converted_file(name):
    """The file of a model's converted weights. A new revision gets a new file."""
    return cache_folder() / f"{name}-{release_of(name).revision[:12]}.safetensors"


def hand_placed_file(name):
    """The file for a checkpoint that was downloaded by hand."""
    repository = release_of(name).repository.split("/")[1]
    return cache_folder() / f"{repository}.{FILE}"


def from_cache(name):
    """The converted checkpoint of a model from the cache, or None; a damaged file is removed."""
    path = converted_file(name)
    try:
        return read_converted(path)[0]
    except FileNotFoundError:
        return None
    except ValueError as error:
        path.unlink(missing_ok=True)
        warnings.warn(f"{error} It was removed, and is made anew.", stacklevel=2)
        return None


def fetch(name):
    """The released file of a model, verified, and its provenance: repository, commit and sha256.

    It is looked for as `hand_placed_file`, then in the Hub client's own cache, then on the Hub.
    """
    release, file = release_of(name), hand_placed_file(name)
    commit, expected, remedy = release.revision, release.sha256, f"download {release.url}"
    by_hand = file.is_file()
    if not by_hand:
        file = _download(name, release)
        commit, remedy = file.parent.name, "it was removed; try again"
        expected = expected or _sha256_according_to_hub(file, release)
    digest = _sha256_of(file)
    if expected not in ("", digest):
        if not by_hand:
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        raise ValueError(
            f"{file} is truncated or altered: its sha256 is {digest[:12]}... instead of "
            f"{expected[:12]}...; {remedy}."
        )
    source = f"{release.repository} ({commit[:12]})"
    provenance = {"repository": release.repository, "commit": commit, "sha256": digest}
    return file, {"source": source, **provenance}


def _download(name, release):
    by_hand = (
        f"download {release.url} on another machine and save it here as {hand_placed_file(name)}"
    )
    try:
        from huggingface_hub import hf_hub_download, hf_hub_url
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"Fetching {release.repository} needs the Hub's client: pip install "
            f"'pit_keras[convert]', or {by_hand}"
        ) from error
    repository, revision = release.repository, release.revision
    with waiting(f"Looking for {repository} on the Hugging Face Hub"):
        offline = not _answers(hf_hub_url(repository, FILE, revision=revision))
    try:
        with paused():  # the client has a bar of its own
            return pathlib.Path(
                hf_hub_download(repository, FILE, revision=revision, local_files_only=offline)
            )
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"The weights of {name} are not on this machine and {release.repository} cannot be "
            f"reached: {by_hand}"
        ) from None  # after four errors of the network that say the same
    except OSError as error:  # the Hub's own errors too
        reason = " ".join(str(error).split("\n")[0].split())
        raise OSError(
            f"{release.repository} could not be downloaded ({reason}); if this remains, {by_hand}"
        ) from error


def _answers(url):
    """Whether the Hub answers at all, in two short tries, unlike its client's six."""
    from huggingface_hub.utils import get_session

    for _ in range(2):
        # Each version of the client has other errors for a network that is not there.
        with contextlib.suppress(Exception):
            get_session().head(url, timeout=5)
            return True
    return False


def _sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sha256_according_to_hub(file, release):
    """The hash that the Hub gave for the file: the name under which its client stores it."""
    stored_as = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stored_as):
        return stored_as
    # Without symbolic links (on Windows) the client does not keep it; ask again.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(release.repository, FILE, revision=file.parent.name)
    return get_hf_file_metadata(url).etag


def write_converted(path, checkpoint, provenance):
    """Writes a converted checkpoint with its provenance, a mapping from words to words.

    No other process ever sees a part of it, and nothing is left behind if there is no room.
    """
    import safetensors.numpy

    values = {
        name: np.asarray(value, "<f4", order="C") for name, value in checkpoint.values.items()
    }
    metadata = {**provenance, "format": _FORMAT, "checksum": _checksum(values)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            undone_at_the_end(),
            tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder,
        ):
            temporary = pathlib.Path(folder, path.name)
            temporary.write_bytes(safetensors.numpy.save(values, metadata))
            os.replace(temporary, path)
    except OSError as error:
        megabytes = sum(value.nbytes for value in values.values()) / 1e6
        raise OSError(
            f"The converted weights ({megabytes:.0f} MB) cannot be written to {path.parent} "
            f"({error.strerror}): make room there, or set KERAS_HOME to another folder."
        ) from error


def read_converted(path):
    """The checkpoint in a file of `write_converted`, and its provenance; ValueError if damaged."""
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
    # JAX may keep the mapped memory itself instead of copying it; a change of the file must not
    # change the model.
    return np.array(value) if keras.backend.backend() == "jax" else value.view(np.ndarray)


def _checksum(values):
    """A sum over all values' bits, and a CRC of names and shapes.

    The sum finds damage at the speed of the memory, which a CRC of 300 MB would not. Neither is a
    defence against intent: who can write the file can write its checksum.
    """
    total = sum(map(_sum_of_bits, values.values()))
    names = sorted((name, tuple(value.shape)) for name, value in values.items())
    return f"{total % 2**64:016x}{zlib.crc32(repr(names).encode()):08x}"


def _sum_of_bits(value):
    numbers = value.reshape(-1).view("<u4")
    even = numbers.size - numbers.size % 2
    pairs = numbers[:even].view("<u8")
    return int(pairs.sum(dtype=np.uint64)) + int(numbers[even:].sum(dtype=np.uint64))
