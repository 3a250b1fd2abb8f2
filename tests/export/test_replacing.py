import os
import threading

import pytest

from pit_keras.export import export_folder
from pit_keras.export.export_folder import move_into_place


def make(path, kind, text):
    """A file or a folder with a file, that holds a text."""
    if kind == "folder":
        path.mkdir()
        path = path / "file"
    path.write_text(text)


def text_of(path):
    return (path / "file" if path.is_dir() else path).read_text()


@pytest.fixture(params=["in one step", "by way of another name"])
def way(request, monkeypatch):
    if request.param == "by way of another name":  # as on other systems than Linux
        monkeypatch.setattr(export_folder.sys, "platform", "other")


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["file", "folder", "link", None])
def test_the_new_takes_the_place_of_the_old(tmp_path, way, new, old):
    source, target = tmp_path / "source", tmp_path / "target"
    make(source, new, "new")
    if old == "link":
        target.symlink_to("nowhere")
    elif old:
        make(target, old, "old")
    move_into_place(source, target)
    assert text_of(target) == "new"
    assert not target.is_symlink()
    if os.path.lexists(source) and old != "link":
        assert text_of(source) == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "target"}


def test_what_cannot_be_moved_leaves_the_old(tmp_path, way):
    make(tmp_path / "target", "folder", "old")
    with pytest.raises(OSError, match="source"):
        move_into_place(tmp_path / "source", tmp_path / "target")
    assert text_of(tmp_path / "target") == "old"


def test_a_reader_of_a_folder_never_finds_it_missing(tmp_path):
    target, missing, done = tmp_path / "target", [], threading.Event()
    make(target, "folder", "0")

    def read():
        while not done.is_set():
            if not target.exists():
                missing.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        make(tmp_path / f"new{number}", "folder", str(number))
        move_into_place(tmp_path / f"new{number}", target)
    done.set()
    reader.join()
    assert not missing
    assert text_of(target) == "199"
