import forked
import numpy as np
import pytest

from pit_keras.runs.checkpoints import (
    DamagedCheckpointError,
    RunKeeper,
    packed,
    read_arrays,
    unpacked,
    write_arrays,
)
from pit_keras.runs.run_folder import RunFolder

ARRAYS = {
    "model/0000": np.arange(600, dtype="float32").reshape(20, 30),
    "model/0001": np.float32(3.5),
    "optimizer/0000": np.array([2**40], "int64"),
    "flag": np.array(True),
    "progress": np.array('{"epoch": 3}'),
    "nothing": np.zeros((0, 3), "float32"),
}


def check_equal(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_arrays_come_back_as_they_were(tmp_path):
    write_arrays(tmp_path / "new folder" / "a.npz", ARRAYS)
    check_equal(read_arrays(tmp_path / "new folder" / "a.npz"))
    check_equal(unpacked(packed(ARRAYS)))
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["a.npz"]


def test_the_newest_are_kept_in_the_order_of_their_steps(tmp_path):
    keeper = RunKeeper(RunFolder(tmp_path), keep=2, model=None)
    assert keeper.newest() is None
    for step in (8, 9, 10, 123456789):
        keeper.save(step, {"step": np.array(step)})
    assert [path.name for path in keeper.paths] == ["step-00000010.npz", "step-123456789.npz"]
    assert keeper.newest()["step"] == 123456789


def test_any_cut_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    content = path.read_bytes()
    for length in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError, match=r"a\.npz cannot be read"):
            read_arrays(path)


def test_a_changed_byte_is_noticed_wherever_it_matters(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    content, noticed = path.read_bytes(), 0
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            arrays = read_arrays(path)
        except DamagedCheckpointError:
            noticed += 1
        else:
            # Times and such, which nobody reads; or a name, which will be missed.
            for name in arrays.keys() & ARRAYS.keys():
                np.testing.assert_array_equal(arrays[name], ARRAYS[name])
    assert noticed > 200


def test_a_damaged_checkpoint_is_passed_over_and_all_damaged_is_an_error(tmp_path, capsys):
    keeper = RunKeeper(RunFolder(tmp_path), keep=3, model=None)
    paths = [keeper.save(step, {"step": np.array(step)}) for step in (1, 2, 3)]
    for path in paths[1:]:
        path.write_bytes(b"PK")
    assert keeper.newest()["step"] == 1
    assert capsys.readouterr().out.count("cannot be read") == 2
    paths[0].write_bytes(b"")
    with pytest.raises(OSError, match=r"None of the checkpoints in .* can be read"):
        keeper.newest()


FULL_DISK = """
import resource, signal
import numpy as np
from pit_keras.runs.checkpoints import RunKeeper
from pit_keras.runs.run_folder import RunFolder

keeper = RunKeeper(RunFolder("."), keep=2, model=None)
for step in (1, 2, 3):
    keeper.save(step, {"a": np.zeros(1000)})
# No file may grow beyond this: what is written fails in the middle, as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    keeper.save(4, {"a": np.zeros(10000)})
except OSError as error:
    print(error)
"""


def test_a_disk_that_is_full_costs_nothing_that_was_saved(tmp_path):
    process = forked.run_code(FULL_DISK, tmp_path)
    assert process.returncode == 0, process.stderr
    assert "step-00000004.npz cannot be written (File too large)" in process.stdout
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in files] == ["step-00000002.npz", "step-00000003.npz"]
    read_arrays(files[-1])
