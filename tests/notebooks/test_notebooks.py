"""Each notebook runs, with short training, and shows what it says; in a kernel, trained as it says.

They share a folder, as they do for whoever reads them: some take the model of the quick start.
"""

import ast
import json
import re

import pytest
from executed import execute, execute_in_a_kernel

SHORT = {
    "01_quick_start": {"epochs": 4},
    "02_fine_tune": {"epochs": 4, "fine_tuning_epochs": 2},
    "03_token_pooling": {"epochs": 4},
    "04_interaction_and_robustness": {"epochs": 4},
    "05_export": {"epochs": 4},
    "06_detection": {"epochs": 1},
    "07_the_keras_way": {"epochs": 4, "fine_tuning_epochs": 1},
}
# They train for few steps only; traced ones are tested elsewhere.
EAGER = ("06_detection", "07_the_keras_way")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained_notebooks")


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_and_shows_what_it_says(name, folder):
    options = ["--eager"] if name in EAGER else []
    CHECKS[name](execute(name, folder, *options, **SHORT[name]), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_in_a_kernel_learns_what_it_says(name, trained_folder):
    measured = CHECKS[name](execute_in_a_kernel(name, trained_folder), trained_folder)
    if name == "01_quick_start":
        assert measured["top1"] > 0.8
    elif name in ("02_fine_tune", "07_the_keras_way"):
        assert measured["before"] < measured["after"]
    elif name == "04_interaction_and_robustness":
        assert measured["standard"] > 80
        assert measured["fgsm_32/255"] < measured["fgsm"] < measured["standard"]
    elif name == "06_detection":
        assert measured["AP50"] > 0.5
        assert measured["served"] > 0


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def check_quick_start(shown, folder):
    assert "4,847,272 parameters" in shown.text
    assert "[(None, 27, 27, 64), (None, 14, 14, 128), (None, 7, 7, 256)]" in shown.text
    run = folder / "runs/quick_start"
    results = results_of(run)
    assert f"top-1 {results['top1']:.1%} of 360 images" in shown.text
    assert "<h2>Training</h2>" in (run / "report/index.html").read_text()
    curves, predictions = shown.pictures
    assert curves.size == (1350, 510)
    assert predictions.width == 1800  # ten digits in rows of six
    return results


def check_fine_tune(shown, folder):
    """The accuracies before and after, in percent."""
    run = folder / "runs/fine_tune"
    assert len(list((run / "folder").glob("[0-9]/*.png"))) == 200
    assert "{'train': 160, 'val': 40}" in shown.text
    before, after = re.search(r"top-1 (.*)% before, (.*)% after", shown.text).groups()
    assert after == f"{100 * results_of(run / 'run')['top1']:.1f}"
    assert (run / "report/index.html").exists()
    assert len(shown.pictures) == 2
    return {"before": float(before), "after": float(after)}


def check_the_keras_way(shown, folder):
    """The accuracies before and after, in percent."""
    before, after = re.search(r"accuracy (.*)% before, (.*)% after", shown.text).groups()
    assert "shape=(20, 32, 32, 3)" in shown.text
    assert (folder / "runs/keras_way/model.keras").exists()
    assert len(shown.pictures) == 2
    return {"before": float(before), "after": float(after)}


def check_token_pooling(shown, folder):
    for line in (
        "stage 1: (1, 27, 27, 64)",
        "stage 2: (1, 14, 14, 128)",
        "stage 3: (1, 7, 7, 256)",
        "(1, 1, 64) -> (1, 1, 128)",
        "(3, 3, 128, 2)",
        "from 27 to 14: the same numbers? True",
        "from 14 to 7: the same numbers? False",
        "stage 3: (1, 14, 14, 256)",
        "stride 1, dilation 2",
    ):
        assert line in shown.text
    assert [picture.size for picture in shown.pictures] == [(1200, 1020)] * 2


def check_interaction_and_robustness(shown, folder):
    """The accuracies, in percent."""
    rows = re.findall(r"(stage\d)_block1 (\dx\d) above (\S+): \S+%", shown.text)
    stages = ("stage1", "8x8"), ("stage2", "4x4"), ("stage3", "2x2")
    stages = ("stage1", "8x8"), ("stage2", "4x4"), ("stage3", "2x2")
    assert sorted(rows) == [
        (*stage, threshold) for stage in stages for threshold in ("0.02", "0.1")
    ]
    measured = {name: float(v) for name, v in re.findall(r"^(\S+) +(\S+)%$", shown.text, re.M)}
    assert list(measured) == [
        "standard", "occlusion_4", "occlusion_8", "occlusion",
        "fgsm_2/255", "fgsm", "fgsm_32/255",
    ]  # fmt: skip
    assert len(shown.pictures) == 3
    assert shown.pictures[1].size[0] == 1200  # the image and three stages
    return measured


def check_export(shown, folder):
    folder = folder / "runs/export"
    for name in ("model.tflite", "model_dynamic.tflite", "model_int8.tflite"):
        assert (folder / name).exists()
        assert name in shown.text
    keras, int8 = re.findall(r"^(?:Keras|int8 ) (\[\[.*\]\])$", shown.text, re.MULTILINE)
    named = [[best[0][0] for best in ast.literal_eval(answers)] for answers in (keras, int8)]
    assert len(named[0]) == 10
    assert sum(a == b for a, b in zip(*named, strict=True)) >= 9
    assert (folder / "README.md").read_text().strip() in shown.text


def check_detection(shown, folder):
    """The results of the run, and how many objects are served."""
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
    ):
        assert line in shown.text
    results = results_of(folder / "runs/detection/run")
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
        (1800, 636),  # three scenes
    ]
    return {**results, "served": int(count)}


CHECKS = {
    "01_quick_start": check_quick_start,
    "02_fine_tune": check_fine_tune,
    "03_token_pooling": check_token_pooling,
    "04_interaction_and_robustness": check_interaction_and_robustness,
    "05_export": check_export,
    "06_detection": check_detection,
    "07_the_keras_way": check_the_keras_way,
}
