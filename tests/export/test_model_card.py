"""The card of a real export: what it says, and that its programs run."""

import dataclasses
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from pit_keras.config.recipes import recipe
from pit_keras.export.agreement import take_sample
from pit_keras.export.export_report import read_report
from pit_keras.export.exporting import export
from pit_keras.export.model_card import is_model_card, model_card
from pit_keras.runs.run_folder import RunFolder

RESULTS = {
    "top1": 0.8125,
    "top5": 0.99,
    "loss": 0.7,
    "images": 480,
    "dataset": "folder:birds",
    "split": "val",
    "eval_crop": 0.9,
}


@pytest.fixture(scope="module")
def exported(make_trained, photographs, tmp_path_factory):
    """A trained model and the folder to which it was exported in every form."""
    keras.utils.set_random_seed(1)
    trained, folder = make_trained("pit_ti_distilled"), tmp_path_factory.mktemp("exported")
    sample = take_sample(photographs, trained.data, "pieces")
    calibration = take_sample(list(photographs) * 4, trained.data, "more pieces")
    export(trained, folder, compare_on=sample, calibrate_on=calibration, license="MIT", force=True)
    return trained, folder


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = recipe("deit", "pit_ti")
    config.data.dataset = "folder:birds"
    folder.create(config, ("a", "b"))
    folder.results.write_text(json.dumps(RESULTS))
    return folder


def test_it_lies_in_the_folder(exported):
    trained, folder = exported
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert is_model_card(text)
    assert text == model_card(trained, read_report(folder))
    assert not is_model_card("# My project\n")


def test_it_has_a_row_for_each_file(exported):
    _, folder = exported
    text, report = (folder / "README.md").read_text(encoding="utf-8"), read_report(folder)
    assert len(report.entries) == 6
    for entry in report.entries.values():
        (row,) = re.findall(rf"^\| `{re.escape(entry.path)}` \|.*$", text, re.MULTILINE)
        assert f"{entry.bytes / 1e6:.1f}" in row
        assert f"{entry.agreement.top1_agreement:.1%}" in row
    assert "`model_int8.tflite` was calibrated on 32 more pieces." in text
    assert "on pieces, as many as the last column says" in text
    assert "## Licence\nMIT." in text
    assert "mean (0.4, 0.5, 0.6) and standard deviation (0.2, 0.25, 0.3)" in text
    assert "compared on only 8 images" in text


def test_its_programs_run_without_this_package(exported, photographs, tmp_path):
    trained, folder = exported
    Image.fromarray(photographs[0]).save(tmp_path / "photo.jpg", quality=98)
    pixels = np.asarray(Image.open(tmp_path / "photo.jpg"))
    expected = trained.class_names[int(trained.logits([pixels]).argmax())]
    programs = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(programs) == 3
    (litert,) = [program for program in programs if "ai_edge_litert" in program]
    others = ("float16", "dynamic", "int8")
    programs += [litert.replace("model.tflite", f"model_{kind}.tflite") for kind in others]
    (folder / "photo.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes())
    # One process for all: importing TensorFlow is most of the time.
    code = "import sys\nsys.modules['pit_keras'] = None\n" + "\n".join(programs)
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    (folder / "photo.jpg").unlink()
    assert done.stdout.split("\n")[:-1] == [expected] * 6


def test_it_tells_of_the_run(exported, run):
    trained, folder = exported
    text = model_card(dataclasses.replace(trained, folder=run.path), read_report(folder))
    assert "trained on `folder:birds`" in text
    assert "Recipe: `deit`, 300 epochs of batches of 512 from random weights" in text
    for word in ("RandAugment", "random erasing", "MixUp", "CutMix", "horizontal flips"):
        assert word in text
    assert "on the 480 images of the `val` split" in text
    assert "top-1 81.25%, top-5 99.00%" in text


def test_what_is_not_known_is_said(exported, run):
    trained, folder = exported
    report = dataclasses.replace(read_report(folder), license=None)
    text = model_card(trained, report)
    assert "not from a run folder" in text
    assert "Not stated by who exported it" in text
    run.results.unlink()
    text = model_card(dataclasses.replace(trained, folder=run.path), report)
    assert "The run has not ended" in text


def test_what_was_forced_is_said(exported):
    trained, folder = exported
    report = read_report(folder)
    entry = dataclasses.replace(report.entries["tflite_int8"], min_agreement=1.1)
    report.entries["tflite_int8"] = entry
    assert "**`model_int8.tflite`: below what was asked for" in model_card(trained, report)
