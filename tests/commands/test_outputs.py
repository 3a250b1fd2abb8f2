"""What commands write on a full disk: nothing half-written, and a sentence that names the file."""

import errno
import os
import stat

import pytest
from matplotlib.figure import Figure

from pit_keras.commands.arguments import write_output
from pit_keras.plots.pictures import save_figure
from pit_keras.weights import loading


class Unsaved:
    """A model that is saved onto a full disk."""

    def save(self, path):
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full(monkeypatch):
    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("results.json", lambda path: write_output(path, "{}")),
        ("picture.png", lambda path: save_figure(Figure(), path)),
        ("model.keras", lambda path: loading._save(Unsaved(), path)),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_nothing_is_left(name, write, full, tmp_path):
    path = tmp_path / name
    with pytest.raises(OSError, match=rf"{name} cannot be written \(No space left on device\)"):
        write(path)
    assert not list(tmp_path.iterdir())
    path.write_text("earlier")
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("")
    link.symlink_to(target)
    write_output(link, "é")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "é"
    write_output("/dev/null", "{}")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
