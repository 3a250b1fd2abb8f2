"""The notebook fine-tunes on a folder that it writes, and the model gets better there."""

import json
import re

import pytest
from executed import execute, execute_in_a_kernel


def check(shown, folder):
    """Checks what it shows and writes; returns top-1 before and after, in percent."""
    run = folder / "runs/fine_tune"
    assert len(list((run / "folder").glob("[0-9]/*.png"))) == 200
    assert "{'train': 160, 'val': 40}" in shown.text
    before, after = re.search(r"top-1 (.*)% before, (.*)% after", shown.text).groups()
    assert after == f"{100 * json.loads((run / 'run/results.json').read_text())['top1']:.1f}"
    assert (run / "report/index.html").exists()
    assert len(shown.pictures) == 2
    return float(before), float(after)


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("02_fine_tune", tmp_path, epochs=2, fine_tuning_epochs=2), tmp_path)


@pytest.mark.slow
def test_in_a_kernel_it_learns_what_it_says(tmp_path):
    before, after = check(execute_in_a_kernel("02_fine_tune", tmp_path), tmp_path)
    assert before < after
