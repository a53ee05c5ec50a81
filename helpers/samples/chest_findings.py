"""What disease does to the lungs of the chest phantom: where air gives way to fluid."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from helpers.samples.chest import Grid
from helpers.samples.noise import clouds, soft_step


@dataclass(frozen=True)
class Findings:
    """What a patient's lungs show, alike in all films of one illness.

    cause: "none", "bacteria" (a patch in one zone), "virus" (streaks on both sides) or "covid"
    (ground glass near the ribs, on both sides). severity: about 0.2 (hardly visible) to 1.
    spots: (x, y, radius) of the patches, in the coordinates of the chest.
    """

    cause: str
    severity: float
    spots: tuple[tuple[float, float, float], ...]
    vessels: float  # how marked the vessels are; the healthy differ in it too

    @classmethod
    def draw(cls, cause: str, lung_height: float, rng: np.random.Generator) -> "Findings":
        """Random findings of this cause in a lung of this height."""
        severity = float(np.clip(rng.beta(3, 1.3), 0.25, 1))
        count = {
            "none": 0,
            "virus": 0,
            "bacteria": 1 + int(rng.random() < 0.3),
            "covid": int(rng.integers(3, 6)),
        }
        spots = []
        for number in range(count[cause]):
            side = rng.choice([-1, 1]) if cause == "bacteria" else (-1) ** number
            # Ground glass keeps to the outer zones, a lobe's pneumonia may lie anywhere in the lung.
            away = rng.uniform(0.4, 0.75) if cause == "bacteria" else rng.uniform(0.65, 0.85)
            height = lung_height * rng.uniform(0.3, 0.95)
            radius = rng.uniform(0.26, 0.55) if cause == "bacteria" else rng.uniform(0.2, 0.36)
            spots.append((float(side * away), float(height), float(radius)))
        return cls(cause, severity, tuple(spots), rng.uniform(0.7, 1.3))


def shadows(
    findings: Findings, grid: Grid, severity: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`filled` and `streaks` for `chest.attenuation`, both (H, W); severity is this film's own."""
    shape, pixel = grid.x.shape, grid.pixel
    vessels = _vessels(grid, rng)
    near = np.exp(-(((grid.u - 0.15) / 0.35) ** 2) - (((grid.t - 0.55) / 0.4) ** 2))  # around the lung's root
    streaks = 0.22 * findings.vessels * vessels * near
    streaks += 0.02 * clouds(rng, shape, 0.05 / pixel)  # finest structure, too small to be told apart
    filled = 0.06 * np.abs(clouds(rng, shape, 0.5 / pixel))
    if findings.cause == "bacteria":
        patch = _patches(findings, grid, clouds(rng, shape, 0.16 / pixel))
        # Bronchi keep their air: they run as dark branches through a filled lobe.
        filled += severity * patch * (1.0 - 0.3 * vessels)
    elif findings.cause == "virus":
        mesh = clouds(rng, shape, 0.07 / pixel)
        wide = np.exp(-(((grid.u - 0.25) / 0.5) ** 2))
        streaks += severity * wide * (0.28 * vessels + 0.15 * np.abs(mesh))
        filled += severity * wide * (0.28 + 0.16 * clouds(rng, shape, 0.18 / pixel))
    elif findings.cause == "covid":
        patch = _patches(findings, grid, clouds(rng, shape, 0.2 / pixel))
        outer = soft_step(grid.u - 0.35, 0.4)
        filled += severity * patch * outer * (0.5 + 0.12 * clouds(rng, shape, 0.06 / pixel))
    return np.clip(filled, 0, 0.95), streaks


def _patches(findings: Findings, grid: Grid, rough: np.ndarray) -> np.ndarray:
    """Filled regions with frayed borders, 0 to 1 (H, W)."""
    patch = np.zeros_like(grid.x)
    for x, y, radius in findings.spots:
        distance = np.hypot(grid.x - x, (grid.y - y) / 0.85)
        patch = np.maximum(patch, soft_step(radius * (1 + 0.3 * rough) - distance, 0.26))
    return patch


def _vessels(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Thin lines that fan out from the root of each lung and fork, 0 to 1 (H, W).

    They are the zero crossings of noise in polar coordinates that is long along the radius.
    """
    away, down = np.abs(grid.x) - 0.1, grid.y - 0.62
    radius = np.hypot(away, down)
    angle = np.arctan2(down, away) + 0.12 * np.sin(9 * radius)  # vessels wind a little
    table = clouds(rng, (80, 256), (16, 5))
    # The two lungs read different halves of the table.
    column = np.clip((angle / np.pi + 0.5) * 110, 0, 127) + 128 * grid.left
    noise = map_coordinates(table, (radius * 50, column), order=1, mode="nearest")
    apart = np.minimum(radius / 0.3, 1)  # at the root they are too close to be told apart
    return apart * np.exp(-((noise / 0.35) ** 2))
