"""The notebook shows interaction by block, where decisions come from, and accuracy under attack."""

import re

import pytest
from executed import execute, execute_in_a_kernel


def check(shown):
    """Checks what it shows; returns the accuracies, in percent."""
    rows = re.findall(r"(stage\d_block\d) (\dx\d) above (\S+): (\S+)%", shown.text)
    assert [(block, grid) for block, grid, threshold, _ in rows if threshold == "0.02"] == [
        (f"stage{stage}_block{block}", grid)
        for stage, grid in ((1, "8x8"), (2, "4x4"), (3, "2x2"))
        for block in (1, 2)
    ]
    assert len(rows) == 12
    measured = {name: float(v) for name, v in re.findall(r"^(\S+) +(\S+)%$", shown.text, re.M)}
    assert list(measured) == [
        "standard", "occlusion_4", "occlusion_8", "occlusion",
        "fgsm_2/255", "fgsm", "fgsm_32/255",
    ]  # fmt: skip
    assert len(shown.pictures) == 3
    assert shown.pictures[1].size[0] == 1200  # the image and three stages
    return measured


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("04_interaction_and_robustness", tmp_path, epochs=2))


@pytest.mark.slow
def test_in_a_kernel_it_learns_and_is_attacked_as_it_says(tmp_path):
    measured = check(execute_in_a_kernel("04_interaction_and_robustness", tmp_path))
    assert measured["standard"] > 80
    assert measured["fgsm_32/255"] < measured["fgsm"] < measured["standard"]
