"""Sample of `chest_xray`: children's chest films, normal or with pneumonia, as Kermany's are laid out.

`train/`, `val/` and `test/`, each with `NORMAL/` and `PNEUMONIA/`. Names carry the patient, and the cause
of a pneumonia. Like the original, the test part is not like the rest: its films come from another
hospital, and only in the training hospital are the ill more often filmed in bed than the healthy.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.samples import chest, film
from helpers.samples.chest_findings import Findings, shadows

COUNTS = {  # images
    "train": {"NORMAL": 108, "PNEUMONIA": 312},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 45, "PNEUMONIA": 75},
}
# Chances of one, two, three and four films: a child with pneumonia is filmed again and again.
FILMS = {"NORMAL": (0.8, 0.2, 0.0, 0.0), "PNEUMONIA": (0.4, 0.3, 0.2, 0.1)}
IN_BED = {"NORMAL": 0.1, "PNEUMONIA": 0.5, "elsewhere": 0.25}


def render(folder: Path, seed: int = 0) -> None:
    """Write 556 grey JPEG films, 150 to 200 pixels wide and 110 to 170 high, into `folder`."""
    patient = 0
    for part, classes in COUNTS.items():
        for label, images in classes.items():
            target = folder / part / label
            target.mkdir(parents=True)
            while images:
                patient += 1
                rng = np.random.default_rng([seed, patient])
                films = min(1 + int(rng.choice(4, p=FILMS[label])), images)
                images -= films
                for name, picture in _patient(patient, label, films, part == "test", rng):
                    picture.save(target / name, quality=90)


def _patient(
    patient: int, label: str, films: int, elsewhere: bool, rng: np.random.Generator
) -> Iterator[tuple[str, Image.Image]]:
    """Names and films of one patient: one anatomy, one illness that changes a little from film to film."""
    anatomy = chest.Anatomy.draw(rng)
    cause = "none" if label == "NORMAL" else str(rng.choice(["bacteria", "virus"], p=[0.6, 0.4]))
    findings = Findings.draw(cause, anatomy.lung_height, rng)
    for number in range(1, films + 1):
        width = int(rng.integers(150, 201))
        height = int(np.clip(width / rng.uniform(1.15, 1.45), 110, 170))
        pose = chest.Pose.draw(rng)
        if elsewhere:  # where more of the child is in the picture
            pose = replace(pose, width=pose.width * rng.uniform(1.05, 1.25))
        grid = chest.locate(anatomy, pose, (height, width))
        severity = findings.severity * rng.uniform(0.75, 1.2)
        rays = chest.attenuation(anatomy, pose, grid, *shadows(findings, grid, severity, rng))
        exposure = film.usual(rng)
        if rng.random() < IN_BED["elsewhere" if elsewhere else label]:
            exposure = film.bedside(exposure, rng)
        if elsewhere:
            exposure = film.elsewhere(exposure, rng)
        yield _name(patient, cause, number, films), film.develop(rays, exposure, rng)


def _name(patient: int, cause: str, number: int, films: int) -> str:
    """A file name in the manner of the original, whose normal films come in two series."""
    if cause != "none":
        return f"person{patient}_{cause}_{4 * patient + number}.jpeg"
    series = "NORMAL2-IM" if patient % 2 else "IM"
    film_number = "0001" if films == 1 else f"0001-{number:04d}"
    return f"{series}-{patient + 114:04d}-{film_number}.jpeg"
