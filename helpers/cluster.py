"""Runs on a Dask cluster: the scheduler says where, and files come back without a shared file system.

Every worker needs a checkout of this project at the same state, and the datasets where its own DATA_DIR
says. A task on a worker runs the notebook just as a batch on one machine does, in a folder of its own,
and returns that folder's files.
"""

import io
import logging
import shutil
import tarfile
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import execution, runtime
from helpers.errors import UserError
from helpers.execution import Outcome, Work
from helpers.resume import code_fingerprint

ATTEMPTS = 2  # a run whose worker died is repeated once: a run that kills workers must not kill them all
CONNECT = 10  # seconds
POLL = 0.2  # seconds between looks at a run that is elsewhere


@dataclass(frozen=True)
class Task:
    """What travels to a worker."""

    work: Work
    inside: bool  # the notebook's path is meant from the project's root, wherever that is over there
    code: str  # fingerprint of notebook and helpers here
    checkpoints: bytes  # packed, to go on from


class Cluster:
    """An executor of a batch (see `batch.Executor`) on the workers of a Dask scheduler.

    address: such as "tcp://host:8786". gpus: how many of the Dask resource "GPU" a run asks for.
    Raises UserError where the package is missing, nobody answers, or no worker offers a GPU.
    """

    def __init__(self, address: str, gpus: int = 0):
        try:
            from distributed import Client
        except ImportError as error:
            raise UserError('--scheduler needs the optional package: pip install -e ".[cluster]".') from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost worker is the batch's to tell
        try:
            self.client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:  # refused, silent; no address; no such protocol
            raise UserError(
                f"--scheduler {address}: nobody answers there as a Dask scheduler; start one with "
                '"dask scheduler" and give the address that it prints.'
            ) from error
        self.topic = f"vision-notebooks-{uuid.uuid4().hex[:8]}"
        self.shows: dict[str, Callable[[int], None]] = {}
        self.starts: dict[str, list[str]] = {}  # by task, the workers it started on
        self.resources = {"GPU": gpus} if gpus else None
        try:
            self._look(address, gpus)
        except UserError:
            self.client.close()
            raise
        self.client.subscribe_topic(self.topic, self._hear)

    def _look(self, address: str, gpus: int) -> None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if not workers:
            print(f"{address} has no workers yet; the runs start when one comes.")
        elif gpus and not any(worker["resources"].get("GPU") for worker in workers):
            raise UserError(
                f"--scheduler {address}: no worker offers a GPU; start them with "
                "--resources GPU=1, or give --gpus 0."
            )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.close()

    def __call__(self, work: Work, stop: threading.Event, show: Callable[[int], None]) -> Outcome:
        """Run `work` on a worker, bring the files to `work.folder`, and tell how it ended."""
        started = time.monotonic()
        key = f"{work.folder.name}-{uuid.uuid4().hex[:8]}"
        self.shows[key], self.starts[key] = show, []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large checkpoints are meant
            future = self.client.submit(
                run_task, _task(work), self.topic, key=key, pure=False, resources=self.resources
            )

        def failed(sentence: str) -> Outcome:
            future.cancel()
            return Outcome("failed", round(time.monotonic() - started, 2), sentence, (sentence,))

        while not future.done():
            if stop.wait(POLL):
                future.cancel()
                return Outcome("stopped", 0)
            if len(self.starts[key]) > ATTEMPTS:
                return failed(
                    f"{ATTEMPTS} workers died while they ran it ({', '.join(self.starts[key][:-1])})."
                )
            if self.client.status != "running":
                return failed("the connection to the scheduler was lost; the same command runs it again.")
        if future.status == "error":
            return failed(_sentence(future.exception()))
        if future.status != "finished":
            return failed("the cluster lost the run; the same command runs it again.")
        outcome, files = future.result()
        unpack(files, work.folder)
        return outcome

    def _hear(self, event: tuple) -> None:
        """What workers say of their runs: that one starts, or how many cells are done."""
        _, message = event
        if "done" in message:
            self.shows[message["key"]](message["done"])
        else:
            self.starts[message["key"]].append(message["from"])


def _task(work: Work) -> Task:
    root, notebook = runtime.project_root(), work.notebook.resolve()
    inside = notebook.is_relative_to(root)
    checkpoints = pack(work.folder) if work.parameters.get("resume") else b""
    path = notebook.relative_to(root) if inside else notebook
    return Task(replace(work, notebook=path), inside, code_fingerprint(notebook), checkpoints)


def _sentence(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "the workers that ran it died, one after the other; often their memory was full."
    if isinstance(error, ImportError):
        return f"a worker lacks this project ({error}); install the checkout on every worker."
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def run_task(task: Task, topic: str) -> tuple[Outcome, bytes]:
    """On a worker: run the notebook in a folder of its own; how it ended, and the files, packed.

    Ends the run when nobody wants it any more: it was cancelled, the batch is gone, or this worker is
    about to close. Where the worker dies, its processes die with it (see `worker`).
    """
    from distributed import Status, get_worker

    here = get_worker()
    key = here.get_current_task()
    here.log_event(topic, {"key": key, "from": here.address})

    def unwanted() -> bool:
        state = here.state.tasks.get(key)
        return (
            here.status not in (Status.running, Status.paused) or state is None or state.state == "cancelled"
        )

    notebook = runtime.project_root() / task.work.notebook if task.inside else task.work.notebook
    if not notebook.is_file() or code_fingerprint(notebook) != task.code:
        sentence = (
            f"worker {here.address} has another version of {notebook.name} or helpers; update its checkout."
        )
        return Outcome("failed", 0, sentence, (sentence,)), pack(None)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=here.local_directory))
    try:
        if task.checkpoints:
            unpack(task.checkpoints, folder)
        threads = max(1, execution.cores() // here.state.nthreads)
        outcome = execution.execute(
            replace(
                task.work,
                notebook=notebook,
                folder=folder,
                parameters=task.work.parameters | {"results_dir": str(folder)},
            ),
            threads,
            unwanted,
            lambda done: here.log_event(topic, {"key": key, "done": done}),
            # Dask's nannies set one thread, for tasks that are small.
            {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        return outcome, pack(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pack(folder: Path | None) -> bytes:
    """The files of a folder as one archive in memory; half-written ones (hidden) stay behind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")) if folder else ():
            if path.is_file() and path.name[0] != ".":
                archive.add(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Write the files of `pack` under a folder. UserError where that is not possible."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later: nothing outside of the folder
                content.extraction_filter = tarfile.data_filter
            content.extractall(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: could not be written ({error.strerror or error}); free some space, then run again."
        ) from error
