"""Reads finished runs back from their folders, and writes `summary.csv`, `index.html` and pages beside it."""

import base64
import csv
import io
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from helpers import compare, explore, samples
from helpers.cards import CARDS
from helpers.compare import Comparison
from helpers.files import atomic_open
from helpers.pages import new_environment, webp_uri

FIGURES = 3  # of a run on the page; the notebook has all
INLINE_BYTES = 150_000  # figures above this are scaled down
INLINE_WIDTH = 1400  # pixels; enough for a card on a screen with two pixels a point
SUMMARY = (
    "run", "notebook", "profile", "status", "seconds", "headline", "value", "low", "high", "reported",
    "published", "claims_held", "claims_total", "hardware", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A finished run, as its folder tells it: `batch.json`, `metrics.json`, `run.json`, `figures/`."""

    folder: Path
    batch: dict
    metrics: dict[str, float | None]
    claims: dict[str, bool]
    records: dict  # run.json
    problems: tuple[str, ...]  # files of the folder that cannot be read, or are of another run

    @property
    def name(self) -> str:
        """The run's, with the values of a sweep: the name of its folder."""
        return self.folder.name

    @property
    def headline_name(self) -> str:
        """What runs.yaml asks for; where test labels are missing, the same metric on validation data."""
        name = self.batch["headline"]
        on_validation = name.replace("test_", "val_", 1)
        return on_validation if name not in self.metrics and on_validation in self.metrics else name

    @property
    def headline(self) -> tuple[float | None, float | None, float | None]:
        """The headline metric and its interval's ends; None where the run did not record them."""
        name = self.headline_name
        return tuple(self.metrics.get(key) for key in (name, f"{name}_low", f"{name}_high"))

    @property
    def error(self) -> str:
        return "; ".join(filter(None, [self.batch["error"], *self.problems]))

    @property
    def is_sample(self) -> bool:
        return self.parameters.get("source") == "sample"

    @property
    def data(self) -> str:
        """Which images, texts or values it ran on, in words."""
        about = self.records.get("dataset") or {}
        name = about.get("name", "")
        if self.is_sample:
            return about.get("note") or samples.note(name)  # a notebook's own data bring a note
        if self.batch["profile"] == "sample":  # its real data were named by hand
            return f"real data: {name}"
        return f"{self.batch['profile']} profile"

    @property
    def is_comparable(self) -> bool:
        """Whether it ran on a set with a card: other numbers say nothing beside a folder of one's own."""
        name = (self.records.get("dataset") or {}).get("name", "")
        return not self.is_sample and (not name or name in CARDS)

    @property
    def parameters(self) -> dict:
        """As the notebook recorded them, else as the batch passed them; without the folder it is shown in."""
        parameters = self.records.get("parameters") or self.batch["parameters"]
        return {name: value for name, value in parameters.items() if name != "results_dir"}

    @property
    def hardware(self) -> str:
        return self.records.get("hardware", "")

    @property
    def page(self) -> str:
        """Link to the executed notebook, seen from the report; empty where there is none."""
        page = self.folder / "notebook.html"
        return quote(f"{self.folder.name}/{page.name}") if page.exists() else ""

    @property
    def explore(self) -> str:
        """Link to the page with a movable threshold; empty where there is none."""
        page = self.folder / explore.PAGE
        return quote(f"{self.folder.name}/{page.name}") if page.exists() else ""

    def figures(self) -> list[dict[str, str]]:
        """Its best figures as `uri` for the page, `link` to the file, and `alt`.

        runs.yaml names them; else the first shows the data, and the last ones show results.
        """
        alt, _ = _load(self.folder / "figures" / "alt.json")
        paths = sorted((self.folder / "figures").glob("*.png"))
        named = {path.stem.partition("_")[2]: path for path in paths}
        best = [named[name] for name in self.batch.get("figures", ()) if name in named][:FIGURES]
        return [
            {
                "uri": data_uri(path),
                "link": quote(f"{self.folder.name}/figures/{path.name}"),
                "alt": alt.get(path.name) or path.stem,
            }
            for path in best or paths[:1] + paths[1:][-(FIGURES - 1) :]
        ]

    def facts(self) -> list[str]:
        """What the terminal shows of it: the headline with its interval, and how many claims hold."""
        value, low, high = self.headline
        facts = [f"{self.headline_name} {number(value)}{interval(low, high)}"] if value is not None else []
        if self.claims:
            facts.append(f"{sum(self.claims.values())} of {len(self.claims)} claims hold")
        return facts

    def row(self) -> dict[str, object]:
        """Its row in summary.csv."""
        value, low, high = self.headline
        fields = {key: self.batch[key] for key in SUMMARY if key in self.batch}
        return fields | {
            "run": self.name,
            "headline": self.headline_name,
            "value": value,
            "low": low,
            "high": high,
            "claims_held": sum(self.claims.values()),
            "claims_total": len(self.claims),
            "hardware": self.hardware,
            "error": self.error,
        }


def read_result(folder: Path) -> Result | None:
    """The run that wrote `folder`; None where none came to its end there."""
    batch, _ = _load(folder / "batch.json")
    if not batch:
        return None
    metrics, metrics_problem = _load(folder / "metrics.json")
    records, records_problem = _load(folder / "run.json")
    problems = tuple(filter(None, (metrics_problem, records_problem, _other_files(folder, batch))))
    return Result(folder, batch, metrics.get("metrics", {}), metrics.get("claims", {}), records, problems)


def _other_files(folder: Path, batch: dict) -> str:
    """Whether the numbers are of another run than the record: one from JupyterLab has its folder here too."""
    changed = []
    for name in ("metrics.json", "run.json"):
        file, size = folder / name, batch.get("files", {}).get(name)
        if size is not None and file.is_file() and file.stat().st_size != size:
            changed.append(name)
    return f"{' and '.join(changed)} changed after the batch; run it again" if changed else ""


def read_all(results: Path) -> list[Result]:
    """Every finished run under `results`, in the order of the notebooks."""
    folders = [path for path in results.iterdir() if path.is_dir()]
    found = [result for folder in folders if (result := read_result(folder)) is not None]
    return sorted(found, key=lambda result: (result.batch["notebook"], result.folder.name))


def write(results: Path) -> Path:
    """Write summary.csv and the pages on every finished run under `results`; returns index.html's path.

    Runs of earlier batches are included. Each sweep gets a page that compares its runs, each run with
    predictions one with a movable threshold. Raises UserError when a file cannot be written.
    """
    found = read_all(results)
    table = io.StringIO()
    writer = csv.DictWriter(table, SUMMARY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.row() for result in found)
    for result in found:
        explore.write(result.folder, result.name, result.records, result.metrics)
    swept = compare.comparisons(found)
    pages = {comparison.file: render_comparison(comparison) for comparison in swept}
    pages["index.html"] = render(found, swept, _unfinished(results))
    for name, text in (pages | {"summary.csv": table.getvalue()}).items():
        with atomic_open(results / name) as file:
            file.write(text)
    return results / "index.html"


def render(found: list[Result], swept: list[Comparison] = (), unfinished: list[str] = ()) -> str:
    """The page as one self-contained HTML text: style and figures are inside, all texts are escaped.

    swept: the comparisons that stand beside it. unfinished: names of runs that started and did not end.
    """
    pages = {result.name: comparison.file for comparison in swept for result in comparison.results}
    return (
        _environment()
        .get_template("index.html.j2")
        .render(results=found, counts=_counts(found), swept=swept, pages=pages, unfinished=unfinished)
    )


def render_comparison(comparison: Comparison) -> str:
    """The page of one sweep: every setting with mean and spread, and the runs of a seed joined by a line."""
    return _environment().get_template("compare.html.j2").render(sweep=comparison, chart=chart(comparison))


def _environment():
    environment = new_environment()
    environment.filters.update(number=number, duration=duration)
    environment.globals.update(interval=interval, scale=scale)
    return environment


def _unfinished(results: Path) -> list[str]:
    started = [path.parent for path in results.glob("*/started.json")]
    return sorted(folder.name for folder in started if not (folder / "batch.json").exists())


def chart(comparison: Comparison) -> dict:
    """Where the marks of the comparison stand, in a picture of 400 × 220.

    `ticks`: (y, text); `columns`: x, letter, dots as (y, repeat), mean and the deviation's ends; `lines`: the
    points of each repeat that several settings share.
    """
    values = [value for setting in comparison.settings for value in setting.by_repeat.values()]
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or abs(high) * 0.01 or 1
    low, high = low - room, high + room

    def y(value: float) -> float:
        return round(10 + 180 * (high - value) / (high - low), 1)

    step = 340 / len(comparison.settings)
    columns, lines = [], {}
    for place, setting in enumerate(comparison.settings):
        x = round(55 + step * (place + 0.5), 1)
        spread = setting.deviation or 0
        columns.append({
            "x": x, "letter": letter(place), "mean": y(setting.mean),
            "low": min(y(setting.mean - spread), 195), "high": max(y(setting.mean + spread), 5),
            "dots": [(y(value), repeat) for repeat, value in setting.by_repeat.items()],
        })  # fmt: skip
        for repeat, value in setting.by_repeat.items():
            lines.setdefault(repeat, []).append(f"{x},{y(value)}")
    unit = 10 ** math.floor(math.log10((high - low) / 2))  # at least two round numbers fit
    # The logarithm is rounded: a whole power of ten may come out a hair too large.
    unit *= next((times for times in (5, 2, 1) if (high - low) / (times * unit) >= 2), 0.5)
    ticks = [place * unit for place in range(math.ceil(low / unit), math.floor(high / unit) + 1)]
    decimals = max(0, -math.floor(math.log10(unit)))
    return {
        "columns": columns,
        "lines": [" ".join(points) for points in lines.values() if len(points) > 1],
        "ticks": [(y(value), f"{value:.{decimals}f}") for value in ticks],
    }


def letter(place: int) -> str:
    """A, B, … Z, AA, AB, …: a short name for the place of a setting in a list."""
    return (letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def _counts(found: list[Result]) -> str:
    done = sum(result.batch["status"] == "done" for result in found)
    claims = [holds for result in found for holds in result.claims.values()]
    seconds = sum(result.batch["seconds"] for result in found)
    return (
        f"{done} of {len(found)} runs done · {sum(claims)} of {len(claims)} claims hold · {duration(seconds)}"
    )


def number(value: object) -> str:
    """A value in three digits without a leading zero (.829, 31.2, 5,232); anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    decimals = 3 if abs(value) < 10 else 1
    return f"{value:.{decimals}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{decimals}f}"


def interval(low: float | None, high: float | None) -> str:
    """ " (.81 to .84)", or nothing where there is no interval."""
    return f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""


def duration(seconds: float) -> str:
    """Seconds for people: 41 s, 6 min 17 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def scale(result: Result) -> dict[str, float] | None:
    """Where headline, interval, reported and published stand on a line of 100; None if that means nothing.

    Numbers on synthetic images, or on a folder of one's own, do not compare with published ones.
    """
    value, low, high = result.headline
    marks = {"value": value, "low": low, "high": high}
    marks |= {name: result.batch[name] for name in ("reported", "published")}
    marks = {name: mark for name, mark in marks.items() if mark is not None and math.isfinite(mark)}
    if not result.is_comparable or "value" not in marks or len(marks) < 2:
        return None
    start, end = min(marks.values()), max(marks.values())
    room = (end - start) / 5 or 1
    return {
        name: round(100 * (mark - start + room) / (end - start + 2 * room), 2) for name, mark in marks.items()
    }


def data_uri(path: Path) -> str:
    """A figure as a data URI; a large file is scaled down and packed as WebP, to keep the page light."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) > INLINE_BYTES:
        # A file that is no picture stays as it is: the browser then shows its description.
        with suppress(OSError), Image.open(io.BytesIO(content)) as image:
            image.thumbnail((INLINE_WIDTH, 10 * INLINE_WIDTH))
            return webp_uri(image, quality=85)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _load(path: Path) -> tuple[dict, str]:
    """The object in a JSON file, and a problem; one broken file must not cost the report of all others."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError):
        content = None
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} cannot be read")
