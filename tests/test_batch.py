"""Batches for real: worker processes, kernels, failures, timeouts and signals."""

import csv
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from helpers import batch as batches
from helpers import worker
from helpers.batch import run_batch
from helpers.errors import UserError
from helpers.execution import Outcome, Work
from helpers.runs import Job, plan, read_runs

GONE = 6  # seconds in which processes must have ended; a kernel looks for its parent every second


def read_summary(results: Path) -> dict[str, dict[str, str]]:
    with open(results / "summary.csv", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def batch(command, tmp_path_factory) -> SimpleNamespace:
    """One batch with every way to end: done, failed, bad input, a dead kernel, and the timeout."""
    results = tmp_path_factory.mktemp("results")
    names = ["wait", "good", "bad", "user", "dies"]
    process = command(*names, "--jobs", 2, "--timeout", 12, "-p", "rate=1", "--results", results)
    out, err = process.communicate(timeout=100)
    return SimpleNamespace(results=results, status=process.returncode, out=out, err=err)


def test_one_failure_stops_nothing_else(batch):
    assert batch.status == 1
    rows = read_summary(batch.results)
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "done", "bad": "failed", "user": "failed", "wait": "timeout", "dies": "failed",
    }  # fmt: skip
    assert rows["bad"]["error"] == "ZeroDivisionError: division by zero"
    assert rows["user"]["error"] == "no <images>."
    assert rows["dies"]["error"].startswith("the notebook's process died")
    assert "stopped after 12 s in cell 4 of 4" in rows["wait"]["error"]
    assert float(rows["wait"]["seconds"]) < 12 + GONE


def test_summary_has_the_headline_beside_the_references(batch):
    row = read_summary(batch.results)["good"]
    assert [row[key] for key in ("headline", "value", "low", "high", "reported", "published")] == [
        "test_dice", "0.79", "0.76", "0.81", "0.52", "0.829",
    ]  # fmt: skip
    assert (row["claims_held"], row["claims_total"], row["hardware"]) == ("1", "2", "an abacus")


def test_the_terminal_shows_how_each_run_ended(batch):
    assert re.search(
        r"^good +done in \d+ s  test_dice .790 \(.760 to .810\)  1 of 2 claims hold$", batch.out, re.M
    )
    assert "def divide(a):" in batch.out  # the head of the failed cell
    assert "ZeroDivisionError: division by zero" in batch.out
    assert "no <images>." in batch.out
    assert batch.out.splitlines()[-1] == str(batch.results / "index.html")
    assert batch.err == "4 of 5 runs failed.\n"


def test_the_executed_notebook_is_kept(batch, books):
    notebook = json.loads((batch.results / "good" / "notebook.ipynb").read_text())
    printed = "".join(
        "".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", [])
    )
    cores = len(os.sched_getaffinity(0))
    # It ran in its own folder, with its share of the threads, and with typed values.
    assert printed.splitlines() == [str(books), f"{max(1, cores // 2)} [1, 2] 1.0"]
    assert "<h1" in (batch.results / "good" / "notebook.html").read_text()
    for name, text in (("bad", "&lt;i&gt;"), ("dies", "so far")):  # failed runs can be read as well
        assert text in (batch.results / name / "notebook.html").read_text()


def test_a_failed_run_never_shows_old_numbers(batch, command):
    """A second batch in the same folder: `good` fails now; the others keep their rows."""
    given = ["-p", "rate=1", "-p", "epochs=0", "-p", "resume=true"]
    process = command("good", *given, "--results", batch.results)
    process.communicate(timeout=60)
    assert process.returncode == 1
    rows = read_summary(batch.results)
    assert rows["good"]["error"] == "AssertionError: no epochs"
    assert rows["bad"]["status"] == "failed"
    checkpoints = batch.results / "good" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["0.pt", "2.pt"]  # resume keeps them


def quick(work: Work, stop: threading.Event, show) -> Outcome:
    """Stands in for a process that runs a notebook."""
    (work.folder / "metrics.json").write_text("{}")
    (work.folder / "checkpoints").mkdir(exist_ok=True)
    (work.folder / "checkpoints" / "a.resume.pt").write_text("weights")
    return Outcome("done", 1)


def jobs_of(books: Path, results: Path, *assignments: str) -> list[Job]:
    return plan(read_runs(books), ["good"], "sample", assignments, results)[0]


def test_resume_with_another_setting_is_refused_before_anything_is_touched(books, tmp_path):
    assert run_batch(jobs_of(books, tmp_path), tmp_path, executor=quick) == 0
    before = (tmp_path / "good" / "batch.json").read_text()
    with pytest.raises(UserError, match=r"good: resume=true would go on .* a run with rate=0\.001;"):
        run_batch(jobs_of(books, tmp_path, "rate=1", "resume=true"), tmp_path, executor=quick)
    assert (tmp_path / "good" / "batch.json").read_text() == before
    assert run_batch(jobs_of(books, tmp_path, "epochs=3", "resume=true"), tmp_path, executor=quick) == 0
    assert json.loads((tmp_path / "good" / "batch.json").read_text())["parameters"]["epochs"] == 3


def test_a_folder_in_the_way_costs_its_own_run_only(books, tmp_path, capsys):
    (tmp_path / "good").write_text("in the way")
    jobs, _ = plan(read_runs(books), ["good", "bad"], "sample", (), tmp_path)
    done = run_batch(jobs, tmp_path, executor=lambda work, stop, show: Outcome("done", 1))
    assert done == 1
    out = capsys.readouterr().out
    assert re.search(
        r"good +failed after 0 s\n +\S+batch\.json: cannot be replaced \(.*\); choose another", out
    )
    assert read_summary(tmp_path)["bad"]["status"] == "done"


def test_what_only_the_report_shows_is_brought_up_to_date(books, tmp_path):
    (job,) = jobs_of(books, tmp_path)
    run_batch([job], tmp_path, executor=quick)
    corrected = replace(job, run=replace(job.run, published=0.85, about="Works better"))
    run_batch([corrected], tmp_path, executor=lambda *_: pytest.fail("it ran again"))
    record = json.loads((tmp_path / "good" / "batch.json").read_text())
    assert (record["published"], record["about"], record["status"]) == (0.85, "Works better", "done")
    assert "Works better" in (tmp_path / "index.html").read_text()


def test_threads_are_shared_among_no_more_runs_than_there_are(books, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(batches, "local", lambda workers: shares.append(workers) or quick)
    run_batch(jobs_of(books, tmp_path), tmp_path, workers=4)
    run_batch(jobs_of(books, tmp_path, "epochs=1,2,3"), tmp_path, workers=2)
    assert shares == [1, 2]


def test_a_worker_without_its_batch_leaves_though_its_kernel_left_first(monkeypatch):
    class Gone:
        def kill(self) -> None:
            raise psutil.NoSuchProcess(1)

    left = []
    monkeypatch.setattr(worker.os, "read", lambda *_: b"")
    monkeypatch.setattr(worker.os, "_exit", left.append)
    monkeypatch.setattr(worker.psutil, "Process", lambda: SimpleNamespace(children=lambda **_: [Gone()]))
    worker._end_with_parent()
    assert left == [1]


def waiting_kernel(results: Path) -> psutil.Process:
    """The kernel of the run `wait`, once it is in its long cell."""
    path = results / "wait" / "kernel.pid"
    deadline = time.monotonic() + 40
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.1)
    return psutil.Process(int(path.read_text()))


def assert_gone(*processes: psutil.Process, within: float = GONE) -> None:
    _, alive = psutil.wait_procs(processes, timeout=within)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_stops_kernels_and_keeps_finished_runs(command, tmp_path):
    process = command("good", "wait", "bad", "--results", tmp_path)
    kernel = waiting_kernel(tmp_path)
    worker = kernel.parent()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("Stopped: 1 of 3 runs had finished and keep their results; the same command")
    assert out.splitlines()[-1] == str(tmp_path / "index.html")
    assert_gone(kernel, worker)
    assert list(read_summary(tmp_path)) == ["good"]
    assert not (tmp_path / "bad").exists()  # what had not started was not touched


def test_a_killed_worker_fails_its_run_and_takes_its_kernel_along(command, tmp_path):
    process = command("wait", "--results", tmp_path)
    kernel = waiting_kernel(tmp_path)
    kernel.parent().kill()
    if sys.platform == "linux":
        assert_gone(kernel, within=0.5)  # before it would have looked for its parent itself
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the process that ran the notebook ended early (status -9)." in out
    assert read_summary(tmp_path)["wait"]["status"] == "failed"
    assert_gone(kernel)


def test_a_killed_batch_leaves_no_process_behind(command, tmp_path):
    process = command("wait", "--results", tmp_path)
    kernel = waiting_kernel(tmp_path)
    worker = kernel.parent()
    process.kill()
    process.communicate()
    assert_gone(kernel, worker)


@pytest.mark.parametrize(("deaths", "status"), [(1, 0), (9, 1)])
def test_a_kernel_that_loses_the_race_for_a_port_is_started_again(
    command, tmp_path, monkeypatch, deaths, status
):
    """Notebooks ask for the kernel `python3`: here that is one which dies at its first starts."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    script = (
        "import os, pathlib, sys\n"
        f"starts = pathlib.Path({str(tmp_path / 'starts')!r})\n"
        "with starts.open('a') as file:\n    file.write('x')\n"
        f"if len(starts.read_text()) <= {deaths}:\n    sys.exit(1)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', *sys.argv[1:]])\n"
    )
    (folder / "start.py").write_text(script)
    spec = KernelSpecManager().get_kernel_spec("python3").to_dict()
    spec["argv"] = [sys.executable, str(folder / "start.py"), "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    process = command("good", "--results", tmp_path / "results")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == status, out
    assert len((tmp_path / "starts").read_text()) == min(deaths + 1, 3)
    assert ("died 3 times while it started" in out) == bool(status)


@pytest.mark.parametrize("kind", ["running", "killed"])
def test_two_batches_do_not_share_a_folder(command, tmp_path, kind):
    first = command("wait", "--results", tmp_path)
    kernel = waiting_kernel(tmp_path)
    if kind == "killed":  # its lock goes with it
        first.kill()
        first.communicate()
        assert_gone(kernel)
    out, err = command("good", "--results", tmp_path).communicate(timeout=60)
    if kind == "running":
        assert err == (
            f"vision-notebooks: {tmp_path}: another batch writes there; wait until it has ended, "
            "or choose another --results.\n"
        )
        first.terminate()
        first.communicate(timeout=30)
    else:
        assert "good  done" in out


def test_a_full_disk_leaves_nothing_half_written(command, tmp_path):
    """A limit on the size of files stands in for the disk: the executed notebook fits, its page does not."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = command("good", "--results", tmp_path, preexec_fn=limit)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"notebook\.html: could not be written \(File too large\); free some space", out)
    names = {path.name for path in (tmp_path / "good").iterdir()}
    assert "notebook.html" not in names
    assert not [name for name in names if name.endswith(".part")]


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_a_results_folder_that_cannot_be_written(command, tmp_path, kind):
    results = tmp_path / "results"
    if kind == "file":
        results.write_text("in the way")
    elif os.geteuid() == 0:  # root may write anywhere but in a file system that takes no files
        results = Path("/sys/results")
    else:
        results.mkdir(mode=0o555)
    out, err = command("good", "--results", results).communicate(timeout=20)
    assert out == ""
    assert re.fullmatch(r"vision-notebooks: \S+results: cannot be written \(.*\); .*--results\.\n", err)
