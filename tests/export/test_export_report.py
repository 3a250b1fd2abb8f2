import dataclasses
import json
import math

import keras
import pytest

from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import Agreement, DetectionAgreement
from pit_keras.export.export_report import (
    REPORT_FILE,
    Entry,
    Report,
    describe_model,
    installed_versions,
    read_report,
)
from pit_keras.runs.trained_model import TrainedModel

EXACT = Agreement(1e-6, 1e-7, scale=5.0, top1_agreement=1.0, images=200)
CLOSE = Agreement(0.1, 0.02, scale=5.0, top1_agreement=0.98, images=200)


def entry(name="tflite_int8", path="model_int8.tflite", agreement=CLOSE, share=0.97, **changes):
    values = {
        "bytes": 2_345_678,
        "sha256": "0" * 64,
        "latency_ms": {"1": 9.87, "2": 5.43},
        "batch_size": 1,
    }
    values |= {"compared_on": "images", "calibrated_on": None, "written": True, **changes}
    return Entry(name, path, agreement=agreement, min_agreement=share, **values)


def report(*entries):
    by_name = {each.format: each for each in entries}
    return Report({"name": "pit_ti"}, None, {"keras": "3"}, by_name, {"onnx": "not installed"})


@pytest.mark.parametrize(
    ("agreement", "share", "accepted"),
    [
        (CLOSE, 0.97, True),
        (CLOSE, 0.98, True),
        (CLOSE, 0.985, False),
        (CLOSE, None, False),
        (EXACT, None, True),
        (dataclasses.replace(EXACT, max_difference=math.nan), 0.5, False),
        (dataclasses.replace(EXACT, max_difference=math.inf), None, False),
    ],
)
def test_what_is_accepted(agreement, share, accepted):
    each = entry(agreement=agreement, share=share)
    assert each.accepted == accepted
    assert report(each).rejected == ([] if accepted else [each])


def test_json_and_back(tmp_path):
    before = report(
        entry(), entry("saved_model", "saved_model", EXACT, None, latency_ms={"all": 1})
    )
    (tmp_path / REPORT_FILE).write_text(before.to_json())
    assert read_report(tmp_path) == before
    content = json.loads(before.to_json())
    assert content["entries"]["tflite_int8"]["accepted"] is True
    assert content["entries"]["tflite_int8"]["agreement"]["top1_agreement"] == 0.98
    assert content["left_out"] == {"onnx": "not installed"}


def test_no_report_is_none(tmp_path):
    assert read_report(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"entries": {"a": {}}}', '{"entries": {"a": {"format": "onyx"}}}']
)
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / REPORT_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"report.json is damaged, .* --output_dir"):
        read_report(tmp_path)


def test_rows_are_those_of_what_is_there():
    there, missing = entry(), entry("tflite", "model.tflite", written=False)
    tensorflow = entry("saved_model", "saved_model", EXACT, None, latency_ms={"all": 12.34})
    written = report(there, missing, tensorflow)
    rows = written.rows()
    assert all(len(row) == len(written.columns) for row in rows)
    assert written.columns[5:] == ("largest error", "mean error", "same top-1", "images")
    assert rows == [
        ("model_int8.tflite", "2.3", "9.9", "5.4", "", "1.0e-01", "2.0e-02", "98.0%", "200"),
        ("saved_model", "2.3", "", "", "12.3", "1.0e-06", "1.0e-07", "100.0%", "200"),
    ]


def test_a_model_is_known_by_its_weights():
    def model(units=3):
        keras.utils.set_random_seed(0)
        images = keras.Input((8, 9, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(images)
        model = keras.Model(images, keras.layers.Dense(units, name="d")(pooled), name="a")
        names = tuple(map(str, range(units)))
        return TrainedModel(model, names, DataConfig(image_size=(8, 9)))

    description = describe_model(model())
    assert description["image_size"] == [8, 9]
    assert (description["parameters"], description["classes"]) == (12, 3)
    assert describe_model(model()) == description
    changed = model()
    changed.model.weights[0].assign_add(changed.model.weights[0] * 1e-6)
    assert describe_model(changed)["weights_sha256"] != description["weights_sha256"]


def test_versions_are_of_what_is_installed():
    versions = installed_versions()
    assert versions["keras"] == keras.__version__
    assert "pit_keras" in versions


def test_a_detectors_report_has_its_own_columns(tmp_path):
    agreement = DetectionAgreement(
        score_difference=2e-3, box_difference=1e-3, same_objects=0.95, objects=40, images=32
    )
    there = entry(agreement=agreement, share=0.9)
    written = report(there)
    assert written.columns[5:] == ("score error", "box error", "same objects", "images")
    assert written.rows()[0][5:] == ("2.0e-03", "1.0e-03", "95.0% of 40", "32")
    (tmp_path / REPORT_FILE).write_text(written.to_json())
    assert read_report(tmp_path) == written
    assert there.accepted
    assert not dataclasses.replace(there, min_agreement=0.96).accepted
    assert not dataclasses.replace(there, min_agreement=None).accepted
