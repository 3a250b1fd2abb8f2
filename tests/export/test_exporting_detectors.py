"""A detector in other forms: the same objects, in pixels of the image that is given."""

import dataclasses
import io
import json
import re

import forked
import numpy as np
import pytest
import tensorflow as tf
from detectors import IMAGE_SIZE, small_detector
from PIL import Image

from pit_keras.cli import main
from pit_keras.config.fields import DataConfig
from pit_keras.data.detection_preprocessing import fit
from pit_keras.export.agreement import take_sample
from pit_keras.export.export_report import read_report
from pit_keras.export.exporting import export
from pit_keras.export.formats import DETECTOR_FORMATS, TOLERANCE
from pit_keras.export.saved_model import export_detector_saved_model
from pit_keras.export.tflite import (
    export_detector_tflite,
    load_tflite_model,
    signature,
)
from pit_keras.runs.trained_detector import TrainedDetector

NAMES = ("cat", "Größe", "two words")
SIDE = 640  # of the largest image, in pixels; exact forms may differ by `TOLERANCE` of it
DATA = DataConfig(image_size=IMAGE_SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def finding_detector(input_shape=(None, None, 3)):
    """A detector that finds objects of several classes, with scores whose order no rounding
    changes."""
    model = small_detector(input_shape, name="detr_pit_s")  # with pooling that is dilated
    positions, head = model.get_layer("object_queries").weights[0], model.get_layer("class_head")
    positions.assign(20 * positions)
    head.kernel.assign(12 * head.kernel)
    # No class is the likeliest of all queries: what is left of their logits is their difference.
    logits = model(np.zeros((1, *IMAGE_SIZE, 3), "float32"))["logits"]
    head.bias.assign(head.bias - np.mean(logits, axis=(0, 1)) - [0, 0, 0, 1])
    return model


@pytest.fixture(scope="module")
def trained():
    return TrainedDetector(finding_detector(), NAMES, DATA)


@pytest.fixture(scope="module")
def exported(trained, photographs, tmp_path_factory):
    """The folder to which it was exported in every form."""
    folder = tmp_path_factory.mktemp("exported")
    sample = take_sample(photographs[:4], trained.data, "pieces")  # one of each size
    export(trained, folder, compare_on=sample, license="MIT")
    return folder


def test_every_form_agrees_with_the_keras_model(exported):
    report = read_report(exported)
    assert tuple(report.entries) == DETECTOR_FORMATS
    assert set(report.left_out) == {"tflite_int8", "onnx"}
    assert report.model["image_size"] == list(IMAGE_SIZE)
    assert report.model["classes"] == 3
    for name, entry in report.entries.items():
        assert entry.accepted
        assert entry.agreement.images == 4
        assert entry.agreement.objects > 4
        exact = name in ("saved_model", "tflite")
        assert entry.agreement.within() == exact
        assert all(milliseconds > 0 for milliseconds in entry.latency_ms.values())


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported / "saved_model/1"))


def check_found(found, at, expected):
    """That what a SavedModel gives for an image begins with the objects that are expected."""
    count = int(found["count"][at])
    assert count == len(expected)
    assert np.all(np.diff(found["scores"][at]) <= 0)
    for row, (name, score, box, label) in enumerate(expected):
        assert found["classes"][at, row].numpy().decode() == name
        assert found["labels"][at, row] == label
        assert float(found["scores"][at, row]) == pytest.approx(score, abs=TOLERANCE)
        assert found["boxes"][at, row].numpy() == pytest.approx(np.array(box), abs=SIDE * TOLERANCE)


def test_a_saved_model_gives_the_objects_of_images_of_any_size(trained, served, photographs):
    serve = served.signatures["serving_default"]
    found_any = 0
    for image in photographs[1:3]:
        pair = np.stack([image, image[::-1]])
        found = serve(images=pair)
        assert found["boxes"].shape == (2, 10, 4)
        for at, expected in enumerate(trained.detections_of(pair)):
            check_found(found, at, expected)
            found_any += len(expected)
        assert sorted(found["queries"][0].numpy()) == list(range(10))
    assert found_any


def test_a_saved_model_turns_files_where_the_training_did(trained, lying, tmp_path):
    data = dataclasses.replace(trained.data, apply_orientation=True)
    trained = dataclasses.replace(trained, data=data)
    export_detector_saved_model(trained, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    contents, shown = lying
    found = served.signatures["serve_bytes"](image_bytes=tf.constant([contents]))
    (expected,) = trained.detections_of([shown])
    assert expected
    check_found(found, 0, expected)


def test_a_saved_model_takes_files_of_different_sizes(trained, served, photographs):
    images, files = [photographs[0], photographs[2], photographs[3]], []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        files.append(buffer.getvalue())
    found = served.signatures["serve_bytes"](image_bytes=tf.constant(files))
    for at, expected in enumerate(trained.detections_of(images)):
        check_found(found, at, expected)
    names = tf.io.read_file(served.classes.asset_path).numpy().decode().splitlines()
    assert tuple(names) == NAMES
    preprocessing = json.loads(tf.io.read_file(served.preprocessing.asset_path).numpy())
    assert preprocessing["task"] == "detection"
    assert preprocessing["image_size"] == list(IMAGE_SIZE)


def test_a_tflite_file_gives_shares_of_the_image_whatever_lies_beside_it(trained, exported):
    image = np.random.default_rng(0).integers(256, size=(60, 50, 3), dtype=np.uint8)
    file = exported / "model.tflite"
    pixels, content = (each.numpy() for each in fit(image[None], IMAGE_SIZE, IMAGE_SIZE))
    padded = pixels.copy()
    padded[0, :, content[1] :] = 77  # to the right of the image
    detect, expected = signature(file), trained.answers(image, IMAGE_SIZE)
    for images in (pixels, padded):
        found = detect(images=images, content=content[None])
        boxes = found["boxes"][0] * [50, 60, 50, 60]
        np.testing.assert_allclose(boxes, expected["boxes"], rtol=0, atol=60 * TOLERANCE)
        np.testing.assert_allclose(found["scores"][0], expected["scores"], rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(found["labels"][0], expected["labels"])
    whole = detect(images=padded, content=np.array([IMAGE_SIZE], np.int32))
    assert np.abs(whole["scores"][0] - expected["scores"]).max() > TOLERANCE


def test_a_tflite_file_finds_objects_as_a_detector_does(trained, exported, photographs, tmp_path):
    loaded = load_tflite_model(exported / "model.tflite")
    assert (loaded.class_names, loaded.image_size) == (NAMES, IMAGE_SIZE)
    lying = photographs[0]
    (found,), (expected,) = loaded.detections_of([lying]), trained.detections_of([lying])
    assert [each.name for each in found] == [each.name for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.box == pytest.approx(other.box, abs=SIDE * TOLERANCE)
    assert load_tflite_model(exported / "model.tflite", "abc").class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="2 class names"):
        load_tflite_model(exported / "model.tflite", "ab")

    export_detector_tflite(trained, tmp_path / "pair.tflite", batch=2)
    (of_pair,) = load_tflite_model(tmp_path / "pair.tflite").detections_of([lying])
    assert [each.name for each in of_pair] == [each.name for each in found]


def test_predict_takes_the_file_and_serve_does_not(exported, photographs, capsys, tmp_path):
    photo, model = tmp_path / "photo.png", exported / "model.tflite"
    Image.fromarray(photographs[0]).save(photo)
    (expected,) = load_tflite_model(model).detections_of([photographs[0]])
    assert expected
    main(["predict", f"--model={model}", str(photo)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{photo}: {len(expected)} object")
    assert [line.split(" ")[2:3] for line in lines[1:]] == [
        [each.name.split(" ")[0]] for each in expected
    ]
    with pytest.raises(SystemExit) as ended:
        main(["serve", f"--model={model}"])
    assert "is a detector; a classifier is wanted here" in ended.value.code


def test_the_cards_programs_find_the_objects(trained, exported, photographs):
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "An object detector (DETR)" in card
    assert "top-1" not in card
    Image.fromarray(photographs[0]).save(exported / "photo.jpg", quality=95)
    (expected,) = trained.detections_of([np.asarray(Image.open(exported / "photo.jpg"))])
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        process = forked.run_code(program, exported)
        assert process.returncode == 0, process.stderr
        printed = [line for line in process.stdout.splitlines() if line.startswith(NAMES)]
        assert len(printed) == len(expected) > 0
        assert sorted(line[:3] for line in printed) == sorted(each.name[:3] for each in expected)
    (exported / "photo.jpg").unlink()


def error_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_what_has_no_meaning_for_a_detector_is_refused(tmp_path):
    path, photo = tmp_path / "model.keras", tmp_path / "photo.png"
    small_detector().save(path)
    Image.new("RGB", (30, 20)).save(photo)
    common = "export", f"--model={path}", f"--output_dir={tmp_path / 'out'}"
    for arguments, sentence in (
        (("--format", "onnx"), "onnx cannot be written: detectors are written as saved_model"),
        (("--calibrate_on=64",), "--calibrate_on has no meaning for a detector"),
        (("--compare_on=33",), "--compare_on of a detector is at most 32"),
    ):
        assert sentence in error_of(*common, *arguments, "--images", photo)
    assert not (tmp_path / "out").exists()
