"""The notebook shows a model, trains it, measures it and names pictures."""

import json

from executed import execute


def test_it_runs_and_shows_what_it_says(tmp_path):
    shown = execute("01_quick_start", tmp_path)
    assert "4,847,272 parameters" in shown.text
    assert "[(None, 27, 27, 64), (None, 14, 14, 128), (None, 7, 7, 256)]" in shown.text
    assert "Epoch 8/8" in shown.text
    results = json.loads((tmp_path / "runs/quick_start/results.json").read_text())
    assert results["top1"] > 0.8
    assert f"top-1 {results['top1']:.1%} of 360 images" in shown.text
    page = (tmp_path / "runs/quick_start/report/index.html").read_text()
    assert "<h2>Training</h2>" in page
    curves, predictions = shown.pictures
    assert curves.size == (1350, 510)
    assert predictions.size == (1800, 690)  # ten digits in rows of six
