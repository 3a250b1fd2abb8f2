"""A detector in the one trainer: its loss over replicas and parts, what is frozen, whole runs."""

import json
import pathlib
import shutil
import signal

import detection_runs
import forked
import keras
import numpy as np
import pytest
import runs
import tensorflow as tf
from test_trainer import checkpoints, contents, events, forget_last_epoch, rows

from pit_keras.config.fields import Config
from pit_keras.create import create_model
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_detector import load_trained_detector
from pit_keras.training.assembly import model_of, optimizer_of
from pit_keras.training.detection_task import DetectionLoss, DetectionTask
from pit_keras.training.preview import draw_preview
from pit_keras.training.step import compiled_step
from pit_keras.training.tasks import open_source_of
from pit_keras.training.trainer import Trainer

DETECT = pathlib.Path(__file__).parents[2] / "train/detect.py"
COCO_NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]


class Classes:
    class_names, category_ids = ("red", "green", "blue"), (2, 5, 11)

    @staticmethod
    def most_objects():
        return 11


def small(name="detr_pit_s", **values):
    config = detection_runs.make_config(model__dropout=0.0, **values)
    config.model.name = name
    if name == "detr_resnet50":
        config.model.patch_size = config.model.stride = config.model.head_dim = None
        config.model.heads, config.model.output_stride = None, 16
        config.model.depths, config.model.base_width = (1, 1, 1, 1), 4
    keras.utils.set_random_seed(0)
    return config, model_of(config, Classes)


def one_step(config, model, batch):
    """Metrics of one step of plain gradient descent, and how far it moved each variable."""
    config.optimizer.clip_norm = None
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    loss = DetectionLoss(config, model)
    step = compiled_step(config, model, loss, optimizer, strategy, jit=False)
    before = [variable.numpy() for variable in model.trainable_variables]
    metrics = step(batch, tf.constant(0, tf.int64), tf.zeros(2))
    moved = [old - new.numpy() for old, new in zip(before, model.trainable_variables, strict=True)]
    return {name: float(v) for name, v in metrics.items() if name != "requests"}, moved


def test_accumulated_batches_do_what_one_large_batch_does():
    batch = detection_runs.batch(4)
    whole, expected = one_step(*small(training__batch_size=4), batch)
    parts, moved = one_step(*small(training__batch_size=2, training__accumulate=2), batch)
    assert parts == pytest.approx(whole, rel=1e-4)
    # The biases of keys have no gradient but rounding: a softmax does not see them.
    rounding = 1e-6 * max(np.abs(gradient).max() for gradient in expected)
    for ours, theirs in zip(moved, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=rounding)


def test_a_step_gives_the_same_bits_each_time():
    config, model = small(model__decoder_layers=4)
    loss, batch = DetectionLoss(config, model), detection_runs.batch(4)

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            total = loss(batch, {}, loss.totals(batch))["loss"]
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    with DetectionTask(config, Classes).graph_options():
        first = [gradient.numpy() for gradient in gradients() if gradient is not None]
        for _ in range(30):
            for gradient, expected in zip(
                (g for g in gradients() if g is not None), first, strict=True
            ):
                np.testing.assert_array_equal(gradient, expected)
    assert "arithmetic_optimization" in tf.config.optimizer.get_experimental_options()
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"]


def test_more_objects_than_queries_are_told(caplog):
    config = detection_runs.make_config()
    DetectionTask(config, Classes)
    assert "with up to 11 objects, of which a model with 10 queries finds" in caplog.text
    caplog.clear()
    config.model.queries = 11
    DetectionTask(config, Classes)
    assert not caplog.text


def test_two_replicas_do_what_one_does_and_new_sizes_are_not_traced():
    process = forked.run_script(pathlib.Path(__file__).parent / "several_devices_detecting.py")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    for ours, theirs in zip(found["metrics"], found["expected"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert found["gap"] < 1e-4
    assert found["traces"] == [2, 2]  # of the first size, and of any


def test_batch_normalization_is_frozen_exactly_where_there_are_weights():
    config, model = small("detr_resnet50")
    norms = [x.name for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for values, is_frozen in (
        ({}, False),
        ({"model__weights": "imagenet"}, True),
        ({"model__weights": "imagenet", "detection__freeze_norms": False}, False),
    ):
        for path, value in values.items():
            section, name = path.split("__")
            setattr(getattr(config, section), name, value)
        for layer in model.layers:
            layer.trainable = True
        DetectionTask(config, Classes).freeze(model)
        assert {model.get_layer(name).trainable for name in norms} == {not is_frozen}
        assert model.get_layer("input_projection").trainable


def test_the_stem_and_the_first_stages_are_frozen():
    config, model = small("detr_resnet50")
    config.model.weights, config.model.frozen_stages = "imagenet", 1
    DetectionTask(config, Classes).freeze(model)
    trained = {layer.name for layer in model.layers if layer.trainable_weights}
    assert not any(name.startswith(("stem", "stage1")) for name in trained)
    assert {"input_projection", "class_head", "decoder_layer2"} <= trained
    assert any(name.startswith("stage2_block1") for name in trained)


@pytest.mark.parametrize("batch_size", [8, 64])
def test_rates_are_detrs_whatever_the_batch(batch_size):
    config, model = small(training__batch_size=batch_size)
    config.optimizer.learning_rate = 1e-4
    scales = DetectionTask(config, Classes).learning_rate_scales(model)
    optimizer = optimizer_of(config, model, steps=3, scales=scales)
    rates = {
        variable.path.split("/")[0]: scale * float(optimizer.learning_rate)
        for variable, scale in zip(model.trainable_variables, optimizer._scales, strict=True)
    }
    slow = {name for name, rate in rates.items() if rate == pytest.approx(1e-5)}
    fast = {name for name, rate in rates.items() if rate == pytest.approx(1e-4)}
    assert slow | fast == set(rates)
    assert {"stage1_block1", "stage3_block1", "pooling1"} <= slow
    assert {"input_projection", "encoder_layer1", "class_head", "object_queries"} <= fast
    assert all(optimizer._use_weight_decay(variable) for variable in model.trainable_variables)
    assert float(optimizer.learning_rate) == np.float32(1e-4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return detection_runs.write_data(tmp_path_factory.mktemp("coco"))


def train(config, folder):
    trainer = Trainer(config, open_source_of(config), folder, verbose=False)
    return trainer, trainer.run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """One whole run, with averaged weights."""
    config = detection_runs.make_config(data, training__ema_decay=0.9)
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return config, folder, *train(config, folder)


def test_the_run_folder_holds_what_it_should(finished):
    config, path, _, results = finished
    folder = RunFolder(path)
    assert Config.from_json(folder.config.read_text()) == config
    assert folder.read_classes() == ("red", "green", "blue")
    assert folder.read_categories() == (2, 5, 11)
    assert json.loads(folder.results.read_text()) == results
    assert set(COCO_NAMES) <= set(results)
    assert (results["images"], results["model"], results["epochs"]) == (6, "detr_pit_s", 2)
    assert (results["dataset"], results["image_size"]) == (config.data.dataset, [32, 48])
    history = rows(path)
    for prefix in ("val_", "val_averaged_"):
        assert {prefix + name for name in COCO_NAMES} <= set(history[0])
    assert {"loss", "class_loss", "l1_loss", "giou_loss"} <= set(history[0])
    best = [max(float(row["val_AP"]), float(row["val_averaged_AP"])) for row in history]
    # While nothing is found the last epoch is the best one.
    assert results["best_epoch"] == (best.index(max(best)) if max(best) else len(best) - 1)
    assert results["AP"] == pytest.approx(max(best), abs=1e-6)
    assert events(path, "start")[0]["jit"] is False


def test_the_saved_model_is_a_detector_for_any_size(finished):
    trained = load_trained_detector(finished[1])
    assert trained.class_names == ("red", "green", "blue")
    assert trained.model.input_shape == (None, None, None, 3)
    assert all(layer.trainable for layer in trained.model.layers)


def test_a_run_that_was_cut_short_ends_as_it_would_have(finished, tmp_path):
    config, path, trainer, results = finished
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(path, folder.path)
    forget_last_epoch(folder)

    resumed, again = train(config, folder.path)

    assert rows(folder.path) == rows(path)
    assert again == results
    for a, b in zip(trainer.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_not_touched(finished):
    config, path, _, results = finished
    before = contents(path)
    assert train(config, path)[1] == results
    assert contents(path) == before


def test_a_run_is_not_carried_on_with_fewer_training_images(finished, data, tmp_path):
    config, path, *_ = finished
    shutil.copytree(path, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    annotations = data / "train.json"
    before = annotations.read_text()
    content = json.loads(before)
    lost = content["images"].pop()["id"]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != lost]
    annotations.write_text(json.dumps(content))
    try:
        with pytest.raises(OSError, match="begun on 24 training images, and the data has 23 now"):
            train(config, tmp_path / "run")
    finally:
        annotations.write_text(before)


def flags(config, folder, *more):
    """The command line of a configuration of `make_config`."""
    usual = {"name": "detr_pit_s"}
    model = {name: value for name, value in vars(config.model).items() if value is not None}
    overrides = [
        f"--config.model.{name}={str(value).replace(' ', '')}"
        for name, value in model.items()
        if usual.get(name) != value and not isinstance(value, bool)
    ]
    return [
        "--model=detr_pit_s",
        "--weights=none",
        f"--dataset={config.data.dataset}",
        "--image_size=32,48",
        "--batch_size=8",
        "--epochs=2",
        "--config.detection.multi_scale=false",
        "--config.detection.random_crop=false",
        "--config.optimizer.learning_rate=1e-3",
        "--config.training.ema_decay=0.9",
        *overrides,
        f"--output_dir={folder}",
        *more,
    ]


def test_a_killed_run_of_the_script_is_carried_on(finished, tmp_path):
    config, path, *_ = finished
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = flags(config, folder, "--checkpoint_every_steps=1")
    process = forked.start_script(DETECT, arguments, log)
    assert runs.stop_after(process, log, folder, 2, 0.0) == -signal.SIGKILL, log.read_text()
    process = forked.start_script(DETECT, arguments, log)
    assert runs.finish(process, log) == 0, log.read_text()
    printed = log.read_text()
    assert "Carrying on after" in printed
    assert "on 6 images, after epoch" in printed
    ours, theirs = (
        # The weights' files have names in them that Keras counts up in each process.
        {name: content for name, content in runs.outcome(run).items() if "weights" not in name}
        for run in (folder, path)
    )
    assert ours == theirs
    models = [keras.models.load_model(run / "model.keras") for run in (folder, path)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert RunFolder(folder).curves.exists()


def test_two_workers_do_what_one_process_does(data, tmp_path):
    config = detection_runs.make_config(data)
    without_chance = "--config.model.dropout=0.0"
    alone, together, unused = (tmp_path / name for name in ("alone", "together", "unused"))
    known = ",".join(runs.addresses())
    started = []
    for index, folder in enumerate((together, unused)):
        workers = ("--distribute=multi_worker", f"--workers={known}", f"--worker={index}")
        log = tmp_path / f"log{index}.txt"
        arguments = flags(config, folder, without_chance, *workers)
        started.append((forked.start_script(DETECT, arguments, log), log))
    for process, log in started:
        assert runs.finish(process, log) == 0, log.read_text()
    log = tmp_path / "log.txt"
    process = forked.start_script(DETECT, flags(config, alone, without_chance), log)
    assert runs.finish(process, log) == 0, log.read_text()
    assert not unused.exists()
    for ours, theirs in zip(rows(together), rows(alone), strict=True):
        for name in ("loss", "class_loss", "l1_loss", "giou_loss", "gradient_norm"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    results = [json.loads((run / "results.json").read_text()) for run in (together, alone)]
    # Counted from what both workers answered, without what fills up their batches.
    assert results[0]["images"] == results[1]["images"] == 6


def test_a_run_in_half_precision_from_a_classifiers_weights(data, tmp_path):
    config = detection_runs.make_config(data, training__precision="mixed_bfloat16")
    config.training.epochs = 1
    sizes = {name: getattr(config.model, name) for name in ("patch_size", "stride", "head_dim")}
    sizes |= {"depths": (1, 1, 1), "heads": (1, 2, 4), "output_stride": 4}
    start = create_model("pit_s", classes=7, input_shape=(32, 48, 3), **sizes)
    (tmp_path / "start").mkdir()
    start.save(tmp_path / "start/model.keras")
    config.model.weights = str(tmp_path / "start")
    config.model.frozen_stages = 1
    try:
        trainer, _ = train(config, tmp_path / "run")
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(float(rows(tmp_path / "run")[0]["loss"]))
    for name, is_same in (("stage1_block1", True), ("stage2_block1", False)):
        models = (start, trainer.model)
        pairs = zip(*(model.get_layer(name).weights for model in models), strict=True)
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs) == is_same
    assert len(checkpoints(tmp_path / "run")) == 1


def test_a_preview_shows_boxes(data, tmp_path):
    config = detection_runs.make_config(data)
    path = draw_preview(config, open_source_of(config), 1, tmp_path / "run")
    assert [file.name for file in path.parent.iterdir()] == ["preview.png"]
    from PIL import Image

    colours = {tuple(pixel) for pixel in np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)}
    assert (31, 119, 180) in colours  # the first class' box; no rectangle is of this colour
