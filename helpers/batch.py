"""Runs jobs, here or on a cluster, skips what is done already, and writes the report."""

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from helpers import execution, report, resume
from helpers.errors import UserError
from helpers.execution import Outcome, Work
from helpers.runs import Job

POLL = 0.1  # seconds between looks at Ctrl-C and at the clock of the progress bar

# Runs a job's work somewhere, until `stop` is set; is given a function that shows the cells done so far.
# Files that the run left elsewhere are in `work.folder` when it returns.
Executor = Callable[[Work, threading.Event, Callable[[int], None]], Outcome]


def local(workers: int) -> Executor:
    """Runs in processes of this machine, each with its share of the threads for `workers` at a time."""
    threads = max(1, execution.cores() // workers)

    def run(work: Work, stop: threading.Event, show: Callable[[int], None]) -> Outcome:
        return execution.execute(work, threads, stop.is_set, show)

    return run


def run_batch(
    jobs: list[Job],
    results: Path,
    workers: int = 1,
    timeout: float | None = None,
    force: bool = False,
    executor: Executor | None = None,
) -> int:
    """Run the jobs, `workers` at a time, then write summary.csv and index.html; returns the exit status.

    A job whose result lies in its folder and whose fingerprints are unchanged is not run again; one that
    was interrupted goes on from its checkpoints. force: run all, from the start (but a job with
    resume=true from its checkpoints). executor: where they run (default: on this machine).
    Status 0: all done; 1: some failed or took longer than `timeout` seconds; 130: stopped by Ctrl-C or
    SIGTERM. One failure stops nothing else.
    Raises UserError when the results folder cannot be written, another batch writes there, or a job with
    resume=true would go on from checkpoints of another setting; nothing has started then.
    """
    executor = executor or local(max(1, min(workers, len(jobs))))
    width = max((len(job.name) for job in jobs), default=0)
    statuses = []
    with (
        _alone(results),
        _stop_on_signal() as stop,
        _Progress(jobs) as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        for job in filter(_asks_to_resume, jobs):
            resume.require_same_setting(job, resume.fingerprint(job))

        def work(job: Job) -> tuple[Outcome, str]:
            """How the job ended, and a note on how it began."""
            if stop.is_set():  # before anything old is removed
                return Outcome("stopped", 0), ""
            now = resume.fingerprint(job)
            if not force and resume.is_current(job, now):
                resume.retell(job, _about(job))
                return Outcome("unchanged", 0), "not run again"
            goes_on = not force and resume.can_resume(job, now)
            changed = [] if force else resume.changes(job, now)
            resume.begin(job, now, keep_checkpoints=goes_on or _asks_to_resume(job))
            values = {name: job.parameters[name] for name in job.changed} | (
                {"resume": True} if goes_on else {}
            )
            order = Work(job.run.notebook, job.folder, values, timeout)
            outcome = executor(order, stop, lambda done: progress.show(job, done))
            if outcome.status != "stopped":
                resume.end(job, _record(job, outcome) | {"fingerprint": now, "resumed": goes_on})
            note = "went on from its checkpoints" if goes_on else ""
            return outcome, note or (f"changed: {', '.join(changed)}" if changed else "")

        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in _as_completed(futures, stop, progress.tick):
                job = futures[future]
                try:
                    outcome, note = future.result()
                except UserError as error:  # its folder or record cannot be written; the others' may
                    outcome, note = Outcome("failed", 0, str(error)), ""
                statuses.append(outcome.status)
                progress.finish(job, _line(job, outcome, note, width))
        finally:  # whatever went wrong here, no run is left behind
            stop.set()
            pool.shutdown(cancel_futures=True)
        index = report.write(results)
    finished = sum(status != "stopped" for status in statuses)
    if statuses.count("unchanged"):
        print(f"{statuses.count('unchanged')} of {len(jobs)} runs unchanged; --force runs them again.")
    if finished < len(jobs):
        print(
            f"Stopped: {finished} of {len(jobs)} runs had finished and keep their results; "
            "the same command does the rest.",
            file=sys.stderr,
        )
    failed = sum(status in ("failed", "timeout") for status in statuses)
    if failed:
        print(f"{failed} of {len(jobs)} runs failed.", file=sys.stderr)
    print(index, flush=True)
    return 130 if finished < len(jobs) else int(failed > 0)


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Check that the folder can be written, and keep other batches out; a killed batch leaves no lock."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as probe:
            probe.write(b"x")
        lock = FileLock(results / ".lock")
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"{results}: another batch writes there; wait until it has ended, or choose another --results."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{results}: cannot be written ({getattr(error, 'strerror', None) or error}); "
            "free some space or choose another --results."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _asks_to_resume(job: Job) -> bool:
    return job.parameters.get("resume") is True


def _about(job: Job) -> dict:
    """What the report tells of a job beside its result; it changes no result."""
    return {
        "run": job.run.name,
        "notebook": job.run.notebook.name,
        "about": job.run.about,
        "headline": job.run.headline,
        "reported": job.run.reported,
        "published": job.run.published,
        "figures": list(job.run.figures),
        "profile": job.profile,
    }


def _record(job: Job, outcome: Outcome) -> dict:
    return _about(job) | {
        "parameters": job.parameters,
        "sweep": job.sweep,
        "status": outcome.status,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "detail": outcome.detail,
    }


def _line(job: Job, outcome: Outcome, note: str, width: int) -> str:
    """What the terminal shows of a finished run."""
    start = f"{job.name:{width}}  {outcome.status}"
    note = f" ({note})" if note else ""
    if outcome.status == "stopped":
        return start
    if outcome.status in ("done", "unchanged"):
        time = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
        return "  ".join([f"{start}{time}{note}", *report.read_result(job.folder).facts()])
    lines = outcome.detail or (outcome.error,)
    return "\n".join([f"{start} after {outcome.seconds:.0f} s{note}", *(f"    {line}" for line in lines)])


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
