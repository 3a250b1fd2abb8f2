"""A row for each model in a CSV file, and the paper's rows."""

import csv
import os
import re

import pytest

from pit_keras.evaluation.robustness_table import (
    COLUMNS,
    SETTINGS,
    paper_rows,
    put_row,
    read_rows,
)

ROW = {
    "model": "a, b.keras",
    "architecture": "pit_s",
    "dataset": "imagenet2012",
    "split": "val",
    "eval_crop": 0.9,
    "standard": 0.5,
    "fgsm": 0.0,
}


def test_the_paper_has_four_rows():
    rows = paper_rows()
    assert [(row["architecture"], row["training"]) for row in rows] == [
        ("vit_s", "deit"),
        ("pit_s", "deit"),
        ("resnet50", "standard"),
        ("resnet50", "as PiT"),
    ]
    assert [rows[1][name] for name in COLUMNS] == [0.809, 0.746, 0.217, 0.210, 0.295]
    assert all(0 <= row[name] < 1 for row in rows for name in COLUMNS)
    assert {row["source"] for row in rows} == {"paper, table 5; from memory, not verified"}


def test_a_row_of_the_same_model_is_replaced_and_others_stay(tmp_path):
    file = tmp_path / "table.csv"
    assert put_row(file, ROW) == [ROW]
    other = {**ROW, "model": "other", "occlusion_56": 0.25, "not_run": "imagenet_a backgrounds"}
    assert put_row(file, other) == [ROW, other]
    again = {**ROW, "eval_crop": 0.875, "standard": 0.75, "fgsm_4/255": 0.1}
    assert put_row(file, again) == [again, other]
    assert read_rows(file) == [again, other]
    with file.open(newline="") as text:
        cells = list(csv.reader(text))
    assert cells[0][:10] == ["model", "architecture", "dataset", "split", "eval_crop", *COLUMNS]
    assert sorted(cells[0][10:]) == ["fgsm_4/255", "not_run", "occlusion_56"]
    assert cells[1][:10] == [
        *("a, b.keras", "pit_s", "imagenet2012", "val", "0.875"),
        *("0.75", "", "", "", "0.0"),
    ]


@pytest.mark.parametrize(
    "contents",
    [
        b"model,top1\na,0.5\n",
        b"",
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_another_is_left_alone(tmp_path, contents):
    file = tmp_path / "mine.csv"
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=r"mine\.csv is not a table of robustness results"):
        put_row(file, ROW)
    assert file.read_bytes() == contents


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,b,c,d,0.9,high,", "its standard is 'high' instead of a number"),
        ("a,b,c,d,0.9,nan,", "its standard is 'nan' instead of a number"),
        ("a,b,c,d,0.9,,inf", "its fgsm is 'inf' instead of a number"),
        ("a,b,c,d,0.9,1,0,2", "it has more cells than the columns"),
        ("ru", "it has fewer cells than the columns"),
        (",b,c,d,0.9,0.5,", "its model is empty"),
    ],
)
def test_a_row_that_is_not_whole_is_refused_by_its_line(tmp_path, line, reason):
    file = tmp_path / "mine.csv"
    text = "model,architecture,dataset,split,eval_crop,standard,fgsm\nx,b,c,d,0.9,1,\n"
    file.write_text(text)
    assert read_rows(file)[0]["standard"] == 1
    file.write_text(text + line + "\n")
    with pytest.raises(ValueError, match=re.escape(f"Line 3 of {file}: {reason}; correct it")):
        put_row(file, ROW)
    assert file.read_text() == text + line + "\n"


def settings_of(row):
    return {name: row[name] for name in SETTINGS if name in row}


def test_what_was_measured_before_in_the_same_way_stays(tmp_path):
    file = tmp_path / "table.csv"
    put_row(file, {**settings_of(ROW), "occlusion_56": 0.25, "fgsm": 0.1, "standard": 0.4})
    put_row(file, {**settings_of(ROW), "standard": 0.5, "not_run": "imagenet_a fgsm"})
    expected = {**settings_of(ROW), "standard": 0.5, "occlusion_56": 0.25, "fgsm": 0.1}
    assert read_rows(file) == [{**expected, "not_run": "imagenet_a"}]  # of FGSM there is a figure
    whole = {"model": ROW["model"], "architecture": "pit_s", "backgrounds": 0.125}
    put_row(file, whole)  # whole data sets, which no split or crop is told of
    expected |= {"backgrounds": 0.125}
    assert read_rows(file) == [{**expected, "not_run": "imagenet_a"}]
    put_row(file, {**settings_of(ROW), "imagenet_a": 0.2})
    assert read_rows(file) == [{**expected, "imagenet_a": 0.2}]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("architecture", "pit_b"), ("dataset", "digits"), ("split", "all"), ("eval_crop", 0.875)],
)
def test_what_was_measured_in_another_way_goes(tmp_path, setting, value):
    file = tmp_path / "table.csv"
    put_row(file, ROW)
    other = {**settings_of(ROW), setting: value, "standard": 0.25}
    assert put_row(file, other) == [other]
    assert read_rows(file) == [other]


def test_a_table_that_cannot_be_written_stays_as_it_was(tmp_path):
    file = tmp_path / "table.csv"
    put_row(file, ROW)
    before = file.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        put_row(file, {**ROW, "model": "\ud800"})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_file_whose_name_is_no_text_has_a_row_too(tmp_path):
    file, row = tmp_path / "table.csv", {**ROW, "model": os.fsdecode(b"caf\xe9.keras")}
    put_row(file, row)
    assert put_row(file, {**row, "standard": 0.25}) == [{**row, "standard": 0.25}]
