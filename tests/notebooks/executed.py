"""Runs a notebook as a user would, from an empty folder, and tells what it shows."""

import ast
import base64
import dataclasses
import io
import pathlib

import forked
import nbclient
import nbformat
from PIL import Image

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
RUN_CELLS = pathlib.Path(__file__).parent / "run_cells.py"
PATIENCE = 600  # seconds for a cell, until it is taken for one that hangs


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a notebook gives.

    Attributes:
        text: All of its text, in order.
        pictures: All of its pictures.
    """

    text: str
    pictures: list[Image.Image]


def read(name):
    """The notebook `notebooks/NAME.ipynb`."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(name, folder, *options, **parameters):
    """Runs a notebook in a folder, with other values of some of its parameters.

    Its cells run in a fork of a process that has imported TensorFlow, with options of
    `run_cells.py`. A cell that fails is an error with its traceback.
    """
    notebook = read(name)
    set_parameters(notebook, parameters)
    file = folder / f"{name}.ipynb"
    nbformat.write(notebook, file)
    done = forked.run_script(RUN_CELLS, file, *options)
    assert done.returncode == 0, done.stderr
    return shown_by(nbformat.read(file, as_version=4))


def execute_in_a_kernel(name, folder):
    """Runs a notebook in a folder as it is stored, in a kernel of its own as Jupyter does."""
    notebook = read(name)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=PATIENCE, resources=resources).execute()
    return shown_by(notebook)


def parameters_of(notebook):
    """The one cell that is tagged `parameters`, and the names that it gives values to."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    (cell,) = tagged
    return cell, [target.id for line in ast.parse(cell.source).body for target in line.targets]


def set_parameters(notebook, parameters):
    cell, names = parameters_of(notebook)
    assert set(parameters) <= set(names)
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())


def shown_by(notebook):
    """What the outputs of a notebook that has run are."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    results = [output["data"] for output in outputs if "data" in output]
    return Shown(
        text="\n".join(_text(output) for output in outputs),
        pictures=[_picture(data["image/png"]) for data in results if "image/png" in data],
    )


def _text(output):
    data = output.get("data", {})
    return output.get("text") or data.get("text/markdown") or data.get("text/plain", "")


def _picture(data):
    return Image.open(io.BytesIO(base64.b64decode(data)))
