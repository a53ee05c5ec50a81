"""Runs on a real Dask scheduler with two real workers on loopback, one of them killed in the middle."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from dask_cluster import LoopbackCluster
from test_batch import assert_gone, read_summary
from tiny import SAVE, write_notebook

from helpers import cluster
from helpers.cli import main
from helpers.cluster import pack, unpack
from helpers.errors import UserError

# Leaves its process number, and waits where `marks` holds fewer numbers than it should.
MARK = """\
import os, pathlib, time
marks = pathlib.Path({marks!r})
(marks / str(os.getpid())).touch()
if len(list(marks.iterdir())) <= {waits}:
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    found = LoopbackCluster(tmp_path_factory.mktemp("dask"), workers=2)
    yield found
    found.close()


@pytest.fixture
def marked(tmp_path: Path):
    """Makes a folder with one run that waits as often as told; returns (folder, marks)."""

    def make(waits: int) -> tuple[Path, Path]:
        marks, books = tmp_path / "marks", tmp_path / "books"
        marks.mkdir()
        books.mkdir()
        write_notebook(books / "01_mark.ipynb", MARK.format(marks=str(marks), waits=waits), SAVE)
        (books / "runs.yaml").write_text(
            "runs: {mark: {notebook: 01_mark.ipynb, about: Waits, headline: test_dice}}"
        )
        return books, marks

    return make


def kernels(marks: Path, count: int) -> list[psutil.Process]:
    """The kernels that left a mark, once there are so many; the latest is the last."""
    deadline = time.monotonic() + 40
    while len(found := sorted(marks.iterdir(), key=lambda path: path.stat().st_mtime_ns)) < count:
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.1)
    return [psutil.Process(int(path.name)) for path in found[-1:]]


def test_results_come_back_as_from_this_machine(command, loopback, tmp_path):
    names = ["good", "bad", "dies"]
    process = command(*names, "--scheduler", loopback.address, "--results", tmp_path, "-p", "rate=1")
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1, err
    rows = read_summary(tmp_path)
    print(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "done", "bad": "failed", "dies": "failed",
    }  # fmt: skip
    assert "ZeroDivisionError: division by zero" in out
    assert re.search(r"^good +done in \d+ s  test_dice .790 \(.760 to .810\)", out, re.M)
    files = {path.relative_to(tmp_path / "good").as_posix() for path in (tmp_path / "good").rglob("*.*")}
    assert {"notebook.html", "metrics.json", "checkpoints/2.pt", "batch.json"} <= files
    assert not list(loopback.folder.rglob("run-*"))  # the workers keep nothing
    again, _ = command(*names[:1], "--scheduler", loopback.address, "--results", tmp_path, "-p", "rate=1"
                       ).communicate(timeout=60)  # fmt: skip
    assert "good  unchanged (not run again)" in again


def test_a_cancelled_batch_ends_its_runs_on_the_workers(command, loopback, marked, tmp_path):
    for number, kill in enumerate((signal.SIGINT, signal.SIGKILL)):
        if not number:
            books, marks = marked(waits=9)
        process = command("--scheduler", loopback.address, "--results", tmp_path / "r", "--notebooks", books)
        (kernel,) = kernels(marks, number + 1)
        process.send_signal(kill)
        process.communicate(timeout=30)
        assert_gone(kernel)
        assert not (tmp_path / "r" / "mark" / "batch.json").exists()


def test_a_run_whose_worker_died_is_repeated_once(command, loopback, marked, tmp_path):
    books, marks = marked(waits=1)
    process = command("--scheduler", loopback.address, "--results", tmp_path / "r", "--notebooks", books)
    (kernel,) = kernels(marks, 1)
    worker = loopback.worker_of(kernel)
    worker.kill()
    assert_gone(kernel, within=3 if sys.platform == "linux" else 6)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert len(list(marks.iterdir())) == 2
    metrics = json.loads((tmp_path / "r" / "mark" / "metrics.json").read_text())
    assert metrics["metrics"]["test_dice"] == 0.79
    loopback.add_worker()


def test_a_run_that_kills_two_workers_is_given_up(command, loopback, marked, tmp_path):
    books, marks = marked(waits=9)
    process = command("--scheduler", loopback.address, "--results", tmp_path / "r", "--notebooks", books)
    orphans = []
    for count in (1, 2):
        orphans += kernels(marks, count)
        loopback.add_worker()
        loopback.worker_of(orphans[-1]).kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "2 workers died while they ran it (tcp://127.0.0.1:" in out
    assert_gone(*orphans)


def test_a_worker_with_other_code_refuses(loopback, tmp_path, monkeypatch, books, capsys):
    monkeypatch.setattr(cluster, "code_fingerprint", lambda notebook: "other")
    arguments = ["run", "good", "--scheduler", loopback.address, "--notebooks", str(books)]
    assert main([*arguments, "--results", str(tmp_path)]) == 1
    assert "has another version of 01_good.ipynb or helpers; update its checkout." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("tcp://127.0.0.1:9", [], "nobody answers there as a Dask scheduler"),
        ("nonsense://x", [], "nobody answers there as a Dask scheduler"),
        ("", ["--gpus", "1"], "no worker offers a GPU; start them with --resources GPU=1, or give --gpus 0."),
    ],
)
def test_bad_input_gets_one_sentence(
    loopback, books, tmp_path, capsys, monkeypatch, address, options, message
):
    monkeypatch.setattr(cluster, "CONNECT", 1)
    arguments = ["run", "good", "--scheduler", address or loopback.address, "--notebooks", str(books)]
    assert main([*arguments, *options, "--results", str(tmp_path / "r")]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_runs_ask_for_gpus_as_a_dask_resource(loopback, command, tmp_path):
    """Two runs, one worker with one GPU: it runs both, one after the other."""
    worker = loopback.add_worker("GPU=1")
    time.sleep(3)
    arguments = ["big", "--profile", "full", "--scheduler", loopback.address, "--results", tmp_path]
    out, err = command(*arguments, "-p", "epochs=1,2").communicate(timeout=90)
    assert out.count("done in") == 2, out + err
    worker.terminate()


def test_files_travel_packed(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x.bin").write_bytes(b"\0\1")
    (tmp_path / "a" / ".half.part").write_text("x")
    unpack(pack(tmp_path / "a"), tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").rglob("*.*")] == ["x.bin"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="could not be written"):
        unpack(pack(tmp_path / "a"), tmp_path / "file")
