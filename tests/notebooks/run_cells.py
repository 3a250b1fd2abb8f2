"""Runs a notebook's cells in this process, from its folder, and stores what they show in it.

python run_cells.py NOTEBOOK [--eager]

With `--eager` TensorFlow's functions are not traced, which takes longer than a few steps.
"""

import asyncio
import os
import sys

import nbformat
import tensorflow as tf
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


async def run_cell(shell, cell):
    """Runs a cell while an event loop runs, as in a kernel; one that fails ends the process."""
    results = []
    shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=results)
    with capture_output(display=False) as captured:
        code = shell.transform_cell(cell.source)
        done = await shell.run_cell_async(cell.source, transformed_cell=code)
    if not done.success:
        sys.exit(f"{cell.source}\n{captured.stdout}{captured.stderr}")
    new_output = nbformat.v4.new_output
    cell.outputs = [new_output("stream", text=captured.stdout)] if captured.stdout else []
    cell.outputs += [new_output("display_data", data=result["data"]) for result in results]


async def run_cells(notebook):
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            await run_cell(shell, cell)


if __name__ == "__main__":
    folder, name = os.path.split(sys.argv[1])
    os.chdir(folder)
    tf.config.run_functions_eagerly("--eager" in sys.argv)
    notebook = nbformat.read(name, as_version=4)
    asyncio.run(run_cells(notebook))
    nbformat.write(notebook, name)
