"""A row for each model in a CSV file, and the paper's rows."""

import csv

import pytest

from pit_keras.evaluation.robustness_table import COLUMNS, paper_rows, put_row, read_rows

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
        b"model,architecture,dataset,split,eval_crop,standard\na,b,c,d,0.9,high\n",
        b"model,architecture,dataset,split,eval_crop\na,b,c,d,0.9,1,2\n",
    ],
)
def test_a_file_that_is_another_is_left_alone(tmp_path, contents):
    file = tmp_path / "mine.csv"
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=r"mine\.csv is not a table of robustness results"):
        put_row(file, ROW)
    assert file.read_bytes() == contents
