"""Short runs of `train/train.py` as processes of their own, to test what may happen to them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

SCRIPT = pathlib.Path(__file__).parents[2] / "train/train.py"
STEPS = 11  # of an epoch
PATIENCE = 300  # seconds until a process that does nothing is taken for one that hangs


def command(output_dir, *more, model="pit_ti"):
    """A run on the embedded digits that takes seconds, with every random decision there is."""
    return [
        sys.executable,
        str(SCRIPT),
        "--recipe=cutmix",
        f"--model={model}",
        "--dataset=digits",
        "--image_size=16",
        "--batch_size=128",
        "--jit=off",
        "--checkpoint_every_steps=2",
        "--config.model.patch_size=4",
        "--config.model.stride=2",
        "--config.model.head_dim=4",
        "--config.model.depths=(1,1,1)",
        "--config.model.drop_path_rate=0.1",
        "--config.training.ema_decay=0.99",
        "--config.optimizer.warmup_epochs=1",
        "--config.optimizer.learning_rate=1e-2",
        f"--output_dir={output_dir}",
        *more,
    ]


def start(arguments, log):
    """Starts a process that writes all it prints to a file."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("ab") as file:
        return subprocess.Popen(arguments, stdout=file, stderr=file, env=environment)


def finish(process, log):
    """Waits for a process; its exit status. What it printed is shown if it does not end."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"It did not end:\n{log.read_text()}") from None


def saved_steps(folder):
    """Every step that the log tells a checkpoint of, in order."""
    log = folder / "log.jsonl"
    events = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # it is being written, or was when the process was killed
    return [event["step"] for event in events if event["event"] == "checkpoint"]


def stop_after(process, log, folder, checkpoints, seconds, number=signal.SIGKILL):
    """Sends a signal when so many more checkpoints are written and so many seconds have passed.

    Returns:
        The exit status.
    """
    before = len(saved_steps(folder))
    end = time.monotonic() + PATIENCE
    while len(saved_steps(folder)) < before + checkpoints:
        assert process.poll() is None, f"It ended before it was stopped:\n{log.read_text()}"
        assert time.monotonic() < end, f"It saves nothing:\n{log.read_text()}"
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(number)
    return finish(process, log)


def outcome(folder):
    """What two runs that are the same have in common, byte for byte."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        weights = archive.read("model.weights.h5")
    return {
        "history.csv": (folder / "history.csv").read_bytes(),
        "results.json": (folder / "results.json").read_bytes(),
        "model.weights.h5": weights,
    }
