"""The house of `helpers`: every module has a floor, and imports only from there or from below."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import helpers

FOLDER = Path(helpers.__file__).parent
MODULES = sorted(p.stem for p in FOLDER.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())
FLOORS = {
    name: int(floor)
    for floor, names in re.findall(r"^(\d)  ([\w, ]+)$", helpers.__doc__, re.MULTILINE)
    for name in names.split(", ")
}


def imported(module: str) -> set[str]:
    """Modules of `helpers` that a module, or any file of a subpackage, imports anywhere in its code."""
    own = FOLDER / module
    names = set()
    for file in own.glob("*.py") if own.is_dir() else [FOLDER / f"{module}.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "helpers":
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
                names.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                names |= {
                    alias.name.split(".")[1] for alias in node.names if alias.name.startswith("helpers.")
                }
    return (names & set(MODULES)) - {module}


def test_the_table_names_every_module_and_no_other():
    assert sorted(FLOORS) == [name for name in MODULES if name not in ("__init__", "__pycache__")]


def test_no_module_imports_from_a_floor_above():
    above = [
        f"{module} ({FLOORS[module]}) imports {other} ({FLOORS[other]})"
        for module in FLOORS
        for other in imported(module)
        if FLOORS[other] > FLOORS[module]
    ]
    assert above == []


def test_no_modules_import_each_other_in_a_circle():
    list(TopologicalSorter({module: imported(module) for module in FLOORS}).static_order())
