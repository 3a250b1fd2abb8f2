"""Each script of `benchmarks/` at its smallest size; make_tables.py is in `test_results.py`."""

import collections
import csv
import gzip
import importlib.util
import itertools
import json
import pathlib
import runpy
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import uvicorn
from PIL import Image

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.runs.trained_model import TrainedModel
from pit_keras.serving.application import Service
from pit_keras.serving.limits import Limits
from pit_keras.serving.served_networks import KerasNetwork
from pit_keras.serving.server import bind

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
RESULTS = BENCHMARKS.parent / "results"
ANNOTATIONS = json.loads((BENCHMARKS / "photographs.json").read_text())
HAS_TIMM = all(map(importlib.util.find_spec, ("torch", "timm")))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script with `--small`; the rows that it writes, {name of the CSV: rows}."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(tmp_path)

    def run_script(name, *arguments):
        runpy.run_path(str(BENCHMARKS / f"{name}.py"))["main"](["--small", *arguments])
        found = {}
        for path in (tmp_path / "results").glob("*.csv"):
            with path.open(newline="") as file:
                found[path.stem] = list(csv.DictReader(file))
        return found

    yield run_script
    keras.config.set_dtype_policy("float32")


def columns(name):
    """Those of a committed table."""
    return (RESULTS / f"{name}.csv").read_text().splitlines()[0].split(",")


@pytest.fixture
def eagerly():
    """No function is traced, which takes longer than the few calls of a small network."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", ["detectors", "evaluation_speed", "training_step"])
def test_networks_by_themselves(name, run, eagerly):
    assert [list(row) for row in run(name)[name]] == [columns(name)]


def test_interaction(run):
    assert [list(row) for row in run("interaction")["interaction"]] == [columns("interaction")]


def test_labels_of_cutmix(run):
    rows = run("keras_cv_cutmix")["keras_cv_cutmix"]
    assert [list(row) for row in rows] == [columns("keras_cv_cutmix")] * 2


def test_timm_beside_it_where_it_is_installed(run, eagerly):
    rows = run("compare")["compare"]
    assert [list(row) for row in rows] == [columns("compare")] * 2
    assert all(bool(row["speed_over_timm"]) == HAS_TIMM for row in rows)


def test_ceilings_inference_and_training_of_a_device(run, eagerly):
    rows = run("gpu")["gpu"]
    assert [row["what"] for row in rows] == ["matrix product", "copy", "inference", "training step"]
    assert all(float(row["per_second"]) > 0 for row in rows)


@pytest.fixture
def url():
    """A server of a small model in a thread of this process."""
    settings = {"patch_size": 8, "stride": 8, "head_dim": 4, "depth": 1, "classes": 2}
    model = pit_keras.create_model("vit_ti", input_shape=(16, 16, 3), **settings)
    trained = TrainedModel(model, ("cat", "dog"), DataConfig(image_size=(16, 16)))
    limits = Limits(8, 64, 10_000_000, 10_000_000, 60)
    service = Service(KerasNetwork(trained), "model", limits, "127.0.0.1")
    server = uvicorn.Server(
        uvicorn.Config(service.application, lifespan="off", log_level="error", ws="none")
    )
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield "http://{}:{}".format(*listener.getsockname())
        server.should_exit = True
        thread.join()
        service.close()


def test_a_server_that_runs(run, url):
    (row,) = run("serving_latency", f"--url={url}")["serving_latency"]
    assert list(row) == columns("serving_latency")
    assert (row["clients"], row["refused"]) == ("2", "0.0")


def test_exported_forms(run):
    rows = run("export_speed")["export_speed"]
    assert list(rows[0]) == columns("export_speed")
    expected = ["timm, eager"] if HAS_TIMM else []
    expected += ["SavedModel, float32", "LiteRT, int8", "ONNX Runtime"]
    if importlib.util.find_spec("openvino"):
        expected += ["OpenVINO, f32", "OpenVINO, bf16"]
    assert [row["runtime"] for row in rows] == expected
    assert all(bool(row["speed_over_timm"]) == HAS_TIMM for row in rows)


def test_pipelines_and_their_stages(run):
    found = run("input_pipeline")
    (row,) = found["input_pipeline"]
    assert list(row) == columns("input_pipeline")
    assert float(row["pit_keras_images_per_s"]) > 0
    stages = found["input_pipeline_stages"]
    assert [row["stage"] for row in stages] == ["decode, crop, resize", "flip"]
    assert list(stages[0]) == columns("input_pipeline_stages")


def test_digit_scenes(run, eagerly):
    found = run("digit_scenes")
    for name in ("digit_scenes", "digit_scenes_summary"):
        assert [list(row) for row in found[name]] == [columns(name)]


def test_sixteen_photographs(run, tmp_path, eagerly):
    (tmp_path / "shipped").mkdir()
    for image in ANNOTATIONS["images"]:
        pixels = np.zeros((image["height"], image["width"], 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "shipped" / image["file_name"])
    (rows,) = run("overfit_detection", f"--photographs={tmp_path / 'shipped'}").values()
    assert [list(row) for row in rows] == [columns("overfit_detection")]
    assert (rows[0]["features"], rows[0]["epoch"]) == ("plain", "1")


def test_photographs_have_one_to_four_boxes_within_them():
    images = {image["id"]: image for image in ANNOTATIONS["images"]}
    assert len({image["file_name"] for image in images.values()}) == len(images) == 16
    boxes = collections.Counter(box["image_id"] for box in ANNOTATIONS["annotations"])
    assert set(boxes) == set(images)
    assert set(boxes.values()) <= {1, 2, 3, 4}
    for annotation in ANNOTATIONS["annotations"]:
        left, top, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert min(left, top) >= 0
        assert min(width, height) >= 16
        assert left + width <= image["width"]
        assert top + height <= image["height"]
        assert annotation["area"] == width * height
    ids = [category["id"] for category in ANNOTATIONS["categories"]]
    assert {box["category_id"] for box in ANNOTATIONS["annotations"]} == set(ids)


def test_fit_beside_the_trainer(run, eagerly):
    rows = run("fit")["fit_tensorflow"]
    assert list(rows[0]) == columns("fit_tensorflow")
    assert [row["way"] for row in rows] == ["fit", "trainer"]
    assert all(0 < float(row["val_accuracy"]) < 1 and float(row["step_ms"]) > 0 for row in rows)


@pytest.mark.usefixtures("eagerly")
def test_photos(run, tmp_path):
    for split, name, number in itertools.product(("train", "val"), "ab", range(10)):
        path = tmp_path / "folder" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((28, 28), 20 * number + 50 * (name == "b"), np.uint8)
        Image.fromarray(pixels).save(path)
    rows = run("photos", f"--folder={tmp_path / 'folder'}")["photos"]
    assert list(rows[0]) == columns("photos")
    assert [row["recipe"] for row in rows] == ["photos", "cutmix"]


def test_fashion_mnist(run, tmp_path):
    idx, label = tmp_path / "idx", 3
    idx.mkdir()
    for part in ("train", "t10k"):
        for what, contents in (
            ("images-idx3", bytes(16) + bytes([label]) * 2 * 28 * 28),
            ("labels-idx1", bytes(8) + bytes([label]) * 2),
        ):
            path = idx / f"{part}-{what}-ubyte.gz"
            path.write_bytes(gzip.compress(contents))
    run("fashion_mnist", f"--idx_dir={idx}", f"--output_dir={tmp_path / 'images'}")
    written = {str(path.relative_to(tmp_path / "images")) for path in tmp_path.rglob("*.png")}
    assert written == {"train/Dress/00000.png", "val/Dress/00000.png"}
    pixels = np.asarray(Image.open(tmp_path / "images/val/Dress/00000.png"))
    assert (pixels.shape, set(pixels.flat)) == ((28, 28), {label})

    with pytest.raises(SystemExit, match=r"^error: .*gz: No such file"):
        run("fashion_mnist", f"--idx_dir={tmp_path}")


def test_what_is_planted_in_a_folder_is_found(run):
    rows = run("dirty_folder")["dirty_folder"]
    assert list(rows[0]) == columns("dirty_folder")
    planted = {row["what"]: row["found"] for row in rows if row["planted"] == "1"}
    assert len(planted) == 15
    assert {what for what, found in planted.items() if found != "1"} <= {"moved to another class"}


def test_every_script_is_run():
    helpers = {"command", "small_detectors", "timm_model", "make_tables"}
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - helpers
    source = pathlib.Path(__file__).read_text()
    assert [name for name in scripts if f'"{name}"' not in source] == []
