"""The page `explore.html` of a run: predictions with a threshold that the reader moves.

Classification comes from `predictions.csv` (file, label, p_<class> …), segmentation from `predictions.npz`
(ids, probability, and optionally masks and threshold). Everything is inside the page, and it works opened
as a file. It never imports torch; what reads images is imported only when a page has to be made.
"""

import base64
import csv
import io
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helpers import samples
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.pages import TEMPLATES, new_environment, webp_uri

PAGE = "explore.html"
PICTURES = 300  # of a classification on its page; the others are counted without a picture
THUMBNAIL = 80  # pixels
FILMS = 3  # of a segmentation: the worst, the median and the best


@dataclass(frozen=True)
class Source:
    """Where the run's images lie now, if they are on this machine."""

    name: str
    source: str
    data_dir: str

    def load(self):
        """The dataset, or None where it is not here (a run of another machine)."""
        from helpers import datasets

        with suppress(UserError, OSError, ValueError):
            return datasets.load(self.name, self.source, self.data_dir)
        return None


def write(folder: Path, name: str, records: dict, metrics: dict) -> bool:
    """Write explore.html for a finished run, unless it is newer than all that it is made of.

    records, metrics: the run's run.json, and the metrics in its metrics.json. Returns whether there is
    such a page: a run without predictions of a known form has none.
    """
    page = folder / PAGE
    made_of = [path for path in (folder / "predictions.csv", folder / "predictions.npz") if path.is_file()]
    if not made_of:
        return False
    made_of += [Path(__file__), *TEMPLATES.glob("explore*"), TEMPLATES / "index.css"]
    if page.is_file() and page.stat().st_mtime > max(path.stat().st_mtime for path in made_of):
        return True
    about = records.get("dataset") or {}
    parameters = records.get("parameters") or {}
    source = Source(
        str(about.get("name", "")), str(about.get("source", "")), str(parameters.get("data_dir", ""))
    )
    data = None
    with suppress(Exception):  # a file is broken in many ways; it costs this page alone
        if made_of[0].suffix == ".csv":
            data = classification(made_of[0], source, metrics.get("threshold"))
        if data is None and (folder / "predictions.npz").is_file():
            data = segmentation(folder / "predictions.npz", source)
    if data is None:
        page.unlink(missing_ok=True)
        return False
    with atomic_open(page) as file:
        file.write(_render(name, source, data))
    return True


def classification(file: Path, source: Source, threshold: float | None) -> dict | None:
    """Scores, labels and some pictures; None where the table holds no class probabilities."""
    with open(file, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [column for column in (rows[0] if rows else {}) if column.startswith("p_")]
    if len(names) < 2 or not {"file", "label"} <= set(rows[0]):
        return None
    classes = [name.removeprefix("p_") for name in names]
    plain = [name.replace(" ", "_") for name in classes]  # a column's name may have lost its spaces
    labels = [plain.index(row["label"].replace(" ", "_")) for row in rows]
    scores = [[round(float(row[name]), 4) for row in rows] for name in names]
    start = threshold if threshold is not None and len(classes) == 2 else 0.5
    chosen = _spread(scores, start)
    pictures = _thumbnails(source, {row: rows[row]["file"] for row in chosen})
    return {
        "task": "classification", "classes": classes, "labels": labels, "scores": scores,
        "threshold": round(start, 4), "positive": len(classes) - 1, "pictures": pictures,
    }  # fmt: skip


def _spread(scores: list[list[float]], threshold: float) -> list[int]:
    """Rows to show: half are nearest to the threshold, where a move changes sides, half evenly spread."""
    count = len(scores[0])
    if count <= PICTURES:
        return list(range(count))
    share = PICTURES // (2 * len(scores))
    chosen: set[int] = set()
    for column in scores:
        order = sorted(range(count), key=column.__getitem__)
        chosen.update(sorted(order, key=lambda row, column=column: abs(column[row] - threshold))[:share])
        chosen.update(order[round(step * (count - 1) / (share - 1))] for step in range(share))
    return sorted(chosen)


def _thumbnails(source: Source, files: dict[int, str]) -> dict[int, str]:
    """Small pictures by row, for those whose file is found."""
    dataset = source.load()
    if dataset is None or "path" not in dataset.table or {"index", "text", "time"} & set(dataset.table):
        return {}
    by_name = {Path(path).name: path for path in dataset.table["path"]}
    pictures = {}
    for row, file in files.items():
        path = dataset.root / file
        path = path if path.is_file() else Path(by_name.get(Path(file).name, ""))
        with suppress(OSError):
            pictures[row] = _picture(path, THUMBNAIL)
    return pictures


def segmentation(file: Path, source: Source) -> dict | None:
    """Probability, truth and picture of the worst, the median and the best image."""
    import numpy as np
    from PIL import Image

    with np.load(file) as content:
        if not {"ids", "probability"} <= set(content.files) or content["probability"].ndim != 3:
            return None
        ids, probability = content["ids"].astype(str), content["probability"]
        masks = content["masks"] if "masks" in content.files else None
        start = float(content["threshold"]) if "threshold" in content.files else 0.5
    dataset = source.load()
    rows = {}
    if dataset is not None and {"id", "image", "mask"} <= set(dataset.table):
        rows = {row.id: row for row in dataset.table.itertuples()}
    height, width = probability.shape[1:]
    films = []
    for number, name in enumerate(ids):
        row = rows.get(name)
        if masks is not None:
            truth = np.squeeze(masks[number]) > 0
        elif row is not None and row.mask:
            with Image.open(row.mask) as mask:
                truth = np.asarray(mask.convert("L").resize((width, height), Image.NEAREST)) > 127
        else:
            continue
        if truth.shape != (height, width):
            continue
        found = probability[number] >= start * 255
        dice = 2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1)
        films.append((float(dice), name, number, truth, row))
    if not films:
        return None
    films.sort(key=lambda film: film[0])
    last = len(films) - 1
    picked = dict.fromkeys([0, last // 2, last][:FILMS])
    words = {last: "best", last // 2: "median", 0: "worst" if last else "only one"}
    return {
        "task": "segmentation", "threshold": round(start, 4), "width": width, "height": height,
        "films": [
            {
                "name": f"{films[at][1]} ({words[at]})",
                "probability": _png(probability[films[at][2]]),
                "truth": _png(films[at][3].astype(np.uint8) * 255),
                "picture": _picture(Path(films[at][4].image), width, height) if films[at][4] else "",
            }
            for at in picked
        ],
    }  # fmt: skip


def _picture(path: Path, width: int, height: int | None = None) -> str:
    """An image file as a data URI: to fit a square of `width`, or exactly width × height."""
    from PIL import Image

    with Image.open(path) as image:
        image = image.convert("RGB") if image.mode not in ("L", "RGB") else image
        if height is None:
            image.thumbnail((width, width))
        else:
            image = image.resize((width, height))
        return webp_uri(image, quality=75)


def _png(values) -> str:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(values).save(packed, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _render(name: str, source: Source, data: dict) -> str:
    from markupsafe import Markup

    # Inside a script element only "</" and "<!--" could end it.
    packed = Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))
    return (
        new_environment()
        .get_template("explore.html.j2")
        .render(
            name=name,
            data=data,
            packed=packed,
            dataset=source.name,
            note=samples.note(source.name) if source.source == "sample" else "",
        )
    )
