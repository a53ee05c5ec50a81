"""A phantom of a child's chest: the attenuation that an X-ray meets, seen from the front.

Coordinates: x runs across from the midline, y down from the tips of the lungs, both in units of half the
width of the rib cage. As on a film, the patient's right side is on the left (x < 0). Air lets rays
through, so lungs have little attenuation and appear dark; soft tissue is about 1; bone adds to it.
"""

import math
from dataclasses import dataclass

import numpy as np

from helpers.samples.noise import soft_step


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in every film of one patient; lengths in half widths of the rib cage."""

    lung_height: float  # tips of the lungs to the top of the diaphragm
    apex_width: float  # half width of the rib cage at its top
    heart_width: float
    heart_tilt: float
    mediastinum: float  # half width of the tissue between the lungs; wide with a child's thymus
    rib_spacing: float
    rib_width: float
    rib_drop: float  # how far a rear rib falls on its way to the side
    rib_strength: float
    spine_bend: float
    fat: float  # thickness of the soft tissue outside of the ribs
    gas: float  # how much the air bubble in the stomach shows

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """A random patient."""
        return cls(
            lung_height=rng.uniform(1.22, 1.5),
            apex_width=rng.uniform(0.5, 0.62),
            heart_width=rng.uniform(0.37, 0.5),
            heart_tilt=rng.uniform(0.55, 0.95),
            mediastinum=rng.uniform(0.17, 0.27),
            rib_spacing=rng.uniform(0.145, 0.175),
            rib_width=rng.uniform(0.028, 0.036),
            rib_drop=rng.uniform(0.2, 0.34),
            rib_strength=rng.uniform(0.10, 0.17),
            spine_bend=rng.normal(0, 0.03),
            fat=rng.uniform(0.1, 0.2),
            gas=rng.uniform(0, 1.5),
        )


@dataclass(frozen=True)
class Pose:
    """How the patient stood before the film, and how deep the breath was; new for each film."""

    width: float  # of the picture, in half widths of the rib cage
    shift: tuple[float, float]
    turn: float  # in the picture's plane, radians
    rotation: float  # about the body's axis: one lung looks wider than the other
    breath: float  # lengthens the lungs
    hand: tuple[float, float]  # where the arms point to
    head: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        """A random way of standing: arms up, down or out."""
        return cls(
            width=rng.uniform(2.15, 2.7),
            shift=(rng.normal(0, 0.06), rng.normal(0, 0.05)),
            turn=rng.normal(0, 0.035),
            rotation=rng.normal(0, 0.06),
            breath=rng.normal(0, 0.05),
            hand=((1.45, -0.5), (1.5, 1.5), (1.8, 0.4))[rng.integers(3)],
            head=bool(rng.random() < 0.5),
        )


@dataclass(frozen=True)
class Grid:
    """Where each pixel lies in the patient. Arrays (H, W), float32."""

    x: np.ndarray
    y: np.ndarray
    left: np.ndarray  # 1 on the patient's left side, 0 on the right
    side: np.ndarray  # half width of the rib cage at the pixel's height
    floor: np.ndarray  # height of the diaphragm at the pixel's x
    u: np.ndarray  # 0 at the spine to 1 at the side of the rib cage
    t: np.ndarray  # 0 at the tips of the lungs to 1 at the top of the diaphragm
    lungs: np.ndarray  # 1 inside of the lungs, 0 outside, soft between

    @property
    def pixel(self) -> float:
        """Width of a pixel."""
        return float(self.x[0, 1] - self.x[0, 0])


def locate(anatomy: Anatomy, pose: Pose, shape: tuple[int, int]) -> Grid:
    """The patient's coordinates for every pixel of a picture of `shape` (H, W)."""
    rows, columns = shape
    half_height = pose.width / 2 * rows / columns
    across = np.linspace(-pose.width / 2, pose.width / 2, columns, dtype=np.float32) + pose.shift[0]
    down = np.linspace(-half_height, half_height, rows, dtype=np.float32)[:, None] + pose.shift[1]
    x = across * math.cos(pose.turn) + down * math.sin(pose.turn)
    y = down * math.cos(pose.turn) - across * math.sin(pose.turn) + anatomy.lung_height / 2 + 0.08
    x += anatomy.spine_bend * np.sin(2.2 * y)  # a spine is never quite straight
    x *= 1 + pose.rotation * np.sign(x)
    height = anatomy.lung_height + pose.breath
    left = (x > 0).astype(np.float32)
    side = _rib_cage(anatomy, y)
    floor = _diaphragm(height, x, left)
    u = (np.abs(x) - 0.1) / (side - 0.06)
    return Grid(x, y, left, side, floor, u, y / height, _lungs(anatomy, x, y, left, side, floor))


def attenuation(
    anatomy: Anatomy,
    pose: Pose,
    grid: Grid,
    filled: np.ndarray | float = 0.0,
    streaks: np.ndarray | float = 0.0,
) -> np.ndarray:
    """The attenuation (H, W), float32: 0 beside the patient, about 1 in soft tissue, 1.3 in the spine.

    filled: share of the lungs' air that fluid has replaced, 0 to 1; it takes away the contrast by which
    the heart's border is seen. streaks: attenuation of vessels and thickened walls within the lungs.
    """
    heart = _heart(anatomy, grid)
    below = soft_step(grid.y - grid.floor, 0.06)
    air = grid.lungs * (1 - 0.8 * heart) * (1 - filled)
    deep = 0.72 + 0.28 * np.sin(math.pi * np.clip(grid.u, 0, 1))  # lungs are thickest between spine and side
    total = _body(anatomy, pose, grid)
    total -= 0.7 * air * deep * total
    total += streaks * air
    total += 0.10 * heart
    total += 0.16 * below * (1 - anatomy.gas * _stomach_bubble(grid))
    total += anatomy.rib_strength * _ribs(anatomy, grid) * (1 - 0.75 * below)
    total += _spine(anatomy, grid)
    total += 0.17 * _clavicles(grid)
    total -= 0.16 * _airway(grid)
    return total


def lung_mask(anatomy: Anatomy, grid: Grid) -> np.ndarray:
    """The lungs as one would outline them on the film, without the heart: boolean (H, W)."""
    return grid.lungs * (1 - _heart(anatomy, grid)) > 0.5


def _rib_cage(anatomy: Anatomy, y: np.ndarray) -> np.ndarray:
    """Half width of the rib cage at height y: narrow above, widest over the diaphragm."""
    t = np.clip(y / anatomy.lung_height, -0.1, 1)
    return anatomy.apex_width + (1 - anatomy.apex_width) * np.sin(math.pi / 2 * t)


def _diaphragm(height: float, x: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Height of the diaphragm: two domes, the right one (over the liver) higher, falling to the sides."""
    outward = np.abs(x) - 0.45
    return height - 0.05 * (1 - left) + outward**2 * np.where(outward > 0, np.float32(0.7), np.float32(0.15))


def _lungs(
    anatomy: Anatomy, x: np.ndarray, y: np.ndarray, left: np.ndarray, side: np.ndarray, floor: np.ndarray
) -> np.ndarray:
    """Both lungs: within ribs, mediastinum and diaphragm, under rounded tips."""
    away = np.abs(x)
    tip = 0.02 + 1.3 * (away - 0.38) ** 2
    aorta = 0.05 * np.exp(-(((y - 0.4) / 0.12) ** 2))  # its arch widens the mediastinum
    great_arteries = 0.12 * soft_step(y - 0.55, 0.4)  # further down, towards the heart
    middle = anatomy.mediastinum + left * (aorta + great_arteries)
    return (
        soft_step(side - 0.02 - away, 0.05)
        * soft_step(away - middle, 0.07)
        * soft_step(y - tip, 0.06)
        * soft_step(floor - y, 0.035)
    )


def _heart(anatomy: Anatomy, grid: Grid) -> np.ndarray:
    """The heart's shadow: an egg that lies on the diaphragm and points to the patient's left."""
    across = grid.x - 0.16
    down = (grid.t - 0.76) * anatomy.lung_height
    cos, sin = math.cos(anatomy.heart_tilt), math.sin(anatomy.heart_tilt)
    long = (across * cos + down * sin) / (anatomy.heart_width + 0.07)
    short = (down * cos - across * sin) / (anatomy.heart_width - 0.08)
    return soft_step(1 - np.hypot(long, short), 0.22)


def _body(anatomy: Anatomy, pose: Pose, grid: Grid) -> np.ndarray:
    """Soft tissue of trunk, neck, arms and, where it is in the picture, the head."""
    away = np.abs(grid.x)
    shoulders = grid.y + 0.22 - 0.3 * np.maximum(away - 0.25, 0)
    armpit = float(_rib_cage(anatomy, np.float32(0.35)))  # above it, muscles keep the trunk wide
    trunk = np.minimum(np.maximum(grid.side, armpit) + anatomy.fat - away, shoulders)
    neck = np.minimum(0.3 - away, 0.4 - grid.y)
    arm = _from_line(away, grid.y, (1.0, 0.06), pose.hand)
    through = [_thickness(trunk, 0.13), _thickness(neck, 0.13), 0.75 * _thickness(0.24 - arm, 0.16)]
    if pose.head:
        through.append(_thickness(0.45 - np.hypot(grid.x, 0.8 * (grid.y + 0.75)), 0.13))
    humerus = soft_step(0.05 - arm, 0.05) * (away > 0.9)
    return np.maximum.reduce(through) + 0.12 * humerus


def _thickness(depth: np.ndarray, skin: float) -> np.ndarray:
    """Tissue that a ray meets `depth` inside of an outline: little near the skin, 1 deep in."""
    return 1 - np.exp(-np.maximum(depth, 0) / skin)


def _stomach_bubble(grid: Grid) -> np.ndarray:
    """Gas in the stomach, under the left dome of the diaphragm."""
    return np.exp(-(((grid.x - 0.5) / 0.25) ** 2) - (((grid.y - grid.floor - 0.2) / 0.1) ** 2))


def _ribs(anatomy: Anatomy, grid: Grid) -> np.ndarray:
    """Ribs, as level lines of two fields: each leaves the spine, falls to the side and returns in front.

    The fields count ribs downwards; where one is a whole number, a rib runs.
    """
    inner = np.clip(grid.u, 0, 1)
    fall = anatomy.rib_drop * inner**2.6 - 0.07 * np.sin(math.pi * inner)
    rear = (grid.y + 0.05 - fall) / anatomy.rib_spacing
    return_path = anatomy.rib_drop + 0.42 * (1 - inner) ** 0.85
    front = (grid.y + 0.05 - return_path) / anatomy.rib_spacing
    bone = _rib_profile(anatomy, rear, 10.5)
    # Front ribs end in cartilage, which rays hardly notice, well before the breastbone.
    bone += 0.45 * _rib_profile(anatomy, front, 6.5) * soft_step(grid.u - 0.5, 0.12)
    sideways = 1 + 0.9 * np.exp(-(((1 - grid.u) / 0.07) ** 2))  # where a rib turns, rays run along it
    return bone * sideways * soft_step(grid.u - 0.02, 0.05) * soft_step(1.03 - grid.u, 0.05)


def _rib_profile(anatomy: Anatomy, count: np.ndarray, last: float) -> np.ndarray:
    """A rib's brightness across: a soft band with the denser rim that bones have."""
    off = np.abs(count - np.round(count)) * anatomy.rib_spacing
    band = soft_step(anatomy.rib_width - off, 0.022)
    rim = np.exp(-(((off - 0.8 * anatomy.rib_width) / 0.012) ** 2))
    return (0.75 * band + 0.35 * rim) * ((count > 0.5) & (count < last))


def _spine(anatomy: Anatomy, grid: Grid) -> np.ndarray:
    """Vertebrae with discs between them and two dense pedicles each."""
    away = np.abs(grid.x)
    count = grid.y / (0.95 * anatomy.rib_spacing)
    off = np.abs(count - np.round(count))  # 0 in the middle of a vertebra, 0.5 in a disc
    pedicles = np.exp(-(((away - 0.06) / 0.022) ** 2) - ((off / 0.16) ** 2))
    return soft_step(0.105 - away, 0.05) * (0.12 + 0.06 * soft_step(0.36 - off, 0.18)) + 0.06 * pedicles


def _clavicles(grid: Grid) -> np.ndarray:
    """Collar bones: two flat S-curves over the tips of the lungs."""
    away = np.abs(grid.x)
    off = np.abs(grid.y - (0.08 - 0.16 * away + 0.04 * np.sin(7 * away)))
    return soft_step(0.03 - off, 0.025) * soft_step(away - 0.12, 0.04) * soft_step(0.85 - away, 0.05)


def _airway(grid: Grid) -> np.ndarray:
    """Air in the windpipe and the two main bronchi."""
    pipe = soft_step(0.045 - np.abs(grid.x + 0.01), 0.03) * soft_step(0.42 - grid.y, 0.08)
    bronchi = soft_step(0.03 - _from_line(np.abs(grid.x), grid.y, (0.0, 0.4), (0.2, 0.56)), 0.03)
    return np.maximum(pipe, 0.6 * bronchi)


def _from_line(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """Distance of (x, y) from the straight line between two points."""
    across, down = end[0] - start[0], end[1] - start[1]
    share = ((x - start[0]) * across + (y - start[1]) * down) / (across**2 + down**2)
    share = np.clip(share, 0, 1)
    return np.hypot(x - start[0] - share * across, y - start[1] - share * down)
