"""What a run leaves behind for others: metrics.json, history.csv, run.json, and its claims."""

import json
import math
import platform
import time
from importlib import metadata
from pathlib import Path

import pandas as pd

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.parameters import read_parameters

_STARTED = time.perf_counter()  # this module is imported in a notebook's first working cell
LEAST = {"seed": 0, "workers": 0, "epochs": 1, "batch_size": 1, "image_size": 1}
VERSIONS = ("vision-notebooks", "torch", "torchvision", "numpy", "scikit-learn", "pandas", "pillow")


def parameters(notebook: str, namespace: dict) -> dict:
    """The present values of a notebook's parameters, by the names in its parameters cell.

    notebook: its file name, in the current folder or else under notebooks/; namespace: the notebook's
    `globals()`, before any parameter is changed.
    Raises UserError for a number that no training can use, such as zero epochs.
    """
    here = Path(notebook)
    cell = read_parameters(here if here.is_file() else runtime.project_root() / "notebooks" / notebook)
    values = {name: namespace[name] for name in cell}
    for name, least in LEAST.items():
        if name in values and values[name] < least:
            raise UserError(f"{name} is {values[name]}; the least is {least}.")
    return values


def claims(statements: dict[str, bool]) -> dict[str, bool]:
    """Print one line a claim, "holds" or "does not hold"; returns them as plain booleans."""
    statements = {sentence: bool(holds) for sentence, holds in statements.items()}
    for sentence, holds in statements.items():
        print(f"{'holds' if holds else 'does not hold'}: {sentence}")
    return statements


def save(results_dir: Path, *, run: str, metrics: dict[str, float], claims: dict[str, bool], parameters: dict,
         history: dict[str, pd.DataFrame], dataset: dict) -> None:  # fmt: skip
    """Write the records of a finished run, metrics.json last: where it stands, the run is complete.

    history: the history of every model trained, by name; becomes history.csv, a row an epoch and
    model. Raises UserError when a file cannot be written or a metric is not a number.
    """
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise UserError(f'metric "{name}" is {value!r}; only numbers can be recorded: convert it.')
    frames = [frame.assign(model=model) for model, frame in history.items()]
    table = pd.concat(frames, ignore_index=True)
    table = table[["model", *(c for c in table.columns if c != "model")]]
    _write(results_dir / "history.csv", table.to_csv(index=False, lineterminator="\n"))
    _write_json(results_dir / "run.json", {
        "run": run,
        "parameters": parameters,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
        "hardware": runtime.hardware(),
        "threads": runtime.current().threads,
        "precision": runtime.current().precision,
        "seconds": round(time.perf_counter() - _STARTED, 1),
        "dataset": dataset,
    })  # fmt: skip
    # JSON has neither nan nor infinity: an undefined metric is null.
    plain = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
    _write_json(results_dir / "metrics.json", {"metrics": plain, "claims": claims})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # an hour of training must not end here
        return "not installed"


def save_table(results_dir: Path, name: str, table: pd.DataFrame) -> None:
    """Write a result table or predictions as `<name>.csv`."""
    _write(results_dir / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))


def _write_json(path: Path, content: dict) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_open(path) as file:
        file.write(text)
