"""A Dask scheduler and workers on this machine, as processes that tests may kill."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil


class LoopbackCluster:
    """One scheduler, and workers of one thread each, without nannies, so that a killed worker stays dead."""

    def __init__(self, folder: Path, workers: int = 0, resources: str = ""):
        self.folder, self.workers = folder, []
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = [
            self._start("dask_scheduler", "--port", "0", "--scheduler-file", str(folder / "scheduler.json"))
        ]
        self.address = self._wait_for_address()
        for _ in range(workers):
            self.add_worker(resources)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen:
        local = ("--host", "127.0.0.1", "--no-dashboard")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(self.folder / f"{module}.log", "ab") as log:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *local, *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _wait_for_address(self, seconds: float = 60) -> str:
        """The address in the scheduler's file, which exists for a moment before its content is written."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                return json.loads((self.folder / "scheduler.json").read_text())["address"]
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.1)
        raise TimeoutError(f"the scheduler did not start: {self.folder / 'dask_scheduler.log'}")

    def add_worker(self, resources: str = "") -> subprocess.Popen:
        process = self._start(
            "dask_worker", self.address, "--no-nanny", "--nthreads", "1", "--memory-limit", "0",
            "--local-directory", str(self.folder), *(("--resources", resources) if resources else ()),
        )  # fmt: skip
        self.workers.append(process)
        self.processes.append(process)
        return process

    def worker_of(self, kernel: psutil.Process) -> subprocess.Popen:
        """The worker that a kernel descends from."""
        ancestors = {process.pid for process in kernel.parents()}
        return next(worker for worker in self.workers if worker.pid in ancestors)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
