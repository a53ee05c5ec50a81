"""Seeds, device and precision, and the folders of a run."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_notebook

from helpers import runtime
from helpers.errors import UserError


def draw() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_start_seeds_every_generator_and_says_what_it_runs_on(started, capsys):
    settings = runtime.start(seed=3, device="cpu")
    first = draw()
    runtime.start(seed=3, device="cpu")
    assert draw() == first
    runtime.start(seed=4, device="cpu")
    assert draw() != first
    assert settings == runtime.Runtime(3, "cpu", "fp32", torch.get_num_threads())
    assert runtime.current().seed == 4
    assert capsys.readouterr().out.startswith("cpu (")


def test_operations_without_a_deterministic_form_are_refused(started):
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_precision_chooses_what_products_are_computed_in(started):
    a = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with runtime.start(device="cpu", precision=precision).autocast():
            assert (a @ a).dtype == dtype
    assert runtime.start(device="cpu", precision="auto").precision in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"device": "abacus"}, 'device "abacus" is not available'),
        ({"device": "cuda:99"}, 'device "cuda:99" is not available'),
        ({"device": "cpu", "precision": "fp8"}, 'precision "fp8" is unknown'),
    ],
)
def test_unknown_settings_are_named(started, settings, named):
    with pytest.raises(UserError, match=named):
        runtime.start(**settings)


def test_relative_paths_are_meant_from_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runtime.resolve("data") == runtime.project_root() / "data"
    assert runtime.resolve(tmp_path) == tmp_path
    assert runtime.resolve("~/data") == Path.home() / "data"
    assert (runtime.project_root() / "helpers" / "runtime.py").is_file()


def test_the_data_root_is_parameter_then_variable_then_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", "elsewhere")
    assert runtime.data_root(str(tmp_path)) == tmp_path
    assert runtime.data_root() == tmp_path / "elsewhere"  # a shell means its own folder
    monkeypatch.delenv("DATA_DIR")
    assert runtime.data_root() == runtime.project_root() / "data"


def test_the_cache_is_the_variable_or_in_the_project(monkeypatch, tmp_path):
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path))
    assert runtime.cache_dir() == tmp_path
    monkeypatch.delenv("VISION_NOTEBOOKS_CACHE")
    assert runtime.cache_dir() == runtime.project_root() / ".cache"


def test_results_go_where_asked_and_those_of_tests_outside_of_the_project(monkeypatch, tmp_path):
    asked = tmp_path / "a" / "b"
    assert runtime.results_dir(str(asked), run="tiny") == asked
    assert asked.is_dir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "PYTEST_VERSION" in os.environ
    assert runtime.results_dir("", run="tiny").parent == tmp_path
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path / "project")
    assert runtime.results_dir("", run="tiny") == tmp_path / "project" / "results" / "tiny"


def test_a_results_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="run: cannot be created"):
        runtime.results_dir(str(tmp_path / "file" / "run"), run="tiny")


def test_progress_is_quiet_in_batches_and_tests(monkeypatch):
    monkeypatch.delenv("VISION_NOTEBOOKS_QUIET", raising=False)
    assert runtime.quiet()
    monkeypatch.delenv("PYTEST_VERSION")
    assert not runtime.quiet()
    monkeypatch.setenv("VISION_NOTEBOOKS_QUIET", "1")
    assert runtime.quiet()


def test_nbval_leaves_nothing_in_the_temporary_folder(tmp_path):
    books, temporary = tmp_path / "books", tmp_path / "temporary"
    books.mkdir()
    temporary.mkdir()
    shutil.copy(runtime.project_root() / "notebooks" / "conftest.py", books)
    write = "from helpers import runtime\n(runtime.results_dir('', run='tiny') / 'model.pt').write_text('')"
    write_notebook(books / "01_tiny.ipynb", write + "; print('written')")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", books],
        env=os.environ | {"TMPDIR": str(temporary)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout
    assert not list(temporary.iterdir())
