"""Tiny notebooks, which tests write and run."""

from pathlib import Path

import nbformat
from nbformat import v4

PARAMETERS = """\
source = "sample"  # "sample" or "real"
data_dir = ""      # folder of the datasets
results_dir = ""   # folder for what the run writes
epochs = 2         # times over the data
rate = 1e-3
resume = False
sizes = [12, -1]   # channels # and more
"""

SAVE = """\
import json, os, pathlib
folder = pathlib.Path(results_dir)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
(folder / "checkpoints" / f"{epochs}.pt").write_text("weights")
(folder / "metrics.json").write_text(json.dumps({
    "metrics": {"test_dice": .79, "test_dice_low": .76, "test_dice_high": .81},
    "claims": {"Deep beats shallow": True, "Thin vessels are easy": False}}))
(folder / "run.json").write_text(json.dumps({"parameters": {"source": source}, "hardware": "an abacus"}))
"""

WAIT = """\
import os, pathlib, time
pathlib.Path(results_dir, "kernel.pid").write_text(str(os.getpid()))
time.sleep(100)
"""


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a parameters cell and further code cells."""
    first = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Tiny"), first, *map(v4.new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path
