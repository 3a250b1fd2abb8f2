"""The notebook fine-tunes on a folder that it writes, and the model gets better there."""

import re

from executed import execute


def test_it_runs_and_shows_what_it_says(tmp_path):
    shown = execute("02_fine_tune", tmp_path)
    folder = tmp_path / "runs/fine_tune/folder"
    assert len(list(folder.glob("[0-9]/*.png"))) == 200
    assert "{'train': 160, 'val': 40}" in shown.text
    before, after = re.search(r"top-1 (.*)% before, (.*)% after", shown.text).groups()
    assert float(before) < float(after)
    assert (tmp_path / "runs/fine_tune/report/index.html").exists()
    assert len(shown.pictures) == 2
