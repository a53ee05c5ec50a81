"""Reads finished runs back from their folders, and writes `summary.csv` and the page `index.html`."""

import base64
import csv
import io
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from helpers.files import atomic_open

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = 6  # of a run on the page; the notebook has all
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
    problems: tuple[str, ...]  # files of the folder that cannot be read

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

    def figures(self) -> list[dict[str, str]]:
        """Some figures as `uri` for the page, `link` to the file, and `alt`.

        The first shows the data; the others are the last ones, which show results.
        """
        alt, _ = _load(self.folder / "figures" / "alt.json")
        paths = sorted((self.folder / "figures").glob("*.png"))
        return [
            {
                "uri": data_uri(path),
                "link": quote(f"{self.folder.name}/figures/{path.name}"),
                "alt": alt.get(path.name) or path.stem,
            }
            for path in paths[:1] + paths[1:][-(FIGURES - 1) :]
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
    problems = tuple(filter(None, (metrics_problem, records_problem)))
    return Result(folder, batch, metrics.get("metrics", {}), metrics.get("claims", {}), records, problems)


def write(results: Path) -> Path:
    """Write summary.csv and index.html on every finished run under `results`; returns the page's path.

    Runs of earlier batches are included. Raises UserError when a file cannot be written.
    """
    folders = [path for path in results.iterdir() if path.is_dir()]
    found = [result for folder in folders if (result := read_result(folder)) is not None]
    found.sort(key=lambda result: (result.batch["notebook"], result.folder.name))
    table = io.StringIO()
    writer = csv.DictWriter(table, SUMMARY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.row() for result in found)
    with atomic_open(results / "summary.csv") as file:
        file.write(table.getvalue())
    page = render(found)
    with atomic_open(results / "index.html") as file:
        file.write(page)
    return results / "index.html"


def render(found: list[Result]) -> str:
    """The page as one self-contained HTML text: style and figures are inside, all texts are escaped."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, duration=duration)
    environment.globals.update(interval=interval, scale=scale)
    return environment.get_template("index.html.j2").render(results=found, counts=_counts(found))


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

    Numbers on synthetic images do not compare with those on real ones.
    """
    value, low, high = result.headline
    marks = {"value": value, "low": low, "high": high}
    marks |= {name: result.batch[name] for name in ("reported", "published")}
    marks = {name: mark for name, mark in marks.items() if mark is not None and math.isfinite(mark)}
    if result.is_sample or "value" not in marks or len(marks) < 2:
        return None
    start, end = min(marks.values()), max(marks.values())
    room = (end - start) / 5 or 1
    return {
        name: round(100 * (mark - start + room) / (end - start + 2 * room), 2) for name, mark in marks.items()
    }


def data_uri(path: Path) -> str:
    """A figure as a data URI; a large file is scaled down and packed as WebP, to keep the page light."""
    from PIL import Image

    content, kind = path.read_bytes(), "png"
    if len(content) > INLINE_BYTES:
        # A file that is no picture stays as it is: the browser then shows its description.
        with suppress(OSError), Image.open(io.BytesIO(content)) as image:
            image.thumbnail((INLINE_WIDTH, 10 * INLINE_WIDTH))
            packed = io.BytesIO()
            image.save(packed, "WEBP", quality=85)
            content, kind = packed.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _load(path: Path) -> tuple[dict, str]:
    """The object in a JSON file, and a problem; one broken file must not cost the report of all others."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError):
        content = None
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} cannot be read")
