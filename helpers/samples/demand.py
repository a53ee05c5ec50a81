"""Sample of `demand`: electricity demand in England and Wales (Taylor, 2003), as pmdarima ships it."""

import ast
import csv
from datetime import datetime, timedelta
from pathlib import Path

from helpers.samples import packaged

START = datetime(2000, 6, 5)  # a Monday
STEP = timedelta(minutes=30)


def render(folder: Path, seed: int = 0) -> None:
    """Write demand.csv (time,demand) with 4,032 half-hours, in MW; nothing is random."""
    # The numbers stand in a Python file: the longest list in it. It is read, and never executed.
    lists = [node for node in ast.walk(ast.parse(packaged.read("demand"))) if isinstance(node, ast.List)]
    values = ast.literal_eval(max(lists, key=lambda node: len(node.elts)))
    with open(folder / "demand.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("time", "demand"))
        table.writerows(
            ((START + i * STEP).strftime("%Y-%m-%d %H:%M"), value) for i, value in enumerate(values)
        )
