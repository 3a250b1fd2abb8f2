import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import Config
from pit_keras.runs.metric_names import CLASSIFICATION, DETECTION
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training import monitoring
from pit_keras.training.monitoring import EpochDisplay, Meter, Monitor, Profile, RunLog
from pit_keras.training.state import Progress


def points(logs):
    """TensorBoard's points under their names: {tag: [(step, value)]}."""
    found = {}
    for path in sorted(logs.rglob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    return found


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def lines(folder):
    return [json.loads(line) for line in folder.log.read_text().splitlines()]


def test_a_line_that_was_cut_short_does_not_spoil_the_next(folder):
    RunLog(folder).event("start", step=3)
    folder.log.write_bytes(folder.log.read_bytes() + b'{"time": "2026')
    RunLog(folder).event("end", top1=0.5)
    first, cut, last, *rest = folder.log.read_text().split("\n")
    assert json.loads(first)["event"] == "start"
    assert cut == '{"time": "2026'
    assert json.loads(last) == {"time": json.loads(last)["time"], "event": "end", "top1": 0.5}
    assert rest == [""]


def test_a_meter_means_over_steps_and_leaves_skipped_updates_out_of_the_norm():
    meter = Meter({"loss": 6.0, "gradient_norm": 4.0, "skipped_updates": 0.0}, 2)
    meter.add({"loss": 3.0, "gradient_norm": 0.0, "skipped_updates": 1.0}, waited=0.0)
    assert meter.means() == pytest.approx(
        {"loss": 3.0, "gradient_norm": 2.0, "skipped_updates": 1 / 3}
    )
    assert meter.sums["loss"] == 9.0
    assert meter.steps == 3


def test_rates_count_the_steps_that_were_measured(monkeypatch):
    clock = iter(np.arange(10, 20, 0.5))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter({"loss": 6.0}, 100)
    for _ in range(4):
        meter.add({"loss": 1.0}, waited=0.25)
    assert meter.rates(images=32) == {"images_per_second": 4 * 32 / 2, "data_wait": 0.5}


def test_the_step_that_compiled_is_no_part_of_the_speed(monkeypatch):
    now = iter([0.0, 60.0, 60.0, 61.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    meter = Meter({"loss": 2.0}, 1)
    meter.add({"loss": 1.0}, waited=5.0)
    meter.restart()
    assert meter.rates(images=32) == {"images_per_second": None, "data_wait": None}
    assert meter.seconds_of(10) is None
    meter.add({"loss": 3.0}, waited=0.25)
    assert meter.rates(images=32) == {"images_per_second": 32.0, "data_wait": 0.25}
    assert meter.seconds_of(10) == 10.0
    assert meter.means() == {"loss": 2.0}


def watched(folder, *, verbose=False, **options):
    config = Config()
    config.training.batch_size, config.training.epochs = 4, 2
    config.training.log_every_steps = 2
    return Monitor(config, folder, CLASSIFICATION, 3, verbose=verbose, **options)


def train(monitor):
    """Two epochs of three steps."""
    with monitor.watching():
        for epoch in range(2):
            monitor.begin_epoch(Progress(epoch=epoch))
            for step in range(3):
                number = 3 * epoch + step
                monitor.profile.before(number)
                metrics = {"loss": float(number), "top1": 0.5, "gradient_norm": 2.0}
                sums = monitor.after_step(number, metrics, 0.0, lambda: 0.1)
            assert sums["loss"] == 9 * epoch + 3
            row = {"epoch": epoch + 1, **monitor.epoch.means(), "val_loss": 1.0, "val_top1": 0.25}
            monitor.end_epoch(row, 3 * epoch + 3)


def test_steps_and_epochs_are_logged_for_machines_and_for_tensorboard(folder):
    train(watched(folder, is_chief=True))
    steps = [line for line in lines(folder) if line["event"] == "step"]
    assert [(line["epoch"], line["step"], line["loss"]) for line in steps] == [
        (1, 2, 0.5),
        (2, 4, 3.0),
        (2, 6, 4.5),
    ]
    epochs = [line for line in lines(folder) if line["event"] == "epoch"]
    assert [(line["epoch"], line["step"], line["val_top1"]) for line in epochs] == [
        (1, 3, 0.25),
        (2, 6, 0.25),
    ]
    shown = points(folder.logs)
    assert shown["train/loss"] == [(2, 0.5), (4, 3.0), (6, 4.5)]
    assert [step for step, _ in shown["train/learning_rate"]] == [2, 4, 6]
    assert shown["validation/top1"] == [(3, 0.25), (6, 0.25)]
    assert {"train/data_wait", "train/images_per_second", "epoch/gradient_norm"} <= set(shown)


def test_a_worker_that_is_not_the_chief_writes_nothing(folder):
    train(watched(folder, is_chief=False, profile=(0, 2)))
    assert list(folder.path.iterdir()) == []


def test_example_images_are_shown_as_they_were_before_normalising(folder):
    monitor = watched(folder, is_chief=True)
    images = np.zeros((20, 6, 5, 3), "float32")  # ImageNet's mean
    with monitor.watching():
        monitor.show_images(images, 0)
    ((step, shown),) = points(folder.logs)["training images"]
    assert step == 0
    assert list(shown[:2]) == [b"5", b"6"]
    assert len(shown) == 2 + monitoring.EXAMPLE_IMAGES
    pixel = tf.io.decode_png(shown[2]).numpy()[0, 0]
    np.testing.assert_allclose(pixel, 255 * np.array(Config().data.mean), atol=1)


def test_the_profile_is_of_the_steps_asked_for(folder):
    profile = Profile(folder.logs, (2, 4))
    taken = []
    for step in range(6):
        profile.before(step)
        taken.append(profile._is_on)
        profile.after(step)
    assert taken == [False, False, True, True, False, False]
    assert list(folder.logs.rglob("*.xplane.pb"))


def test_a_profile_that_a_run_ends_in_is_written(folder):
    train(watched(folder, is_chief=True, profile=(5, 100)))
    assert list(folder.logs.rglob("*.xplane.pb"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_rate_loss_accuracy_and_time_left(folder, monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", terminal)
    monitor = watched(folder, is_chief=False, verbose=True)
    monkeypatch.setattr(monitoring.Meter, "rates", lambda *_: {"images_per_second": 123.4})
    with monitor.watching():
        monitor.begin_epoch(Progress())
        monitor.display.bar.refresh()
        assert "Compiling the training step" in terminal.getvalue()
        assert "images/s" not in terminal.getvalue()
        monitor.after_step(0, {"loss": 1.5, "top1": 0.25}, 0.0, lambda: 1e-3)
        monitor.display.bar.refresh()
        after_batch = monitor.begin_evaluation(7)
        monitor.display.bar.refresh()
        assert "Compiling the evaluation" in terminal.getvalue()
        after_batch(2)
        monitor.display.bar.refresh()
        with monitor.display.waiting("Writing a checkpoint"):
            monitor.display.bar.refresh()
    drawn = terminal.getvalue()
    for part in ("Evaluating", "2/7", "Writing a checkpoint"):
        assert part in drawn
    for part in ("Epoch 1/2", "1/3", "loss 1.500", "top-1 0.250", "lr 1.0e-03", "123 images/s"):
        assert part in drawn
    assert ":" in drawn.rpartition("images/s")[2]


def test_of_a_detector_coco_s_figures_are_shown(capsys):
    losses = {"loss": 3.0, "class_loss": 1.0, "l1_loss": 0.2, "giou_loss": 0.5}
    row = {"epoch": 1, **losses, "val_AP": 0.25, "val_AP50": 0.5, "val_AP75": None}
    EpochDisplay(3, DETECTION).epoch(row, {"images_per_second": 9.6}, seconds=1.0)
    assert capsys.readouterr().out == (
        "Epoch 1/3: loss 3.0000, class 1.0000, L1 0.2000, GIoU 0.5000; validation: AP 0.2500, "
        "AP50 0.5000, AP75 -; 10 images/s, about 0:00:02 left\n"
    )


def test_a_log_file_gets_a_line_an_epoch(capsys):
    display = EpochDisplay(3, CLASSIFICATION)
    row = {"epoch": 1, "loss": 2.0, "top1": 0.1, "val_loss": 1.5, "val_top1": 0.3}
    display.epoch({**row, "val_averaged_top1": 0.4}, {"images_per_second": 99.6}, seconds=90.0)
    assert capsys.readouterr().out == (
        "Epoch 1/3: loss 2.0000, top-1 0.1000; validation: loss 1.5000, top-1 0.3000, averaged "
        "0.4000; 100 images/s, about 0:03:00 left\n"
    )
    EpochDisplay(3, CLASSIFICATION, verbose=False).epoch(row, {"images_per_second": 1.0}, 1.0)
    assert capsys.readouterr().out == ""


def test_where_the_only_step_compiled_no_speed_is_told(folder, capsys):
    monitor = watched(folder, is_chief=True, verbose=True)
    with monitor.watching():
        for epoch in range(2):
            monitor.begin_epoch(Progress(epoch=epoch, step=2))
            monitor.after_step(3 * epoch + 2, {"loss": 1.0, "top1": 0.5}, 0.0, lambda: 0.1)
            row = {"epoch": epoch + 1, "loss": 1.0, "top1": 0.5, "val_loss": 1.0, "val_top1": 0.25}
            monitor.end_epoch(row, 3 * epoch + 3)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("validation: loss 1.0000, top-1 0.2500")
    assert second.endswith("about 0:00:00 left")
    first, second = (line for line in lines(folder) if line["event"] == "epoch")
    assert first["images_per_second"] is None
    assert second["images_per_second"] > 0


def test_what_is_not_finite_is_null_as_json_has_no_infinity(folder):
    RunLog(folder).event("step", loss=1.5, gradient_norm=math.inf)
    assert lines(folder)[0]["loss"] == 1.5
    assert lines(folder)[0]["gradient_norm"] is None
