"""The notebook shows a model, trains it, measures it and names pictures."""

import json

import pytest
from executed import execute, execute_in_a_kernel


def check(shown, folder, epochs):
    """Checks what it shows and writes; returns the results of the run."""
    assert "4,847,272 parameters" in shown.text
    assert "[(None, 27, 27, 64), (None, 14, 14, 128), (None, 7, 7, 256)]" in shown.text
    assert f"Epoch {epochs}/{epochs}" in shown.text
    results = json.loads((folder / "runs/quick_start/results.json").read_text())
    assert f"top-1 {results['top1']:.1%} of 360 images" in shown.text
    page = (folder / "runs/quick_start/report/index.html").read_text()
    assert "<h2>Training</h2>" in page
    curves, predictions = shown.pictures
    assert curves.size == (1350, 510)
    assert predictions.size == (1800, 690)  # ten digits in rows of six
    return results


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("01_quick_start", tmp_path, epochs=2), tmp_path, epochs=2)


@pytest.mark.slow
def test_in_a_kernel_it_learns_what_it_says(tmp_path):
    results = check(execute_in_a_kernel("01_quick_start", tmp_path), tmp_path, epochs=8)
    assert results["top1"] > 0.8
