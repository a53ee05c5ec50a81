"""The batch at scale: 200 runs through a cluster, 20 kills, and what it costs beside plain papermill.

With tiny notebooks, so that the batch is measured and not what it runs. Some minutes; SOAK_RUNS and
SOAK_KILLS make it shorter.
"""

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

import psutil
import pytest
from dask_cluster import LoopbackCluster
from test_batch import GONE
from tiny import PARAMETERS, write_notebook

from helpers import resume, runtime
from helpers.runs import plan, read_runs

RUNS = int(os.environ.get("SOAK_RUNS", 200))
KILLS = int(os.environ.get("SOAK_KILLS", 20))
OVERHEAD = 0.5  # seconds a run
UNCHANGED = 20  # seconds for a batch in which nothing is left to do
# KB a run that any process of the batch may grow by. A run's files are ten times as large: were they kept
# in memory, it would show.
GROWTH = 50

# Writes one line for each time that it starts, and what a run of this value always gives.
COUNTED = """\
import json, pathlib
with open({log!r}, "a") as file:
    file.write(f"{{epochs}}\\n")
folder = pathlib.Path(results_dir)
metrics = {{"metrics": {{"test_dice": epochs / 1000}}, "claims": {{}}}}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""

# Ten short epochs with a checkpoint each: a sum that depends on every one of them and on the seed.
TRAINED = """\
import json, os, pathlib, time
folder = pathlib.Path(results_dir)
state = folder / "checkpoints" / "model.resume.pt"
rows = json.loads(state.read_text()) if resume and state.exists() else []
for epoch in range(len(rows), 10):
    time.sleep(0.2)
    rows.append((sum(rows) * 31 + epoch + epochs) % 9973)
    state.parent.mkdir(parents=True, exist_ok=True)
    state.with_suffix(".part").write_text(json.dumps(rows))
    os.replace(state.with_suffix(".part"), state)
(folder / "metrics.json").write_text(json.dumps({"metrics": {"test_dice": rows[-1]}, "claims": {}}))
"""


@pytest.fixture
def book(tmp_path: Path):
    """A folder with one run, of the given cells."""

    def make(*cells: str) -> Path:
        folder = tmp_path / "books"
        folder.mkdir()
        write_notebook(folder / "01_tiny.ipynb", *cells, parameters=PARAMETERS)
        (folder / "runs.yaml").write_text(
            "runs: {tiny: {notebook: 01_tiny.ipynb, about: Tiny, headline: test_dice}}"
        )
        return folder

    return make


def values(count: int) -> str:
    return f"tiny.epochs={','.join(str(value) for value in range(1, count + 1))}"


def summary(results: Path) -> list[dict[str, str]]:
    """Every row, so that a run which stands there twice is seen."""
    with open(results / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_many_runs_through_a_cluster(book, command, tmp_path):
    folder, results, log = book(COUNTED.format(log=str(tmp_path / "log"))), tmp_path / "r", tmp_path / "log"
    cluster = LoopbackCluster(tmp_path / "dask", workers=2)
    log.touch()
    start = time.monotonic()
    options = ["--scheduler", cluster.address, "--results", results, "--notebooks", folder]
    process = command("tiny", "-p", values(RUNS), *options)
    pids = [process.pid, *(each.pid for each in cluster.processes)]
    names = ("batch", "scheduler", "worker", "other worker")
    memory: list[tuple[int, list[float]]] = []  # runs begun; megabytes of each process, without its children
    while process.poll() is None:
        begun = log.read_text().count("\n")
        try:
            memory.append((begun, [psutil.Process(pid).memory_info().rss / 2**20 for pid in pids]))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    _, errors = process.communicate()
    seconds = time.monotonic() - start
    left = [child for each in cluster.workers for child in psutil.Process(each.pid).children(recursive=True)]
    cluster.close()
    assert process.returncode == 0, errors

    expected = {f"tiny,epochs={value}": value / 1000 for value in range(1, RUNS + 1)}
    rows = summary(results)
    assert sorted(row["run"] for row in rows) == sorted(expected)  # all recorded, none twice
    assert {row["status"] for row in rows} == {"done"}
    assert sorted(map(int, log.read_text().split())) == list(range(1, RUNS + 1))  # none run twice
    for name, value in expected.items():  # and each has the result that is its own
        assert json.loads((results / name / "metrics.json").read_text())["metrics"]["test_dice"] == value
    assert not left, "kernels that outlived their runs"

    # Medians of the second and the last quarter: the first one still imports, and archives come and go.
    early = [sizes for begun, sizes in memory if RUNS / 4 < begun <= RUNS / 2]
    late = [sizes for begun, sizes in memory if begun > 3 * RUNS / 4]
    print(f"\n{RUNS} runs in {seconds:.0f} s on two workers; MB in the second and in the last quarter:")
    for number, name in enumerate(names):
        before, after = (median(sizes[number] for sizes in quarter) for quarter in (early, late))
        grown = (after - before) * 1024 / (RUNS / 2)
        print(f"  {name}: {before:.0f}, {after:.0f}; {grown:+.0f} KB a run")
        assert grown < GROWTH or RUNS < 100, name  # few runs tell nothing: a page more is a lot for each


class Batch:
    """A batch that is killed and begun again, on this machine or on a cluster's workers."""

    def __init__(self, start, cluster: LoopbackCluster | None):
        self.start, self.cluster = start, cluster
        self.process: subprocess.Popen = start()
        self.said, self.seen, self.batches = "", set(), 1

    def victims(self, kind: str) -> list[psutil.Process]:
        """The living processes of a kind: "runner", "worker" (Dask's where there are some) or "kernel"."""
        if kind == "runner":
            return [psutil.Process(self.process.pid)]
        tops = [each.pid for each in self.cluster.workers] if self.cluster else [self.process.pid]
        if kind == "worker" and self.cluster:
            return [psutil.Process(pid) for pid in tops]
        module = {"worker": "helpers.worker", "kernel": "ipykernel"}[kind]
        children = [child for pid in tops for child in psutil.Process(pid).children(recursive=True)]
        found = [child for child in children if module in " ".join(child.cmdline())]
        self.seen.update(found)
        return found

    def kill(self, kind: str, chance: random.Random) -> None:
        """Kill one process of this kind as soon as there is one; a batch that has ended begins again."""
        while True:
            self.go_on()
            try:
                victim = chance.choice(self.victims(kind))
                victim.kill()
                break
            except (
                psutil.NoSuchProcess,
                IndexError,
            ):  # it was just leaving, or there is none between two runs
                time.sleep(0.05)
        if kind == "runner":
            self.go_on(wait=True)
        elif self.cluster and kind == "worker":
            dead = next(each for each in self.cluster.workers if each.pid == victim.pid)
            dead.wait()
            self.cluster.workers.remove(dead)
            self.cluster.add_worker()

    def go_on(self, wait: bool = False) -> None:
        """Begin again where the batch has ended: what is left, or from the start where nothing is."""
        if wait or self.process.poll() is not None:
            self.finish()
            self.process = self.start(*([] if self.process.returncode else ["--force"]))
            self.batches += 1

    def finish(self) -> str:
        out, errors = self.process.communicate(timeout=300)
        self.said += out
        return out + errors


@pytest.mark.parametrize("way", ["processes", "cluster"])
def test_kills_at_random_moments(way, book, command, tmp_path):
    folder, results = book(TRAINED), tmp_path / "r"
    common = ["tiny", "-p", values(6), "--notebooks", folder]
    undisturbed = command(*common, "--jobs", 2, "--results", tmp_path / "undisturbed")
    out, errors = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, out + errors

    cluster = LoopbackCluster(tmp_path / "dask", workers=2) if way == "cluster" else None
    where = ["--scheduler", cluster.address] if cluster else ["--jobs", 2]
    chance = random.Random(0)
    kinds = [("runner", "worker", "kernel")[number % 3] for number in range(KILLS)]
    chance.shuffle(kinds)
    batch = Batch(lambda *options: command(*common, *where, "--results", results, *options), cluster)
    try:
        for kind in kinds:
            time.sleep(chance.uniform(0.3, 4))
            batch.kill(kind, chance)
        batch.finish()
        batch.process = command(
            *common, *where, "--results", results
        )  # a run that was killed may have failed
        out = batch.finish()
        assert batch.process.returncode == 0, out
        batch.process = command(*common, *where, "--results", results)
        assert "6 of 6 runs unchanged" in batch.finish()  # each has its whole result
    finally:
        batch.process.kill()
        if cluster:
            cluster.close()

    rows, expected = summary(results), summary(tmp_path / "undisturbed")
    assert [row["run"] for row in rows] == [row["run"] for row in expected]
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        one, other = (folder / row["run"] for folder in (results, tmp_path / "undisturbed"))
        assert (one / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()
        assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    _, alive = psutil.wait_procs(batch.seen, timeout=GONE)
    assert not alive, "processes that outlived their batch"
    went_on = batch.said.count("went on from its checkpoints")
    print(f"\n{way}: {dict(Counter(kinds))} killed in {batch.batches} batches; {went_on} runs went on")
    # On a cluster the checkpoints of a killed worker or runner are lost; its runs begin anew.
    assert went_on or cluster or KILLS < 20


def test_overhead_beside_papermill(book, command, tmp_path):
    """Each runs the same notebook five times, one after the other; the medians of three rounds count."""
    folder, rounds, repeats = book("1 + 1"), 3, 5
    plain, batch = [], []
    for number in range(rounds):
        start = time.monotonic()
        for repeat in range(repeats):
            target = tmp_path / f"p{number}" / str(repeat)
            target.mkdir(parents=True)
            subprocess.run(
                [
                    *(sys.executable, "-m", "papermill", str(folder / "01_tiny.ipynb")),
                    *(str(target / "notebook.ipynb"), "-p", "results_dir", str(target)),
                ],
                check=True,
                capture_output=True,
                env=os.environ | {"VISION_NOTEBOOKS_QUIET": "1"},
            )
        plain.append((time.monotonic() - start) / repeats)
        start = time.monotonic()
        process = command(
            "tiny", "-p", values(repeats), "--results", tmp_path / f"b{number}", "--notebooks", folder
        )
        process.communicate()
        assert process.returncode == 0
        batch.append((time.monotonic() - start) / repeats)
    plainly, batched = sorted(plain)[rounds // 2], sorted(batch)[rounds // 2]
    difference = batched - plainly
    print(f"\nseconds a run: papermill {plainly:.2f}, batch {batched:.2f}, more: {difference:.2f}")
    assert difference < OVERHEAD


def test_nothing_to_do_takes_seconds(tmp_path):
    """The project's own runs, with records as if they had just run."""
    jobs, _ = plan(read_runs(runtime.project_root() / "notebooks"), [], "sample", [], tmp_path)
    for job in jobs:
        now = resume.fingerprint(job)
        resume.begin(job, now, keep_checkpoints=False)
        metrics = {"metrics": {job.run.headline: 0.5}, "claims": {}}
        (job.folder / "metrics.json").write_text(json.dumps(metrics))
        record = {
            "run": job.name, "notebook": job.run.notebook.name, "about": "", "headline": job.run.headline,
            "reported": None, "published": None, "profile": "sample", "parameters": job.parameters,
            "status": "done", "seconds": 1, "error": "", "detail": [], "fingerprint": now,
        }  # fmt: skip
        resume.end(job, record)
    start = time.monotonic()
    command = [sys.executable, "-m", "helpers.cli", "run", "--results", str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = time.monotonic() - start
    print(f"\n{len(jobs)} runs unchanged: {seconds:.1f} s")
    assert f"{len(jobs)} of {len(jobs)} runs unchanged" in out
    assert seconds < UNCHANGED
