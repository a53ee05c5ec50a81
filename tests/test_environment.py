"""pyproject.toml, constraints.txt, environment.yml and the Makefile describe one environment."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraints() -> dict[str, Version]:
    """The versions by name; each line must be a comment or name==version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    exact = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert requirement.url is None
        exact[canonicalize_name(requirement.name)] = Version(specifier.version)
    return exact


def test_conda_installs_this_project_and_has_no_list_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert Requirement(python).name == "python"
    assert Requirement(python).specifier == SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    assert packages == {"pip": ["-c constraints.txt", "-e ."]}


def test_every_dependency_has_an_exact_version_in_its_range():
    exact = constraints()
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert exact[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_the_makefile_asks_for_the_same_python():
    makefile = (ROOT / "Makefile").read_text()
    (major, minor) = re.search(r"sys\.version_info < \((\d+), (\d+)\)", makefile).groups()
    assert PROJECT["requires-python"] == f">={major}.{minor}"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_says_in_one_sentence_that_python_is_too_old(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "-s", "run", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode != 0
    assert made.stderr.splitlines()[0] == (
        f'"{old}" is not Python 3.11 or later; name one that is: make PYTHON=python3.12'
    )
    assert not (tmp_path / "venv").exists()
