"""The contract of every notebook, read from its JSON: order, parameters, outputs, what a reader is owed."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from helpers.parameters import read_parameters
from helpers.runs import PROFILES, plan, read_runs

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))

DEFAULTS = {
    "source": "sample", "data_dir": "", "results_dir": "", "workers": 0, "resume": False,
    "precision": "fp32", "device": "auto",
}  # fmt: skip
TYPES = {name: type(value) for name, value in DEFAULTS.items()} | dict.fromkeys(
    ("seed", "epochs", "batch_size"), int
)
LARGEST = 1.5e6  # bytes
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:root|home|tmp|work|Users|mnt|opt)/|\b[A-Z]:\\[A-Za-z]")
TAGS = {"parameters", "nbval-ignore-output"}
FORBIDDEN = ("sys.path", ".cuda()", "!pip", "%pip", "os.chdir", "plt.show(")


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(FOLDER)))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code(path: Path) -> list[dict]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def prose(path: Path) -> str:
    return "\n".join(source(cell) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def tree(cell: dict) -> ast.Module:
    return ast.parse(source(cell))


def texts(cell: dict) -> Iterator[str]:
    """All that a cell put out as text; pictures are left out."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", []))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield content if isinstance(content, str) else "".join(content)


def position(path: Path, wanted: str, kind: str) -> int:
    """The number of the first cell of a kind that holds a text."""
    cells = read(path)["cells"]
    found = [n for n, cell in enumerate(cells) if cell["cell_type"] == kind and wanted in source(cell)]
    assert found, f'no {kind} cell with "{wanted}"'
    return found[0]


@each(NOTEBOOKS)
def test_it_opens_with_title_question_and_profiles(path):
    first = read(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    assert source(first).startswith(f"# {path.stem[:2]} · ")
    assert "question" in source(first)
    assert "learn" in source(first)
    for profile in PROFILES:
        assert f"`{profile}`" in source(first)


@each(NOTEBOOKS + SOLUTIONS)
def test_parameters_are_literals_each_on_a_line_with_a_comment(path):
    parameters = read_parameters(path)  # one tagged cell, literals only
    first = code(path)[0]
    assert "parameters" in tags(first)
    lines = [line for line in source(first).splitlines() if line.strip()]
    assert len(lines) == len(parameters)
    assert not [name for name, parameter in parameters.items() if not parameter.help]


@each(NOTEBOOKS)
def test_the_common_parameters_have_their_defaults(path):
    parameters = read_parameters(path)
    assert {name: type(parameters[name].default) for name in TYPES if name in parameters} == TYPES
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS


@each(NOTEBOOKS + SOLUTIONS)
def test_imports_and_start_come_next(path):
    second = code(path)[1]
    assert any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree(second).body)
    assert "runtime.start(" in source(second)
    assert "nbval-ignore-output" in tags(second)


@each(NOTEBOOKS + SOLUTIONS)
def test_no_parameter_bears_the_name_of_something_imported_or_defined(path):
    taken = set()
    for cell in code(path):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                taken |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                taken.add(node.name)
    assert not taken & set(read_parameters(path))


@each(NOTEBOOKS)
def test_its_records_carry_its_own_parameters(path):
    assert f'records.parameters("{path.name}", globals())' in source(code(path)[1])


@each(NOTEBOOKS + SOLUTIONS)
def test_it_is_a_valid_notebook_for_any_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < LARGEST
    text = "\n".join(source(cell) for cell in read(path)["cells"])
    assert [word for word in FORBIDDEN if word in text] == []
    written = [text, *(output for cell in code(path) for output in texts(cell))]
    assert [match.group() for part in written for match in MACHINE_PATHS.finditer(part)] == []


@each(NOTEBOOKS + SOLUTIONS)
def test_it_was_executed_from_top_to_bottom(path):
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@each(NOTEBOOKS + SOLUTIONS)
def test_outputs_are_clean(path):
    for number, cell in enumerate(code(path), 1):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", f"cell [{number}] failed"
            assert output.get("name") != "stderr", f"cell [{number}] wrote to stderr: {output['text']}"


@each(NOTEBOOKS + SOLUTIONS)
def test_most_outputs_are_compared(path):
    assert {tag for cell in code(path) for tag in tags(cell)} <= TAGS
    with_output = [cell for cell in code(path) if cell["outputs"]]
    ignored = [cell for cell in with_output if "nbval-ignore-output" in tags(cell)]
    assert len(ignored) <= len(with_output) / 2


@each(NOTEBOOKS + SOLUTIONS)
def test_figures_have_alt_text(path):
    for cell in code(path):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "plots.show":
                assert "alt" in {keyword.arg for keyword in node.keywords}
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert output["metadata"].get("image/png", {}).get("alt")
        assert not any("<Figure" in text for text in texts(cell))


@each(NOTEBOOKS)
def test_it_makes_the_reader_think(path):
    sources = [source(cell) for cell in code(path)]
    assert any(re.search(r"^guess\w* = None", text, re.MULTILINE) for text in sources)
    assert any("expected" in text and "yours" in text for text in sources)
    assert len(set(re.findall(r"Misconception \d", prose(path)))) >= 2
    assert "failure on purpose" in prose(path).lower()


@each(NOTEBOOKS)
def test_the_parts_stand_in_their_order(path):
    def heading(word: str) -> int:
        """The line of the prose with this heading."""
        lines = prose(path).splitlines()
        found = [n for n, line in enumerate(lines) if re.match(rf"##+ .*{word}", line, re.IGNORECASE)]
        assert found, f"no heading with {word}"
        return found[0]

    parts = [heading(word) for word in ("data", "discussion", "exercises", "limits", "claims")]
    assert parts == sorted(parts)
    steps = ["runtime.start(", "card.markdown()", "Run(", "records.claims(", "records.save("]
    cells = [position(path, step, "code") for step in steps]
    assert cells == sorted(cells)
    assert cells[-1] == len(read(path)["cells"]) - 1


@each(NOTEBOOKS)
def test_every_exercise_has_a_worked_answer(path):
    exercises = prose(path).partition("Exercises\n")[2].partition("\n## ")[0]
    numbers = re.findall(r"^(\d)\. ", exercises, re.MULTILINE)
    assert 3 <= len(numbers) <= 5
    assert f"(solutions/{path.name})" in exercises
    solution = FOLDER / "solutions" / path.name
    assert solution.is_file()
    answers = prose(solution)
    assert [n for n in numbers if not re.search(rf"^## Exercise {n}\b", answers, re.MULTILINE)] == []
    assert f"(../{path.name})" in answers


def test_there_are_notebooks_and_every_solution_belongs_to_one():
    assert NOTEBOOKS
    assert {path.name for path in SOLUTIONS} <= {path.name for path in NOTEBOOKS}


WHOLE_SAMPLES = {"counting", "sequences"}  # their data ship in packages: real, and all there is


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_runs_yaml_fits_its_notebook(profile, tmp_path):
    jobs, _ = plan(read_runs(FOLDER), [], profile, [], tmp_path)
    for job in jobs:
        sample = profile == "sample" or job.run.name in WHOLE_SAMPLES
        assert job.parameters["source"] == ("sample" if sample else "real")


def test_every_notebook_has_a_run():
    assert {run.notebook.name for run in read_runs(FOLDER).values()} == {path.name for path in NOTEBOOKS}
