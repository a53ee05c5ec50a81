"""Painting panels as an inspection camera sees them: a grating, an edge, and five kinds of flaw."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from helpers.samples.noise import clouds, soft_step

NORMAL, VOID, HORIZONTAL, VERTICAL, EDGE, PARTICLE = range(6)
SIZE = 128  # pixels
MARGIN = 8


@dataclass(frozen=True)
class Panel:
    """One object: its surface and its flaw, the same in every exposure."""

    label: int
    period: float  # of the grating, pixels
    slant: float  # of its lines, radians
    depth: float  # contrast of the grating
    rough: float  # contrast of the rolling marks
    edge: float  # where the panel ends, pixels from the border
    mirrored: bool  # whether it ends on the left
    flaw: tuple[float, float]  # x, y
    size: float  # of the flaw, 0 (hardly visible) to 1
    dark: bool  # whether the flaw is darker than its surroundings
    seed: int  # of the texture

    @classmethod
    def draw(cls, label: int, rng: np.random.Generator) -> "Panel":
        """A random panel with a flaw of this kind."""
        return cls(
            label=label,
            period=rng.uniform(5, 13),
            slant=rng.normal(0, 0.03),
            depth=rng.uniform(0.03, 0.1),
            rough=rng.uniform(0.02, 0.05),
            edge=rng.uniform(12, 26),
            mirrored=bool(rng.random() < 0.5),
            flaw=(rng.uniform(15, 85), rng.uniform(20, 108)),
            size=rng.beta(1.6, 1.4),
            dark=bool(rng.random() < 0.6),
            seed=int(rng.integers(2**31)),
        )


def photograph(panel: Panel, rng: np.random.Generator) -> Image.Image:
    """One exposure: the object a little moved, other light, new noise."""
    surface = _surface(panel)
    top, left = np.clip(np.rint(rng.normal(MARGIN, 2.5, 2)), 0, 2 * MARGIN).astype(int)
    view = surface[top : top + SIZE, left : left + SIZE]
    light = rng.uniform(0.6, 1.15) * (1 + 0.12 * clouds(rng, view.shape, 80))
    seen = np.clip(view * light + 0.02 * rng.standard_normal(view.shape, dtype=np.float32), 0, 1)
    return Image.fromarray((seen * 255).astype(np.uint8))


def _surface(panel: Panel) -> np.ndarray:
    """The panel itself (H, W), 0 to 1 from dark to bright, with a margin around what a camera sees."""
    texture = np.random.default_rng(panel.seed)
    y, x = np.mgrid[-MARGIN : SIZE + MARGIN, -MARGIN : SIZE + MARGIN].astype(np.float32)
    surface = 0.5 + _grating(panel, x, y) + _stain(texture, x, y)
    # Marks of rolling along the lines, and a fine grain.
    surface = surface + panel.rough * (clouds(texture, x.shape, (40, 2)) + 0.6 * clouds(texture, x.shape, 5))
    if panel.label != EDGE:  # the flaw of an edge is made where the panel ends
        surface = PAINTERS[panel.label](surface, panel, x, y, texture)
    surface = _end(surface, panel, x, y, texture)
    return surface[:, ::-1] if panel.mirrored else surface


def _grating(panel: Panel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Upright conductor lines, crossed by wider spaced and fainter ones."""
    lines = np.tanh(2 * np.sin(2 * np.pi * (x + panel.slant * y) / panel.period))
    crossing = np.exp(-(((np.abs((y / (4.5 * panel.period)) % 1 - 0.5) - 0.25) / 0.04) ** 2))
    return panel.depth * (lines - 0.6 * crossing)


def _stain(texture: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A harmless stain that every surface has: wide, faint, without a border."""
    at, wide = texture.uniform(10, 118, 2), texture.uniform(8, 25)
    return texture.normal(0, 0.05) * np.exp(-((np.hypot(x - at[0], y - at[1]) / wide) ** 2))


def _normal(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """Nothing wrong; on some, a speck of dust too small to count as a particle."""
    if panel.size < 0.3:
        return surface + 0.15 * np.exp(-((np.hypot(x - panel.flaw[0], y - panel.flaw[1]) / 1.1) ** 2))
    return surface


def _void(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """A bubble: the grating is missing within a round border that catches the light on one side."""
    away, down = x - panel.flaw[0], y - panel.flaw[1]
    radius = 4 + 8 * panel.size
    distance = np.hypot(away, down) * (1 + 0.08 * clouds(texture, x.shape, 10))
    inside = soft_step(radius - distance, 3)
    rim = np.exp(-(((distance - radius) / 1.5) ** 2)) * (away + down) / (distance + 1)
    hollow = 0.5 - 0.06 * panel.dark
    return surface + inside * 0.85 * (hollow - surface) + (0.07 + 0.1 * panel.size) * rim


def _horizontal(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """A streak across the lines, of which only a part may be visible."""
    return surface + _streak(panel, y - panel.flaw[1], x - panel.flaw[0], texture)


def _vertical(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """A line of the grating that is too broad, or a scratch along it."""
    return surface + _streak(panel, x + panel.slant * y - panel.flaw[0], y - panel.flaw[1], texture)


def _streak(panel: Panel, off: np.ndarray, along: np.ndarray, texture: np.random.Generator) -> np.ndarray:
    """A line of brightness at `off` = 0 with frayed ends and changing strength."""
    winding = 0.5 * clouds(texture, off.shape, 30)
    line = np.exp(-(((off + winding) / (1.0 + 1.2 * panel.size)) ** 2))
    length = soft_step(25 + 45 * panel.size - np.abs(along), 10)
    strength = (0.12 + 0.18 * panel.size) * (1 + 0.3 * clouds(texture, off.shape, 9))
    return (-1 if panel.dark else 1) * strength * line * length


def _particle(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """A compact, ragged grain that lies on the surface and throws a small shadow."""
    ragged = np.maximum(0.5, 1 + 0.3 * clouds(texture, x.shape, 3))
    radius = 1.6 + 2.6 * panel.size
    grain = soft_step(radius - ragged * np.hypot(x - panel.flaw[0], y - panel.flaw[1]), 1.5)
    shadow = soft_step(radius - np.hypot(x - panel.flaw[0] - 1.8, y - panel.flaw[1] - 1.8), 2.5)
    surface = surface - 0.12 * shadow
    return surface + grain * ((0.15 if panel.dark else 0.9) - surface) * 0.8


PAINTERS = {
    NORMAL: _normal,
    VOID: _void,
    HORIZONTAL: _horizontal,
    VERTICAL: _vertical,
    PARTICLE: _particle,
}


def _end(
    surface: np.ndarray, panel: Panel, x: np.ndarray, y: np.ndarray, texture: np.random.Generator
) -> np.ndarray:
    """The panel's edge, bevelled and a little uneven; an edge defect is a chip or a burr in it."""
    border = SIZE - panel.edge + 0.6 * clouds(texture, x.shape, (12, 200))
    if panel.label == EDGE:
        reach = (-1 if panel.dark else 1) * (2.5 + 6 * panel.size)
        ragged = 1 + 0.35 * clouds(texture, x.shape, 4)
        border = border + reach * np.exp(-(((y - panel.flaw[1]) / (5 + 6 * panel.size)) ** 4)) * ragged
    inside = soft_step(border - x, 2)
    bevel = 0.22 * np.exp(-(((border - x - 2) / 1.5) ** 2))
    return inside * (surface + bevel) + (1 - inside) * (0.16 + 0.02 * clouds(texture, x.shape, 7))
