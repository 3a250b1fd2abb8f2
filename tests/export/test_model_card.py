"""The card of a real export: what it says, and that its programs run."""

import dataclasses
import json
import re
import shutil

import forked
import numpy as np
import pytest
from PIL import Image

from pit_keras.config.recipes import recipe
from pit_keras.export.export_report import read_report
from pit_keras.export.model_card import MARK, model_card
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


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = recipe("deit", "pit_ti")
    config.data.dataset = "folder:birds"
    folder.create(config, ("a", "b"))
    folder.results.write_text(json.dumps(RESULTS))
    return folder


def test_it_lies_in_the_folder(exported):
    trained, folder = exported.trained, exported.folder
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(MARK)
    assert text == model_card(trained, read_report(folder))


def test_it_has_a_row_for_each_file(exported):
    folder = exported.folder
    text, report = (folder / "README.md").read_text(encoding="utf-8"), read_report(folder)
    assert len(report.entries) == 6
    for entry in report.entries.values():
        (row,) = re.findall(rf"^\| `{re.escape(entry.path)}` \|.*$", text, re.MULTILINE)
        assert f"{entry.bytes / 1e6:.1f}" in row
        assert f"{entry.agreement.top1_agreement:.1%}" in row
    assert "`model_int8.tflite` was calibrated on 32 more pieces." in text
    assert "measured on pieces" in text
    assert "## Licence\nCC-BY-4.0, für alle." in text
    assert "mean (0.4, 0.5, 0.6) and standard deviation (0.2, 0.25, 0.3)" in text
    assert "compared on only 8 images" in text


def test_its_programs_run_without_this_package(exported, photographs, tmp_path):
    trained, folder = exported.trained, exported.folder
    Image.fromarray(photographs[0]).save(tmp_path / "photo.jpg", quality=98)
    pixels = np.asarray(Image.open(tmp_path / "photo.jpg"))
    expected = trained.class_names[int(trained.logits([pixels]).argmax())]
    programs = re.findall(
        r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(programs) == 3
    (litert,) = [program for program in programs if "ai_edge_litert" in program]
    others = ("float16", "dynamic", "int8")
    programs += [litert.replace("model.tflite", f"model_{kind}.tflite") for kind in others]
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    shutil.copy(tmp_path / "photo.jpg", here)
    # One process for all.
    code = "import sys\nsys.modules['pit_keras'] = None\n" + "\n".join(programs)
    done = forked.run_code(code, here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected] * 6


def test_it_tells_of_the_run(exported, run):
    trained, folder = exported.trained, exported.folder
    text = model_card(dataclasses.replace(trained, folder=run.path), read_report(folder))
    assert "trained on `folder:birds`" in text
    words = " ".join(text.split())
    assert "Recipe: `deit`, 300 epochs of batches of 512 from random weights" in words
    for word in ("RandAugment", "random erasing", "MixUp", "CutMix", "horizontal flips"):
        assert word in text
    assert "on the 480 images of the `val` split" in text
    assert "top-1 81.25%, top-5 99.00%" in text


@pytest.mark.parametrize("applied", [False, True])
def test_it_says_whether_photographs_are_turned(exported, applied):
    trained, folder = exported.trained, exported.folder
    data = dataclasses.replace(trained.data, apply_orientation=applied)
    text = model_card(dataclasses.replace(trained, data=data), read_report(folder))
    assert ("8 bits, turned as the file's EXIF says.\nThe image" in text) == applied
    assert ("an orientation given in EXIF is not applied.\nThe image" in text) != applied
    opened = 'Image.open("photo.jpg")'
    opened = f"ImageOps.exif_transpose({opened})" if applied else opened
    assert f'\nphoto = {opened}.convert("RGB")\ncrop = ' in text


def test_what_is_not_known_is_said(exported, run):
    trained, folder = exported.trained, exported.folder
    report = dataclasses.replace(read_report(folder), license=None)
    text = model_card(trained, report)
    assert "not from a run folder" in text
    assert "Not stated in the export" in text
    run.results.unlink()
    text = model_card(dataclasses.replace(trained, folder=run.path), report)
    assert "The run has not ended" in text


def test_what_was_forced_is_said(exported):
    trained, folder = exported.trained, exported.folder
    report = read_report(folder)
    entry = dataclasses.replace(report.entries["tflite_int8"], min_agreement=1.1)
    report.entries["tflite_int8"] = entry
    assert "**`model_int8.tflite`: below the limit" in model_card(trained, report)


def test_text_of_strangers_does_not_break_it(exported, run):
    names = ("`a``b`", "<script>", "x\x1b[2J\u202e", "d|e")
    config = run.read_config()
    config.data.dataset = "folder:`<b>`"
    run.config.write_text(config.to_json())
    trained = dataclasses.replace(exported.trained, folder=run.path, class_names=names)
    text = model_card(trained, read_report(exported.folder))
    assert r"``` `a``b` ```, `<script>`, `x\x1b[2J\u202e`, `d|e`" in text
    assert "Data set: `` folder:`<b>` ``." in text
