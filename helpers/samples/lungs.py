"""Sample of `lungs`: chest films and lung masks of one hospital, as the Shenzhen set is laid out.

The last digit of a name tells, as there, whether the lungs are ill. A mask outlines an ill lung as if it
were clear: the reader who drew it knew where the lung ends behind an opacity.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.samples import chest, film
from helpers.samples.chest_findings import Findings, shadows

FILMS = 96
SIDE = 160  # pixels


def render(folder: Path, seed: int = 0) -> None:
    """Write 96 films (PNG, grey, 160 × 160) with masks (0 and 255) of the same names, a patient each."""
    for number in range(1, FILMS + 1):
        rng = np.random.default_rng([seed, number])
        pose = chest.Pose.draw(rng)
        ill, rays, mask = patient(pose, (SIDE, SIDE), rng)
        picture = film.develop(rays, film.usual(rng), rng)
        save(folder, f"CHNCXR_{number:04d}_{ill}.png", picture, mask)


def patient(
    pose: chest.Pose, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[int, np.ndarray, np.ndarray]:
    """A random patient: ill (0 or 1), attenuation and lung mask of `shape` (H, W). Half of them are ill."""
    anatomy = chest.Anatomy.draw(rng)
    cause = str(rng.choice(["none", "bacteria", "covid"], p=[0.5, 0.3, 0.2]))
    findings = Findings.draw(cause, anatomy.lung_height, rng)
    grid = chest.locate(anatomy, pose, shape)
    rays = chest.attenuation(anatomy, pose, grid, *shadows(findings, grid, findings.severity, rng))
    return int(cause != "none"), rays, chest.lung_mask(anatomy, grid)


def save(folder: Path, name: str, picture: Image.Image, mask: np.ndarray) -> None:
    """Write a film and its mask (H, W), boolean, under one name into `images/` and `masks/`."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    picture.save(folder / "images" / name)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name)
