"""Runs a notebook as a user would, from an empty folder, and tells what it shows."""

import base64
import dataclasses
import io
import pathlib

import nbclient
import nbformat
from PIL import Image

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
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


def execute(name, folder):
    """Runs a notebook in a folder; a cell that fails is an error with its traceback."""
    notebook = read(name)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=PATIENCE, resources=resources).execute()
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
