"""One run in a process of its own on this machine, watched until it ends."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.parameters import Value

POLL = 0.1  # seconds between looks at the clock and at a wish to stop
GRACE = 3.0  # seconds that a process gets to end before it is killed


@dataclass(frozen=True)
class Work:
    """What a process needs to know. Plain data, so that it can travel to another machine."""

    notebook: Path
    folder: Path  # where the notebook writes
    parameters: dict[str, Value]  # those that differ from the notebook's own defaults
    timeout: float | None  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a run ended: status is "done", "failed", "timeout", or "stopped" (by Ctrl-C)."""

    status: str
    seconds: float
    error: str = ""
    detail: tuple[str, ...] = ()  # the failed cell and its error, for a terminal


def execute(
    work: Work,
    threads: int,
    stopped: Callable[[], bool],
    show: Callable[[int], None],
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Run a notebook in a fresh process and wait for it.

    threads: its share of cores. stopped: asked many times a second; true ends the run with its kernel.
    show: is given the number of cells done so far. environment: variables that differ from this process's.
    """
    started = time.monotonic()
    status, progress, answer = "", {}, None
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            # -P: a folder named "helpers" where the command is called must not be taken for this package
            [sys.executable, "-P", "-m", "helpers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(threads) | (environment or {}),
            # A Ctrl-C in the terminal is for the batch, which ends its workers.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        ) as worker,
    ):
        try:
            for message in _messages(worker, work):
                if message and "error" in message:
                    answer = message
                    break
                if message:
                    progress = message
                    show(progress["done"])
                if stopped():
                    status = "stopped"
                    break
                if work.timeout is not None and time.monotonic() - started > work.timeout:
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
        sentence = f"stopped after {work.timeout:g} s {where}; --timeout gives it more."
        return Outcome("timeout", seconds, sentence)
    if answer is None:
        sentence = f"the process that ran the notebook ended early (status {worker.returncode})."
        return Outcome("failed", seconds, sentence, (sentence, *stderr))
    if answer["error"] is not None:
        return Outcome(
            "failed", seconds, answer["error"], tuple(answer["detail"]) or (answer["error"], *stderr)
        )
    return Outcome("done", seconds)


def cores() -> int:
    """The cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _messages(worker: subprocess.Popen, work: Work) -> Iterator[dict | None]:
    """What the worker says, line by line; None whenever it was silent for POLL seconds."""
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in worker.stdout:
            if line.endswith(b"\n"):  # not the half of a line that a killed worker left
                lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    order = {
        "notebook": str(work.notebook.resolve()),
        "folder": str(work.folder),
        "parameters": work.parameters,
    }
    try:
        worker.stdin.write(json.dumps(order).encode() + b"\n")
        worker.stdin.flush()
    except BrokenPipeError:  # it died at once; its status and standard error tell why
        with suppress(OSError):
            worker.stdin.close()  # else what is left in the buffer fails once more, when Popen closes it
        return
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
    Where the worker died first, its kernel went with it (see `worker`).
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
