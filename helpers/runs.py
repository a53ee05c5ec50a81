"""The runs of `runs.yaml`, and the jobs that a command makes of them, checked before anything starts."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from helpers.errors import UserError
from helpers.parameters import Parameter, Value, convert, names_folder, read_parameters, split, suggest

PROFILES = ("sample", "cpu", "full")
KEYS = ("notebook", "about", "headline", "reported", "published", "figures", *PROFILES)


@dataclass(frozen=True)
class Run:
    """One entry of `runs.yaml`: a notebook, and what it takes to show its result beside others."""

    name: str
    notebook: Path
    about: str
    headline: str  # the name in metrics.json that stands in the overview
    reported: float | None  # the collection's figure
    published: float | None  # the literature's
    figures: tuple[str, ...]  # names of those that the report shows; empty: the first and the last ones
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
    sweep: dict[str, Value] = field(default_factory=dict)  # its own values of what the command varied


def read_runs(folder: Path) -> dict[str, Run]:
    """The runs by name from `folder`/runs.yaml. Raises UserError on a missing, broken or wrong file."""
    import yaml

    path = folder / "runs.yaml"

    class Loader(yaml.SafeLoader):
        """YAML lets the last of two equal keys win; a run would vanish without a word."""

        def construct_mapping(self, node, deep=False):
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                line = node.start_mark.line + 1
                raise UserError(
                    f'{path}: "{twice}" stands twice in the part from line {line} on; rename one.'
                )
            return super().construct_mapping(node, deep)

    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader)
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
    figures = entry.get("figures", [])
    if not isinstance(figures, list) or not all(isinstance(figure, str) for figure in figures):
        raise UserError(f'{path}: "figures" of the run "{name}" must be a list of names of figures.')
    profiles = {profile: entry.get(profile, {} if profile == "sample" else None) for profile in PROFILES}
    for profile, values in profiles.items():
        if not isinstance(values, dict | None):
            raise UserError(f'{path}: "{profile}" of the run "{name}" must be like {{epochs: 5}}, or null.')
        try:
            json.dumps(values)
        except (TypeError, ValueError) as error:  # YAML knows dates, and lists that contain themselves
            raise UserError(
                f'{path}: "{profile}" of the run "{name}" holds a value that contains itself, or a date; '
                "use numbers, texts, true, false, and lists of them."
            ) from error
    return Run(
        name=name,
        notebook=path.parent / entry["notebook"],
        about=entry["about"],
        headline=entry["headline"],
        reported=entry.get("reported"),
        published=entry.get("published"),
        figures=tuple(figures),
        profiles={profile: values for profile, values in profiles.items() if values is not None},
    )


def plan(
    runs: dict[str, Run], names: list[str], profile: str, assignments: Iterable[str], results: Path
) -> tuple[list[Job], list[str]]:
    """The jobs of one command, and the names of runs left out because they lack the profile.

    names: runs to take; none means all that have the profile. assignments: "run.parameter=value", or
    "parameter=value" for every run that has it; the last one counts. Several values, separated by commas,
    are a sweep: a job for each, and for each combination of several sweeps. A job writes to results/<run>,
    in a sweep to results/<run>,<parameter>=<value>.
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
        for name, parameter, values in _assigned(assignment, runs, known):
            changes[name][parameter] = values
    jobs = [job for run in chosen for job in _jobs(run, profile, known[run.name], changes[run.name], results)]
    return jobs, [name for name in runs if not names and profile not in runs[name].profiles]


def _jobs(
    run: Run, profile: str, known: dict[str, Parameter], changes: dict[str, list[Value]], results: Path
) -> Iterable[Job]:
    """A job for each combination of values; most often every parameter has one, and there is one job."""
    defaults = {parameter.name: parameter.default for parameter in known.values()}
    for combination in itertools.product(*changes.values()):
        values = dict(zip(changes, combination))
        sweep = {name: values[name] for name in changes if len(changes[name]) > 1}
        name = ",".join([run.name, *(f"{key}={_in_file_name(value)}" for key, value in sweep.items())])
        values["results_dir"] = str(results / name)
        yield Job(name, run, profile, defaults | values, tuple(values), results / name, sweep)


def _in_file_name(value: Value) -> str:
    """A value as a part of a folder's name, on every system; two values never give one name."""
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, list) and all(type(item) in (int, float) for item in value):
        text = "_".join(map(str, value))
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", text)[:40]
    if plain == text and text.strip("."):
        return plain
    return f"{plain.strip('._')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _profile_values(run: Run, profile: str, known: dict[str, Parameter]) -> dict[str, list[Value]]:
    if "results_dir" not in known:
        raise UserError(f'{run.notebook}: has no parameter results_dir; add results_dir = "" to its cell.')
    where = f"runs.yaml, {profile} of {run.name}"
    values = {}
    for name, value in run.profiles[profile].items():
        if name not in known:
            raise UserError(f'{where}: the notebook has no parameter "{name}"; {suggest(str(name), known)}')
        values[name] = [convert(where, known[name], value)]
    return values


def _assigned(
    assignment: str, runs: dict[str, Run], known: dict[str, dict[str, Parameter]]
) -> list[tuple[str, str, list[Value]]]:
    """What one `-p` sets: (run, parameter, values) for each chosen run that it is meant for."""
    target, equals, text = assignment.partition("=")
    name, dot, parameter = target.strip().rpartition(".")
    if not equals or not parameter or (dot and not name):
        raise UserError(f"-p {assignment}: write it as NAME.parameter=value or parameter=value.")
    if parameter == "results_dir":
        raise UserError(f"-p {assignment}: the batch gives each run its folder; use --results DIR.")
    if parameter == "resume" and len(split(text)) > 1:
        raise UserError(
            f"-p {assignment}: resume says where a run starts, not what it finds; no sweep over it."
        )
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
    return [(run, parameter, _values(assignment, run, known[run][parameter], text)) for run in meant]


def _values(assignment: str, run: str, parameter: Parameter, text: str) -> list[Value]:
    """The values behind the equals sign, each in the parameter's type."""
    pieces = split(text)
    if len(pieces) > 1 and "" in pieces:
        raise UserError(f"-p {assignment}: a value between two commas is empty; write it as 0,1,2.")
    values = [convert(run, parameter, piece) for piece in pieces]
    if names_folder(parameter.name):
        # A shell means the current folder by a relative path; the notebook would mean the project's.
        values = [str(Path(value).expanduser().absolute()) if value else value for value in values]
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"-p {assignment}: has {value} twice; a sweep takes each value once.")
    return values
