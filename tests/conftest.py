"""Fixtures for several test files: tiny notebooks with a runs.yaml, a cache folder, settings of a run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import SAVE, WAIT, write_notebook


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, used in place of the project's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(folder))
    return folder


@pytest.fixture
def started() -> Iterator[None]:
    """As after `runtime.start` on the CPU; torch's switches are put back afterwards."""
    import torch

    from helpers import runtime

    runtime.start(seed=0, device="cpu")
    yield
    runtime._current = None
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny notebooks: one that works, one that fails, bad input, one that waits, one that dies."""
    folder = tmp_path_factory.mktemp("books")
    look = "print(os.getcwd())\nprint(os.environ['OMP_NUM_THREADS'], sizes, rate)"
    write_notebook(folder / "01_good.ipynb", SAVE, "assert epochs, 'no epochs'", look)
    write_notebook(folder / "02_bad.ipynb", "def divide(a):\n    return 1 / a\n\nprint('<i>')\ndivide(0)")
    write_notebook(
        folder / "03_user.ipynb", "from helpers.errors import UserError\nraise UserError('no <images>.')"
    )
    write_notebook(folder / "04_wait.ipynb", WAIT)
    write_notebook(folder / "05_dies.ipynb", "print('so far')", "import os\nos._exit(3)")
    (folder / "runs.yaml").write_text(
        """
runs:
  good:
    notebook: 01_good.ipynb
    about: Works & more
    headline: test_dice
    reported: .520
    published: .829
    sample: {sizes: [1, 2]}
    cpu: {source: real, rate: 1e-4}
  bad: {notebook: 02_bad.ipynb, about: Divides by zero, headline: test_dice}
  user: {notebook: 03_user.ipynb, about: Lacks its images, headline: test_dice}
  wait: {notebook: 04_wait.ipynb, about: Takes long, headline: test_dice}
  dies: {notebook: 05_dies.ipynb, about: Runs out of memory, headline: test_dice}
  big: {notebook: 01_good.ipynb, about: Needs a GPU, headline: test_dice, sample: null, full: {}}
"""
    )
    return folder


@pytest.fixture(scope="module")
def command(books: Path) -> Callable[..., subprocess.Popen]:
    """Starts `vision-notebooks run … --notebooks <books>` as a user would, with its output captured."""

    def start(*arguments: object, **options) -> subprocess.Popen:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        given = [*map(str, arguments)]
        if "--notebooks" not in given:
            given += ["--notebooks", str(books)]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "helpers.cli", "run", *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )

    return start
