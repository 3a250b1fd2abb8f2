"""The house: imports point downwards, and a file is found by its name."""

import ast
import collections
import pathlib
import re
import subprocess
import sys

import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "pit_keras"


def test_the_contracts_of_imports_hold():
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_drawing_of_imports_shows_the_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    drawing = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[1]
    drawn = [line.split() for line in drawing.splitlines() if line.strip(" |v")]
    assert drawn == [re.findall(r"\w+", layer) for layer in layers]


def test_no_two_files_are_told_apart_by_their_folder_or_an_s():
    names = collections.defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        if path.stem != "__init__":
            names[path.stem.removesuffix("s")].append(str(path.relative_to(PACKAGE)))
    assert not [paths for paths in names.values() if len(paths) > 1]


def test_every_package_says_what_belongs_in_it():
    for path in PACKAGE.glob("*/__init__.py"):
        sentences = re.findall(r"\.(?:\s|$)", ast.get_docstring(ast.parse(path.read_text())) or "")
        assert len(sentences) == 2, path
