"""Worked answers: every exercise has one with all its parts, and what it claims holds."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))

each = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@each
def test_it_answers_every_exercise(path):
    exercises = re.search(r"^## .*Exercises\n(.*?)(?=^## |\Z)", prose(FOLDER / path.name), re.M | re.S)[1]
    asked = re.findall(r"^(\d+)\. ", exercises, re.M)
    assert asked
    assert re.findall(r"^## Exercise (\d+)\b", prose(path), re.M) == asked


@each
def test_each_answer_has_all_its_parts(path):
    answers = re.split(r"^## Exercise \d+", prose(path), flags=re.M)[1:]
    for number, answer in enumerate(answers, 1):
        for part in ("Question", "Prediction", "Result", "What it means"):
            assert answer.count(f"**{part}.**") == 1, f"exercise {number}: {part}"


@each
def test_its_recorded_claims_hold(path):
    """nbval runs the cells and compares these outputs; here only what they say is checked."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    printed = "".join(o.text for cell in cells for o in cell.outputs if o.output_type == "stream")
    assert "does not hold: " not in printed
