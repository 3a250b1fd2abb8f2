import os
import signal
import threading
import time

import pytest

from pit_keras.errors import undone_at_the_end
from pit_keras.export.export_folder import (
    TEXTS,
    check_targets,
    exclusive_folder,
    move_into_place,
    put_in_place,
)


def make(path, kind, text):
    """A file or a folder with a file, that holds a text."""
    if kind == "folder":
        path.mkdir()
        path = path / "file"
    path.write_text(text)


def text_of(path):
    return (path / "file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["file", "folder", "link", None])
def test_the_new_takes_the_place_of_the_old(tmp_path, new, old):
    source, target = tmp_path / "source", tmp_path / "target"
    make(source, new, "new")
    if old == "link":
        target.symlink_to("nowhere")
    elif old:
        make(target, old, "old")
    move_into_place(source, target)
    assert text_of(target) == "new"
    assert not target.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} <= {"source.replaced", "target"}


def test_what_cannot_be_moved_leaves_the_old(tmp_path):
    make(tmp_path / "target", "folder", "old")
    with pytest.raises(OSError, match="source"):
        move_into_place(tmp_path / "source", tmp_path / "target")
    assert text_of(tmp_path / "target") == "old"


def test_a_reader_of_a_file_never_finds_it_missing(tmp_path):
    target, missing, done = tmp_path / "target", [], threading.Event()
    make(target, "file", "0")

    def read():
        while not done.is_set():
            if not target.exists():
                missing.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        make(tmp_path / f"new{number}", "file", str(number))
        move_into_place(tmp_path / f"new{number}", target)
    done.set()
    reader.join()
    assert not missing
    assert text_of(target) == "199"


def test_several_files_and_folders_can_be_removed(tmp_path):
    for path in ("saved_model/1", "other/1"):
        (tmp_path / path).parent.mkdir()
        make(tmp_path / path, "folder", "old")
    make(tmp_path / "model.tflite", "file", "old")
    with exclusive_folder(tmp_path) as folder:
        for name in TEXTS:
            make(folder / name, "file", "new")
        put_in_place(folder, tmp_path, [], ["saved_model/1", "model.tflite", "other/1", "missing"])
    assert names_in(tmp_path) == set(TEXTS)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    with pytest.raises(OSError, match="/proc cannot be written to: "):
        check_targets("/proc/new/folder", ("tflite",))
    check_targets(tmp_path / "new" / "folder", ("tflite",))
    assert not names_in(tmp_path)


def test_what_a_killed_export_left_goes_with_the_next(tmp_path):
    (tmp_path / ".export-killed").mkdir()
    (tmp_path / ".export-killed/model.tflite").write_text("half")
    (tmp_path / "other").write_text("mine")
    with exclusive_folder(tmp_path) as folder:
        (folder / "model.tflite").write_text("half")
        assert not (tmp_path / ".export-killed").exists()
    assert names_in(tmp_path) == {"other"}


def test_sigterm_leaves_nothing_behind(tmp_path):
    def half_an_export():
        with undone_at_the_end(), exclusive_folder(tmp_path / "new") as folder:
            (folder / "model.tflite").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        half_an_export()
    assert not names_in(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
