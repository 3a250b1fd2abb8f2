"""The notebook shows features, matching, positions, a detector that learns, and its export."""

import json
import re

import pytest
from executed import execute, execute_in_a_kernel


def check(shown, folder, epochs):
    """Checks what it shows; returns the results of the run and how many objects are served."""
    for line in (
        "stage 1: (1, 49, 74, 64)",
        "stage 2: (1, 25, 37, 128)",
        "stage 3: (1, 25, 37, 256)",
        "position embedding: (1, 27, 27, 64)",
        "logits: (1, 10, 4)",
        "boxes: (1, 10, 4)",
        "costs (1, 1, 2, 4) matches [[[1, 2]]]",
        "cheapest query of each: [1, 1]",
        "'category_id'",
        f"Epoch {epochs}/{epochs}",
    ):
        assert line in shown.text
    results = json.loads((folder / "runs/detection/run/results.json").read_text())
    measured = dict(re.findall(r"^(A[PR]\w*) +(\S+)$", shown.text, re.MULTILINE))
    assert len(measured) == 12
    assert float(measured["AP"]) == results["AP"]
    assert measured["AP_large"] == "None"  # images of 64 x 64 pixels have none
    count, told = re.search(r"^(\d+) objects served\n(\[.*\])$", shown.text, re.MULTILINE).groups()
    assert int(count) == len(re.findall(r"b'\d'", told))
    assert [picture.size for picture in shown.pictures] == [
        (1200, 480),  # costs
        (1920, 225),  # positions
        (1350, 510),  # curves
        (2250, 750),  # three scenes
    ]
    return results, int(count)


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("06_detection", tmp_path, epochs=2), tmp_path, epochs=2)


@pytest.mark.slow
def test_in_a_kernel_it_learns_what_it_says(tmp_path):
    results, count = check(execute_in_a_kernel("06_detection", tmp_path), tmp_path, epochs=100)
    assert results["AP50"] > 0.5
    assert count > 0
