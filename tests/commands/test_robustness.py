"""`pit-keras evaluate --suite` as a user calls it."""

import csv
import json

import pytest
from robustness_data import imagenet_a_synsets, write_imagenet_a
from whole_runs import eagerly

from pit_keras.cli import main
from pit_keras.create import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.evaluation.robustness_table import read_rows

TINY = {"patch_size": 4, "stride": 4, "head_dim": 4, "depths": (1, 1, 1)}


@pytest.fixture(scope="module", autouse=True)
def _commands_are_eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model of the digits and their names, and one of ImageNet's classes."""
    folder = tmp_path_factory.mktemp("models")
    for name, classes in (("digits", 10), ("imagenet", 1000)):
        model = create_model("pit_ti", input_shape=(16, 16, 3), classes=classes, **TINY)
        model.save(folder / f"{name}.keras")
    (folder / "digits.txt").write_text("\n".join(open_source("digits").class_names))
    return folder


def evaluate(models, *arguments, model="digits"):
    classes = [f"--classes={models}/digits.txt"] * (model == "digits")
    main(["evaluate", f"--model={models}/{model}.keras", *classes, *arguments])


def test_suites_print_a_table_and_write_a_row_and_a_chart(models, tmp_path, capsys):
    table, chart, output = (tmp_path / name for name in ("t.csv", "c.png", "o.json"))
    files = [f"--csv={table}", f"--chart={chart}", f"--output={output}"]
    settings = ["--occlusion_size=8,4", "--occlusion_fill=black", "--fgsm_epsilon=8/255,0.1"]
    suites = "--suite=fgsm,occlusion,standard"

    evaluate(models, suites, "--dataset=digits", *settings, *files, "--crop=1")

    columns = ["standard", "occlusion_black", "occlusion_4_black", "fgsm", "fgsm_0.1"]
    (row,) = read_rows(table)
    results = json.loads(output.read_text())
    assert results == {**row, "not_run": {}}
    assert row["model"] == f"{models}/digits.keras"
    assert [row[name] for name in ("architecture", "dataset", "split", "eval_crop")] == [
        *("pit_ti", "digits", "val", 1.0)
    ]
    assert [name for name in results if name in columns] == columns
    printed = capsys.readouterr().out
    assert "paper" not in printed  # which has nothing to say of digits
    for name in columns:
        assert f"{100 * row[name]:.1f}" in printed
    assert chart.stat().st_size > 1000

    evaluate(models, "--dataset=digits", "--crop=1")
    assert json.loads(capsys.readouterr().out)["top1"] == row["standard"]


def test_a_missing_data_set_fails_in_the_end_after_the_others_are_kept(models, tmp_path, capsys):
    table, output = tmp_path / "t.csv", tmp_path / "o.json"
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ending:
        evaluate(
            models,
            "--suite=standard,imagenet_a,backgrounds",
            "--dataset=digits",
            f"--data_dir={tmp_path}/empty",
            f"--backgrounds={tmp_path}/nowhere",
            f"--csv={table}",
            f"--output={output}",
        )
    message = str(ending.value)
    assert message.startswith("error: The suite imagenet_a could not run: The TFDS data set imag")
    assert f"The suite backgrounds could not run: There is no folder {tmp_path}/nowhere" in message
    (row,) = read_rows(table)
    assert row["not_run"] == "imagenet_a backgrounds"
    assert 0 <= row["standard"] < 1
    assert list(json.loads(output.read_text())["not_run"]) == ["imagenet_a", "backgrounds"]
    assert "standard" in capsys.readouterr().out

    evaluate(models, "--suite=fgsm", "--dataset=digits", f"--csv={table}")
    (more,) = read_rows(table)
    assert more == {**row, "fgsm": more["fgsm"]}


def test_a_model_of_imagenets_classes_stands_beside_the_paper(models, tmp_path, capsys):
    write_imagenet_a(tmp_path / "a", imagenet_a_synsets(), images=1)
    table = tmp_path / "t.csv"
    with pytest.warns(UserWarning, match="ImageNet"):
        evaluate(
            models,
            "--suite=imagenet_a",
            f"--imagenet_a={tmp_path}/a",
            f"--csv={table}",
            f"--chart={tmp_path}/c.png",
            model="imagenet",
        )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["top-1", "(%)", "imagenet_a", "imagenet_a_all_classes"]  # each row in one
    assert lines[1][0] == f"{models}/imagenet.keras"
    assert ["paper:", "pit_s", "(deit)", "21.7"] in lines
    assert "from memory, not verified" in " ".join(lines[-1])
    (row,) = read_rows(table)
    assert "dataset" not in row  # the suite brings its own
    assert (tmp_path / "c.png").exists()
    with table.open(newline="") as file:
        assert next(csv.DictReader(file))["imagenet_a_all_classes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite=standart"], "Unknown suite 'standart'; known are standard, occlusion, imagene"),
        (["--suite="], "Unknown suite ''; known are"),
        (["--csv=x.csv"], "--csv has no meaning without --suite"),
        (["--fgsm_epsilon=0.1"], "--fgsm_epsilon has no meaning without --suite"),
        (
            ["--suite=standard,fgsm", "--occlusion_size=4"],
            "--occlusion_size has no meaning for --suite=standard,fgsm; it is for occlusion",
        ),
        (["--suite=standard", "--backgrounds=x"], "--backgrounds has no meaning for --suite=stan"),
        (["--suite=backgrounds", "--crop=1"], "--crop has no meaning for --suite=backgrounds"),
        (["--suite=imagenet_a", "--dataset=digits"], "--dataset has no meaning for --suite=imag"),
        (["--suite=imagenet_a", "--split=train"], "--split has no meaning for --suite=imagenet_a"),
        (["--suite=standard", "--csv=nowhere/x.csv"], "there is no folder nowhere."),
        (["--suite=standard", "--csv={models}/digits.txt"], "digits.txt is not a table of robust"),
        (["--suite=standard", "--chart=x.xyz"], "Cannot draw x.xyz: its ending must be one of"),
        (
            ["--suite=standard", "--csv={models}/x.png", "--chart={models}/../{models.name}/x.png"],
            "--csv and --chart name the same file, ",
        ),
        (
            ["--suite=standard", "--csv={models}/x.csv", "--output={models}/x.csv"],
            "--output and --csv name the same file, ",
        ),
        (
            ["--suite=standard", "--csv={models}/cut.csv"],
            "cut.csv: its model is empty; correct it",
        ),
        (["--suite=standard", "--dataset=digits", "--crop=2"], "crop's share must lie in (0, 1]"),
    ],
)
def test_bad_input_is_one_sentence(models, arguments, message, capsys):
    (models / "cut.csv").write_text("model,architecture,dataset,split,eval_crop\n,a,b,c,0.9\n")
    with pytest.raises(SystemExit) as ending:
        evaluate(models, *(argument.format(models=models) for argument in arguments))
    assert str(ending.value).startswith("error: ")
    assert message in str(ending.value)
    assert "\n" not in str(ending.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "option",
    [
        *("--fgsm_epsilon=8/x", "--fgsm_epsilon=1/0", "--fgsm_epsilon=8", "--fgsm_epsilon=0"),
        *("--fgsm_epsilon=8/255,-1/255", "--occlusion_size=0"),
    ],
)
def test_what_is_no_number_or_out_of_range_is_refused(models, option, capsys):
    with pytest.raises(SystemExit):
        evaluate(models, "--suite=fgsm,occlusion", option)
    assert "must be" in capsys.readouterr().err
