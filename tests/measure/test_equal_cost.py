import csv
import dataclasses
import pathlib

import forked
import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from pit_keras.commands import sweep_flags
from pit_keras.commands.training_flags import parse_training_flags
from pit_keras.config.recipes import recipe
from pit_keras.data.labelled_images import open_source
from pit_keras.measure import equal_cost
from pit_keras.models import variant_of
from pit_keras.models.cost import count_macs, count_parameters
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.assembly import model_of

SCRIPT = pathlib.Path(__file__).parents[2] / "train/sweep.py"
ALL = tuple(equal_cost.FAMILIES)
SHALLOW = {"pit_ti": (1, 1, 1), "resnet50": (1, 1, 1, 1), "resnet50_no_pooling": (1, 1, 1, 1)}


def config_of(model):
    config = recipe("vanilla", model)
    config.data.dataset, config.data.image_size = "digits", (32, 32)
    config.training.batch_size = 4
    config.model.depths = SHALLOW.get(model)
    return config


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


def plan(digits, folder, families=ALL, targets=(4e5,), seeds=1, patch_size=8, config=config_of):
    return equal_cost.plan_sweep(families, targets, seeds, patch_size, config, digits, folder)


@pytest.fixture(scope="module")
def pit_runs(digits, tmp_path_factory):
    """Two runs of one network."""
    return plan(digits, tmp_path_factory.mktemp("planned"), ("pit",), seeds=2)


@pytest.fixture
def pit_run(pit_runs, tmp_path):
    """The first of them in a folder of the test's own."""
    first, _ = pit_runs
    return dataclasses.replace(first, folder=RunFolder(tmp_path / first.folder.path.name))


def test_the_flags_know_the_families():
    assert sweep_flags.FAMILY_NAMES == ALL


@pytest.mark.parametrize(
    "family",
    [
        "resnet50",
        "pit",
        pytest.param("resnet50_no_pooling", marks=pytest.mark.slow),
        pytest.param("vit", marks=pytest.mark.slow),
    ],
)
def test_no_other_width_is_nearer(digits, tmp_path, family):
    (run,) = plan(digits, tmp_path, (family,), targets=(1.5e6,))
    field = equal_cost.FAMILIES[family].width

    def network_of(width):
        model = dataclasses.replace(run.config.model, **{field: width})
        with keras.StatelessScope(initialize_variables=False):  # weights would take longest
            network = model_of(dataclasses.replace(run.config, model=model), digits)
        keras.utils.clear_session(free_memory=False)
        return network

    assert run.width > 2
    assert getattr(run.config.model, field) == run.width
    networks = {width: network_of(width) for width in (run.width - 1, run.width, run.width + 1)}
    macs = {width: count_macs(network) for width, network in networks.items()}
    assert min(macs, key=lambda width: abs(macs[width] - 1.5e6)) == run.width
    assert (run.macs, run.parameters) == (macs[run.width], count_parameters(networks[run.width]))


@pytest.mark.parametrize("patch_size", map(int, sweep_flags.PATCH_SIZES))
def test_grids_keep_the_proportions_of_the_paper(digits, patch_size):
    """At 14 patches a side, 224 pixels of 16, they are those of 224 x 224."""
    size = (14 * patch_size,) * 2
    for family in equal_cost.FAMILIES.values():
        row = dataclasses.replace(variant_of(family.model), **family.grid_fields(patch_size))
        assert row.grids(size) == variant_of(family.model).grids((224, 224))


def test_a_run_for_each_network_and_seed_the_cheapest_first(digits, tmp_path):
    planned = plan(digits, tmp_path, ("pit", "resnet50"), targets=(8e5, 2e5), seeds=2)
    assert [(run.family, run.target, run.config.training.seed) for run in planned] == [
        (family, target, seed)
        for target in (2e5, 8e5)
        for family in ("pit", "resnet50")
        for seed in (0, 1)
    ]
    assert len({run.folder.path for run in planned}) == 8
    assert {run.folder.path.parent for run in planned} == {tmp_path}
    assert {run.config.model.name for run in planned} == {"pit_ti", "resnet50"}
    assert not list(tmp_path.iterdir())


def test_costs_out_of_reach_or_too_near_are_refused(digits, tmp_path):
    with pytest.raises(ValueError, match=r"No pit has as few as 1000 .* the narrowest has"):
        plan(digits, tmp_path, ("pit",), targets=(1e3,))
    with pytest.raises(ValueError, match=r"need the same resnet50, of width .* leave one out"):
        plan(digits, tmp_path, ("resnet50",), targets=(4e5, 4.01e5))


def test_what_does_not_fit_a_family_is_told_before_anything_is_trained(digits, tmp_path):
    def with_heads(model):
        config = config_of(model)
        config.model.heads = (1, 2, 4)
        return config

    with pytest.raises(ValueError, match="heads of vit_ti must be like 3"):
        plan(digits, tmp_path, ("pit", "vit"), config=with_heads)


def test_a_folder_of_other_settings_is_refused(digits, pit_run, tmp_path):
    other = dataclasses.replace(pit_run.config, recipe="cutmix")
    pit_run.folder.create(other, digits.class_names)
    with pytest.raises(ValueError, match="recipe is 'cutmix' there and 'vanilla' here"):
        plan(digits, tmp_path, ("pit",))


def finished(run, source):
    run.folder.create(run.config, source.class_names)
    run.folder.history.write_text("epoch,loss,top1,val_loss,val_top1\n0,9,0,9,0\n1,2,0.5,3,0.25\n")
    run.folder.model.touch()
    run.folder.results.write_text("{}")
    return run


def test_a_row_is_the_last_epoch_of_a_finished_run(digits, pit_runs, pit_run):
    finished(pit_run, digits)
    (row,) = equal_cost.sweep_rows([pit_run, pit_runs[1]])
    assert (row["loss"], row["top1"], row["val_loss"], row["val_top1"]) == (2.0, 0.5, 3.0, 0.25)
    assert (row["width"], row["macs"], row["seed"]) == (pit_run.width, pit_run.macs, 0)


def test_a_run_without_its_model_is_not_done(digits, pit_run):
    assert finished(pit_run, digits).is_done
    pit_run.folder.model.unlink()
    assert not pit_run.is_done
    assert equal_cost.sweep_rows([pit_run]) == []


@pytest.mark.parametrize("text", [None, "", "epoch,lo", "epoch,loss\n0,a\n"])
def test_a_lost_or_damaged_history_is_told_with_the_remedy(digits, pit_run, text):
    finished(pit_run, digits).folder.history.unlink()
    if text is not None:
        pit_run.folder.history.write_text(text)
    with pytest.raises(ValueError, match=r"history\.csv is lost or damaged; delete its folder"):
        equal_cost.sweep_rows([pit_run])


def test_a_finished_run_of_an_unknown_configuration_is_refused(digits, pit_run, tmp_path):
    finished(pit_run, digits).folder.config.unlink()
    with pytest.raises(ValueError, match=r"holds a finished run, .* its config.json is lost"):
        plan(digits, tmp_path, ("pit",))


def test_a_cost_far_from_what_was_asked_for_is_told(digits, tmp_path):
    (run,) = plan(digits, tmp_path, ("vit",), targets=(3e4,))
    assert abs(run.macs - 3e4) > 3e3
    assert "(the nearest to 0.03 M)" in run.described
    exact = dataclasses.replace(run, target=run.macs)
    assert "nearest" not in exact.described


# The command


def image_folder(root):
    """Four images of each of two classes to train on, and two to validate."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("dark", "light"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 100, (32, 32, 3)) + 150 * (name == "light")
                Image.fromarray(pixels.astype("uint8")).save(root / split / name / f"{index}.png")
    return root


def arguments(images, output_dir, *more):
    return (
        "--families=pit",
        "--macs=1e5",
        "--patch_size=8",
        f"--dataset=folder:{images}",
        "--image_size=32",
        "--batch_size=8",
        "--epochs=2",
        "--config.optimizer.warmup_epochs=1",
        "--config.model.depths=(1,1,1)",
        f"--output_dir={output_dir}",
        *more,
    )


def rows_of(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def options_of(*argv):
    values = flags.FlagValues()
    parse_training_flags(["sweep.py", *argv], values, sweep_flags.SWEEP)
    return sweep_flags.options(values)


def test_a_sweep_is_carried_on_and_its_finished_runs_are_kept(tmp_path):
    images, output = image_folder(tmp_path / "images"), tmp_path / "sweep"
    config_of = options_of(*arguments(images, output))["config_of"]
    source = open_source(f"folder:{images}")
    (first,) = plan(source, output, ("pit",), targets=(1e5,), config=config_of)
    finished(first, source)
    times = {path: path.stat().st_mtime_ns for path in first.folder.path.iterdir()}

    both = forked.run_script(SCRIPT, *arguments(images, output, "--seeds=2"))

    assert both.returncode == 0, both.stderr
    assert "Run 2 of 2: pit" in both.stdout
    assert "Run 1 of 2" not in both.stdout
    assert times == {path: path.stat().st_mtime_ns for path in first.folder.path.iterdir()}
    row, last = rows_of(output)
    assert (row["family"], row["model"], row["seed"]) == ("pit", "pit_ti", "0")
    assert (row["val_top1"], last["seed"]) == ("0.25", "1")
    assert (output / "sweep.png").stat().st_size > 10_000

    with RunFolder(output / f"pit_{last['width']}_seed1").history.open(newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) == 2
    for column in ("loss", "top1", "val_loss", "val_top1"):
        assert float(last[column]) == float(history[-1][column])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--families=pit,swin"], "--families must be some of resnet50,.*; got 'pit,swin'"),
        (["--families=pit,pit"], "--families must be some of .* each once"),
        (["--macs=2e6,many"], "--macs must be numbers .*; got '2e6,many'"),
        (["--macs=-1"], "--macs must be positive numbers"),
        (["--macs=1e15"], "--macs must be positive numbers of at most 1e"),
        (["--model=pit_s"], "--model has no meaning for a sweep"),
        (["--seed=3"], "--seed has no meaning for a sweep"),
        (["--config.model.head_dim=8"], "--config.model.head_dim is decided by the sweep"),
        (["--recipe=distill"], r"--recipe=distill: .* one of <vanilla\|cutmix\|deit>"),
        (["--distribute=multi_worker"], "--distribute of a sweep must be none or mirrored"),
        (["--epochs=0"], "--epochs must be greater than 0"),
    ],
)
def test_bad_flags_are_one_sentence(more, message):
    with pytest.raises((ValueError, flags.Error), match=message):
        options_of(*arguments("images", "out"), *more)["config_of"]("pit_ti")


@pytest.mark.parametrize("name", ["a_file", "folder/sweep.csv"])
def test_an_output_that_cannot_be_written_is_told_first(tmp_path, name):
    output = tmp_path / name.split("/")[0]
    output.touch() if output.name == "a_file" else (tmp_path / name).mkdir(parents=True)
    ended = forked.run_script(SCRIPT, *arguments(tmp_path / "none", output))
    assert ended.returncode == 1
    assert "must be a folder" in ended.stderr or "sweep.csv is a folder" in ended.stderr


def test_help_lists_the_flags_of_both():
    lines = forked.run_script(SCRIPT, "--help").stdout.splitlines()
    listed = {line.split()[0] for line in lines if line.startswith("  --")}
    assert {"--families", "--macs", "--seeds", "--patch_size", "--recipe", "--epochs"} <= listed
    assert not {"--model", "--seed", "--weights", "--preview"} & listed
    assert any("optimizer.learning_rate" in line for line in lines)
