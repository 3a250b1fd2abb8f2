"""Short runs of `train/train.py` as processes of their own, to test what may happen to them."""

import json
import os
import pathlib
import signal
import socket
import time
import zipfile

import forked

SCRIPT = pathlib.Path(__file__).parents[2] / "train/train.py"
PATIENCE = 300  # seconds until a process that does nothing is taken for one that hangs


def flags(images, output_dir, *more, model="vit_ti"):
    """A run on a folder of 54 digits that takes seconds, with every random decision there is."""
    return [
        "--recipe=cutmix",
        f"--model={model}",
        f"--dataset=folder:{images}",
        "--image_size=16",
        "--batch_size=2",
        "--jit=off",
        "--checkpoint_every_steps=2",
        "--config.model.patch_size=4",
        "--config.model.stride=4",
        "--config.model.head_dim=4",
        "--config.model.depth=1",
        "--config.optimizer.name=adamw",  # which starts sooner than AdamP
        "--config.model.drop_path_rate=0.1",
        "--config.data.crop_scale=(0.6,1.0)",  # see `digit_folder`
        "--config.training.ema_decay=0.99",
        "--config.optimizer.warmup_epochs=1",
        "--config.optimizer.learning_rate=1e-2",
        f"--output_dir={output_dir}",
        *more,
    ]


def start(arguments, log):
    """Starts a run that writes all it prints to a file."""
    return forked.start_script(SCRIPT, arguments, log)


def finish(process, log):
    """Waits for a process; its exit status, or the negative number of the signal that ended it."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"It did not end:\n{log.read_text()}")
    return process.exitcode


def addresses(count=2):
    """Free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


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
        assert process.exitcode is None, f"It ended before it was stopped:\n{log.read_text()}"
        assert time.monotonic() < end, f"It saves nothing:\n{log.read_text()}"
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(process.pid, number)
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
