"""The released ImageNet checkpoints on the Hugging Face Hub: fetched, checked, converted, kept.

Converted checkpoints lie in the Keras cache: safetensors files in Keras' layout. They are mapped
into memory instead of read, so that a large model loads about as fast as its bytes can be copied
once; the safetensors package copies them twice.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tempfile
import warnings
import zlib

import keras
import numpy as np

from pit_keras.weights.recognition import Checkpoint

IMAGENET = "imagenet"
FILE = "model.safetensors"
_LENGTH = np.dtype("<u8")  # of the header, which a safetensors file begins with
_FORMAT = "pit_keras 1"


@dataclasses.dataclass(frozen=True)
class Release:
    """Where a checkpoint is published.

    Attributes:
        repository: Its repository on the Hub.
        revision: The commit, or "main" where none is known to us.
        sha256: Hash of its file, or None where it is not known to us. What the Hub itself says of
            the file is checked in any case.
    """

    repository: str
    revision: str = "main"
    sha256: str | None = None

    @property
    def url(self):
        """What a browser would download."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{FILE}"


# PiT: the authors' weights. ViT: DeiT's. RegNetY: DeiT's teacher. ResNet50: torchvision's first,
# trained without augmentation beyond crop and flip, as the network that the paper starts from.
RELEASES = {
    "pit_ti": Release("timm/pit_ti_224.in1k"),
    "pit_xs": Release("timm/pit_xs_224.in1k"),
    "pit_s": Release(
        "timm/pit_s_224.in1k",
        "88da355730fe1d3c8297764044bfcc4030daa3af",
        "b6aeba8ea152ff6226e5a60a5e4f10b280848b101d91d4a37f07aa1e5c9ea6ac",
    ),
    "pit_b": Release("timm/pit_b_224.in1k", "09dba82c074a24ef47b667c050b61b846e6d862c"),
    "pit_ti_distilled": Release(
        "timm/pit_ti_distilled_224.in1k", "98eca93f918d033bed5f0bfc29ae7fc13a10a7ca"
    ),
    "pit_xs_distilled": Release("timm/pit_xs_distilled_224.in1k"),
    "pit_s_distilled": Release(
        "timm/pit_s_distilled_224.in1k",
        "703229660e21ebc781d4a260f39af1e17998c176",
        "1c631564152ba54e6f78143a8ecffc756b91f4dd7f9e527bcb9faacca02e21b3",
    ),
    "pit_b_distilled": Release("timm/pit_b_distilled_224.in1k"),
    "vit_ti": Release(
        "timm/deit_tiny_patch16_224.fb_in1k",
        "80e968688553f219e4a86f940ed945a23709c16f",
        "21d4764d94f6c3ffdb6da3581115a0a1ee2d505537d96883b540e54766407c9e",
    ),
    "vit_s": Release(
        "timm/deit_small_patch16_224.fb_in1k",
        "91327a9c99f98fe6b524cd4d397b7226b80e1365",
        "1e747b4a8d0df2cfbd3c450e8c97685d867448ab0c2ddbfb34b6885f5cb23e5b",
    ),
    "vit_b": Release(
        "timm/deit_base_patch16_224.fb_in1k",
        "b78cc5532a69df6bcad9c3a8d76653fd20b31ac6",
        "cd2da27b74ed7f68b599f16c77af3e1e80f01c75f9ad96029d22ce747a247e8e",
    ),
    "vit_ti_distilled": Release(
        "timm/deit_tiny_distilled_patch16_224.fb_in1k",
        "4decab5416aad52836ffd48b5b7e5cfb78641d8d",
    ),
    "vit_s_distilled": Release(
        "timm/deit_small_distilled_patch16_224.fb_in1k",
        "4150668d0839f2da591b2fc5659764c796148243",
    ),
    "vit_b_distilled": Release("timm/deit_base_distilled_patch16_224.fb_in1k"),
    "regnety_160": Release("timm/regnety_160.deit_in1k"),
    "resnet50": Release(
        "timm/resnet50.tv_in1k",
        "aa6c2d36d56bc0209040c02b5a7b7d7bf11d57b8",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    ),
}


def release_of(name):
    """The release of a model.

    Raises:
        ValueError: If there is none; it lists the models that have one.
    """
    if name not in RELEASES:
        raise ValueError(
            f"There are no released weights for {name}; there are for "
            f"{', '.join(sorted(RELEASES))}."
        )
    return RELEASES[name]


def cache_folder():
    """`pit_keras` in Keras' own folder: `$KERAS_HOME`, or else `~/.keras`."""
    # Keras has no public function for it, and reads the variable once, when it is imported.
    home = os.environ.get("KERAS_HOME") or pathlib.Path("~/.keras").expanduser()
    return pathlib.Path(home) / "pit_keras"


def converted_file(name):
    """Where the converted weights of a model are kept. A new revision gets a new file."""
    return cache_folder() / f"{name}-{release_of(name).revision[:12]}.safetensors"


def hand_placed_file(name):
    """Where a checkpoint is looked for that was downloaded by hand."""
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
        try:
            path.unlink(missing_ok=True)
        except OSError as obstacle:
            raise OSError(
                f"{path} cannot be used to keep weights ({obstacle.strerror}); remove what is in "
                "its way, or set KERAS_HOME to another folder."
            ) from error
        warnings.warn(f"{error} It was removed, and is made anew.", stacklevel=2)
        return None


def fetch(name):
    """The checkpoint of a model as released, verified, from the Hub or from this machine.

    It is looked for as `hand_placed_file`, then in the Hub client's own cache, then on the Hub.

    Returns:
        The file, and its provenance: repository, commit and sha256.

    Raises:
        FileNotFoundError: If it is not on this machine, and the Hub cannot be reached.
        ValueError: If the file is not what was released. A download is then removed.
        ImportError: If the Hub's client is needed and not installed.
        OSError: If the disk is full.
    """
    release = release_of(name)
    by_hand = hand_placed_file(name)
    if by_hand.is_file():
        digest = sha256_of(by_hand)
        if release.sha256 not in (None, digest):
            raise ValueError(_altered(by_hand, digest, release.sha256, f"download {release.url}"))
        return by_hand, _provenance(release, release.revision, digest)
    return _download(name, release)


def _provenance(release, commit, digest):
    return {
        "source": f"{release.repository} ({commit[:12]})",
        "repository": release.repository,
        "commit": commit,
        "sha256": digest,
    }


def _download(name, release):
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"Fetching {release.repository} needs the Hub's client: pip install "
            f"'pit_keras[convert]', or {_by_hand(name, release)}"
        ) from error
    try:
        file = hf_hub_download(release.repository, FILE, revision=release.revision)
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"The weights of {name} are not on this machine and {release.repository} cannot be "
            f"reached: {_by_hand(name, release)}"
        ) from None  # four errors of the network's, of which this is the sense
    except OSError as error:  # the Hub's own errors too
        reason = " ".join(str(error).split("\n")[0].split())
        raise OSError(
            f"{release.repository} could not be downloaded ({reason}); if this remains, "
            f"{_by_hand(name, release)}"
        ) from error
    file = pathlib.Path(file)
    expected = release.sha256 or _sha256_according_to_hub(file, release)
    digest = sha256_of(file)
    if digest != expected:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise ValueError(_altered(file, digest, expected, "it was removed; try again"))
    return file, _provenance(release, file.parent.name, digest)


def _by_hand(name, release):
    return f"download {release.url} on another machine and save it here as {hand_placed_file(name)}"


def _altered(file, digest, expected, remedy):
    return (
        f"{file} is truncated or altered: its sha256 is {digest[:12]}... instead of "
        f"{expected[:12]}...; {remedy}."
    )


def _sha256_according_to_hub(file, release):
    """The hash that the Hub gave for the file: the name under which its client stores it."""
    stored_as = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stored_as):
        return stored_as
    # Without symbolic links (on Windows) the client does not keep it; ask again.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(release.repository, FILE, revision=file.parent.name)
    return get_hf_file_metadata(url).etag


def sha256_of(path):
    """The file's sha256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_converted(path, checkpoint, provenance):
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


def read_converted(path):
    """The checkpoint in a file that `write_converted` wrote, and its provenance.

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
