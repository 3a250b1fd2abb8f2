"""The notebook exports to TFLite, compares, and shows the model card."""

import ast
import re

import pytest
from executed import execute, execute_in_a_kernel


def check(shown, folder):
    folder = folder / "runs/export/export"
    for name in ("model.tflite", "model_dynamic.tflite", "model_int8.tflite"):
        assert (folder / name).exists()
        assert name in shown.text
    keras, int8 = re.findall(r"^(?:Keras|int8 ) (\[\[.*\]\])$", shown.text, re.MULTILINE)
    named = [[best[0][0] for best in ast.literal_eval(answers)] for answers in (keras, int8)]
    agreeing = sum(a == b for a, b in zip(*named, strict=True))
    assert len(named[0]) == 10
    assert agreeing >= 9
    assert (folder / "README.md").read_text().strip() in shown.text


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("05_export", tmp_path, epochs=4), tmp_path)


@pytest.mark.slow
def test_in_a_kernel_it_shows_the_same(tmp_path):
    check(execute_in_a_kernel("05_export", tmp_path), tmp_path)
