"""Runs that are killed, ended, and whose files are damaged, against one that nothing happens to."""

import random
import signal

import pytest
import runs

EPOCHS = 2  # of 27 steps


def damage_newest(folder, moments):
    """Cuts the newest checkpoint off at a random place."""
    newest = max(folder.glob("checkpoints/step-*.npz"))
    content = newest.read_bytes()
    newest.write_bytes(content[: moments.randrange(len(content))])


@pytest.mark.parametrize(
    ("kills", "signals"),
    [
        (3, (signal.SIGTERM,)),
        pytest.param(100, (signal.SIGTERM, signal.SIGINT), marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_as_if_nothing_had_happened_to_it(kills, signals, digit_folder, tmp_path):
    """SIGKILLs at random moments, and for each of the signals a damaged checkpoint before it."""
    flags = [f"--epochs={EPOCHS if kills < 5 else 15 * EPOCHS}"]
    undisturbed, folder, log = tmp_path / "undisturbed", tmp_path / "run", tmp_path / "log.txt"
    assert runs.finish(runs.start(runs.flags(digit_folder, undisturbed, *flags), log), log) == 0
    moments = random.Random(0)
    arguments = runs.flags(digit_folder, folder, *flags)
    for life in range(kills):
        process = runs.start(arguments, log)
        # A step takes some hundredths of a second; the first kill comes before anything is saved.
        delay = moments.uniform(0, 0.15)
        # The last leaves two checkpoints, one of which is damaged below.
        saved = 2 if life == kills - 1 else min(life, moments.randint(1, 2))
        status = runs.stop_after(process, log, folder, saved, delay)
        assert status == -signal.SIGKILL, log.read_text()
    for number in signals:
        damage_newest(folder, moments)
        before = len(log.read_text())
        process = runs.start(arguments, log)
        assert runs.stop_after(process, log, folder, 1, 0, number) == 0, log.read_text()
        printed = log.read_text()[before:]
        assert "Saving after this step" in printed
        assert f"{number.name}: saved in epoch" in printed
        assert "train.py --recipe=cutmix --model=vit_ti --dataset=folder:" in printed
        assert f"--output_dir={folder}" in printed
    assert runs.finish(runs.start(arguments, log), log) == 0, log.read_text()

    assert log.read_text().count("cannot be read") == len(signals)
    for name, content in runs.outcome(undisturbed).items():
        assert runs.outcome(folder)[name] == content, name
    # Nothing is left of what was being written.
    assert not list(folder.rglob("*incomplete*"))
    assert len(list(folder.glob("checkpoints/step-*.npz"))) == 2
