"""Sample of another hospital's `lungs`, for notebook 05's test across hospitals, in the manner of Montgomery.

Its films are hard and dark, of two shapes, and lie on a wider black plate: nothing of that occurs in
the sample `lungs`. Patients and their lungs are drawn in the same way.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import ImageOps

from helpers.samples import chest, film
from helpers.samples.lungs import patient, save

FILMS = 32
SHAPES = ((176, 144), (144, 176))  # pixels, (height, width)


def render(folder: Path, seed: int = 0) -> None:
    """Write 32 films (PNG, grey, of two shapes) with masks (0 and 255) of the same names, a patient each."""
    for number in range(1, FILMS + 1):
        rng = np.random.default_rng([seed, number, 1])  # no patient of the sample `lungs`
        pose = chest.Pose.draw(rng)
        height, width = SHAPES[int(rng.integers(2))]
        sides = int(rng.uniform(0.05, 0.16) * width)  # of the plate, black, left and right of the film
        ill, rays, mask = patient(pose, (height, width - 2 * sides), rng)
        usual = film.usual(rng)
        exposure = replace(
            film.elsewhere(usual, rng), gamma=usual.gamma * rng.uniform(1.6, 2.3), floor=0.0, wire=False
        )
        picture = ImageOps.expand(film.develop(rays, exposure, rng), (sides, 0))
        save(folder, f"MCUCXR_{number:04d}_{ill}.png", picture, np.pad(mask, ((0, 0), (sides, sides))))
