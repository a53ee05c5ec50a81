"""Datasets by name: the folder, its card, and the table that a reader makes of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from helpers import readers, runtime, samples
from helpers.cards import CARDS, Card
from helpers.errors import UserError

_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "aoi": readers.read_aoi,
    "demand": readers.read_demand,
    "drive": readers.read_drive,
    "fashion_mnist": readers.read_mnist,
    "lungs": readers.read_lungs,
    "mnist": readers.read_mnist,
    "radiography": readers.read_radiography,
    "reuters": readers.read_news,
    "tales": readers.read_tales,
    "western_blot": readers.read_western_blot,
}


@dataclass(frozen=True)
class Dataset:
    """A dataset found on disk. `table` has a row an image; its columns depend on the task.

    Classification: path, label, group, split. Segmentation: id, image, mask, group, split, and for
    `drive` fov and second. Blots: id, image, mask, base, group, split. News: path, text, label, group,
    split; tales: path, title, text, group, split; demand, a row a moment: path, time, demand.
    Paths are absolute strings, "" where a file is not there; `split` is the folder on disk.
    """

    name: str
    source: str
    root: Path
    table: pd.DataFrame
    card: Card | None
    classes: tuple[str, ...] = field(default=())

    @property
    def note(self) -> str:
        """What every figure and table of this data must say; empty for real data."""
        return samples.note(self.name) if self.source == "sample" else ""

    def fingerprint(self) -> str:
        """Twelve hex digits that change when a file is added, removed, renamed or resized."""
        columns = [c for c in ("path", "image", "mask", "fov", "second", "base") if c in self.table]
        paths = sorted({p for c in columns for p in self.table[c] if p})
        lines = (f"{Path(p).relative_to(self.root).as_posix()} {Path(p).stat().st_size}" for p in paths)
        text = "\n".join(lines)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]

    def about(self) -> dict:
        """The lines for `run.json`."""
        return {"name": self.name, "source": self.source, "images": len(self.table),
                "fingerprint": self.fingerprint()}  # fmt: skip


def find(name: str, source: str = "sample", data_dir: str = "") -> Path:
    """The folder of a dataset: rendered in the cache for "sample", `<data root>/<name>` for "real".

    Raises UserError, with what is missing, where it belongs and how to get it.
    """
    if source not in ("sample", "real"):
        raise UserError(f'source "{source}" is unknown; use "sample" or "real".')
    if source == "sample":
        return samples.ensure(name)
    root = runtime.data_root(data_dir) / name
    if not root.is_dir():
        layout = f" with {CARDS[name].layout}" if name in CARDS else " with one subfolder a class"
        mend = f"; {CARDS[name].command}" if name in CARDS else ""
        raise UserError(
            f"{name}: no folder {root}. Put the dataset there{layout}{mend}, "
            'or use source="sample" for sample data.'
        )
    return root


def load(name: str, source: str = "sample", data_dir: str = "", by_cause: bool = False) -> Dataset:
    """Find and read a dataset by name.

    A name without a card is a folder of your own: with `images/` and `masks/` it reads as `lungs` do,
    with `training/images/` as `drive`, else as class subfolders.
    by_cause: `chest_xray` only: three classes, NORMAL, BACTERIA and VIRUS, from the file names.
    Raises UserError for a missing folder, an empty class or a missing partner file.
    """
    root = find(name, source, data_dir)
    if name in _READERS:
        table = _READERS[name](root)
    elif name not in CARDS and (root / "images").is_dir() and (root / "masks").is_dir():
        table = readers.read_lungs(root)
    elif name not in CARDS and (root / "training" / "images").is_dir():
        table = readers.read_drive(root)
    else:
        table = readers.read_class_folders(
            root, patient=readers.chest_patient if name == "chest_xray" else None
        )
    if by_cause:
        table["label"] = [readers.chest_cause(p, label) for p, label in zip(table["path"], table["label"])]
    return Dataset(name, source, root, table, CARDS.get(name), _classes(name, table))


def _classes(name: str, table: pd.DataFrame) -> tuple[str, ...]:
    if name == "aoi":  # in the order of its numbers
        return readers.AOI_CLASSES
    return tuple(sorted(table["label"].unique())) if "label" in table else ()
