"""The runs of `runs.yaml`, and the jobs that a command makes of them, checked before anything starts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import UserError
from helpers.parameters import Parameter, Value, convert, read_parameters, suggest

PROFILES = ("sample", "cpu", "full")
KEYS = ("notebook", "about", "headline", "reported", "published", *PROFILES)


@dataclass(frozen=True)
class Run:
    """One entry of `runs.yaml`: a notebook, and what it takes to show its result beside others."""

    name: str
    notebook: Path
    about: str
    headline: str  # the name in metrics.json that stands in the overview
    reported: float | None  # the collection's figure
    published: float | None  # the literature's
    profiles: dict[str, dict]  # by profile, the parameters that differ from the notebook's defaults


@dataclass(frozen=True)
class Job:
    """A run with its profile and values settled. Plain data, so that it can travel to another machine."""

    name: str  # the name of its results folder
    run: Run
    profile: str
    parameters: dict[str, Value]  # every parameter of the notebook
    changed: tuple[str, ...]  # names of those that differ from the notebook's own defaults
    folder: Path  # absolute; where the notebook writes


def read_runs(folder: Path) -> dict[str, Run]:
    """The runs by name from `folder`/runs.yaml. Raises UserError on a missing, broken or wrong file."""
    import yaml

    path = folder / "runs.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); install from a checkout with "
            '"pip install -e .", or name the folder of the notebooks with --notebooks.'
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct it there.") from error
    runs = entries.get("runs") if isinstance(entries, dict) else None
    if not isinstance(runs, dict):
        raise UserError(f'{path}: has no "runs:" with an entry a run; see the example in CONTRIBUTING.md.')
    return {name: _run(path, str(name), entry) for name, entry in runs.items()}


def _run(path: Path, name: str, entry: object) -> Run:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):  # it names a folder
        raise UserError(f'{path}: "{name}" cannot name a run; use letters, digits, "_" and "-".')
    if not isinstance(entry, dict):
        raise UserError(f'{path}: the run "{name}" needs keys and values, at least "notebook".')
    for key in entry:
        if key not in KEYS:
            raise UserError(f'{path}: the run "{name}" has an unknown key "{key}"; {suggest(str(key), KEYS)}')
    for key in ("notebook", "about", "headline"):
        if not isinstance(entry.get(key), str):
            raise UserError(f'{path}: the run "{name}" needs "{key}", a text.')
    for key in ("reported", "published"):
        if type(entry.get(key)) not in (int, float, type(None)):
            raise UserError(f'{path}: "{key}" of the run "{name}" must be a number, or be left out.')
    profiles = {profile: entry.get(profile, {} if profile == "sample" else None) for profile in PROFILES}
    for profile, values in profiles.items():
        if not isinstance(values, dict | None):
            raise UserError(f'{path}: "{profile}" of the run "{name}" must be like {{epochs: 5}}, or null.')
    return Run(
        name=name,
        notebook=path.parent / entry["notebook"],
        about=entry["about"],
        headline=entry["headline"],
        reported=entry.get("reported"),
        published=entry.get("published"),
        profiles={profile: values for profile, values in profiles.items() if values is not None},
    )


def plan(
    runs: dict[str, Run], names: list[str], profile: str, assignments: Iterable[str], results: Path
) -> tuple[list[Job], list[str]]:
    """The jobs of one command, and the names of runs left out because they lack the profile.

    names: runs to take; none means all that have the profile. assignments: "run.parameter=value", or
    "parameter=value" for every run that has it; the last one counts. Each job writes to results/<run>.
    Raises UserError on a run, parameter or value that does not fit; nothing has started then.
    """
    for name in names:
        if name not in runs:
            raise UserError(f'there is no run "{name}"; {suggest(name, runs)}')
        if profile not in runs[name].profiles:
            raise UserError(
                f"{name} has no {profile} profile; choose another: "
                f"{' or '.join(f'--profile {other}' for other in runs[name].profiles)}."
            )
    chosen = [runs[name] for name in (dict.fromkeys(names) or runs) if profile in runs[name].profiles]
    known = {run.name: read_parameters(run.notebook) for run in chosen}
    changes = {run.name: _profile_values(run, profile, known[run.name]) for run in chosen}
    for assignment in assignments:
        for name, parameter, value in _assigned(assignment, runs, known):
            changes[name][parameter] = value
    jobs = []
    for run in chosen:
        folder = results / run.name
        values = changes[run.name] | {"results_dir": str(folder)}
        defaults = {parameter.name: parameter.default for parameter in known[run.name].values()}
        jobs.append(Job(run.name, run, profile, defaults | values, tuple(values), folder))
    return jobs, [name for name in runs if not names and profile not in runs[name].profiles]


def _profile_values(run: Run, profile: str, known: dict[str, Parameter]) -> dict[str, Value]:
    if "results_dir" not in known:
        raise UserError(f'{run.notebook}: has no parameter results_dir; add results_dir = "" to its cell.')
    where = f"runs.yaml, {profile} of {run.name}"
    values = {}
    for name, value in run.profiles[profile].items():
        if name not in known:
            raise UserError(f'{where}: the notebook has no parameter "{name}"; {suggest(str(name), known)}')
        values[name] = convert(where, known[name], value)
    return values


def _assigned(
    assignment: str, runs: dict[str, Run], known: dict[str, dict[str, Parameter]]
) -> list[tuple[str, str, Value]]:
    """What one `-p` sets: (run, parameter, value) for each chosen run that it is meant for."""
    target, equals, text = assignment.partition("=")
    name, dot, parameter = target.strip().rpartition(".")
    if not equals or not parameter or (dot and not name):
        raise UserError(f"-p {assignment}: write it as NAME.parameter=value or parameter=value.")
    if parameter == "results_dir":
        raise UserError(f"-p {assignment}: the batch gives each run its folder; use --results DIR.")
    if name and name not in runs:
        raise UserError(f'-p {assignment}: there is no run "{name}"; {suggest(name, runs)}')
    if name and name not in known:
        raise UserError(
            f"-p {assignment}: {name} is not among the runs of this command; name it before the options."
        )
    meant = [name] if name else [run for run in known if parameter in known[run]]
    everything = dict.fromkeys(key for run in ([name] if name else known) for key in known[run])
    if parameter not in everything:
        who = f"{name} has no" if name else "no chosen run has a"
        raise UserError(f'-p {assignment}: {who} parameter "{parameter}"; {suggest(parameter, everything)}')
    values = [(run, parameter, convert(run, known[run][parameter], text)) for run in meant]
    if parameter == "data_dir":
        # A shell means the current folder by a relative path; the notebook would mean the project's.
        values = [(run, parameter, str(Path(v).expanduser().absolute()) if v else v) for run, _, v in values]
    return values
