"""From attenuation to an 8-bit X-ray film: exposure, contrast, noise, and what lies on the film."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from helpers.samples.noise import clouds


@dataclass(frozen=True)
class Exposure:
    """How a film was taken and developed."""

    gain: float  # brightness of soft tissue
    gamma: float  # contrast: above 1, lungs get darker
    floor: float  # brightness of the unexposed background
    blur: float  # pixels
    grain: float
    frame: float  # share of the width that the collimator hides on each side
    letter: bool
    wire: bool


def usual(rng: np.random.Generator) -> Exposure:
    """A random exposure of the first hospital."""
    return Exposure(
        gain=rng.uniform(0.56, 0.8),
        gamma=rng.uniform(0.75, 1.45),
        floor=rng.uniform(0.0, 0.05),
        blur=rng.uniform(0.4, 0.8),
        grain=rng.uniform(0.006, 0.014),
        frame=max(0.0, rng.normal(-0.01, 0.015)),
        letter=bool(rng.random() < 0.6),
        wire=bool(rng.random() < 0.06),
    )


def bedside(exposure: Exposure, rng: np.random.Generator) -> Exposure:
    """The same, taken in bed with a portable machine, as the very ill are: flatter, with wires."""
    return replace(
        exposure,
        gamma=exposure.gamma * rng.uniform(0.75, 0.95),
        floor=exposure.floor + rng.uniform(0, 0.06),
        letter=bool(rng.random() < 0.4),
        wire=bool(rng.random() < 0.3),
    )


def elsewhere(exposure: Exposure, rng: np.random.Generator) -> Exposure:
    """The same in another hospital: brighter and flatter films, a tighter collimator."""
    return replace(
        exposure,
        gain=exposure.gain * rng.uniform(1.0, 1.25),
        gamma=exposure.gamma * rng.uniform(0.65, 0.95),
        floor=exposure.floor + rng.uniform(0, 0.08),
        grain=exposure.grain * 1.3,
        frame=max(0.0, rng.normal(0.02, 0.03)),
    )


def develop(attenuation: np.ndarray, exposure: Exposure, rng: np.random.Generator) -> Image.Image:
    """A grey film (mode "L") from attenuation (H, W), in which soft tissue is about 1."""
    shape = attenuation.shape
    lit = gaussian_filter(np.maximum(attenuation, 0), exposure.blur)
    tilt = rng.normal(0, 0.04, 2)  # the tube is never quite centred
    lit *= (1 + tilt[0] * np.linspace(-1, 1, shape[0])[:, None]).astype(np.float32)
    lit *= (1 + tilt[1] * np.linspace(-1, 1, shape[1])).astype(np.float32)
    film = exposure.floor + (1 - exposure.floor) * exposure.gain * lit**exposure.gamma
    film += exposure.grain * (
        0.7 * clouds(rng, shape, 1.6) + 0.7 * rng.standard_normal(shape, dtype=np.float32)
    )
    film = 1 - np.log1p(np.exp(12 * (0.97 - film))) / 12  # the brightest tones saturate softly
    image = Image.fromarray((np.clip(film, 0, 1) * 255).astype(np.uint8))
    _marks(image, exposure, rng)
    return image


def _marks(image: Image.Image, exposure: Exposure, rng: np.random.Generator) -> None:
    """Letter for the patient's right side, a wire with its electrode, and the collimator's black frame."""
    width, height = image.size
    pen = ImageDraw.Draw(image)
    if exposure.wire:
        start, middle, end = rng.uniform([0.5, 0, 0.3], [1, 0.4, 0.8], (3, 3))[:, :2] * (width, height)
        s = np.linspace(0, 1, 24)[:, None]
        curve = (1 - s) ** 2 * start + 2 * s * (1 - s) * middle + s**2 * end
        pen.line([tuple(point) for point in curve], fill=225, width=1)
        pen.ellipse([*(end - 2.5), *(end + 2.5)], fill=235)
    if exposure.letter:
        size = int(rng.integers(9, 14))
        place = rng.uniform((0.02, 0.08), (0.08, 0.4)) * (width, height)
        pen.text(tuple(place), "R", fill=int(rng.integers(180, 245)), font=_font(size))
    border = round(exposure.frame * width)
    if border:
        pen.rectangle([0, 0, width - 1, height - 1], outline=4, width=border)


@lru_cache
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
