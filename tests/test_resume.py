"""What has its result is not run again, what was interrupted goes on, and nothing half-written counts."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import nbformat
import pytest
from tiny import PARAMETERS, SAVE, write_notebook

from helpers import resume
from helpers.errors import UserError
from helpers.runs import Job, plan, read_runs

# Epochs with a checkpoint each; with one size, the first waits to be killed.
EPOCHS = """\
import json, pathlib, time
folder = pathlib.Path(results_dir)
state = folder / "checkpoints" / "count.pt"
done = int(state.read_text()) if resume and state.exists() else 0
print("starts after epoch", done)
for epoch in range(done, epochs):
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(str(epoch + 1))
    if epoch == 0 and len(sizes) == 1:
        time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of notebooks of this test's own, for it changes them."""
    books = tmp_path / "books"
    books.mkdir()
    write_notebook(books / "01_good.ipynb", SAVE, "datasets = ['pets']")
    (books / "runs.yaml").write_text(
        "runs:\n  good: {notebook: 01_good.ipynb, about: Works, headline: test_dice, cpu: {source: real}}\n"
    )
    return books


def job_of(folder: Path, *assignments: str, profile: str = "sample") -> Job:
    (job,), _ = plan(read_runs(folder), ["good"], profile, assignments, folder.parent / "results")
    return job


def finish(job: Job) -> None:
    """As the batch does around a run that writes one file."""
    now = resume.fingerprint(job)
    resume.begin(job, now, keep_checkpoints=False)
    (job.folder / "metrics.json").write_text("{}")
    resume.end(job, {"status": "done", "fingerprint": now})


def changed(folder: Path, *assignments: str, profile: str = "sample") -> list[str]:
    job = job_of(folder, *assignments, profile=profile)
    return resume.changes(job, resume.fingerprint(job))


def test_outputs_and_folders_are_no_change(folder):
    job = job_of(folder)
    finish(job)
    notebook = nbformat.read(folder / "01_good.ipynb", 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="new")]
    notebook.cells[1].execution_count = 7
    nbformat.write(notebook, folder / "01_good.ipynb")
    assert changed(folder, "resume=true") == []
    assert resume.is_current(job, resume.fingerprint(job))


def test_each_change_is_named(folder):
    finish(job_of(folder))
    assert changed(folder, "epochs=5") == ["parameters"]
    write_notebook(folder / "01_good.ipynb", SAVE, "1 + 1")
    assert changed(folder) == ["notebook"]


def test_code_and_packages_count(folder, monkeypatch):
    finish(job_of(folder))
    monkeypatch.setattr(resume, "_helpers", lambda: "other code")
    monkeypatch.setattr(resume, "_packages", lambda: "other versions")
    assert changed(folder) == ["helpers", "packages"]


def test_the_code_of_the_batch_itself_does_not_count():
    modules = {path.stem for path in Path(resume.__file__).parent.glob("*.py")}
    assert set(resume.NOT_IN_NOTEBOOKS) - {"audit", "cluster", "compare", "explore"} <= modules
    for module in ("training", "losses", "metrics", "loaders"):
        assert module not in resume.NOT_IN_NOTEBOOKS


def test_real_data_count_by_names_sizes_and_times(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    finish(job_of(folder, profile="cpu"))
    assert changed(folder, profile="cpu") == []
    image = tmp_path / "data" / "pets" / "a" / "1.png"  # the notebook's code names this folder
    image.parent.mkdir(parents=True)
    image.write_text("x")
    assert changed(folder, profile="cpu") == ["data"]
    finish(job_of(folder, profile="cpu"))
    os.utime(image, (1, 1))
    assert changed(folder, profile="cpu") == ["data"]
    (tmp_path / "data" / "birds").mkdir()
    (tmp_path / "data" / "birds" / "1.png").write_text("x")  # a parameter may name a folder, too
    finish(job_of(folder, profile="cpu"))
    assert changed(folder, "source=birds", profile="cpu") == ["parameters", "data"]


def test_a_folder_elsewhere_that_a_parameter_names_counts_too(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    write_notebook(folder / "01_good.ipynb", SAVE, parameters=PARAMETERS + 'external_dir = ""  # a folder\n')
    given = f"external_dir={tmp_path / 'elsewhere'}"
    (tmp_path / "elsewhere" / "images").mkdir(parents=True)
    finish(job_of(folder, given, profile="cpu"))
    assert changed(folder, given, profile="cpu") == []
    (tmp_path / "elsewhere" / "images" / "1.png").write_text("x")
    assert changed(folder, given, profile="cpu") == ["data"]


@pytest.mark.parametrize("name", ["external_dir", "gan_results"])
def test_a_folder_counts_beside_sample_data_too(folder, tmp_path, name):
    write_notebook(folder / "01_good.ipynb", SAVE, parameters=PARAMETERS + f'{name} = ""  # a folder\n')
    (tmp_path / "elsewhere").mkdir()
    given = f"{name}={tmp_path / 'elsewhere'}"
    finish(job_of(folder, given))
    assert changed(folder, given) == []
    (tmp_path / "elsewhere" / "1.png").write_text("x")
    assert changed(folder, given) == ["data"]


def test_real_texts_count_beside_a_sample_of_the_rest(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    cell = PARAMETERS + 'texts_source = "sample"  # "sample" or "real"\n'
    write_notebook(folder / "01_good.ipynb", SAVE, "datasets = ['tales']", parameters=cell)
    (tmp_path / "data" / "tales").mkdir(parents=True)
    assert resume.fingerprint(job_of(folder))["data"] == "sample"
    finish(job_of(folder, "texts_source=real"))
    (tmp_path / "data" / "tales" / "1.txt").write_text("once")
    assert changed(folder, "texts_source=real") == ["data"]


def test_a_link_to_nowhere_among_the_data_stops_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "pets").mkdir(parents=True)
    finish(job_of(folder, profile="cpu"))
    (tmp_path / "data" / "pets" / "1.png").symlink_to(tmp_path / "gone.png")
    assert changed(folder, profile="cpu") == ["data"]


def test_what_a_link_leads_to_counts_too(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "disk" / "train").mkdir(parents=True)
    (tmp_path / "data" / "pets").mkdir(parents=True)
    (tmp_path / "data" / "pets" / "train").symlink_to(tmp_path / "disk" / "train")
    (tmp_path / "disk" / "train" / "up").symlink_to(tmp_path / "data" / "pets")  # round and round
    finish(job_of(folder, profile="cpu"))
    assert changed(folder, profile="cpu") == []
    (tmp_path / "disk" / "train" / "1.png").write_text("x")
    assert changed(folder, profile="cpu") == ["data"]


def test_a_run_that_refused_its_checkpoints_does_not_go_on_from_them(folder):
    job = job_of(folder, "epochs=5", "resume=true")
    train(job, "killed")
    now = resume.fingerprint(job)
    assert resume.can_resume(job_of(folder, "epochs=5"), now)
    resume.end(job, {"status": "failed", "fingerprint": now, "parameters": job.parameters})
    assert not resume.can_resume(job_of(folder, "epochs=5"), now)
    resume.end(job, {"status": "failed", "fingerprint": now, "parameters": job_of(folder).parameters})
    assert resume.can_resume(job_of(folder, "epochs=5"), now)  # it failed of something else
    resumed = {
        "status": "failed",
        "fingerprint": now,
        "parameters": job_of(folder).parameters,
        "resumed": True,
    }
    resume.end(job, resumed)
    assert not resume.can_resume(job_of(folder, "epochs=5"), now)


def test_a_dataset_outside_of_the_data_root_counts_too(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "elsewhere").mkdir()
    write_notebook(folder / "01_good.ipynb", SAVE, parameters=PARAMETERS + '\ndataset = ""')
    options = f"dataset={tmp_path / 'elsewhere'}"
    train(job_of(folder, options, profile="cpu"))
    assert changed(folder, options, profile="cpu") == []
    name = os.fsdecode(b"h\xe4.png")  # which is not UTF-8
    (tmp_path / "elsewhere" / name).write_text("x")
    assert changed(folder, options, profile="cpu") == ["data"]
    resume.fingerprint(job_of(folder, f"dataset={'長' * 95}", profile="cpu"))  # longer than a name may be


def train(job: Job, state: str = "done") -> None:
    """As the batch does around a run that leaves a checkpoint, and is killed or ends."""
    now = resume.fingerprint(job)
    resume.begin(job, now, keep_checkpoints=False)
    (job.folder / "checkpoints").mkdir()
    (job.folder / "checkpoints" / "unet.resume.pt").write_text("weights")
    if state == "done":
        resume.end(job, {"status": "done", "fingerprint": now, "parameters": job.parameters})


def require(job: Job) -> None:
    resume.require_same_setting(job, resume.fingerprint(job))


@pytest.mark.parametrize("state", ["done", "killed"])
def test_resume_refuses_checkpoints_of_another_setting(folder, state):
    require(job_of(folder, "resume=true"))  # nothing is there yet
    train(job_of(folder), state)
    for same in ("epochs=5", "data_dir=/moved"):
        require(job_of(folder, "resume=true", same))
    with pytest.raises(UserError, match=r"^good: resume=true would go on .* with rate=0\.001; give the same"):
        require(job_of(folder, "resume=true", "rate=0.1"))
    with pytest.raises(
        UserError, match=r'a run with source="sample", other data; give the same again, leave'
    ):
        require(job_of(folder, "resume=true", profile="cpu"))
    shutil.rmtree(job_of(folder).folder / "checkpoints")  # to save space
    require(job_of(folder, "resume=true", "rate=0.1"))


def test_resume_refuses_checkpoints_of_other_data(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "pets").mkdir(parents=True)
    train(job_of(folder, profile="cpu"))
    require(job_of(folder, "resume=true", profile="cpu"))
    (tmp_path / "data" / "pets" / "1.png").write_text("x")
    with pytest.raises(UserError, match="a run with other data;"):
        require(job_of(folder, "resume=true", profile="cpu"))


def test_a_missing_or_cut_file_is_no_result(folder):
    job = job_of(folder)
    finish(job)
    now = resume.fingerprint(job)
    (job.folder / "notes.txt").write_text("a user's own")
    assert resume.is_current(job, now)
    (job.folder / "metrics.json").write_text("")
    assert not resume.is_current(job, now)
    finish(job)
    (job.folder / "batch.json").write_text('{"status": "do')
    assert not resume.is_current(job, now)


def test_only_an_unfinished_run_with_equal_fingerprints_goes_on(folder):
    job = job_of(folder)
    now = resume.fingerprint(job)
    resume.begin(job, now, keep_checkpoints=False)
    assert not resume.can_resume(job, now)  # no checkpoint yet
    (job.folder / "checkpoints").mkdir()
    (job.folder / "checkpoints" / "unet.resume.pt").write_text("weights")
    assert resume.can_resume(job, now)
    assert not resume.can_resume(job, now | {"data": "other"})
    resume.end(job, {"status": "timeout", "fingerprint": now})
    assert resume.can_resume(job, now)
    resume.end(job, {"status": "done", "fingerprint": now})
    assert not resume.can_resume(job, now)


def test_no_kill_while_a_folder_is_cleared_leaves_a_false_trace(folder, monkeypatch):
    """The kill is an exception at each removal in turn."""
    for removal in range(8):
        job = job_of(folder)
        finish(job)
        (job.folder / "checkpoints").mkdir()
        (job.folder / "checkpoints" / "unet.resume.pt").write_text("old weights")
        now = resume.fingerprint(job) | {"parameters": "new"}
        left = [removal]

        def unlink(path, missing_ok=False, unlink=Path.unlink, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            unlink(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            try:
                resume.begin(job, now, keep_checkpoints=False)
                finished = True
            except KeyboardInterrupt:
                finished = False
        if removal == 0:
            continue  # nothing was removed: the old result is whole and keeps its fingerprints
        assert not resume.is_current(job, resume.fingerprint(job))
        assert not resume.can_resume(job, now)
        assert not resume.can_resume(job, resume.fingerprint(job))
    assert finished  # the last kill would have come after all removals


def test_clear_removes_only_what_runs_write(tmp_path):
    for name in ("metrics.json", "notes.md", "figures/1.png", "checkpoints/a.pt", ".notebook.ipynb.x.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    resume.clear(tmp_path, keep_checkpoints=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "notes.md"]
    resume.clear(tmp_path, keep_checkpoints=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


@pytest.fixture
def epochs(folder: Path) -> Path:
    write_notebook(folder / "01_good.ipynb", EPOCHS, SAVE)
    return folder


def printed(results: Path, run: str) -> str:
    notebook = json.loads((results / run / "notebook.ipynb").read_text())
    return "".join("".join(o.get("text", "")) for c in notebook["cells"] for o in c.get("outputs", []))


def test_a_batch_killed_in_the_middle_does_the_rest_and_no_more(epochs, command, tmp_path):
    results = tmp_path / "results"
    arguments = ["good", "-p", "sizes=[1, 2],[1]", "--results", results, "--notebooks", epochs]
    first, second = "good,sizes=1_2", "good,sizes=1"
    process = command(*arguments)
    deadline = time.monotonic() + 60
    while not (results / second / "checkpoints" / "count.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (results / second / "batch.json").exists()
    written = (results / first / "batch.json").stat().st_mtime_ns

    out, err = command(*arguments).communicate(timeout=60)
    assert re.search(r"^good,sizes=1_2 +unchanged \(not run again\)  test_dice .790", out, re.M), err
    assert re.search(r"^good,sizes=1 +done in \d+ s \(went on from its checkpoints\)", out, re.M)
    assert "1 of 2 runs unchanged; --force runs them again." in out
    assert (results / first / "batch.json").stat().st_mtime_ns == written
    assert "starts after epoch 1" in printed(results, second)

    write_notebook(epochs / "01_good.ipynb", EPOCHS, SAVE, "print('more')")
    again = ["good", "-p", "sizes=[1, 2]", "-p", "epochs=1,2", *arguments[3:]]
    out, _ = command(*again).communicate(timeout=60)
    assert "good,epochs=1  done" in out
    out, _ = command(*again).communicate(timeout=60)
    assert "2 of 2 runs unchanged" in out
    out, _ = command(*again, "--force").communicate(timeout=60)
    assert "unchanged" not in out
    assert "starts after epoch 0" in printed(results, "good,epochs=2")
