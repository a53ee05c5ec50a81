"""Sample of `drive`: fundus photographs with vessels marked by hand, in the layout of DRIVE.

Half of DRIVE's size and fewer images. As in the original, both parts have a first observer and a mask of
the field of view, and only the test part has a second observer.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.samples.fundus import paint

NUMBERS = {"training": range(21, 29), "test": range(1, 5)}


def render(folder: Path, seed: int = 0) -> None:
    """Write 8 training and 4 test images (TIFF, 284 × 292) with their masks (GIF, 0 and 255)."""
    for part, numbers in NUMBERS.items():
        for kind in ("images", "1st_manual", "mask") + (("2nd_manual",) if part == "test" else ()):
            (folder / part / kind).mkdir(parents=True)
        for number in numbers:
            eye = paint(np.random.default_rng([seed, number]))
            Image.fromarray(eye.image).save(folder / part / "images" / f"{number:02d}_{part}.tif")
            _save(eye.first, folder / part / "1st_manual" / f"{number:02d}_manual1.gif")
            _save(eye.field, folder / part / "mask" / f"{number:02d}_{part}_mask.gif")
            if part == "test":
                _save(eye.second, folder / part / "2nd_manual" / f"{number:02d}_manual2.gif")


def _save(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(
        path, optimize=False
    )  # keeps grey, 0 and 255, without a palette
