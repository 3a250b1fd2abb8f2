"""README and docs/: commands parse, Python blocks run, or a comment says why a block cannot."""

import importlib.util
import os
import pathlib
import re
import runpy
import shlex
import shutil

import numpy as np
import pytest
from absl import flags, logging  # noqa: F401 - its own flags are defined before a script's
from PIL import Image

import pit_keras
from pit_keras import cli
from pit_keras.commands import analyze, plan, sweep_flags
from pit_keras.commands.training_flags import (
    DETECT,
    TRAIN,
    config_from_flags,
    parse_training_flags,
)
from pit_keras.config.fields import Config, field_paths
from pit_keras.config.recipes import RECIPES

TRAINING = {"train": TRAIN, "detect": DETECT, "sweep": sweep_flags.SWEEP}
ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# A block, and the comment right before it that says why it does not run.
BLOCK = re.compile(
    r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
# What blocks are run with instead: nothing is downloaded, networks and trainings are small.
SMALLER = {
    ', weights="imagenet"': "",
    "batch_size=32": "batch_size=2",
    "batch_size=64": "batch_size=720",
    '"pit_s", classes=len': '"pit_s", stride=16, classes=len',
    '"pit_s"': '"pit_s", head_dim=4, depths=(1, 3, 1)',
    '"detr_pit_s"': '"detr_pit_s", head_dim=4, depths=(1, 1, 1), decoder_layers=1',
    '"pit_ti", classes': '"pit_ti", head_dim=4, classes',
    '"pit_ti_distilled", classes': '"pit_ti_distilled", head_dim=4, depths=(1, 1, 1), classes',
    "400, 600": "64, 96",
    'metrics=["accuracy"]': 'metrics=["accuracy"], run_eagerly=True',
}


def blocks(language):
    """The blocks of a language that are not marked as not run, as parameters of a test."""
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (reason, of, text) in enumerate(BLOCK.findall(page.read_text()), 1)
        if of == language and not reason
    ]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_what_there_is(page):
    text = page.read_text()
    languages = {of for _, of, _ in BLOCK.findall(text) if not of.startswith("{")}
    assert languages <= {"bash", "bibtex", "python", "text"}
    assert text.count("<!-- not run: ") == sum(bool(reason) for reason, _, _ in BLOCK.findall(text))
    named = re.findall(
        r"`(?:python )?((?:train|benchmarks|results|notebooks|pit_keras)/[\w./]+)", text
    )
    linked = re.findall(r"\]\((?!https?:|#)([\w./-]+)[#)]", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert [path for path in linked if not (page.parent / path).exists()] == []
    fields = re.findall(r"--config\.([a-z_]+\.[a-z_]+)", text)
    assert set(fields) <= set(field_paths(Config()))


def test_every_recipe_has_a_page():
    pages = {path.stem for path in ROOT.glob("docs/recipes/*.md")}
    assert pages == {"index", *RECIPES}


def test_the_drawing_is_what_its_script_draws():
    drawn = runpy.run_path(str(ROOT / "docs/draw_pit.py"))["drawing"]()
    assert (ROOT / "docs/pit.svg").read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("text", blocks("bash"))
def test_a_command_parses(text):
    for line in text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        PARSERS[program](arguments)


def parse_pit_keras(arguments):
    if arguments[0] in TRAINING:
        parse_training(*arguments)
    elif arguments[0] == "plan":
        plan.parse_defined(arguments, flags.FlagValues())
    elif arguments[0] == "analyze":
        assert analyze.parse_defined(arguments, flags.FlagValues()) == ["analyze", "interaction"]
    else:
        cli._parser(arguments[0]).parse_args(arguments)


def parse_make(targets):
    assert all(
        re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in targets
    )


def parse_python(arguments):
    script, *given = arguments
    command = script.removeprefix("train/").removesuffix(".py")
    if command in (*TRAINING, "analyze"):
        parse_pit_keras([command, *given])
    elif script.startswith("train/"):
        parse_own_flags(script, arguments)
    else:  # importing a benchmark imports what it measures
        source = (ROOT / script).read_text()
        given = re.findall(r"^--(\w+)", "\n".join(arguments), re.MULTILINE)
        assert [name for name in given if not re.search(rf"\b{name}=", source)] == []


def parse_training(command, *arguments):
    values = flags.FlagValues()
    rest = parse_training_flags([command, *arguments], values, TRAINING[command])
    assert rest == [command]
    if command == "sweep":
        sweep_flags.options(values)["config_of"]("pit_ti")
    else:
        config_from_flags(values)


def parse_own_flags(script, arguments):
    """Parses the flags that a script defines where it is imported, and takes them away again."""
    before, values = set(flags.FLAGS), flags.FlagValues()
    spec = importlib.util.spec_from_file_location("script", ROOT / script)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for name in set(flags.FLAGS) - before:
        values[name] = flags.FLAGS[name]
        delattr(flags.FLAGS, name)
    values(arguments)


PARSERS = {"pit-keras": parse_pit_keras, "make": parse_make, "python": parse_python}


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        os.makedirs(f"photos/{name}")
        Image.fromarray(np.zeros((40, 30, 3), "uint8")).save(f"photos/{name}/1.png")
    shutil.copy("photos/train/cat/1.png", "photo.jpg")
    if "load_model" in text:
        pit_keras.create_model("pit_s", head_dim=4, depths=(1, 1, 1)).save("photos.keras")
    for usual, smaller in SMALLER.items():
        text = text.replace(usual, smaller)
    text = re.sub(r"epochs=\d+", "epochs=1", text)
    exec(compile(text, "block", "exec"), {"__name__": "__main__"})
