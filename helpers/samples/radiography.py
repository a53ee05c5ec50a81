"""Sample of `radiography`: four classes of chest films with lung masks, as the COVID-19 Radiography Database.

As there, the classes come from different hospitals: exposure, letters and borders tell a part of the
label, a shortcut that has nothing to do with lungs. Half of the original's size.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.samples import chest, film
from helpers.samples.chest_findings import Findings, shadows

COUNTS = {"COVID": 80, "Lung_Opacity": 80, "Normal": 100, "Viral Pneumonia": 60}
CAUSES = {"COVID": "covid", "Lung_Opacity": "bacteria", "Normal": "none", "Viral Pneumonia": "virus"}
IMAGE, MASK = 150, 128  # pixels; masks are smaller than images, as in the original


def render(folder: Path, seed: int = 0) -> None:
    """Write 320 films and as many lung masks (PNG, grey; masks 0 and 255), one patient each."""
    for number, (label, images) in enumerate(COUNTS.items()):
        for kind in ("images", "masks"):
            (folder / label / kind).mkdir(parents=True)
        for image in range(1, images + 1):
            picture, mask = _film(label, np.random.default_rng([seed, number, image]))
            picture.save(folder / label / "images" / f"{label}-{image}.png")
            mask.save(folder / label / "masks" / f"{label}-{image}.png")


def _film(label: str, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One patient's film and lung mask."""
    anatomy, pose = chest.Anatomy.draw(rng), chest.Pose.draw(rng)
    findings = Findings.draw(CAUSES[label], anatomy.lung_height, rng)
    grid = chest.locate(anatomy, pose, (IMAGE, IMAGE))
    rays = chest.attenuation(anatomy, pose, grid, *shadows(findings, grid, findings.severity, rng))
    picture = film.develop(rays, _exposure(label, rng), rng)
    mask = chest.lung_mask(anatomy, chest.locate(anatomy, pose, (MASK, MASK)))
    return picture, Image.fromarray(mask.astype(np.uint8) * 255)


def _exposure(label: str, rng: np.random.Generator) -> film.Exposure:
    """How the class's usual hospital takes its films; half of the films could come from anywhere."""
    exposure = film.usual(rng)
    if rng.random() < 0.5:
        return exposure
    if label == "COVID":  # collected from publications: brighter background, no letter
        return replace(exposure, floor=exposure.floor + rng.uniform(0.04, 0.12), letter=False)
    if label == "Viral Pneumonia":  # a children's hospital with a tight collimator
        return replace(exposure, frame=rng.uniform(0.015, 0.05), letter=True)
    if label == "Lung_Opacity":
        return film.bedside(exposure, rng)
    return exposure
