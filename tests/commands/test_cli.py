import base64
import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import forked
import keras
import numpy as np
import pytest
import safetensors.numpy
from fixed_weights import fixed_state_dict
from PIL import Image
from whole_runs import eagerly

import pit_keras
from pit_keras.cli import main
from pit_keras.config.recipes import recipe
from pit_keras.data.labelled_images import open_source
from pit_keras.export.export_report import read_report
from pit_keras.export.formats import DEFAULT_FORMATS
from pit_keras.imagenet import class_names
from pit_keras.plots.pictures import draw_history
from pit_keras.training.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _commands_in_this_process_are_eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on digits, small and hardly trained."""
    config = recipe("vanilla", "pit_ti")
    config.model.patch_size, config.model.stride, config.model.head_dim = 4, 4, 8
    config.model.depths = (1, 1, 1)
    config.data.dataset, config.data.image_size = "digits", (24, 24)
    config.training.batch_size, config.training.epochs, config.training.jit = 200, 1, "off"
    config.optimizer.warmup_epochs = 0.0
    path = tmp_path_factory.mktemp("runs") / "digits"
    Trainer(config, open_source("digits"), path, verbose=False).run()
    return path


@pytest.fixture(scope="module")
def evaluated(run):
    """What `evaluate` prints of the run."""
    return text_of("evaluate", f"--model={run}", "--batch_size=50")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run in all forms that are written by default."""
    folder = tmp_path_factory.mktemp("exported")
    # The run is hardly trained: its likeliest classes are all but as likely as the next.
    limits = "--min_agreement", "tflite_dynamic=0.7", "tflite_int8=0.7"
    text_of("export", f"--model={run}", f"--output_dir={folder}", "--license=MIT", *limits)
    return folder


@pytest.fixture
def lone(tmp_path):
    """A `.keras` file of one block for ten classes, in no run folder."""
    small = {"patch_size": 8, "stride": 8, "head_dim": 4, "depth": 1}
    model = pit_keras.create_model("vit_ti", classes=10, input_shape=(16, 16, 3), **small)
    model.save(tmp_path / "lone.keras")
    return tmp_path / "lone.keras"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", (40, 30)), ("b.jpg", (64, 64)), ("c.JPEG", (8, 90))):
        Image.effect_noise(size, 60).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def printed(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def text_of(*arguments):
    """The same for fixtures that several tests share, which have no `capsys`."""
    with io.BytesIO() as file, io.TextIOWrapper(file, encoding="utf-8") as out:
        with contextlib.redirect_stdout(out):
            main([str(argument) for argument in arguments])
        out.flush()
        return file.getvalue().decode()


def test_models_lists_parameters_macs_and_grids(capsys):
    lines = printed(capsys, "models", "pit_s*").splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["pit_s", "23,461,912", "2.87", "27x27", "14x14", "7x7"]
    assert lines[2].split()[:2] == ["pit_s_distilled", "24,039,056"]

    line = printed(capsys, "models", "resnet50").splitlines()[1]

    assert line.split() == ["resnet50", "25,557,032", "4.09", "56x56", "28x28", "14x14", "7x7"]


@pytest.fixture
def sweep(run, tmp_path):
    """A folder of four runs: a real one, its like with other settings, and one that is damaged."""
    folder = tmp_path / "sweep"
    for name, changes in {
        "lr/1e-3": {"learning_rate": 1e-3},
        "lr/[red]2e-3": {"learning_rate": 2e-3, "weight_decay": 0.1, "layer_decay": 0.9},
        "broken": None,
    }.items():
        shutil.copytree(run, folder / name, ignore=shutil.ignore_patterns("model*", "results*"))
        file = folder / name / "config.json"
        config = json.loads(file.read_text())
        config["optimizer"] |= changes or {}
        file.write_text(json.dumps(config) if changes else "{")
    (folder / "real").symlink_to(run)
    return folder


def test_runs_are_compared_in_a_table_a_file_and_a_picture(run, sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    table, picture = sweep / "table.csv", sweep / "curves.png"

    lines = printed(capsys, "runs", sweep, "--sort=run", f"--csv={table}", f"--output={picture}")

    head, names, broken, low, high, real, empty, problem = lines.splitlines()
    columns = "run state model recipe dataset epochs top1 val_loss loss images/s"
    assert head.split() == ["optimizer."] * 3
    assert names.split() == [*columns.split(), "learning_rate", "weight_decay", "layer_decay"]
    top1 = json.loads((run / "results.json").read_text())["top1"]
    start = ["real", "finished", "pit_ti", "vanilla", "digits", "1/1", f"{top1:.4f}"]
    assert real.split()[:7] == start
    assert int(real.split()[9].replace(",", "")) > 0
    assert real.split()[10:] == ["0.0005", "0.05", "1"]
    assert low.split()[:2] == ["lr/1e-3", "unfinished"]
    assert high.split()[:2] == ["lr/[red]2e-3", "unfinished"]
    assert high.split()[-3:] == ["0.002", "0.1", "0.9"]
    assert broken.split()[:3] == ["broken", "damaged", "1/?"]
    assert empty == ""
    assert problem.startswith("broken: config.json cannot be read: ")
    with table.open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == sorted(
            ["broken", "lr/1e-3", "lr/[red]2e-3", "real"]
        )
    assert Image.open(picture).size[0] > 500


def test_a_narrow_table_of_runs_tells_what_it_leaves_out(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shutil.rmtree(sweep / "broken")

    lines = printed(capsys, "runs", sweep).splitlines()

    assert max(map(len, lines[:5])) <= 80
    names = ["run", "state", "epochs", "top1", "val_loss", "loss", "images/s"]
    assert lines[1].split()[: len(names)] == names
    assert sorted(line.split()[0] for line in lines[2:5]) == ["lr/1e-3", "lr/[red]2e-3", "real"]
    assert lines[6] == "All have model pit_ti, recipe vanilla, dataset digits."
    left_out = {"weight_decay", "layer_decay"} - set(lines[1].split())
    assert left_out
    for name in left_out:
        assert f"optimizer.{name}" in lines[7]


def test_predict_names_files_and_folders_and_draws(run, pictures, capsys, tmp_path):
    drawing = tmp_path / "drawing.png"
    out = printed(
        capsys, "predict", f"--model={run}", "--top=3", f"--output={drawing}", pictures,
        pictures / "b.jpg",
    )  # fmt: skip
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        str(pictures / name) for name in ("a.png", "b.jpg", "c.JPEG", "b.jpg")
    ]
    assert lines[1] == lines[3]
    shares = [float(part.split()[1].rstrip("%")) for part in lines[0].split(": ")[1].split(", ")]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert Image.open(drawing).size[0] > 500


def test_predict_explains_each_picture_in_a_row_of_stages(run, pictures, capsys, tmp_path):
    explained, drawn = tmp_path / "why.png", tmp_path / "what.png"
    arguments = ["predict", f"--model={run}", f"--explain={explained}", str(pictures)]

    main(arguments)

    streams = capsys.readouterr()
    assert len(streams.out.splitlines()) == 3
    assert streams.err.splitlines()[-1] == f"Explained in {explained}"
    with Image.open(explained) as picture:
        assert picture.size == (150 * 2 * 4, int(150 * (2.45 * 3 + 0.5)))
    main(
        ["predict", f"--model={run}", f"--output={drawn}", f"--explain={explained}", str(pictures)]
    )
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"Drawn in {drawn}",
        f"Explained in {explained}",
    ]


def test_only_models_with_attention_explain(pictures, capsys, tmp_path):
    model = pit_keras.create_model("resnet50", base_width=4, input_shape=(32, 32, 3), classes=3)
    model.save(tmp_path / "resnet.keras")
    for file, message in (
        (
            "resnet.keras",
            "resnet.keras has no attention .* use a PiT or ViT",
        ),
        ("x.tflite", "error: --explain needs a Keras model; give the run folder"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(
                [
                    "predict",
                    f"--model={tmp_path / file}",
                    f"--explain={tmp_path / 'x.png'}",
                    str(pictures),
                ]
            )
        assert capsys.readouterr().out == ""
    assert not (tmp_path / "x.png").exists()


def test_predict_takes_every_image_of_a_folder_and_nothing_else(run, capsys, tmp_path):
    folder = tmp_path / "two words, ünï 猫 & $x^{"
    (folder / "folder.JPG").mkdir(parents=True)
    noise = Image.effect_noise((30, 20), 60)
    kinds = {
        "alpha.png": ("RGBA", {}),
        "animated.png": ("RGB", {"save_all": True, "append_images": [noise.convert("RGB")]}),
        "bit.png": ("1", {}),
        "cmyk.jpg": ("CMYK", {}),
        "deep.png": ("I;16", {}),
        "palette.PNG": ("P", {}),
        "progressive.JPEG": ("L", {"progressive": True}),
    }
    for name, (mode, options) in kinds.items():
        noise.convert("I" if mode == "I;16" else mode).convert(mode).save(folder / name, **options)
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (3000, 1)).save(folder / "wide.png")
    (folder / "link.jpg").symlink_to("cmyk.jpg")
    noise.save(os.fsencode(folder) + b"/undecodable \xff.png", "PNG")
    (folder / "._cmyk.jpg").write_bytes(b"what a Mac leaves beside a file")
    (folder / "notes.txt").write_text("not an image")

    out = printed(
        capsys, "predict", f"--model={run}", "--top=1", f"--output={tmp_path / 'x.png'}", folder
    )

    names = [line.removeprefix(f"{folder}/").split(":")[0] for line in out.splitlines()]
    others = ["link.jpg", "pixel.png", "undecodable \\udcff.png", "wide.png"]
    assert sorted(names) == sorted([*kinds, *others])
    assert Image.open(tmp_path / "x.png").size[0] > 500


def test_a_tflite_file_takes_other_class_names(exported, pictures, capsys, tmp_path):
    names = tmp_path / "names.txt"
    arguments = [f"--model={exported / 'model.tflite'}", f"--classes={names}", pictures / "b.jpg"]
    names.write_text("".join(f"digit {digit}\n" for digit in range(10)))

    out = printed(capsys, "predict", "--top=10", *arguments)

    assert sorted(part.split()[-2] for part in out.split(": ")[1].split(", ")) == list("0123456789")
    assert out.count("digit") == 10
    names.write_text("one\ntwo\n")
    with pytest.raises(SystemExit, match="There are 2 class names for the 10 classes of"):
        printed(capsys, "predict", *arguments)


def test_evaluate_gives_the_runs_own_results(run, evaluated, capsys, tmp_path):
    results, expected = json.loads(evaluated), json.loads((run / "results.json").read_text())
    for name in ("top1", "top5", "images", "dataset", "split", "eval_crop"):
        assert results[name] == pytest.approx(expected[name])
    file = tmp_path / "results.json"
    arguments = "evaluate", f"--model={run}", "--split=train", "--crop=1", f"--output={file}"
    assert printed(capsys, *arguments) == file.read_text()
    results = json.loads(file.read_text())
    assert (results["images"], results["eval_crop"]) == (1437, 1)


def test_evaluate_with_a_report_prints_the_same_and_writes_a_page(run, evaluated, capsys, tmp_path):
    kept = json.loads((run / "results.json").read_text())["best_epoch"]
    draw_history(run / "history.csv", tmp_path / "curves.png", kept)
    main(["evaluate", f"--model={run}", "--batch_size=50", f"--report={tmp_path / 'report'}"])
    out, err = capsys.readouterr()
    assert out == evaluated
    assert err == f"The report is {tmp_path / 'report/index.html'}\n"
    page = (tmp_path / "report/index.html").read_text()
    assert f"{100 * json.loads(out)['top1']:.2f}%" in page
    assert f"<dd>{run}</dd>" in page
    assert page.count("<figure>") == 24
    curves = base64.b64encode((tmp_path / "curves.png").read_bytes()).decode()
    assert f"data:image/png;base64,{curves}" in page


def write_digits(folder, counts=(1,)):
    """Writes a folder of held-out digits, so many of the classes in turn."""
    digits = open_source("digits")
    for label, name in enumerate(digits.class_names):
        (folder / name).mkdir(parents=True)
        for index in range(counts[label % len(counts)]):
            pixels = digits.images["val"][10 * index + label].numpy()
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_a_report_without_readable_curves_says_so_and_is_written(run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "history.csv").write_text("epoch,loss\n0,x\n")
    data = write_digits(tmp_path / "data")
    with pytest.warns(
        UserWarning, match=r"no training curves: .*history\.csv: row 1 does not hold numbers"
    ):
        main(
            [
                "evaluate",
                f"--model={broken}",
                f"--dataset=folder:{data}",
                "--split=all",
                f"--report={tmp_path / 'report'}",
            ]
        )
    assert "<h2>Training</h2>" not in (tmp_path / "report/index.html").read_text()


def test_export_compares_on_the_runs_images_and_the_file_predicts(run, exported, pictures, capsys):
    report = read_report(exported)
    assert set(report.entries) == set(DEFAULT_FORMATS)
    assert not report.rejected
    assert report.license == "MIT"
    assert report.entries["saved_model"].agreement.images == 32
    int8 = report.entries["tflite_int8"]
    assert int8.compared_on == "images of the validation part of digits"
    assert int8.agreement.images == 256
    assert int8.calibrated_on == "128 images of the training part of digits"
    of_keras = printed(capsys, "predict", f"--model={run / 'model.keras'}", pictures)
    of_tflite = printed(capsys, "predict", f"--model={exported / 'model.tflite'}", pictures)
    for a, b in zip(of_keras.splitlines(), of_tflite.splitlines(), strict=True):
        assert a.split(",")[0].split("%")[0] == b.split(",")[0].split("%")[0]


def test_export_of_a_lone_file_compares_on_given_or_sample_photographs(
    lone, pictures, capsys, tmp_path
):
    arguments = ["export", f"--model={lone}", "--format", "tflite"]

    def compared_on(*more):
        printed(capsys, *arguments, *more)
        entry = read_report(tmp_path / "export").entries["tflite"]
        return f"{entry.agreement.images} {entry.compared_on}"

    assert compared_on() == "8 pieces of two photographs"
    images = "--overwrite", "--images", *pictures.glob("*.[pj]*")
    assert compared_on(*images) == "2 images given"
    assert compared_on("--overwrite", "--images", pictures) == "3 images given"
    one_set = "--overwrite", "--dataset=digits", "--compare_on=40"
    assert compared_on(*one_set) == "40 images of the validation part of digits"
    assert (tmp_path / "export/classes.txt").read_text() == "".join(f"{n}\n" for n in range(10))


def test_what_cannot_be_exported_is_told_and_the_rest_is_written(run, pictures, capsys, tmp_path):
    lone = tmp_path / "lone.keras"
    lone.write_bytes((run / "model.keras").read_bytes())
    many = tmp_path / "many"
    many.mkdir()
    for index in range(32):
        shutil.copy(pictures / "b.jpg", many / f"{index}.jpg")
    arguments = ["export", f"--model={lone}", "--format", "tflite_int8", "tflite_dynamic"]
    with pytest.raises(SystemExit, match="tflite_int8 cannot be written: it needs 32 or more"):
        printed(capsys, *arguments)
    limits = "--min_agreement", "tflite_int8=1.0", "tflite_dynamic=0.7"
    with pytest.raises(SystemExit) as ending:  # calibrated on one picture, compared on digits
        printed(capsys, *arguments, *limits, f"--calibration_images={many}", "--dataset=digits")
    assert str(ending.value).startswith("error: Not written: tflite_int8 does not agree with")
    assert "100.0% of the likeliest classes must be the same" in str(ending.value)
    assert "--force writes it all the same" in str(ending.value)
    assert (tmp_path / "export/model_dynamic.tflite").exists()
    assert not (tmp_path / "export/model_int8.tflite").exists()
    given = f"--calibration_images={many}", "--dataset=digits", "--overwrite", "--force"
    main([*arguments[:-1], *limits[:-1], *given])
    assert "Written though tflite_int8 does not agree with" in capsys.readouterr().err
    assert (tmp_path / "export/model_int8.tflite").exists()


def test_all_is_every_image_of_a_data_set_even_one_a_class(run, evaluated, capsys, tmp_path):
    folder = write_digits(tmp_path / "data", counts=(1, 2, 3))

    def results_of(*arguments):
        return json.loads(printed(capsys, "evaluate", f"--model={run}", *arguments))

    of_folder = results_of(f"--dataset=folder:{folder}", "--split=all")
    parts = {split: results_of(f"--split={split}") for split in ("train", "all")}
    parts["val"] = json.loads(evaluated)

    assert (of_folder["images"], of_folder["split"]) == (4 * 1 + 3 * 2 + 3 * 3, "all")
    assert (parts["all"]["images"], parts["all"]["split"]) == (1797, "all")
    for name in ("top1", "top5", "loss"):
        expected = 1437 * parts["train"][name] + 360 * parts["val"][name]
        assert parts["all"][name] == pytest.approx(expected / 1797)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A PiT-Ti as timm would save it, with random weights in the true layout."""
    keys = (line.split() for line in np.load(ROOT / "tests/golden/models.npz")["pit_ti/keys"])
    state = fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in keys})
    path = tmp_path_factory.mktemp("checkpoints") / "released.safetensors"
    safetensors.numpy.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    """The checkpoint as a `.keras` file, which takes the place of another, and what was printed."""
    output = tmp_path_factory.mktemp("converted") / "pit_ti.keras"
    output.write_text("mine")
    return output, text_of("convert", checkpoint, f"--output={output}", "--overwrite")


def test_convert_makes_a_model_that_predicts_by_imagenets_names(
    checkpoint, converted, pictures, capsys
):
    model, text = converted
    lines = text.splitlines()
    assert lines[0] == f"pit_ti: 160 of 160 variables carried over from {checkpoint}."
    assert lines[1].startswith(f"Written to {model} (1")
    kernel = keras.models.load_model(model).get_layer("head").kernel
    expected = safetensors.numpy.load_file(checkpoint)["head.weight"].T
    np.testing.assert_array_equal(kernel, expected)

    with pytest.warns(UserWarning, match="called by ImageNet's names"):
        out = printed(capsys, "predict", f"--model={model}", "--top=1", pictures / "a.png")
    assert out.split(": ")[1].rsplit(" ", 1)[0] in class_names()


def test_convert_takes_the_size_and_classes_of_the_checkpoint_or_another_size(
    run, capsys, tmp_path
):
    larger = tmp_path / "larger.keras"
    with pytest.raises(SystemExit, match="has the sizes of no model of"):
        main(["convert", str(run / "model.keras"), f"--output={larger}"])
    with pytest.raises(
        SystemExit, match="detr_pit_s is a detector, whose checkpoints are not conv"
    ):
        main(["convert", str(run / "model.keras"), f"--output={larger}", "--model=detr_pit_s"])
    grey = tmp_path / "grey.keras"
    model = pit_keras.create_model("vit_ti", classes=3, input_shape=(48, 48, 1))
    model.save(grey)

    out = printed(capsys, "convert", grey, f"--output={larger}", "--image_size=64,32")

    converted = keras.models.load_model(larger)
    assert converted.input_shape == (None, 64, 32, 1)
    assert converted.output_shape == (None, 3)
    assert "position embedding resampled from 3 x 3 to 4 x 2." in out


def test_convert_across_distillation_only_when_asked(checkpoint, capsys, tmp_path):
    arguments = ["convert", str(checkpoint), "--model=pit_ti_distilled"]
    arguments.append(f"--output={tmp_path / 'distilled.keras'}")
    with pytest.raises(SystemExit, match=r"not distilled .* weights_across_distillation=True"):
        main(arguments)
    assert "copied" in printed(capsys, *arguments, "--weights_across_distillation")


def test_convert_replaces_a_file_only_when_asked(checkpoint, converted, tmp_path):
    output = tmp_path / "model.keras"
    output.write_text("mine")
    with pytest.raises(SystemExit, match=r"is there already; --overwrite replaces it"):
        main(["convert", str(checkpoint), f"--output={output}"])
    assert output.read_text() == "mine"
    replaced, _ = converted
    assert list(replaced.parent.iterdir()) == [replaced]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet"], "add --model"),
        (["imagenet", "--model=pit_x"], "Unknown model 'pit_x'. Did you mean pit_xs"),
        (["imagnet"], "Unknown weights 'imagnet'; give 'imagenet', or the path of a"),
        (["none.pth"], "There is no weights file none.pth"),
        (["{checkpoint}", "--output=x.h5"], "must end in .keras"),
        (["{checkpoint}", "--model=pit_xs"], "It looks like a checkpoint of pit_ti."),
        (["{checkpoint}", "--model=pit_q"], "Unknown model 'pit_q'"),
        (["{checkpoint}", "--image_size=8"], "smaller than one patch"),
    ],
)
def test_convert_explains_bad_input(arguments, message, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        main(["convert", *(argument.format(checkpoint=checkpoint) for argument in arguments)])
    assert str(ending.value).startswith("error: ")
    assert message in str(ending.value)
    assert "\n" not in str(ending.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "alexnet*"], "No model matches 'alexnet*'; models are detr_pit_s, "),
        (["runs", "nowhere"], "There is no folder nowhere; give folders of runs."),
        (["runs", "{pictures}", "{empty}"], "There is no run in or below "),
        (["runs", "{run}", "--sort=lr"], "There is no column 'lr' to sort by; columns are run, "),
        (["runs", "{run}", "--output=x.xyz"], "Cannot draw x.xyz"),
        (["runs", "{run}", "--csv=nowhere/x.csv"], "--csv=nowhere/x.csv cannot be written: there"),
        (["predict", "--model=nowhere", "{pictures}"], "nowhere does not exist; give a run folder"),
        (["predict", "--model={run}", "{pictures}/none.png"], "There is no image at"),
        (["predict", "--model={run}", "{pictures}/notes.txt"], "cannot be read as a JPEG or PNG"),
        (["predict", "--model={run}", "{empty}"], "holds no JPEG or PNG files"),
        (["predict", "--model={pictures}/a.png", "{pictures}"], "a.png"),
        (["predict", "--model={run}", "--output=x.xyz", "{pictures}"], "Cannot draw x.xyz"),
        (
            ["predict", "--model={run}", "--output=nowhere/x.png", "{pictures}"],
            "--output=nowhere/x.png cannot be written: there is no folder nowhere.",
        ),
        (["predict", "--model={run}", "--output={empty}", "{pictures}"], "is a folder; give"),
        (
            ["predict", "--model={run}", "--classes=none.txt", "{pictures}"],
            "none.txt: No such file",
        ),
        (["predict", "--model={run}", "--classes={pictures}/b.jpg", "{pictures}"], "not UTF-8"),
        (["predict", "--model={pictures}/b.jpg", "{pictures}"], "b.jpg is not a model; give a run"),
        (["predict", "--model={pictures}/x.keras", "{pictures}"], "cut short, or not a .keras"),
        (
            ["predict", "--model={nameless}", "{pictures}"],
            "nameless/classes.txt: No such file",
        ),
        (["evaluate", "--model=x.tflite"], "x.tflite is a TFLite file; give its run folder or"),
        (["evaluate", "--model={pictures}/b.jpg"], "b.jpg is not a model; give a run folder or a"),
        (["evaluate", "--model={run}", "--output=nowhere/x.json"], "there is no folder nowhere."),
        (["evaluate", "--model={run}", "--output=/proc/x.json"], "=/proc/x.json cannot be written"),
        (["evaluate", "--model={run}", "--suite=fgsm", "--report=x"], "no meaning with --suite"),
        (["evaluate", "--model={run}", "--report=nowhere/x"], "there is no folder nowhere."),
        (["evaluate", "--model={run}", "--report={pictures}/b.jpg"], "b.jpg is a file; give a"),
        (
            ["evaluate", "--model={run}", "--report={empty}/x", "--output={empty}/../empty/x"],
            "--output and --report name the same file, ",
        ),
        (
            ["evaluate", "--model={run}", "--report={empty}", "--output={empty}/index.html"],
            "--output and --report name the same file, ",
        ),
        (["evaluate", "--model={run}", "--dataset="], "The data set '' names nothing; give digits"),
        (["evaluate", "--model={run}", "--dataset=folder:"], "set 'folder:' names nothing; give"),
        (["export", "--model={run}", "--output_dir=/proc/x"], "/proc cannot be written to: "),
        (["export", "--model={run}", "--output_dir={exported}"], "replace it with --overwrite"),
        (["export", "--model={run}", "--images={empty}"], "holds no JPEG or PNG files"),
        (["export", "--model={run}", "--format=onyx"], "Unknown format 'onyx'; known are saved"),
        (
            ["export", "--model={run}", "--min_agreement", "tflite=0.9"],
            "tflite computes what the Keras model does and is held to",
        ),
        (
            ["export", "--model={run}", "--calibration_images={pictures}"],
            "--calibration_images gives 3 images; int8 needs 32 or more.",
        ),
        (["export", "--model={other}"], "other has no model.keras yet; give a run folder"),
        (["predict", "--model={run}", "--output={pictures}/a.png", "{pictures}"], "is one of the"),
        (
            ["predict", "--model={run}", "--explain={pictures}/a.png", "{pictures}"],
            "/a.png is one of the images to predict.",
        ),
        (["predict", "--model={run}", "--explain=x.xyz", "{pictures}"], "Cannot draw x.xyz"),
        (
            ["predict", "--model={run}", "--explain=nowhere/x.png", "{pictures}"],
            "--explain=nowhere/x.png cannot be written: there is no folder nowhere.",
        ),
        (
            ["predict", "--model={run}", "--explain={empty}/x.png", *34 * ["{pictures}"]],
            "One picture holds at most 100 images; got 102.",
        ),
        (
            [
                "predict",
                "--model={run}",
                "--explain={empty}/x.png",
                "--output={empty}/../empty/x.png",
                "{pictures}",
            ],
            "--output and --explain name the same file, ",
        ),
        (
            ["predict", "--model={run}", "--classes={pictures}/notes.txt", "{pictures}"],
            "1 class names",
        ),
        (["evaluate", "--model={run}", "--dataset=folder:{pictures}"], "pictures"),
        (["evaluate", "--model={run}", "--dataset=folder:{other}"], "'x' among its 2 classes"),
        (
            ["evaluate", "--model={run}", "--classes={pictures}/ten.txt"],
            "has its own class names, with which the data's are matched; leave --classes out",
        ),
        (
            ["predict", "--model={run}", "--classes={pictures}/ten.txt", "{pictures}"],
            "have '1' in the place of '0'",
        ),
        (["evaluate", "--model={run}", "--crop=2"], "crop"),
        (["export", "--model={run}", "--output_dir={pictures}/a.png"], "a.png"),
    ],
)
def test_bad_input_is_one_sentence_and_a_failure(
    arguments, message, run, pictures, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "exported/saved_model/1").mkdir(parents=True)
    (pictures / "x.keras").write_text("not a model")
    lost = shutil.ignore_patterns("classes.txt", "checkpoints")
    shutil.copytree(run, tmp_path / "nameless", ignore=lost)
    (pictures / "ten.txt").write_text("1\n0\n2\n3\n4\n5\n6\n7\n8\n9\n")
    for label in "0x":
        (tmp_path / f"other/{label}").mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (9, 9)).save(tmp_path / f"other/{label}/{index}.png")
    places = {
        "run": run,
        "pictures": pictures,
        "empty": tmp_path / "empty",
        "exported": tmp_path / "exported",
        "nameless": tmp_path / "nameless",
        "other": tmp_path / "other",
    }
    before = sorted([*tmp_path.rglob("*"), *run.rglob("*")])

    with pytest.raises(SystemExit) as ending:
        main([argument.format(**places) for argument in arguments])

    assert str(ending.value).startswith("error: ")
    assert message in str(ending.value)
    assert "\n" not in str(ending.value)
    assert "Errno" not in str(ending.value)
    assert capsys.readouterr().out == ""
    assert sorted([*tmp_path.rglob("*"), *run.rglob("*")]) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["predict"], "--model"),
        *(
            (["predict", "--model=x", f"--top={top}", "y"], "must be a whole number, 1 or more")
            for top in ("0", "-1", "abc", "1.5", "")
        ),
        *(
            (["export", "--model=x", "--min_agreement", f"tflite_int8{share}"], message)
            for share, message in {
                "": "must be like tflite_int8=0.95",
                "=": "must be a number in 0..1; got ''",
                "=1.5": "must be a number in 0..1; got '1.5'",
                "=nan": "must be a number in 0..1; got 'nan'",
            }.items()
        ),
    ],
)
def test_wrong_usage_is_explained(arguments, message, capsys):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    explanation = capsys.readouterr().err
    assert "usage: pit-keras" in explanation
    assert message in explanation


def command(*arguments, **streams):
    """`pit-keras` in a process of its own."""
    program = "from pit_keras.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], text=True, check=False, **streams
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "vit_ti"],
        pytest.param(["predict", "--model={run}", "{pictures}"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_gone_ends_the_program_without_a_word(arguments, run, pictures):
    arguments = [argument.format(run=run, pictures=pictures) for argument in arguments]
    reader, writer = os.pipe()
    os.close(reader)

    with os.fdopen(writer, "w") as gone:
        ended = command(*arguments, stdout=gone, stderr=subprocess.PIPE)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "roken" not in ended.stderr


def test_ctrl_c_ends_the_program_at_once_and_quietly(pictures):
    program = f"""
import signal, sys
from pit_keras.cli import main

def interrupt(event, arguments):
    if event.startswith("os.") and {str(pictures)!r} in str(arguments):
        signal.raise_signal(signal.SIGINT)

sys.addaudithook(interrupt)
main(["predict", "--model=x", {str(pictures)!r}])
"""

    ended = forked.run_code(program)

    assert ended.returncode == -signal.SIGINT
    assert "Traceback" not in ended.stderr


def test_only_results_are_printed(run, pictures, tmp_path):
    arguments = ["predict", f"--model={run}", f"--output={tmp_path / 'x.png'}", pictures]

    ended = command(
        *arguments, capture_output=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )

    assert ended.returncode == 0, ended.stderr
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == [
        str(pictures / name) for name in ("a.png", "b.jpg", "c.JPEG")
    ]
    # TensorFlow's remarks on itself are not shown.
    left_out = "Left out, being no JPEG or PNG: 1 .txt.\n"
    assert ended.stderr == f"{left_out}Drawn in {tmp_path / 'x.png'}\n"


def script(name, *arguments):
    return forked.run_script(ROOT / "train" / name, *arguments)


def test_the_training_script_from_flags_to_finished_run(tmp_path):
    """On JPEGs of mixed sizes; then the same command again, which changes nothing."""
    for label, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
        for part, count in (("train", 10), ("val", 3)):
            (tmp_path / f"data/{part}/{label}").mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(index).integers(0, 55, (30 + index, 50 - index, 3))
                pixels = np.uint8(noise + colour)
                Image.fromarray(pixels).save(tmp_path / f"data/{part}/{label}/{index}.jpg")
    run = tmp_path / "run"
    arguments = [
        "--recipe=cutmix", "--model=vit_ti", f"--dataset=folder:{tmp_path / 'data'}",
        f"--output_dir={run}", "--image_size=24,32", "--batch_size=5", "--epochs=2",
        "--config.model.patch_size=8", "--config.model.stride=8", "--config.model.head_dim=4",
        "--config.model.depth=1", "--config.optimizer.warmup_epochs=1", "--jit=off",
    ]  # fmt: skip
    first = script("train.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert re.search(r"Best: epoch \d of 2, top-1 .* on 6 validation images", first.stdout)
    assert (run / "classes.txt").read_text() == "blue\nred\n"
    with (run / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert Image.open(run / "history.png").size[0] > 500

    # So it is if the run is of an earlier version, whose warm-up did not follow --epochs.
    config = json.loads((run / "config.json").read_text())
    config["optimizer"]["warmup_epochs"], config["training"]["epochs"] = 5.0, 10
    (run / "config.json").write_text(json.dumps(config))
    arguments.remove("--config.optimizer.warmup_epochs=1")
    again = script("train.py", *arguments, "--epochs=10")
    assert again.returncode == 0
    assert "is finished; nothing is changed." in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=digits"], "--output_dir"),
        (
            ["--dataset=digits", "--output_dir={run}", "--model=pit_x"],
            "error: Unknown model 'pit_x'",
        ),
        (["--dataset=folder:{run}/none", "--output_dir={run}"], "error: "),
        (
            ["--dataset=digits", "--output_dir={run}", "--config.data.flop=1"],
            "Did you mean: config.data.flip",
        ),
    ],
)
def test_the_training_script_fails_in_one_sentence(arguments, message, tmp_path):
    ended = script("train.py", *(argument.format(run=tmp_path / "run") for argument in arguments))
    assert ended.returncode == 1
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_sample_images_are_written_with_their_class(tmp_path):
    ended = script("sample_images.py", "--dataset=digits", "--count=3", f"--output_dir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000_2.png",
        "000001_3.png",
        "000002_4.png",
    ]
    assert Image.open(tmp_path / "000000_2.png").size == (8, 8)


def test_sample_images_names_the_one_that_cannot_be_read(tmp_path):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (9, 9)).save(tmp_path / f"data/{name}/{index}.bmp")
            (tmp_path / f"data/{name}/{index}.bmp").rename(tmp_path / f"data/{name}/{index}.png")

    ended = script(
        "sample_images.py", f"--dataset=folder:{tmp_path / 'data'}", f"--output_dir={tmp_path}"
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'data'}")
    assert "cannot be read as a JPEG or PNG image." in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
