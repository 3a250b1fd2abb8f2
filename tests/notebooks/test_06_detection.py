"""The notebook shows features, matching, positions, a detector that learns, and its export."""

import json
import re

from executed import execute


def test_it_runs_and_shows_what_it_says(tmp_path):
    shown = execute("06_detection", tmp_path)
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
        "Epoch 100/100",
    ):
        assert line in shown.text
    results = json.loads((tmp_path / "runs/detection/run/results.json").read_text())
    assert results["AP50"] > 0.5
    measured = dict(re.findall(r"^(A[PR]\w*) +(\S+)$", shown.text, re.MULTILINE))
    assert len(measured) == 12
    assert float(measured["AP"]) == results["AP"]
    assert measured["AP_large"] == "None"  # images of 64 x 64 pixels have none
    count, told = re.search(r"^(\d+) objects served\n(\[.*\])$", shown.text, re.MULTILINE).groups()
    assert int(count) == len(re.findall(r"b'\d'", told)) > 0
    assert [picture.size for picture in shown.pictures] == [
        (1200, 480),  # costs
        (1920, 225),  # positions
        (1350, 510),  # curves
        (2250, 750),  # three scenes
    ]
