"""Growing the vessels of a retina: arcades that arch around the macula, and trees that branch off them.

Coordinates are pixels (x, y). Where a vessel forks, radii keep Murray's law: r³ = r1³ + r2³.
"""

import math
from dataclasses import dataclass

import numpy as np

THINNEST = 0.42  # radius in pixels at which a vessel can no longer be seen
STEP = 2.0


@dataclass(frozen=True)
class Vessel:
    """One unbranched vessel: points (n, 2), radii (n,) in pixels."""

    points: np.ndarray
    radii: np.ndarray
    artery: bool


@dataclass(frozen=True)
class Eye:
    """Where the parts of a retina lie in the picture, in pixels."""

    centre: tuple[float, float]  # of the field of view
    field: float  # its radius
    disc: tuple[float, float]
    fovea: tuple[float, float]


def grow(eye: Eye, rng: np.random.Generator) -> list[Vessel]:
    """All vessels of one eye; arteries and veins may cross each other, but not their own kind."""
    vessels = []
    for artery in (False, True):
        garden = _Garden(eye, rng, artery)
        for upward in (-1, 1):
            garden.follow(
                _temporal_arcade(eye, upward, artery, rng), radius=(2.5, 2.0)[artery] * rng.uniform(0.9, 1.1)
            )
            garden.follow(_nasal_trunk(eye, upward, rng), radius=(1.5, 1.2)[artery] * rng.uniform(0.85, 1.1))
        for _ in range(3):  # small vessels that leave the disc straight towards the macula
            toward = math.atan2(eye.fovea[1] - eye.disc[1], eye.fovea[0] - eye.disc[0]) + rng.uniform(
                -0.7, 0.7
            )
            garden.sprout(eye.disc, toward, rng.uniform(0.6, 0.9), ())
        vessels += garden.vessels
    return vessels


def _temporal_arcade(eye: Eye, upward: int, artery: bool, rng: np.random.Generator) -> np.ndarray:
    """Points of a main vessel from the disc around the macula, an ellipse that opens to the side."""
    across = eye.disc[0] - eye.fovea[0]
    angle = np.linspace(0.04, rng.uniform(2.0, 2.5), 160)
    height = rng.uniform(0.78, 0.95) * (0.86 if artery else 1.0) * abs(across)
    waves = 0.025 * np.sin(
        rng.uniform(0, 6, 3)[:, None] + np.outer([5, 9, 14], angle) * rng.uniform(0.8, 1.2)
    ).sum(0)
    wide = 1 + 0.045 * angle**2 + waves * np.minimum(angle, 1)
    x = eye.fovea[0] + across * np.cos(angle) * wide
    start = eye.disc[1] - eye.fovea[1]
    y = (
        eye.fovea[1]
        + start * (1 + np.cos(np.minimum(angle, np.pi))) / 2
        + upward * height * np.sin(angle) * wide
    )
    return np.stack([x, y], 1)


def _nasal_trunk(eye: Eye, upward: int, rng: np.random.Generator) -> np.ndarray:
    """Points of a main vessel from the disc to the other side, away from the macula."""
    outward = math.copysign(1, eye.disc[0] - eye.fovea[0])
    angle = rng.uniform(0.9, 1.5) + np.linspace(0, rng.uniform(-0.9, 0.1), 60)
    length = np.linspace(0, rng.uniform(70, 130), 60)
    x = eye.disc[0] + outward * length * np.cos(angle)
    return np.stack([x, eye.disc[1] + upward * length * np.sin(angle)], 1)


class _Garden:
    """The vessels of one kind, and a map of the ground that they cover."""

    def __init__(self, eye: Eye, rng: np.random.Generator, artery: bool):
        self.eye, self.rng, self.artery = eye, rng, artery
        self.vessels: list[Vessel] = []
        size = int(2 * eye.field) + 40
        self.corner = (eye.centre[0] - size / 2, eye.centre[1] - size / 2)
        self.ground = np.full((size, size), -1, np.int32)  # number of the vessel that covers a pixel

    def follow(self, path: np.ndarray, radius: float) -> None:
        """Lay a main vessel along `path` (n, 2); side branches sprout from it and make it thinner."""
        lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        even = np.arange(0, lengths[-1], STEP)
        points = np.stack([np.interp(even, lengths, path[:, axis]) for axis in (0, 1)], 1)
        inside = [self._seen(x, y) for x, y in points]
        points = points[: inside.index(False)] if False in inside else points
        radii, buds = [], []
        until_branch = self.rng.uniform(8, 20)
        for number, (x, y) in enumerate(points):
            if until_branch < 0 and 0 < number < len(points) - 1 and radius > 0.7:
                ahead = points[number + 1] - points[number]
                turn = self.rng.choice([-1, 1]) * self.rng.uniform(0.6, 1.3)
                child = max(0.55, radius * self.rng.uniform(0.28, 0.65))
                buds.append(((x, y), math.atan2(ahead[1], ahead[0]) + turn, child))
                radius = _rest(radius, child)
                until_branch = self.rng.uniform(6, 17)
            until_branch -= STEP
            radius *= 0.997
            radii.append(radius)
        number = self._lay([tuple(point) for point in points], radii)
        for start, heading, child in buds:
            self.sprout(start, heading, child, (number,))
        if len(points) > 2:
            ahead = points[-1] - points[-2]
            self.sprout(tuple(points[-1]), math.atan2(ahead[1], ahead[0]), radius, (number,))

    def sprout(self, start: tuple[float, float], heading: float, radius: float, kin: tuple[int, ...]) -> None:
        """Grow a branch from `start` until it is too thin, leaves the picture or meets its own kind.

        kin: numbers of the vessels that it comes from, whose ground it may touch at its root.
        """
        rng, (x, y) = self.rng, start
        points, radii = [start], [radius]
        bend, until_branch = rng.normal(0, 0.03), rng.exponential(10) + 10 + 8 * radius
        buds = []
        while radius > THINNEST:
            bend = 0.85 * bend + rng.normal(0, 0.035 + 0.02 / (radius + 0.5))
            heading += bend + self._pull(x, y, heading)
            x, y = x + STEP * math.cos(heading), y + STEP * math.sin(heading)
            if not self._seen(x, y) or self._taken(x, y, heading, kin if len(points) < 6 else ()):
                break
            points.append((x, y))
            radii.append(radius)
            radius *= 0.995
            until_branch -= STEP
            if until_branch < 0:
                share = rng.uniform(0.5, 0.95)  # thin child over thick child
                thick = radius / (1 + share**3) ** (1 / 3)
                side = rng.choice([-1, 1])
                # The thin child turns away more, as in real forks.
                buds = [(heading - side * rng.uniform(0.1, 0.4), thick)]
                buds.append((heading + side * rng.uniform(0.5, 1.0), share * thick))
                break
        if len(points) < 4:
            return
        number = self._lay(points, radii)
        for direction, child in buds:
            self.sprout((x, y), direction, child, (*kin[-1:], number))

    def _pull(self, x: float, y: float, heading: float) -> float:
        """A small turn: away from the disc, where blood comes from, and near the macula towards it."""
        away = math.atan2(y - self.eye.disc[1], x - self.eye.disc[0])
        turn = 0.03 * math.sin(away - heading)
        if math.dist((x, y), self.eye.fovea) < 0.55 * self.eye.field:
            turn += 0.05 * math.sin(math.atan2(self.eye.fovea[1] - y, self.eye.fovea[0] - x) - heading)
        return turn

    def _seen(self, x: float, y: float) -> bool:
        """Inside the field of view, and outside of the macula's centre, which has no vessels."""
        in_field = math.dist((x, y), self.eye.centre) < self.eye.field + 3
        return in_field and math.dist((x, y), self.eye.fovea) > 13

    def _taken(self, x: float, y: float, heading: float, kin: tuple[int, ...]) -> bool:
        """Whether another vessel of this kind lies just ahead."""
        column = int(x + 3 * math.cos(heading) - self.corner[0])
        row = int(y + 3 * math.sin(heading) - self.corner[1])
        covering = self.ground[row, column]
        return covering >= 0 and covering not in kin

    def _lay(self, points: list[tuple[float, float]], radii: list[float]) -> int:
        """Keep a vessel, mark its ground, and return its number."""
        number = len(self.vessels)
        for (x, y), radius in zip(points, radii):
            row, column, reach = int(y - self.corner[1]), int(x - self.corner[0]), int(radius + 1.5)
            self.ground[row - reach : row + reach + 1, column - reach : column + reach + 1] = number
        self.vessels.append(Vessel(np.array(points), np.array(radii), self.artery))
        return number


def _rest(radius: float, child: float) -> float:
    """What Murray's law leaves of a vessel after a branch."""
    return (radius**3 - child**3) ** (1 / 3)
