"""Converted checkpoints in the Keras cache."""

import pathlib
import stat

import numpy as np
import pytest
import safetensors.numpy

from pit_keras.weights.recognition import Checkpoint
from pit_keras.weights.released import cache_folder, read_converted, write_converted

VALUES = {
    "a/kernel": np.arange(12, dtype="float32").reshape(3, 4),
    "a/bias": np.array([1.5], "float32"),
    "b": np.array(2.5, "float32"),
    "c": np.full((5, 1, 3), -1, "float32"),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "x.safetensors"
    write_converted(path, Checkpoint("somewhere", VALUES), {"source": "a hub", "commit": "abc"})
    return path


def test_what_was_written_comes_back(file):
    checkpoint, provenance = read_converted(file)
    assert checkpoint.source == "a hub"
    assert provenance["commit"] == "abc"
    assert set(checkpoint.values) == set(VALUES)
    for path, value in VALUES.items():
        np.testing.assert_array_equal(checkpoint.values[path], value)
        assert checkpoint.values[path].dtype == "float32"
        assert checkpoint.values[path].shape == value.shape


def test_the_file_is_an_ordinary_safetensors_file(file):
    for path, value in safetensors.numpy.load_file(file).items():
        np.testing.assert_array_equal(value, VALUES[path])


def test_every_bit_counts(file):
    intact = file.read_bytes()
    start = 8 + int.from_bytes(intact[:8], "little")
    for position in range(start, len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            read_converted(file)
    file.write_bytes(intact)
    read_converted(file)


def test_names_and_shapes_count_too(file):
    intact = file.read_bytes()
    for old, new in ((b"a/bias", b"a/bear"), (b"[3,4]", b"[4,3]")):
        assert old in intact
        file.write_bytes(intact.replace(old, new))
        with pytest.raises(ValueError, match="its checksum does not match"):
            read_converted(file)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 50, -1, -4, -8])
def test_a_truncated_file_is_refused(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged"):
        read_converted(file)


def test_a_file_of_another_program_is_refused(file):
    safetensors.numpy.save_file(VALUES, file)
    with pytest.raises(ValueError, match="is damaged"):
        read_converted(file)


def test_a_missing_file_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_converted(tmp_path / "none")


def test_a_cache_that_cannot_be_written_is_told_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"\(0 MB\) cannot be written to .*set KERAS_HOME"):
        write_converted(tmp_path / "file/x.safetensors", Checkpoint("somewhere", VALUES), {})
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_the_folder_follows_keras(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "/somewhere")
    assert cache_folder() == pathlib.Path("/somewhere/pit_keras")
    monkeypatch.delenv("KERAS_HOME")
    assert cache_folder() == pathlib.Path.home() / ".keras/pit_keras"
