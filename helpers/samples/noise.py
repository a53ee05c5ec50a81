"""Random textures that the renderers share."""

import numpy as np
from PIL import Image


def clouds(rng: np.random.Generator, shape: tuple[int, int], cell: float | tuple[float, float]) -> np.ndarray:
    """Smooth noise (H, W), float32, mean about 0 and deviation 1: random knots, cubically between them.

    cell: distance of the knots in pixels; a pair (down, across) gives streaks.
    """
    down, across = cell if isinstance(cell, tuple) else (cell, cell)
    knots = rng.standard_normal((int(shape[0] / down) + 3, int(shape[1] / across) + 3), dtype=np.float32)
    # The first knot lies at a random distance before the image, or knots would always fall on one pixel.
    top, left = rng.random(2)
    box = (left, top, left + shape[1] / across, top + shape[0] / down)
    smooth = np.asarray(Image.fromarray(knots).resize(shape[::-1], Image.Resampling.BICUBIC, box=box))
    return smooth * 1.35  # interpolation between independent knots loses about a quarter of the deviation


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 far below zero, 1 far above, rising over about `width`: a blurred edge at distance 0."""
    return 0.5 * (1 + np.tanh(2 * distance / width))
