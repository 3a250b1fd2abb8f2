"""Notebooks as they are stored: valid, without outputs, and without logic of their own."""

import ast
import re

import nbformat
import pytest
from executed import NOTEBOOKS, parameters_of, read
from test_notebooks import CHECKS

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def test_every_notebook_is_run_and_stands_in_the_readme():
    assert list(CHECKS) == NAMES
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    assert [name for name in NAMES if f"notebooks/{name}.ipynb" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_as_it_was_written(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.source.strip()
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_how_long_it_trains_in_one_place(name):
    """So that its test trains for less."""
    _, parameters = parameters_of(read(name))
    assert "epochs" in parameters
    numbers = [cell.source for cell in read(name).cells if re.search(r"epochs=\d", cell.source)]
    assert not numbers


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_only_calls_what_the_package_has(name):
    forbidden = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.While, ast.Try)
    for cell in read(name).cells:
        if cell.cell_type == "code":
            nodes = list(ast.walk(ast.parse(cell.source)))
            assert not [node for node in nodes if isinstance(node, forbidden)], cell.source
