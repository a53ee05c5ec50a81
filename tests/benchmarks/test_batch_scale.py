"""The batch at scale: 200 runs through a cluster, 20 kills, and what it costs beside plain papermill.

With tiny notebooks, so that the batch is measured and not what it runs. Some minutes.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dask_cluster import LoopbackCluster
from test_batch import read_summary
from tiny import PARAMETERS, write_notebook

from helpers import resume, runtime
from helpers.runs import plan, read_runs

RUNS, KILLS = int(os.environ.get("SOAK_RUNS", 200)), 20
OVERHEAD = 0.5  # seconds a run
UNCHANGED = 20  # seconds for a batch in which nothing is left to do
GROWTH = 60  # MB that the batch's memory may grow from the 25th run to the last

# Writes one line for each time that it ran to its end, and what a run of this seed always gives.
COUNTED = """\
import json, pathlib
folder = pathlib.Path(results_dir)
metrics = {{"metrics": {{"test_dice": epochs / 1000}}, "claims": {{}}}}
(folder / "metrics.json").write_text(json.dumps(metrics))
with open({log!r}, "a") as file:
    file.write(f"{{epochs}}\\n")
"""

# Ten short epochs with a checkpoint each: a sum that depends on every one of them and on the seed.
TRAINED = """\
import json, os, pathlib, time
folder = pathlib.Path(results_dir)
state = folder / "checkpoints" / "model.resume.pt"
rows = json.loads(state.read_text()) if resume and state.exists() else []
for epoch in range(len(rows), 10):
    time.sleep(0.1)
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


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def test_many_runs_through_a_cluster(book, command, tmp_path):
    folder, results, log = book(COUNTED.format(log=str(tmp_path / "log"))), tmp_path / "r", tmp_path / "log"
    cluster = LoopbackCluster(tmp_path / "dask", workers=2)
    log.touch()
    start, memory = time.monotonic(), {}
    options = ["--scheduler", cluster.address, "--results", results, "--notebooks", folder]
    process = command("tiny", "-p", values(RUNS), *options)
    while process.poll() is None:
        done = log.read_text().count("\n") // 25 * 25
        try:
            memory.setdefault(done, (megabytes(process.pid), megabytes(cluster.processes[0].pid)))
        except psutil.NoSuchProcess:
            break
        time.sleep(1)
    _, errors = process.communicate()
    seconds = time.monotonic() - start
    cluster.close()
    assert process.returncode == 0, errors
    rows = read_summary(results)
    assert len(rows) == RUNS
    assert {row["status"] for row in rows.values()} == {"done"}
    assert sorted(map(int, log.read_text().split())) == list(range(1, RUNS + 1))  # none twice
    print(f"\n{RUNS} runs in {seconds:.0f} s on two workers; MB of batch and scheduler by runs done:")
    print("; ".join(f"{done}: {batch:.0f} {scheduler:.0f}" for done, (batch, scheduler) in memory.items()))
    last = max(memory)
    assert memory[last][0] - memory[25][0] < GROWTH
    assert memory[last][1] - memory[25][1] < GROWTH


def family(process: subprocess.Popen) -> dict[str, list[psutil.Process]]:
    """The batch's own processes: "runner", "worker", "kernel"."""
    found = {"runner": [psutil.Process(process.pid)], "worker": [], "kernel": []}
    for child in found["runner"][0].children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
        kind = "worker" if "helpers.worker" in line else "kernel" if "ipykernel" in line else ""
        if kind:
            found[kind].append(child)
    return found


def test_twenty_kills_at_random_moments(book, command, tmp_path):
    folder = book(TRAINED)

    def arguments(results: Path) -> list:
        return ["tiny", "-p", values(6), "--jobs", 2, "--results", results, "--notebooks", folder]

    undisturbed = command(*arguments(tmp_path / "undisturbed"))
    out, err = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, out + err

    chance, kills, went_on = random.Random(0), 0, 0
    process = command(*arguments(tmp_path / "r"))
    while kills < KILLS:
        time.sleep(chance.uniform(0.3, 4))
        if process.poll() is not None:  # everything is done: begin again
            process.communicate()
            process = command(*arguments(tmp_path / "r"), "--force")
            continue
        try:
            victims = family(process)
            kind = chance.choice([kind for kind in victims if victims[kind]])
            chance.choice(victims[kind]).kill()
        except psutil.NoSuchProcess:
            continue
        kills += 1
        if kind == "runner":
            out, _ = process.communicate()
            went_on += out.count("went on from its checkpoints")
            process = command(*arguments(tmp_path / "r"))
    process.communicate(timeout=300)
    process = command(*arguments(tmp_path / "r"))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err

    rows, expected = read_summary(tmp_path / "r"), read_summary(tmp_path / "undisturbed")
    assert list(rows) == list(expected)
    assert {row["status"] for row in rows.values()} == {"done"}
    for name in expected:
        metrics = [(tmp_path / way / name / "metrics.json").read_bytes() for way in ("r", "undisturbed")]
        assert metrics[0] == metrics[1]
        assert json.loads((tmp_path / "r" / name / "batch.json").read_text())["status"] == "done"
    assert not list((tmp_path / "r").rglob("started.json"))
    print(f"\n{kills} kills; at least {went_on} runs went on from their checkpoints")


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
