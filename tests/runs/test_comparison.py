"""Run folders as rows of a table. The folders are written here, as the trainer leaves them."""

import csv
import dataclasses
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from pit_keras.config.fields import set_field
from pit_keras.config.recipes import recipe
from pit_keras.plots.pictures import MOST_RUNS, draw_runs
from pit_keras.runs.comparison import (
    differing_settings,
    find_run_folders,
    follows_from_recipe,
    kept_epoch,
    read_history,
    read_runs,
    sorted_runs,
    write_table,
)
from pit_keras.runs.run_folder import RunFolder

NOW = "2026-01-31T12:00:00+00:00"


def write_run(path, *, name="cutmix", model="pit_ti", top1=(0.2, 0.5, 0.4), averaged=(), **values):
    """A run of so many epochs that are done, of ten; `values` are settings, "." written as "__"."""
    config = recipe(name, model)
    config.data.dataset, config.training.epochs = "digits", 10
    for field, value in values.items():
        set_field(config, field.replace("__", "."), value)
    path.mkdir(parents=True)
    (path / "config.json").write_text(config.to_json())
    (path / "checkpoints").mkdir()
    (path / ".lock").touch()
    events = [{"time": NOW, "event": "start", "step": 0, "epoch": 1, "replicas": 1, "workers": 1}]
    rows = []
    for epoch, share in enumerate(top1):
        row = {"epoch": epoch + 1, "loss": 2 - share, "top1": share, "learning_rate": 1e-3}
        row |= {"val_loss": 2 - 0.4 * epoch, "val_top1": share, "val_top5": 0.9}
        if averaged:
            row |= {"val_averaged_loss": 2.0, "val_averaged_top1": averaged[epoch]}
        rows.append(row)
        step = {"epoch": epoch + 1, "step": 7 * epoch + 5, "images_per_second": 9999.0}
        end = {"step": 7 * epoch + 7, "images_per_second": 400.0 + epoch, "seconds": 3.0, **row}
        events += [{"time": NOW, "event": "step", **step}, {"time": NOW, "event": "epoch", **end}]
    if rows:
        with (path / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    (path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def finish(path, top1):
    results = {"loss": 1.0, "top1": top1, "top5": 0.95, "images": 360, "best_epoch": 1}
    (path / "results.json").write_text(json.dumps(results))


def only(folder):
    (run,) = read_runs([folder])
    return run


def write_detector(path):
    """A detector's run, of two epochs; in the second no AP is known of small objects."""
    write_run(path, name="detr", model="detr_pit_s", top1=())
    (path / "history.csv").write_text(
        "epoch,loss,val_AP,val_AP_small,val_averaged_AP\n1,3.0,0.1,0.2,0.05\n2,2.5,0.2,,0.25\n"
    )
    return path


def test_a_detectors_figure_is_its_ap(tmp_path):
    path = write_detector(tmp_path / "a")
    run = only(tmp_path)
    assert (run.state, run.figure, run.AP, run.top1, run.loss) == (
        "unfinished",
        "AP",
        0.25,
        None,
        2.5,
    )
    (path / "results.json").write_text('{"AP": 0.3, "AP_large": null}')
    assert (only(tmp_path).state, only(tmp_path).AP) == ("finished", 0.3)
    (path / "results.json").write_text('{"AP": null}')
    assert (only(tmp_path).state, only(tmp_path).AP) == ("finished", None)


def test_an_unfinished_run_is_read_from_its_history_and_log(tmp_path):
    write_run(tmp_path / "a")
    with (tmp_path / "a/history.csv").open("a") as file:
        file.write("3,0.1,0.9,0.00")  # killed while it wrote
    with (tmp_path / "a/log.jsonl").open("a") as file:
        file.write('{"time": "2026", "event": "epoch", "images_per_second": 1')

    run = only(tmp_path)

    assert (run.run, run.state, run.problem) == ("a", "unfinished", "")
    assert (run.model, run.recipe, run.dataset) == ("pit_ti", "cutmix", "digits")
    assert (run.epochs, run.total_epochs) == (3, 10)
    assert (run.top1, run.loss, run.images_per_second) == (0.5, 1.6, 401.0)


def test_a_finished_run_has_the_results_top1(tmp_path):
    finish(write_run(tmp_path / "a"), 0.4931)
    run = only(tmp_path)
    assert (run.state, run.top1, run.epochs) == ("finished", 0.4931, 3)


def test_the_better_of_raw_and_averaged_weights_counts(tmp_path):
    write_run(tmp_path / "a", averaged=(0.1, 0.3, 0.6))
    write_run(tmp_path / "b", averaged=(0.1, 0.3, float("nan")))
    assert [run.top1 for run in read_runs([tmp_path])] == [0.6, 0.5]


def test_a_run_is_running_while_a_process_has_its_lock(tmp_path):
    path = write_run(tmp_path / "a")
    os.utime(path / ".lock", (0, 0))
    with RunFolder(path).locked():
        assert only(tmp_path).state == "running"
        assert only(tmp_path).state == "running"
    os.utime(path / ".lock", (0, 0))
    assert only(tmp_path).state == "unfinished"
    with RunFolder(path).locked():  # reading has left it free
        pass
    os.utime(path / ".lock", (0, 0))
    only(tmp_path)
    assert (path / ".lock").stat().st_mtime == 0
    (path / ".lock").unlink()
    assert only(tmp_path).state == "unfinished"
    assert not (path / ".lock").exists()


def test_a_run_without_a_finished_epoch_has_its_steps_speed(tmp_path):
    path = write_run(tmp_path / "a", top1=())
    run = only(tmp_path)
    assert (run.epochs, run.top1, run.loss, run.images_per_second) == (0, None, None, None)
    with (path / "log.jsonl").open("a") as file:
        for rate in (10.0, 250.0):
            file.write(json.dumps({"event": "step", "images_per_second": rate}) + "\n")
    assert only(tmp_path).images_per_second == 250


def test_an_old_run_has_its_speed_in_its_history(tmp_path):
    path = write_run(tmp_path / "a")
    (path / "log.jsonl").unlink()
    (path / "history.csv").write_text("epoch,images_per_second,loss\n0,100,2\n1,300,1\n2,200,1\n")
    run = only(tmp_path)
    assert (run.images_per_second, run.epochs, run.top1) == (200, 3, None)


def test_a_configuration_of_another_version_is_compared_and_told(tmp_path):
    finish(write_run(tmp_path / "new"), 0.5)
    path = write_run(tmp_path / "old", training__seed=3)
    config = json.loads((path / "config.json").read_text())
    del config["training"]["ema_decay"]
    config["training"]["swa"] = True
    (path / "config.json").write_text(json.dumps(config))

    new, old = read_runs([tmp_path])

    assert (new.problem, old.state, old.total_epochs) == ("", "unfinished", 10)
    assert "config.json is not of this version: " in old.problem
    assert "training.swa" in old.problem
    assert differing_settings([new, old]) == ["training.seed"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", b'{"recipe": "cutm', "config.json cannot be read: Unterminated"),
        ("config.json", b"\xff\xfe", "config.json cannot be read: "),
        ("config.json", b"", "config.json cannot be read: "),
        ("history.csv", b"epoch,loss\n0,2\nx,1\n", "row 2 does not hold numbers for the columns."),
        ("history.csv", b"epoch,loss\n0,2,3\n", "row 1 does not hold numbers for the columns."),
        ("history.csv", b"epoch,loss\n0\n", "row 1 does not hold numbers for the columns."),
        ("history.csv", b"loss\n0\n", "row 1 does not hold numbers for the columns."),
        ("history.csv", b"\xff\n0\n", "history.csv cannot be read: "),
        ("results.json", b"{}", "results.json cannot be read: it holds no top1 or AP."),
        ("results.json", b"[", "results.json cannot be read: "),
    ],
)
def test_a_damaged_run_is_listed_with_what_is_wrong_beside_the_others(
    file, content, problem, tmp_path
):
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / file).write_bytes(content)

    bad, good = read_runs([tmp_path])

    assert (bad.run, bad.state, good.state, good.problem) == ("bad", "damaged", "unfinished", "")
    assert problem in bad.problem
    assert bad.problem.count("cannot be read") == 1
    assert "\n" not in bad.problem
    assert (bad.top1 is None) == (file == "history.csv")


def test_files_that_are_folders_are_damage_too(tmp_path):
    path = write_run(tmp_path / "bad")
    (path / "history.csv").unlink()
    (path / "history.csv").mkdir()
    assert only(tmp_path).problem == "history.csv cannot be read: Is a directory."


def test_runs_are_found_at_any_depth_but_not_in_runs_or_hidden_folders(tmp_path):
    for name in ("a", "group/b", "group/deep/c", "a/inner", ".trash/d"):
        write_run(tmp_path / name)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "vit", "data": 1}')
    write_run(tmp_path / "other/e")
    (tmp_path / "config.json").mkdir()

    assert [run.run for run in read_runs([tmp_path])] == ["a", "group/b", "group/deep/c", "other/e"]
    assert [run.run for run in read_runs([tmp_path / "a"])] == ["a"]
    several = [tmp_path / "group", tmp_path / "a", tmp_path / "group/b"]
    assert [run.run for run in read_runs(several)] == ["a", "group/b", "group/deep/c"]


def test_the_folder_that_one_stands_in_is_called_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write_run(tmp_path / "mine"))
    assert only(".").run == "mine"


def test_links_lead_to_runs_once_and_never_in_circles(tmp_path):
    write_run(tmp_path / "elsewhere/z")
    runs = tmp_path / "runs"
    write_run(runs / "b")
    (runs / "a_link_to_b").symlink_to(runs / "b")
    (runs / "z").symlink_to(tmp_path / "elsewhere/z")
    (runs / "circle").symlink_to(runs)
    (runs / "outside").symlink_to(tmp_path / "elsewhere")
    (runs / "itself").symlink_to(runs / "itself")
    (tmp_path / "link_to_runs").symlink_to(runs)

    assert [run.run for run in read_runs([runs])] == ["b", "z"]
    assert [run.run for run in read_runs([tmp_path / "link_to_runs"])] == ["b", "z"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(NotADirectoryError, match=rf"There is no folder .*{name}"):
            find_run_folders([tmp_path / name])


def test_runs_are_sorted_by_any_column_and_those_without_a_value_come_last(tmp_path):
    finish(write_run(tmp_path / "a", top1=(0.1,), training__seed=10), 0.3)
    write_run(tmp_path / "b", training__seed=9)
    write_run(tmp_path / "c", top1=(), training__seed=11, training__eval_batch_size=5)
    write_run(tmp_path / "d", top1=(0.9, float("nan")), model="pit_s")
    runs = read_runs([tmp_path])

    def order(*column):
        return "".join(run.run for run in sorted_runs(runs, *column))

    assert order() == "dbac"
    assert order("run") == "abcd"
    assert order("loss") == "bacd"
    assert order("epochs") == "bdac"
    assert order("state") == "abcd"
    assert order("model") == "dabc"
    assert order("training.seed") == "dbac"
    assert order("training.eval_batch_size") == "cabd"
    with pytest.raises(ValueError, match=r"'training.sed' to sort by; did you mean training.seed"):
        order("training.sed")
    with pytest.raises(
        ValueError, match=r"columns are run, state, model, .*images_per_second, and"
    ):
        order("zzz")


def test_settings_that_differ_are_told_and_those_of_the_recipe_can_be_left_out(tmp_path):
    write_run(tmp_path / "a", optimizer__learning_rate=1e-3)
    write_run(tmp_path / "b", name="vanilla", data__image_size=(32, 32))
    write_run(tmp_path / "c", model="pit_b", training__epochs=20)
    write_run(tmp_path / "damaged")
    (tmp_path / "damaged/config.json").write_text("?")
    runs = read_runs([tmp_path])

    # PiT-B warms up for longer, and CutMix is what its recipe says: these follow from columns.
    expected = ["optimizer.learning_rate", "optimizer.warmup_epochs", "data.image_size"]
    assert differing_settings(runs) == [*expected, "data.cutmix_alpha"]
    followed = [path for path in differing_settings(runs) if follows_from_recipe(path, runs)]
    assert followed == ["optimizer.warmup_epochs", "data.cutmix_alpha"]
    assert differing_settings(runs[:1]) == []


def test_the_table_as_csv_has_every_value(tmp_path):
    finish(write_run(tmp_path / "a, b", optimizer__learning_rate=1e-3), 1 / 3)
    write_run(tmp_path / "c", name="vanilla", top1=())
    write_run(tmp_path / os.fsdecode(b"d\xff"), data__image_size=(32, 48))
    (tmp_path / "c/config.json").open("a").write("x")

    write_table(sorted_runs(read_runs([tmp_path])), tmp_path / "table.csv")

    with (tmp_path / "table.csv").open(newline="", errors="surrogateescape") as file:
        d, a, c = csv.DictReader(file)
    assert list(a)[:12] == [
        "run", "state", "model", "recipe", "dataset", "epochs", "top1", "AP", "val_loss", "loss",
        "images_per_second", "total_epochs",
    ]  # fmt: skip
    assert list(a)[12:] == ["optimizer.learning_rate", "data.image_size", "problem"]
    assert (a["run"], a["top1"], a["optimizer.learning_rate"]) == ("a, b", str(1 / 3), "0.001")
    assert (a["epochs"], a["total_epochs"], a["loss"], a["problem"]) == ("3", "10", "1.6", "")
    assert (d["run"], d["data.image_size"]) == ("d\udcff", "(32, 48)")
    assert (c["state"], c["model"], c["data.image_size"]) == ("damaged", "", "")
    assert c["problem"].startswith("config.json cannot be read: ")


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_each_run_with_an_epoch_is_a_curve_in_both_plots(tmp_path):
    """The third colour is the third run's; its loss and its top-1 are in the picture."""
    for number, name in enumerate(("a", "_b $x^{", os.fsdecode(b"one epoch\xff"))):
        write_run(tmp_path / name, top1=(0.1 * number + 0.2, 0.5)[: 1 if number == 2 else 2])
    write_run(tmp_path / "no epoch", top1=())
    runs = read_runs([tmp_path])
    assert draw_runs(runs, tmp_path / "all.png") == 3
    picture = pixels(tmp_path / "all.png")
    plots = picture[: int(0.7 * len(picture))]
    for half in np.split(plots, 2, axis=1):
        for color in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):
            assert (np.abs(half - color).max(axis=-1) <= 2).sum() > 50
    # Names are in the legend, also one that begins with an underscore.
    runs[0] = dataclasses.replace(runs[0], run="_another")
    draw_runs(runs, tmp_path / "renamed.png")
    assert (pixels(tmp_path / "renamed.png") != picture).any()


def test_of_long_names_the_ends_are_in_the_legend(tmp_path):
    pictures = []
    for name in ("a", "b"):
        write_run(tmp_path / name / ("long" * 30) / name)
        draw_runs(read_runs([tmp_path / name]), tmp_path / "out.png")
        pictures.append(pixels(tmp_path / "out.png"))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_curves_are_limited_and_none_is_an_error(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", top1=())
    a, b = read_runs([tmp_path])
    assert draw_runs([b, *[a] * (MOST_RUNS + 5)], tmp_path / "many.svg") == MOST_RUNS
    with pytest.raises(ValueError, match="no run has finished an epoch"):
        draw_runs([b], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("begin", [1, 0])  # as earlier versions counted
def test_a_history_with_and_without_measured_times(begin, tmp_path):
    file = tmp_path / "history.csv"
    file.write_text(f"epoch,loss,val_averaged_top1\n{begin},nan,\n{begin + 1},2e-1,0.5\n2,1")
    first, second = read_history(file)
    assert first.keys() == {"epoch", "loss"}
    assert np.isnan(first["loss"])
    assert second == {"epoch": 2, "loss": 0.2, "val_averaged_top1": 0.5}
    assert [type(row["epoch"]) for row in (first, second)] == [int, int]
    assert first["epoch"] == 1
    folder = RunFolder(tmp_path)
    assert kept_epoch(folder) is None
    folder.results.write_text(json.dumps({"top1": 0.5, "best_epoch": begin}))
    assert kept_epoch(folder) == 1
    file.write_text("")
    assert read_history(file) == []


def test_messages_name_no_number_of_the_operating_system(tmp_path):
    path = write_run(tmp_path / "a")
    (path / "log.jsonl").unlink()
    (path / "log.jsonl").mkdir()
    assert re.fullmatch(r"log\.jsonl cannot be read: [A-Z][a-z ]+\.", only(tmp_path).problem)
