"""Painting a fundus photograph: the back of an eye, seen through the pupil, and its vessels drawn by hand."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from helpers.samples.noise import clouds, soft_step
from helpers.samples.vessels import Eye, Vessel, grow

WIDTH, HEIGHT = 284, 292
FIELD = 134.0  # radius of the field of view
FINE = 4  # vessels are drawn this many times larger and then reduced, which softens their edges
BLOOD = {True: (0.25, 0.75, 0.55), False: (0.5, 1.05, 0.7)}  # absorption of red, green, blue: arteries, veins


@dataclass(frozen=True)
class Fundus:
    """image: (H, W, 3) uint8; field, first, second: boolean (H, W), the last two by two observers."""

    image: np.ndarray
    field: np.ndarray
    first: np.ndarray
    second: np.ndarray


def paint(rng: np.random.Generator) -> Fundus:
    """A random eye, its field of view, and its vessels as two observers would mark them."""
    eye = _eye(rng)
    vessels = grow(eye, rng)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    field = _field(eye, x, y)
    colour = _retina(eye, x, y, rng)
    colour = _lesions(colour, eye, rng)
    colour = _blood(colour, vessels, rng)
    image = _photograph(colour, eye, field, x, y, rng)
    return Fundus(
        image, field, _marked(_first_hand(vessels, rng)) & field, _marked(_second_hand(vessels, rng)) & field
    )


def _eye(rng: np.random.Generator) -> Eye:
    side = rng.choice([-1, 1])  # right or left eye
    centre = (WIDTH / 2 + rng.normal(0, 1.5), HEIGHT / 2 + rng.normal(0, 1.5))
    fovea = (centre[0] - side * rng.uniform(-2, 14), centre[1] + rng.normal(2, 5))
    disc = (fovea[0] + side * rng.uniform(92, 106), fovea[1] - rng.uniform(0, 14))
    return Eye(centre, FIELD, disc, fovea)


def _field(eye: Eye, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The camera's round field of view with the small tab that tells up from down."""
    circle = np.hypot(x - eye.centre[0], y - eye.centre[1]) < eye.field
    tab = np.hypot(x - eye.centre[0] - 0.78 * eye.field, y - eye.centre[1] + 0.66 * eye.field) < 7.5
    return circle | tab


def _retina(eye: Eye, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The bare retina (H, W, 3): choroid, macula, optic disc; its colour differs between people."""
    base = rng.uniform(0.7, 1.0) * np.array([1, rng.uniform(0.4, 0.57), rng.uniform(0.2, 0.35)], np.float32)
    shape = x.shape
    choroid = 0.05 * clouds(rng, shape, 38) + 0.025 * clouds(rng, shape, 12) + 0.02 * clouds(rng, shape, 4)
    # Where there is little pigment, the broad vessels behind the retina shine through.
    stripes = np.exp(-((clouds(rng, shape, (22, 30)) / 0.35) ** 2))
    choroid += rng.uniform(0, 0.05) * stripes
    tone = 1 + choroid[..., None] * np.array([0.5, 1.2, 1.0], np.float32)
    distance = np.hypot(x - eye.fovea[0], y - eye.fovea[1])
    macula = rng.uniform(0.2, 0.34) * np.exp(-((distance / 27) ** 2)) + 0.14 * np.exp(-((distance / 8) ** 2))
    tone *= 1 - macula[..., None] * np.array([0.6, 1.0, 0.9], np.float32)
    colour = base * tone
    return _disc(colour, eye, x, y, rng)


def _disc(colour: np.ndarray, eye: Eye, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The optic disc: a yellow rim, a paler cup, both soft."""
    radius = rng.uniform(17.5, 21)
    across, down = (x - eye.disc[0]) / rng.uniform(0.88, 0.96), y - eye.disc[1]
    distance = np.hypot(across, down)
    rim = soft_step(radius - distance, 5)[..., None]
    cup = soft_step(radius * rng.uniform(0.4, 0.6) - np.hypot(across - 2, down), 7)[..., None]
    yellow = np.array([1.0, 0.74, 0.40], np.float32) * rng.uniform(0.92, 1.05)
    pale = np.array([1.0, 0.92, 0.62], np.float32)
    halo = np.exp(-((np.maximum(distance - radius, 0) / 12) ** 2))[..., None]
    colour = colour * (1 + 0.12 * halo)
    colour = colour + 0.85 * rim * (yellow - colour)
    return colour + 0.8 * cup * (pale - colour)


def _lesions(colour: np.ndarray, eye: Eye, rng: np.random.Generator) -> np.ndarray:
    """In some eyes: hard exudates (bright specks) or haemorrhages (dark blots), which are no vessels."""
    for tint, chance in (((1.0, 0.85, 0.5), 0.4), ((0.45, 0.1, 0.07), 0.5)):
        if rng.random() > chance:
            continue
        stain = Image.new("L", (WIDTH * 2, HEIGHT * 2))
        pen = ImageDraw.Draw(stain)
        heart = rng.normal(eye.fovea, 40)
        for _ in range(int(rng.integers(4, 14))):
            spot = 2 * (heart + rng.normal(0, 14, 2))
            size = rng.uniform(0.8, 3.2, 2)
            pen.ellipse([*(spot - size), *(spot + size)], fill=int(rng.integers(100, 220)))
        share = gaussian_filter(np.asarray(stain.reduce(2), np.float32) / 255, 0.7)[..., None]
        colour = colour + share * (np.array(tint, np.float32) - colour)
    return colour


def _blood(colour: np.ndarray, vessels: list[Vessel], rng: np.random.Generator) -> np.ndarray:
    """Lay the vessels over the retina: veins darker, arteries with a bright line along the middle."""
    strength = rng.uniform(0.62, 0.9)
    for artery in (False, True):
        kind = [vessel for vessel in vessels if vessel.artery == artery]
        # A ray crosses as much blood as the vessel is thick, so thin ones hardly darken the picture.
        depth = _draw(kind, ink=lambda radius: 0.16 + 0.84 * min(1.0, radius / 2.0))
        depth = gaussian_filter(depth, 0.55)
        colour = colour * np.exp(-strength * depth[..., None] * np.array(BLOOD[artery], np.float32))
        reflex = _draw(kind, ink=lambda radius: float(radius > 1.1), width=0.3)
        colour = colour * (1 + (0.22 if artery else 0.1) * gaussian_filter(reflex, 0.5)[..., None])
    return colour


def _photograph(
    colour: np.ndarray, eye: Eye, field: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Uneven light, a dark rim, a little blur and noise, black outside of the field of view."""
    across, down = (x - eye.centre[0]) / eye.field, (y - eye.centre[1]) / eye.field
    tilt = rng.normal(0, 0.12, 2)
    light = 1.05 - rng.uniform(0.15, 0.4) * (across**2 + down**2) + tilt[0] * across + tilt[1] * down
    light *= 1 + 0.08 * clouds(rng, x.shape, 90)
    rim = np.exp(-(((1 - np.hypot(across, down)) / 0.03) ** 2)) * rng.uniform(0, 0.25)
    lit = colour * light[..., None] * (1 + rim[..., None] * np.array([-0.2, 0.6, 0.2], np.float32))
    lit = gaussian_filter(lit, (0.45, 0.45, 0))
    lit += 0.014 * rng.standard_normal(lit.shape, dtype=np.float32)
    lit += (0.01 * clouds(rng, x.shape, 2.2))[..., None]
    lit *= gaussian_filter(field.astype(np.float32), 0.6)[..., None]
    lit += 0.012 + 0.004 * rng.standard_normal(lit.shape, dtype=np.float32)
    return (np.clip(lit, 0, 1) * 255).astype(np.uint8)


def _first_hand(vessels: list[Vessel], rng: np.random.Generator) -> list[Vessel]:
    """The first observer draws nearly everything; a few of the faintest vessels escape everybody."""
    return [vessel for vessel in vessels if vessel.radii.max() > 0.6 or rng.random() > 0.15]


def _second_hand(vessels: list[Vessel], rng: np.random.Generator) -> list[Vessel]:
    """The second observer misses more thin vessels, and has a hand of their own for place and width."""
    drawn = []
    for vessel in vessels:
        if vessel.radii.max() < 0.75 and rng.random() < 0.33:
            continue
        points = vessel.points + rng.normal(0, 0.25, 2)
        drawn.append(Vessel(points, vessel.radii * rng.uniform(0.8, 1.25), vessel.artery))
    return drawn


def _marked(vessels: list[Vessel]) -> np.ndarray:
    """Vessels as a pen marks them, boolean (H, W); no pen is thinner than a pixel."""
    return _draw(vessels, ink=lambda radius: 1.0, thinnest=1.3) > 0.5


def _draw(vessels: list[Vessel], ink, width: float = 1.0, thinnest: float = 0.0) -> np.ndarray:
    """Vessels as soft lines, float32 (H, W) in 0 to 1: `ink(radius)` deep, `width` diameters wide."""
    canvas = Image.new("L", (WIDTH * FINE, HEIGHT * FINE))
    pen = ImageDraw.Draw(canvas)
    segments = []
    for vessel in vessels:
        points = (vessel.points + 0.5) * FINE
        segments += zip(vessel.radii.tolist(), points[:-1].tolist(), points[1:].tolist())
    for radius, start, end in sorted(segments):  # the thick ones lie on top
        fill = round(255 * ink(radius))
        across = FINE * max(2 * radius * width, thinnest)
        pen.line([*start, *end], fill=fill, width=max(1, round(across)))
        if across > 3:  # round joints, or a bend would show gaps
            pen.ellipse(
                [end[0] - across / 2, end[1] - across / 2, end[0] + across / 2, end[1] + across / 2],
                fill=fill,
            )
    return np.asarray(canvas.reduce(FINE), np.float32) / 255
