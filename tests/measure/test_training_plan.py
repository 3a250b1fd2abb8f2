import json
import tempfile

import numpy as np
import pytest
from PIL import Image
from whole_runs import eagerly

from pit_keras.config.recipes import recipe
from pit_keras.measure import training_plan, training_trial
from pit_keras.measure.training_plan import Trial, plan_row, results_near, run_seconds

SIZES = {"train": 1000, "val": 100}


def trial_of(**values):
    found = {
        "start_seconds": 20.0,
        "step_seconds": [0.5] * 5,
        "first_evaluation_seconds": 3.0,
        "evaluation_seconds_per_image": 0.02,
        "save_seconds": 1.0,
        "memory": 3 * 2**30,
        "machine": "Abacus, 2 threads",
    }
    return Trial(**{**found, **values})


def config_of(**training):
    config = recipe("vanilla", "vit_ti")
    config.training.epochs, config.training.batch_size = 10, 32
    for name, value in training.items():
        setattr(config.training, name, value)
    return config


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 24 images; two of them are held out."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((96, 96, 3), 10 * number, np.uint8)).save(path)
    return folder


@pytest.fixture
def tiny(images):
    """The configuration of a tiny network on these images."""
    config = config_of(batch_size=4, epochs=1000, jit="off")
    config.data.dataset, config.data.image_size = f"folder:{images}", (16, 16)
    config.data.crop_scale = (0.6, 1.0)
    config.model.patch_size = config.model.stride = config.model.head_dim = 4
    config.model.depth = 1
    config.optimizer.name, config.optimizer.warmup_epochs = "adamw", 0.0
    return config


@pytest.mark.parametrize(
    ("training", "seconds"),
    [
        # 31 steps of half a second, an evaluation of 2 s, and 5% of both instead of a save of 1 s.
        ({}, 24 + 10 * (17.5 + 0.875) + 2),
        ({"epochs": 1}, 24 + 17.5 + 0.875 + 2),
        ({"ema_decay": 0.9}, 24 + 10 * (19.5 + 0.975) + 4),
        ({"accumulate": 2}, 24 + 10 * (9.5 + 0.475) + 2),
        ({"batch_size": 10}, 24 + 10 * (52 + 1) + 2),
    ],
)
def test_the_time_of_a_run_follows_from_what_was_measured(training, seconds):
    assert run_seconds(config_of(**training), SIZES, trial_of(), 0.5) == pytest.approx(seconds)


def test_a_row_has_the_time_and_its_range():
    steps = [0.4, 0.4, 0.5, 0.5, 0.4, 0.6, 0.5, 0.5, 0.5, 0.7]  # fifths: 0.4, 0.5, 0.5, 0.5, 0.6
    config, trial = config_of(), trial_of(step_seconds=steps)
    row = plan_row(config, SIZES, trial)
    assert (row["images_per_second"], row["memory_gib"]) == (64.0, 3.0)
    times = [round(run_seconds(config, SIZES, trial, step) / 3600, 4) for step in (0.5, 0.4, 0.6)]
    assert [row[name] for name in ("hours", "hours_from", "hours_to")] == times
    assert plan_row(config, SIZES, trial_of(memory=None))["memory_gib"] == ""


@pytest.mark.parametrize("steps", [[2.0], [2.0, 3.0]])
def test_few_steps_are_a_measurement_too(steps):
    mean, quickest, slowest = trial_of(step_seconds=steps).step
    assert (quickest, slowest) == (steps[0], steps[-1])
    assert quickest <= mean <= slowest


@pytest.mark.parametrize(
    ("seconds", "count", "timed"),
    [
        (0.25, 3 + 40, 40),  # ten seconds
        (8.0, 3 + 5, 5),  # five steps
    ],
)
def test_a_clock_waits_for_steps_and_seconds(seconds, count, timed):
    clock, answers = training_trial.StepClock(), [False]
    while not answers[-1]:
        answers.append(clock(seconds))
    assert len(answers) - 1 == count
    assert clock.timed == [seconds] * timed


def test_a_trial_ends_a_run_and_measures_all_of_it(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_trial, "LEAST_SECONDS", 1e-9)
    with eagerly():
        found = training_trial.trial(tiny, tmp_path / "run")
    assert len(found["step_seconds"]) == training_trial.LEAST_STEPS
    assert found["evaluation_seconds_per_image"] > 0
    assert found["save_seconds"] > 0
    assert found["memory"] > 2**20
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    doing = [message["doing"] for message in said]
    assert list(dict.fromkeys(doing)) == list(training_plan.STAGES)[1:]


def test_what_cannot_be_measured_says_why_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tiny.training.batch_size = 100
    with pytest.raises(ValueError, match=r"^The batch size .* must be between 1 and the 2. train"):
        training_plan.try_run(tiny, lambda doing, share: None)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_the_process_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(doing, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training_plan.try_run(tiny, interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "found"),
    [(900, [1000, 1000]), (800, [200, 1000, 1000]), (10, []), (10**6, [])],
)
def test_results_are_those_of_folders_about_as_large(images, found, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    path.write_text("images,top1\n200,0.5\n1000,0.7\n1000,0.8\n50000,0.9\n")
    monkeypatch.setattr(training_plan, "RESULTS", path)
    assert [int(row["images"]) for row in results_near(images)] == found
