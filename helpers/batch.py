"""Runs jobs, each in a fresh process, and records how each ended in `batch.json` in its folder."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers import report
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.runs import Job

POLL = 0.1  # seconds between looks at the clock and at Ctrl-C
GRACE = 3.0  # seconds that a process gets to end before it is killed


@dataclass(frozen=True)
class Outcome:
    """How a run ended: status is "done", "failed", "timeout", or "stopped" (by Ctrl-C)."""

    status: str
    seconds: float
    error: str = ""
    detail: tuple[str, ...] = ()  # the failed cell and its error, for a terminal


def run_batch(jobs: list[Job], results: Path, workers: int = 1, timeout: float | None = None) -> int:
    """Run the jobs, `workers` at a time, then write summary.csv and index.html; returns the exit status.

    0: all done; 1: some failed or took longer than `timeout` seconds; 130: stopped by Ctrl-C or SIGTERM.
    One failure stops nothing else. Raises UserError when the results folder cannot be written.
    """
    _check_writable(results)
    threads = max(1, _cores() // workers)
    width = max((len(job.name) for job in jobs), default=0)
    statuses = []
    with _stop_on_signal() as stop, _Progress(jobs) as progress, ThreadPoolExecutor(workers) as pool:

        def work(job: Job) -> Outcome:
            if stop.is_set():  # before anything old is removed
                return Outcome("stopped", 0)
            clear(job.folder, keep_checkpoints=job.parameters.get("resume") is True)
            outcome = execute(job, threads, timeout, stop, lambda done: progress.show(job, done))
            if outcome.status != "stopped":
                _record(job, outcome)
            return outcome

        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in _as_completed(futures, stop, progress.tick):
                job, outcome = futures[future], future.result()
                statuses.append(outcome.status)
                progress.finish(job, _line(job, outcome, width))
        finally:  # also when a record could not be written: what still runs has no place to write to
            stop.set()
            pool.shutdown(cancel_futures=True)
        index = report.write(results)
    finished = sum(status != "stopped" for status in statuses)
    if finished < len(jobs):
        print(
            f"Stopped: {finished} of {len(jobs)} runs had finished and keep their results.", file=sys.stderr
        )
    failed = sum(status in ("failed", "timeout") for status in statuses)
    if failed:
        print(f"{failed} of {len(jobs)} runs failed.", file=sys.stderr)
    print(index, flush=True)
    return 130 if finished < len(jobs) else int(failed > 0)


def execute(
    job: Job, threads: int, timeout: float | None, stop: threading.Event, show: Callable[[int], None]
) -> Outcome:
    """Run one job in a fresh process and wait for it: the seam behind which jobs may run elsewhere.

    threads: its share of cores. stop: set from outside, ends the run with its kernel. show: is given the
    number of cells done so far.
    """
    started = time.monotonic()
    work = {
        "notebook": str(job.run.notebook.resolve()),
        "folder": str(job.folder),
        "parameters": {name: job.parameters[name] for name in job.changed},
    }
    status, progress, answer = "", {}, None
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            # -P: a folder named "helpers" where the command is called must not be taken for this package
            [sys.executable, "-P", "-m", "helpers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(threads),
            start_new_session=True,  # a Ctrl-C in the terminal is for the batch, which ends its workers
        ) as worker,
    ):
        try:
            for message in _messages(worker, json.dumps(work)):
                if message and "error" in message:
                    answer = message
                    break
                if message:
                    progress = message
                    show(progress["done"])
                if stop.is_set():
                    status = "stopped"
                    break
                if timeout is not None and time.monotonic() - started > timeout:
                    status = "timeout"
                    break
            if not status:
                with suppress(subprocess.TimeoutExpired):
                    worker.wait(GRACE)  # it has said its last word and is leaving
        finally:
            _end(worker)
        errors.seek(0)
        stderr = tuple(errors.read().decode(errors="replace").splitlines()[-6:])
    seconds = round(time.monotonic() - started, 2)
    if status == "stopped":
        return Outcome("stopped", seconds)
    if status == "timeout":
        where = f"in cell {progress['done'] + 1} of {progress['total']}" if progress else "in the first cell"
        return Outcome("timeout", seconds, f"stopped after {timeout:g} s {where}; --timeout gives it more.")
    if answer is None:
        sentence = f"the process that ran the notebook ended early (status {worker.returncode})."
        return Outcome("failed", seconds, sentence, (sentence, *stderr))
    if answer["error"] is not None:
        return Outcome(
            "failed", seconds, answer["error"], tuple(answer["detail"]) or (answer["error"], *stderr)
        )
    return Outcome("done", seconds)


def clear(folder: Path, keep_checkpoints: bool) -> None:
    """Remove what an earlier run left in its folder, so that a failed run never shows old numbers.

    Only what runs write is removed. Raises UserError when that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.is_dir():
                if path.name in ("figures", "predictor", "predicted") or (
                    path.name == "checkpoints" and not keep_checkpoints
                ):
                    shutil.rmtree(path)
            elif path.suffix in (".csv", ".html", ".ipynb", ".json", ".npz", ".part"):
                path.unlink()
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be replaced ({error.strerror}); choose another --results."
        ) from error


def _messages(worker: subprocess.Popen, work: str) -> Iterator[dict | None]:
    """What the worker says, line by line; None whenever it was silent for POLL seconds."""
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in worker.stdout:
            if line.endswith(b"\n"):  # not the half of a line that a killed worker left
                lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker.stdin.write(work.encode() + b"\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return  # it died at once; its status and standard error tell why
    while True:
        try:
            line = lines.get(timeout=POLL)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield json.loads(line)


def _end(worker: subprocess.Popen) -> None:
    """Make sure that the worker and everything it started are gone.

    A kernel has a session of its own, so it is found as a descendant, not as a member of a process group.
    Where the worker died first, its kernel notices by itself within a second (ipykernel looks).
    """
    if worker.poll() is not None:
        return
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(worker.pid)
        family = [*top.children(recursive=True), top]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=GRACE)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _environment(threads: int) -> dict[str, str]:
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # A thread that waits for another one gives its core away soon: beside other work, the default
        # spins through whole time slices, and a minute becomes ten. On a quiet machine nothing changes.
        "GOMP_SPINCOUNT": "10000",
        **os.environ,  # a number of threads set by hand counts
        "VISION_NOTEBOOKS_QUIET": "1",
    }
    for name in ("DATA_DIR", "VISION_NOTEBOOKS_CACHE"):
        if environment.get(name):  # meant from the caller's folder; the notebook works in another one
            environment[name] = str(Path(environment[name]).expanduser().absolute())
    return environment


def _cores() -> int:
    """The cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_writable(results: Path) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as probe:
            probe.write(b"x")
    except OSError as error:
        raise UserError(
            f"{results}: cannot be written ({error.strerror}); free some space or choose another --results."
        ) from error


def _record(job: Job, outcome: Outcome) -> None:
    """Write batch.json, last of all: a folder that has it holds a run that came to its end."""
    record = {
        "run": job.name,
        "notebook": job.run.notebook.name,
        "about": job.run.about,
        "headline": job.run.headline,
        "reported": job.run.reported,
        "published": job.run.published,
        "profile": job.profile,
        "parameters": job.parameters,
        "status": outcome.status,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "detail": outcome.detail,
    }
    with atomic_open(job.folder / "batch.json") as file:
        json.dump(record, file, indent=2, ensure_ascii=False)


def _line(job: Job, outcome: Outcome, width: int) -> str:
    """What the terminal shows of a finished run."""
    start = f"{job.name:{width}}  {outcome.status}"
    if outcome.status == "stopped":
        return start
    if outcome.status == "done":
        facts = report.read_result(job.folder).facts()
        return "  ".join([f"{start} in {outcome.seconds:.0f} s", *facts])
    lines = outcome.detail or (outcome.error,)
    return "\n".join([f"{start} after {outcome.seconds:.0f} s", *(f"    {line}" for line in lines)])


def _as_completed(
    futures: dict[Future, Job], stop: threading.Event, tick: Callable[[], None]
) -> Iterator[Future]:
    """The futures as they finish; once `stop` is set, those that have not started are left out."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
        yield from done
        tick()
        if stop.is_set():
            pending = {future for future in pending if not future.cancel()}


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of raising somewhere in the middle of things."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """One bar over the cells of all runs, where there is a terminal; and a line for each finished run."""

    def __init__(self, jobs: list[Job]):
        from tqdm import tqdm  # the plain one: batches have no widgets

        self._cells = {job.name: _cells(job.run.notebook) for job in jobs}
        self._shown = dict.fromkeys(self._cells, 0)
        self._lock = threading.Lock()
        total = sum(self._cells.values())
        self._bar = tqdm(
            total=total,
            bar_format="{desc} {percentage:.0f}%|{bar}| {n_fmt} of {total_fmt} cells, {elapsed}",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def show(self, job: Job, done: int) -> None:
        """Move the bar: the run has executed so many of its cells. May be called from any thread."""
        with self._lock:
            self._bar.update(done - self._shown[job.name])
            self._shown[job.name] = done
            self._bar.set_description_str(job.name, refresh=False)

    def tick(self) -> None:
        """Let the clock of the bar go on while no cell ends."""
        with self._lock:
            self._bar.refresh()

    def finish(self, job: Job, line: str) -> None:
        """Count the run's other cells as passed, and print its line above the bar."""
        self.show(job, self._cells[job.name])
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()


def _cells(notebook: Path) -> int:
    """How many cells papermill will go through: it adds one, which sets the parameters."""
    return len(json.loads(notebook.read_text(encoding="utf-8"))["cells"]) + 1
