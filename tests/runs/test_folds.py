"""The summary of a cross-validation."""

import json

import pytest

from pit_keras.runs.folds import write_folds


def test_mean_and_deviation_over_the_folds(tmp_path):
    results = [{"top1": 0.5, "loss": 2.0, "images": 4}, {"top1": 0.9, "loss": 1.0, "images": 3}]
    summary = write_folds(tmp_path, results)
    assert summary["mean"] == pytest.approx({"top1": 0.7, "loss": 1.5})
    assert summary["deviation"] == pytest.approx({"top1": 0.08**0.5, "loss": 0.5**0.5})
    assert (summary["images"], summary["folds"]) == (7, results)
    assert json.loads((tmp_path / "folds.json").read_text()) == summary
