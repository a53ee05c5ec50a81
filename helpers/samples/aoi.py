"""Sample of `aoi`: the surface of a panel under an inspection camera, in the layout of AIdea's AOI set.

`train_images/` and `train.csv` (ID, Label), `test_images/` and `test.csv` (ID, empty Label), and
`groups.csv` (ID, group): training images of one group are exposures of one object. Quarter of the
original's side. Labels are those of AIdea.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.samples.panels import EDGE, HORIZONTAL, NORMAL, PARTICLE, VERTICAL, VOID, Panel, photograph

TRAIN = {NORMAL: 110, VOID: 70, HORIZONTAL: 16, VERTICAL: 44, EDGE: 40, PARTICLE: 90}  # images
TEST = {NORMAL: 18, VOID: 11, HORIZONTAL: 3, VERTICAL: 7, EDGE: 6, PARTICLE: 15}


def render(folder: Path, seed: int = 0) -> None:
    """Write 370 training and 60 test images (PNG, grey, 128 × 128) and the three tables."""
    for part, counts in (("train", TRAIN), ("test", TEST)):
        (folder / f"{part}_images").mkdir()
        rng = np.random.default_rng([seed, len(part)])
        shots = list(_shots(counts, rng))
        order = rng.permutation(len(shots))  # or the number of a file would tell its class
        names = [f"{part}_{number:05d}.png" for number in range(len(shots))]
        for name, index in zip(names, order):
            shots[index][0].save(folder / f"{part}_images" / name)
        labels = [shots[index][1] if part == "train" else "" for index in order]
        _write(folder / f"{part}.csv", ("ID", "Label"), zip(names, labels))
        if part == "train":
            groups = [shots[index][2] for index in order]
            _write(folder / "groups.csv", ("ID", "group"), zip(names, groups))


def _shots(counts: dict[int, int], rng: np.random.Generator) -> Iterator[tuple[Image.Image, int, int]]:
    """Image, label and group; each panel is photographed one to three times."""
    group = 0
    for label, images in counts.items():
        while images:
            group += 1
            panel = Panel.draw(label, rng)
            for _ in range(min(images, int(rng.integers(1, 4)))):
                images -= 1
                yield photograph(panel, rng), label, group


def _write(path: Path, header: tuple[str, str], rows: Iterable[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
