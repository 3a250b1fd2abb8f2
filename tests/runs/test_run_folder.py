import csv
import pathlib
import resource
import time
import unicodedata

import forked
import keras
import pytest

from pit_keras.config.fields import Config
from pit_keras.runs.run_folder import RunFolder, read_class_names, replacing, write_atomically

HOLDING = """
import sys, time
from pit_keras.runs.run_folder import RunFolder

with RunFolder(sys.argv[1]).locked():
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def process_that_holds(tmp_path):
    """Starts another process that keeps the lock of `tmp_path / "run"`, until it is killed."""
    script, log = tmp_path / "holding.py", tmp_path / "log.txt"
    script.write_text(HOLDING)
    process = forked.start_script(script, [tmp_path / "run"], log)
    while process.is_alive() and not (log.exists() and log.read_text()):
        time.sleep(0.01)
    assert log.read_text() == "locked\n"
    yield process
    process.kill()
    process.join()


def test_one_process_at_a_time_and_none_after_a_kill(process_that_holds, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with (
        pytest.raises(OSError, match=f"Another process is training in {folder.path}"),
        folder.locked(),
    ):
        pass

    process_that_holds.kill()
    process_that_holds.join()

    with folder.locked():
        pass


def test_a_folder_with_nothing_but_a_lock_is_empty(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        pass
    folder.check(Config())
    folder.create(Config(), ("a", "b"))
    folder.check(Config())


def test_half_written_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".model.incomplete.keras").write_text("half")
    with RunFolder(tmp_path).locked():
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.fixture
def no_space():
    """Lets no file grow beyond 1 kB, the next best thing to a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, no_space):
    model_file, text_file = tmp_path / "model.keras", tmp_path / "config.json"
    for file in (model_file, text_file):
        file.write_text("before")
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(30)])

    with (
        pytest.raises(OSError, match=rf"{model_file} cannot be written \(.*\)\.$"),
        replacing(model_file) as temporary,
    ):
        model.save(temporary)
    with pytest.raises(OSError, match=rf"{text_file} cannot be written \(.*\)\.$"):
        write_atomically(text_file, "x" * 2000)

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "model.keras": "before",
        "config.json": "before",
    }


def test_history_is_what_its_rows_say(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history([])  # there is none yet
    folder.write_history([{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 2.0}])
    assert folder.history.read_text() == "epoch,loss\n0,0.30000000000000004\n1,2.0\n"
    folder.write_history([])
    assert not folder.history.exists()


def test_unreadable_images_are_listed_whatever_their_names(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_unreadable({})
    assert not folder.unreadable.exists()
    odd_name = 'a/\udcff, "b"\n.png'  # not UTF-8, a comma, quotes and a line break

    folder.write_unreadable({odd_name: 3, "a/2.png": 17})

    with folder.unreadable.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [("3", odd_name), ("17", "a/2.png")]


def test_what_decides_nothing_of_the_result_may_change(tmp_path):
    folder, config = RunFolder(tmp_path), Config()
    folder.create(config, ("a", "b"))
    config.training.keep_checkpoints, config.training.checkpoint_every_steps = 5, 100
    config.training.checkpoint_every_minutes, config.training.log_every_steps = None, 7
    folder.check(config)
    config.training.accumulate = 2
    with pytest.raises(ValueError, match=r"run: training\.accumulate is 1 there and 2 here"):
        folder.check(config)


def test_a_configuration_that_lacks_fields_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    pathlib.Path(folder.config).write_text('{"recipe": "vanilla"}')
    with pytest.raises(ValueError, match=r"config\.json is not a run's configuration: it lacks "):
        folder.read_config()


def test_a_run_does_not_get_other_classes(tmp_path):
    folder, config = RunFolder(tmp_path / "run"), Config()
    folder.create(config, ["cat", "dog"], [3, 7])
    folder.check(config, ("cat", "dog"), (3, 7))
    folder.check(config)
    for names, numbers in ((("dog", "cat"), (3, 7)), (("cat", "dog"), (3, 8)), (("cat",), (3,))):
        with pytest.raises(ValueError, match=r"trained on the classes cat.*another --output_dir"):
            folder.check(config, names, numbers)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\udce9", r"'caf\\udce9' is not UTF-8"),
        ("cat\r", r"'cat\\r' holds a line break"),
        ("cat\u2028fish", r"'cat\\u2028fish' holds a line break"),
        ("\ufeffcat", r"'\\ufeffcat' begins with a mark"),
    ],
)
def test_a_class_whose_name_cannot_come_back_is_refused_before_a_file_is_written(
    tmp_path, name, shown
):
    for folder in (RunFolder(tmp_path / "run"), RunFolder(tmp_path)):
        with pytest.raises(ValueError, match=f"The class name {shown}.*rename the class"):
            folder.check(Config(), ("a", name))
    assert not list(tmp_path.iterdir())


def test_names_that_come_back_may_be_anything_else(tmp_path):
    names = (" grün ", "a b,c'\"", "\u00a0", "\U0001f431", "-x", "100%")
    folder = RunFolder(tmp_path / "run")
    folder.create(Config(), names)
    folder.check(Config(), names)
    assert read_class_names(folder.classes) == names
    decomposed = tuple(unicodedata.normalize("NFD", name) for name in names)
    folder.check(Config(), decomposed)
