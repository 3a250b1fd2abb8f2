"""`pit-keras predict` and `evaluate` with a detector."""

import json
import re

import numpy as np
import pytest
from coco_form import write_coco_form
from detectors import IMAGE_SIZE, small_detector
from PIL import Image

from pit_keras.cli import main
from pit_keras.config.fields import Config, DataConfig
from pit_keras.create import create_model
from pit_keras.data.coco import open_detection_source
from pit_keras.evaluation.detection import COCO_METRICS, coco_metrics
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_detector import load_trained_detector

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Lying images, since each size is traced anew.
    folder, sizes = tmp_path_factory.mktemp("coco"), ((48, 72), (40, 64))
    return write_coco_form(folder, counts={"train": 3, "val": 2}, sizes=sizes)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "colours")
    folder.create(Config(data=DataConfig(dataset=f"coco:{data}", image_size=IMAGE_SIZE)), NAMES)
    small_detector().save(folder.model)
    return folder.path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "model.keras"
    sizes = {"input_shape": (32, 32, 3), "patch_size": 8, "stride": 8, "head_dim": 8}
    create_model("vit_ti", depth=1, classes=10, **sizes).save(path)
    return path


def call(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr()


def error_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_predict_prints_each_images_objects_and_draws_them(run, data, capsys, tmp_path):
    picture, folder = tmp_path / "boxes.png", data / "val"
    arguments = "predict", f"--model={run}", folder, f"--output={picture}"
    printed = call(capsys, *arguments, "--threshold=0.2").out.splitlines()
    paths, detector = sorted(folder.iterdir()), load_trained_detector(run)
    expected = []
    for path in paths:
        (objects,) = detector.detections_of([np.asarray(Image.open(path))], threshold=0.2)
        expected.append(f"{path}: {len(objects)} objects")
        for name, score, (left, top, right, bottom), _ in objects:
            expected.append(
                f"  {name} {score:.1%}: left {left:.0f}, top {top:.0f}, right {right:.0f}, bottom "
                f"{bottom:.0f}"
            )
    assert printed == expected
    assert len(printed) > len(paths)
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"

    nothing = call(capsys, "predict", f"--model={run}", paths[0]).out  # of 0.7 or more
    assert nothing == f"{paths[0]}: 0 objects\n"


def test_evaluate_prints_cocos_figures_and_writes_what_is_asked_for(run, data, capsys, tmp_path):
    output, found = tmp_path / "results.json", tmp_path / "found.json"
    arguments = "evaluate", f"--model={run}", f"--output={output}", f"--detections={found}"
    printed = call(capsys, *arguments)
    results, detections = json.loads(output.read_text()), json.loads(found.read_text())
    assert json.loads(printed.out) == results
    truth = open_detection_source(f"coco:{data}").ground_truth("val")
    assert results == {
        **coco_metrics(truth, detections),
        "images": 2,
        "dataset": f"coco:{data}",
        "split": "val",
        "image_size": list(IMAGE_SIZE),
    }
    assert len(detections) == 2 * 10
    table = printed.err.split()
    shown = [cell for cell in table if cell == "none" or cell.replace(".", "").isdigit()]
    figures = [results[name] for name in COCO_METRICS]
    figures = ["none" if figure is None else f"{figure:.3f}" for figure in figures]
    assert [cell for cell in shown if cell == "none" or len(cell) == 5] == figures

    train = call(capsys, "evaluate", f"--model={run}", "--split=train", f"--dataset=coco:{data}")
    assert json.loads(train.out)["images"] == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("predict", "{data}/val", "--top=3"), "--top has no meaning for a detector"),
        (("predict", "{data}/val", "--explain={out}"), "--explain has no meaning for a detector"),
        (("evaluate", "--crop=0.9"), "--crop has no meaning for a detector"),
        (("evaluate", "--report={out}"), "--report has no meaning for a detector"),
        (("evaluate", "--split=all"), "--split=all has no meaning for a detector"),
        (("evaluate", "--suite", "occlusion"), "is a detector; a classifier is wanted here"),
        (("evaluate", "--dataset=digits"), "has no boxes"),
        (("serve",), "is a detector; a classifier is wanted here"),
    ],
)
def test_what_has_no_meaning_for_a_detector_is_refused(run, data, tmp_path, arguments, sentence):
    filled = [each.format(data=data, out=tmp_path / "out.png") for each in arguments]
    assert re.search(sentence, error_of(*filled, f"--model={run}"))
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("predict", "{data}/val", "--threshold=0.3"),
            "--threshold has no meaning for a",
        ),
        (("evaluate", "--detections={out}"), "--detections has no meaning for a classifier"),
        (("evaluate", "--suite", "occlusion", "--detections={out}"), "no meaning with --suite"),
    ],
)
def test_what_has_no_meaning_for_a_classifier_is_refused(
    classifier, data, tmp_path, arguments, sentence
):
    filled = [each.format(data=data, out=tmp_path / "out.json") for each in arguments]
    assert sentence in error_of(*filled, f"--model={classifier}")
    assert not (tmp_path / "out.json").exists()


def test_a_threshold_is_a_share_and_files_are_checked_before_the_model(run, data, capsys, tmp_path):
    assert error_of("predict", f"--model={run}", data / "val", "--threshold=70") == 2
    assert "must be a number in 0..1; got '70'" in capsys.readouterr().err
    same = tmp_path / "same.json"
    twice = f"--output={same}", f"--detections={same}"
    assert "name the same file" in error_of("evaluate", f"--model={tmp_path / 'none'}", *twice)
    assert "no folder" in error_of(
        "evaluate", f"--model={tmp_path / 'none'}", f"--detections={tmp_path}/none/found.json"
    )


def test_annotations_are_not_overwritten_by_detections(run, data, tmp_path):
    annotations = tmp_path / "val.json"
    annotations.write_text('{"images": []}')
    message = error_of("evaluate", f"--model={run}", f"--detections={annotations}")
    assert "is no COCO results file" in message
    assert annotations.read_text() == '{"images": []}'


def test_a_detector_of_one_size_is_not_evaluated(data, tmp_path):
    small_detector((*IMAGE_SIZE, 3)).save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    arguments = "evaluate", f"--model={tmp_path / 'model.keras'}", f"--dataset=coco:{data}"
    assert "takes images of 32 x 48 pixels only" in error_of(
        *arguments, f"--classes={tmp_path / 'names.txt'}"
    )
    assert "the detector has no class names" in error_of(*arguments)
