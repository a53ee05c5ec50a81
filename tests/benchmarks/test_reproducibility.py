"""Notebook 04 on its sample, killed at random moments and resumed, and with loading processes.

Four executions of the notebook: some minutes.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from helpers import runtime
from helpers.training import load_checkpoint

NOTEBOOK = runtime.project_root() / "notebooks" / "04_drive_unet.ipynb"
LIMIT = 1500  # seconds for one execution
KILLS = 2


def start(folder: Path, **parameters: object) -> subprocess.Popen:
    """papermill on the notebook, with its records in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"results_dir": folder, **parameters}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "papermill", str(NOTEBOOK), str(folder / "notebook.ipynb")),
            *(str(word) for name, value in given.items() for word in ("-p", name, value)),
        ],
        # One thread: two that share a busy machine with other work wait for each other most of the time.
        env=os.environ | {"VISION_NOTEBOOKS_QUIET": "1", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    try:
        _, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    assert process.returncode == 0, errors[-3000:]


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for papermill and its kernel, which lives in a session of its own."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=20)
    process.communicate()


def checkpoint_times(folder: Path) -> list[float]:
    """When each checkpoint was last written; [0] before the first."""
    return [file.stat().st_mtime for file in (folder / "checkpoints").glob("*.pt")] or [0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The records of an execution that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder))
    return folder


def ends_alike(folder: Path, other: Path) -> None:
    assert (folder / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    weights = [load_checkpoint(f / "checkpoints" / "unet.pt")["models"]["model"] for f in (folder, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert (folder / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()


def test_a_notebook_killed_while_it_trains_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    times = checkpoint_times(undisturbed)
    training = max(times) - min(times)
    for kills in range(KILLS):
        before = max(checkpoint_times(tmp_path))
        process = start(tmp_path, resume=kills > 0)
        while process.poll() is None and max(checkpoint_times(tmp_path)) == before:
            time.sleep(0.05)  # until it trains
        wait = random.uniform(0, 0.9) * training / KILLS
        time.sleep(wait)
        assert process.poll() is None, process.stderr.read()[-3000:]
        kill(process)
        print(f"killed {wait:.1f} s after the first checkpoint that it wrote")
    finish(start(tmp_path, resume=True))
    ends_alike(tmp_path, undisturbed)
    assert not list((tmp_path / "checkpoints").glob("*.part"))


def test_two_loading_processes_give_the_same_history(undisturbed, tmp_path):
    finish(start(tmp_path, workers=2))
    ends_alike(tmp_path, undisturbed)
