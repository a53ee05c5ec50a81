"""Sweeps beside each other: what a parameter changes, and what a seed alone changes."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from helpers.errors import UserError
from helpers.parameters import names_folder, suggest

NOT_VARIED = ("results_dir", "resume", "data_dir")  # unless a sweep is over it
LEVEL = 0.95  # of the interval of a mean difference


@dataclass(frozen=True)
class Setting:
    """One combination of the varied parameters, with a value of the metric for each repeat."""

    values: dict[str, object]  # of the varied parameters
    by_repeat: dict[str, float]  # the metric, by the value of what repeats (a seed)

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={_text(value)}" for key, value in self.values.items()) or "all runs"

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_repeat.values())

    @property
    def deviation(self) -> float | None:
        """Of the sample (n − 1); None for a single run."""
        return statistics.stdev(self.by_repeat.values()) if len(self.by_repeat) > 1 else None


@dataclass(frozen=True)
class Difference:
    """A setting against the first one, over the repeats that both have."""

    pairs: int
    mean: float
    deviation: float | None
    low: float | None  # 95% interval of the mean (Student's t); None for fewer than two pairs
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """The finished runs of one sweep."""

    run: str
    profile: str
    metric: str
    over: str  # the parameter whose values are repeats
    settings: list[Setting]
    mixed: list[str]  # what else differs between the runs: notebook, helpers, packages, data
    results: list  # the runs, in the order of their names

    @property
    def title(self) -> str:
        return self.run if self.profile == "sample" else f"{self.run}, {self.profile} profile"

    @property
    def file(self) -> str:
        return f"compare_{self.run}_{self.profile}.html"

    def difference(self, setting: Setting) -> Difference | None:
        """None for the first setting, and where no repeat is shared."""
        first = self.settings[0]
        shared = [repeat for repeat in setting.by_repeat if repeat in first.by_repeat]
        if setting is first or not shared:
            return None
        return paired([setting.by_repeat[repeat] - first.by_repeat[repeat] for repeat in shared])

    def table(self) -> list[tuple[str, ...]]:
        """For a terminal: a row a setting."""
        rows = [("setting", "runs", "mean", "sd", "paired difference (95% interval)")]
        for setting in self.settings:
            gap, spread = self.difference(setting), setting.deviation
            interval = f" ({gap.low:+.4f} to {gap.high:+.4f})" if gap and gap.low is not None else ""
            rows.append((
                setting.name, str(len(setting.by_repeat)), f"{setting.mean:.4f}",
                "" if spread is None else f"{spread:.4f}", f"{gap.mean:+.4f}{interval}" if gap else "",
            ))  # fmt: skip
        return rows


def paired(differences: list[float]) -> Difference:
    """Mean, deviation and Student's interval of differences between runs that share a seed."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Difference(len(differences), mean, None, None, None)
    from scipy.special import stdtrit

    spread = statistics.stdev(differences)
    reach = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2)) * spread / len(differences) ** 0.5
    return Difference(len(differences), mean, spread, mean - reach, mean + reach)


def comparisons(results: Iterable, metric: str = "", over: str = "seed") -> list[Comparison]:
    """One comparison for each run and profile of which a sweep left finished results.

    results: of `report.read_result`. metric: a name in metrics.json (default: the headline).
    """
    groups: dict[tuple[str, str], list] = {}
    for result in results:
        if result.batch.get("sweep") and result.batch["status"] == "done":
            groups.setdefault((result.batch["run"], result.batch["profile"]), []).append(result)
    found = [_compare(run, profile, group, metric, over) for (run, profile), group in groups.items()]
    return [comparison for comparison in found if comparison is not None]


def _compare(run: str, profile: str, group: list, metric: str, over: str) -> Comparison | None:
    metric = metric or group[0].headline_name
    group = [result for result in group if result.metrics.get(metric) is not None]
    if not group:
        return None
    swept = dict.fromkeys(name for result in group for name in result.batch["sweep"])
    # A parameter that one command varied may have been set for all runs by another.
    names = swept | dict.fromkeys(name for result in group for name in result.batch["parameters"])
    seen = {name: {_text(result.batch["parameters"].get(name)) for result in group} for name in names}
    varied = [
        name
        for name in names
        if len(seen[name]) > 1 and name != over and (name in swept or name not in NOT_VARIED)
    ]
    settings: dict[str, Setting] = {}
    for result in group:
        parameters = result.batch["parameters"]
        values = {name: parameters.get(name) for name in varied}
        setting = settings.setdefault(json.dumps(values), Setting(values, {}))
        setting.by_repeat[_text(parameters.get(over))] = result.metrics[metric]
    prints = [result.batch.get("fingerprint", {}) for result in group]
    parts = ["notebook", "helpers", "packages"]  # parameters are what is varied
    if not any(_names_data(name) for name in varied):
        parts.append("data")
    mixed = [part for part in parts if len({p.get(part) for p in prints}) > 1]
    return Comparison(run, profile, metric, over, list(settings.values()), mixed, group)


def named(found: list[Comparison], names: list[str], metric: str) -> list[Comparison]:
    """Those that a command asks for.

    Raises UserError where there is none of a name, or none at all, and where no run has the parameter
    whose values are said to be repeats.
    """
    runs = dict.fromkeys(comparison.run for comparison in found)
    for name in names:
        if name not in runs:
            others = f"; of others {suggest(name, runs)}" if runs else ""
            raise UserError(
                f"{name}: no finished sweep{f' with a metric {metric}' if metric else ''}; make one: "
                f"vision-notebooks run {name} -p {name}.seed=0,1,2{others}"
            )
    if not runs:
        raise UserError(
            f"no finished sweep{f' with a metric {metric}' if metric else ''} in the results; "
            "make one: vision-notebooks run drive_unet -p drive_unet.seed=0,1,2"
        )
    wanted = [comparison for comparison in found if not names or comparison.run in names]
    for comparison in wanted:
        known = {name for result in comparison.results for name in result.batch["parameters"]}
        if comparison.over not in known:
            raise UserError(
                f'{comparison.run}: no parameter "{comparison.over}" to take as repeats; '
                f"{suggest(comparison.over, sorted(known))}"
            )
    return wanted


def _names_data(parameter: str) -> bool:
    return names_folder(parameter) or parameter.endswith(("dataset", "source", "folder"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
