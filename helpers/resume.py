"""What a run depends on, as fingerprints; and from them, whether it has to run, and from where.

Two files in a run's folder tell how far it came. `started.json` is written before the notebook starts,
`batch.json` after it ended; both carry the fingerprints of that time. A batch that was killed at any
moment so leaves, for each run, its whole result, or the mark that it started, or nothing.
"""

import ast
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.parameters import names_folder
from helpers.runs import Job

# The batch itself, which no notebook imports. What is missing here costs a repeat, never a wrong result.
NOT_IN_NOTEBOOKS = (
    "audit", "batch", "cli", "cluster", "compare", "data_tools", "execution", "explore", "pages",
    "report", "resume", "runs", "worker",
)  # fmt: skip
# They say where results go and from where a run starts, not what comes out.
NO_INFLUENCE = ("results_dir", "resume")
# With these changed a training may go on: for more epochs (`Run` refuses fewer), or with equal batches that
# other processes load. Folders may have moved, too: what lies in them is compared as data.
GOES_ON_WITH_OTHER = ("epochs", "workers", "resume")
WRITTEN = (".csv", ".html", ".ipynb", ".json", ".npz", ".part")  # what runs write beside their folders


def fingerprint(job: Job) -> dict[str, str]:
    """Twelve hex digits for each thing that a run's result depends on: notebook, parameters, helpers,
    packages, data.

    Equal fingerprints mean equal results on one machine. Recorded outputs of the notebook do not count.
    """
    cells = json.loads(job.run.notebook.read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    values = {name: value for name, value in job.parameters.items() if name not in NO_INFLUENCE}
    return {
        "notebook": _digest(json.dumps(sources)),
        "parameters": _digest(json.dumps(values, sort_keys=True)),
        "helpers": _helpers(),
        "packages": _packages(),
        "data": _data([code for kind, code in sources if kind == "code"], values),
    }


def code_fingerprint(notebook: Path) -> str:
    """One fingerprint of a notebook and of `helpers`, to see whether two machines have the same."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _digest(json.dumps(["".join(cell["source"]) for cell in cells]) + _helpers())


def is_current(job: Job, now: dict[str, str]) -> bool:
    """Whether the folder holds the whole result of a run that ended well, from these fingerprints."""
    record = _read(job.folder / "batch.json")
    if record.get("status") != "done" or record.get("fingerprint") != now:
        return False
    files = files_of(job.folder)
    return all(files.get(name) == size for name, size in record["files"].items())


def can_resume(job: Job, now: dict[str, str]) -> bool:
    """Whether checkpoints of the same run lie in the folder, from which its notebook can go on.

    Not where a run failed that went on from checkpoints already: it may have refused just these.
    """
    left = _read(job.folder / "batch.json") or _read(job.folder / "started.json")
    went_on = left.get("resumed") or left.get("parameters", {}).get("resume") is True
    refused = left.get("status") == "failed" and went_on
    return (
        "resume" in job.parameters
        and left.get("fingerprint") == now
        and left.get("status") != "done"
        and not refused
        and any(job.folder.glob("checkpoints/*"))
    )


def require_same_setting(job: Job, now: dict[str, str]) -> None:
    """Check that the checkpoints in the folder, if any, are of this setting, before `resume=true` uses them.

    More epochs are no other setting, nor are data that moved. Raises UserError naming what differs.
    """
    before = _read(job.folder / "batch.json") or _read(job.folder / "started.json")
    if not before or not any(job.folder.glob("checkpoints/*")):
        return
    old, new = before.get("parameters", {}), job.parameters
    differs = [
        f"{name}={json.dumps(old[name], ensure_ascii=False)}"
        for name in new
        if name in old and old[name] != new[name] and not _goes_on_with_other(name)
    ]
    if before.get("fingerprint", {}).get("data") != now["data"]:
        differs.append("other data")
    if differs:
        raise UserError(
            f"{job.name}: resume=true would go on from checkpoints of a run with {', '.join(differs)}; "
            "give the same again, leave resume out to train afresh, or choose another --results."
        )


def _goes_on_with_other(parameter: str) -> bool:
    return parameter in GOES_ON_WITH_OTHER or parameter.endswith("_epochs") or names_folder(parameter)


def changes(job: Job, now: dict[str, str]) -> list[str]:
    """What differs from the run whose result lies in the folder; empty where there is none."""
    before = _read(job.folder / "batch.json").get("fingerprint", {})
    return [name for name in now if before and before.get(name) != now[name]]


def begin(job: Job, now: dict[str, str], keep_checkpoints: bool) -> None:
    """Empty the folder of what an earlier run left there, and mark that this one started.

    The order matters to a kill in between: first the old result loses its record, last the new mark is
    set, so that neither old numbers nor checkpoints of other settings are ever taken for this run's.
    """
    try:
        (job.folder / "batch.json").unlink(missing_ok=True)
    except OSError as error:
        raise _in_the_way(job.folder, error) from error
    clear(job.folder, keep_checkpoints)
    with atomic_open(job.folder / "started.json") as file:
        json.dump({"fingerprint": now, "parameters": job.parameters}, file)


def end(job: Job, record: dict) -> None:
    """Write batch.json, last of all: a folder that has it holds a run that came to its end."""
    with atomic_open(job.folder / "batch.json") as file:
        json.dump(record | {"files": files_of(job.folder)}, file, indent=2, ensure_ascii=False)
    (job.folder / "started.json").unlink(missing_ok=True)


def retell(job: Job, about: dict) -> None:
    """Bring up to date what the record of a run that is not run again tells for the report alone."""
    record = _read(job.folder / "batch.json")
    if record | about != record:
        with atomic_open(job.folder / "batch.json") as file:
            json.dump(record | about, file, indent=2, ensure_ascii=False)


def clear(folder: Path, keep_checkpoints: bool) -> None:
    """Remove what an earlier run left in its folder, so that a failed run never shows old numbers.

    Only what runs write is removed; `started.json` stays for as long as the checkpoints that it is
    about. Raises UserError when that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not keep_checkpoints and (folder / "checkpoints").is_dir():
            shutil.rmtree(folder / "checkpoints")
        for path in folder.iterdir():
            if path.is_dir():
                if path.name in ("figures", "predictor", "predicted"):
                    shutil.rmtree(path)
            elif path.suffix in WRITTEN and not (keep_checkpoints and path.name == "started.json"):
                path.unlink()
    except OSError as error:
        raise _in_the_way(folder, error) from error


def files_of(folder: Path) -> dict[str, int]:
    """The size of each file of a result, but for checkpoints, which may be deleted to save space."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("batch.json", "started.json", "explore.html")
        and path.name[0] != "."
        and path.relative_to(folder).parts[0] not in ("checkpoints", "predicted")
    }


def _in_the_way(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{error.filename or folder}: cannot be replaced ({error.strerror}); choose another --results."
    )


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


@cache
def _helpers() -> str:
    """The code that notebooks import from this package; sample data follow from it too."""
    root = Path(__file__).parent
    files = [path for path in sorted(root.rglob("*.py")) if path.stem not in NOT_IN_NOTEBOOKS]
    texts = (f"{path.relative_to(root).as_posix()}\n{path.read_text(encoding='utf-8')}" for path in files)
    return _digest("\n".join(texts))


@cache
def _packages() -> str:
    """Versions of Python and of what this package depends on, and the kind of machine."""
    try:
        needs = metadata.requires("vision-notebooks") or []
    except metadata.PackageNotFoundError:
        needs = []
    lines = [sys.version, platform.machine()]
    for requirement in sorted(need for need in needs if "extra ==" not in need):
        name = requirement.split(";")[0].split("[")[0].strip()
        name = name[: next((i for i, sign in enumerate(name) if sign in "<>=!~ "), len(name))]
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} missing")
    return _digest("\n".join(lines))


def _data(code: list[str], values: dict) -> str:
    """Every folder of real data that the code or a parameter names, by names, sizes and times of its files.

    Before a run nobody knows what it will open. But a dataset is named by a text, so each text that names
    a folder under the data root counts: rather one folder too many than one forgotten.
    """
    # data_dir is the root, of which only a part is read; another hospital's pictures may lie anywhere.
    given = [value for name, value in sorted(values.items())
             if names_folder(name) and name != "data_dir" and value]  # fmt: skip
    named = {value for name, value in values.items()
             if isinstance(value, str) and value and not names_folder(name)}  # fmt: skip
    sources = {value for name, value in values.items() if name.endswith("source")}
    if sources == {"sample"} and not given:
        return "sample"
    root = runtime.data_root(values.get("data_dir", ""))
    for cell in code:
        named |= {text for text in _texts(cell) if _may_name_folder(text)}
    folders = [root / text for text in sorted(named) if _is_folder(root / text)]
    folders += [runtime.resolve(value) for value in given]
    return _digest("\n".join(line for folder in folders for line in _listing(folder)))


def _texts(cell: str) -> Iterator[str]:
    """The texts in a cell's code; none in one that holds IPython's own commands."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _may_name_folder(text: str) -> bool:
    """Code is full of texts; those that would lead out of the data root name no dataset."""
    return bool(text) and len(text) <= 100 and text[0] not in "./~" and "\n" not in text and "\0" not in text


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for a name, or with a zero byte in it
        return False


def _listing(folder: Path) -> Iterator[str]:
    seen = set()
    # Links are followed: datasets are often linked, split by split.
    for path, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(path)) in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        for name in sorted(files):
            if name[0] != ".":
                place = f"{os.path.relpath(path, folder)}/{name}"
                try:
                    about = os.stat(os.path.join(path, name))
                except OSError:  # a link to nowhere, or just removed: the run judges it, if it opens it
                    yield f"{place} missing"
                else:
                    yield f"{place} {about.st_size} {about.st_mtime_ns}"
