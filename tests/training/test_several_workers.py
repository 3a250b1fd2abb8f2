"""Two worker processes on loopback addresses."""

import concurrent.futures
import json
import signal
import socket

import forked
import numpy as np
import runs
from whole_runs import checkpoints, rows

from pit_keras.runs.checkpoints import read_arrays

TALK = """
from pit_keras.training.workers import join_workers

index = {index}
workers = join_workers("multi_worker", {addresses}, index)
long = bytes(range(256)) * 1001 + b"abc"
assert (workers.count, workers.replicas, workers.is_chief) == (2, 2, index == 0)
assert workers.agree({{"step": index + 5}}) == {{"step": 5}}
assert workers.gather([index] * 3) == [[0, 0, 0], [1, 1, 1]]
assert workers.broadcast(long if workers.is_chief else b"") == long
assert workers.broadcast(b"" if workers.is_chief else b"xy", sender=1) == b"xy"
assert workers.broadcast(b"") == b""
"""


def test_a_port_that_is_taken_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        known = [f"127.0.0.1:{taken.getsockname()[1]}", *runs.addresses(1)]
        process = forked.run_code(TALK.format(index=0, addresses=known))
    assert f"OSError: This worker cannot listen at {known[0]}: the port is in use" in (
        process.stderr
    )


def test_workers_talk_to_each_other():
    known = runs.addresses()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        codes = [TALK.format(index=index, addresses=known) for index in (0, 1)]
        processes = list(pool.map(forked.run_code, codes))
    assert [process.returncode for process in processes] == [0, 0], processes


def start_workers(images, folders, logs, *flags):
    """A distilling run on two workers, each with a folder of its own: only the chief's is used."""
    known = ",".join(runs.addresses())
    return [
        runs.start(
            runs.flags(
                images,
                folder,
                "--distribute=multi_worker",
                f"--workers={known}",
                f"--worker={index}",
                "--epochs=3",
                "--batch_size=6",
                "--config.training.keep_checkpoints=30",
                *flags,
                model="vit_ti_distilled",
            ),
            log,
        )
        for index, (folder, log) in enumerate(zip(folders, logs, strict=True))
    ]


def test_two_workers_distil_and_carry_on_when_one_has_died(digit_folder, teacher, tmp_path):
    flags = ["--config.distillation.kind=hard", f"--teacher={teacher}"]
    logs = [tmp_path / f"log{index}.txt" for index in (0, 1)]
    folders = [tmp_path / f"run{index}" for index in (0, 1)]
    history = folders[0] / "history.csv"
    chief, other = start_workers(digit_folder, folders, logs, *flags)
    # Within the second epoch, after step 12 or later.
    assert runs.stop_after(other, logs[1], folders[0], 7, 0) == -signal.SIGKILL
    assert runs.finish(chief, logs[0]) == 1
    assert "error: Another worker has ended or cannot be reached" in logs[0].read_text()
    assert "Traceback" not in logs[0].read_text()

    # What it saved after step 4, undisturbed, is compared with what follows that step again.
    undisturbed, first_epoch = tmp_path / "undisturbed", history.read_text()
    assert len(first_epoch.splitlines()) == 2
    undisturbed.mkdir()
    for path in checkpoints(folders[0]):
        if path.name > "step-00000004.npz":
            path.rename(undisturbed / path.name)

    # A signal to any of them saves and ends all.
    processes = start_workers(digit_folder, folders, logs, *flags)
    assert runs.stop_after(processes[1], logs[1], folders[0], 1, 0, signal.SIGTERM) == 0
    assert runs.finish(processes[0], logs[0]) == 0
    assert "Resuming in epoch 1 of 3, after step 4 of 9." in logs[0].read_text()
    assert "a signal to another worker: saved in epoch" in logs[0].read_text()

    for process, log in zip(start_workers(digit_folder, folders, logs, *flags), logs, strict=True):
        assert runs.finish(process, log) == 0, log.read_text()
    for step in (8, 10, 12):
        file = f"step-{step:08d}.npz"
        expected = read_arrays(undisturbed / file)
        ours = read_arrays(folders[0] / "checkpoints" / file)
        assert ours.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(ours[name], values, err_msg=f"{name} after step {step}")
    assert history.read_text().startswith(first_epoch)
    assert len(rows(folders[0])) == 3
    assert not folders[1].exists()
    results = json.loads((folders[0] / "results.json").read_text())
    assert results["images"] == 6
