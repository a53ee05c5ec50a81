"""Synthetic Western blots: windows of rendered membranes, with the two templates made from each.

The templates are made as the real set's are: the band mask is Otsu's threshold, the base pattern is the
window with its bands filled by the median of the background, then blurred. So they leak as much.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from helpers.samples.noise import clouds, soft_step

MEMBRANES = 64
SIZE = 64  # pixels, side of a window
HEIGHT, WIDTH = 120, 200  # of a membrane
BLUR = 6  # pixels, σ of the base pattern's blur
BANDS = (0.06, 0.41)  # least and largest share of a window that the bands may cover
CONTRAST = 20  # grey levels by which bands are darker than their background, at least


def render(folder: Path, seed: int = 0) -> None:
    """Write wb_dataset/, wb_template/, wb_template2/ and groups.csv: up to three windows a membrane."""
    for part in ("wb_dataset", "wb_template", "wb_template2"):
        (folder / part).mkdir()
    rows = []
    for number in range(MEMBRANES):
        rng = np.random.default_rng([seed, number])
        for window in windows(membrane(rng), rng):
            name = f"bg_{len(rows):04d}.png"
            mask = window <= otsu(window)
            base = base_pattern(window, mask)
            Image.fromarray(window).save(folder / "wb_dataset" / name)
            Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "wb_template" / f"BandMask_{name}")
            Image.fromarray(base).save(folder / "wb_template2" / f"BasePattern_{name}")
            rows.append((name, number))
    with open(folder / "groups.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("ID", "group"), *rows])


def membrane(rng: np.random.Generator) -> np.ndarray:
    """One blot, uint8 (HEIGHT, WIDTH): lanes side by side, in each the same few bands in another amount."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    density = np.zeros_like(x)
    # Proteins of one size run equally far in every lane; an overloaded gel runs faster in the middle.
    heights = np.sort(rng.uniform(12, HEIGHT - 12, rng.integers(2, 5)))
    thick = rng.uniform(2, 12, len(heights))
    amount = rng.uniform(0.35, 3.2, len(heights))
    frown = rng.normal(0, 6)
    pitch = rng.uniform(32, 70)
    half = pitch * rng.uniform(0.36, 0.56)  # above one half, neighbouring lanes touch
    for centre in np.arange(rng.uniform(0, pitch), WIDTH + pitch / 2, pitch):
        for height, thickness, strength in zip(heights, thick, amount):
            load = strength * rng.lognormal(0, 0.45)
            if load < 0.2:
                continue
            density += load * _band(rng, x - centre, y - height - frown * ((centre / WIDTH) - 0.5) ** 2,
                                    half, thickness * rng.uniform(0.8, 1.2))  # fmt: skip
    paper = rng.uniform(0.6, 0.9) * (1 + 0.04 * rng.uniform(0, 1) * clouds(rng, x.shape, 70))
    paper = paper * (1 + 0.012 * clouds(rng, x.shape, 9)) - 0.05 * rng.random() * (y / HEIGHT)
    floor = rng.uniform(0.02, 0.3)  # film and scanner go no darker
    grain = rng.uniform(0.002, 0.02) * clouds(rng, x.shape, rng.uniform(1.0, 2.2))
    seen = floor + (paper - floor) * np.exp(-density) + grain * (0.3 + 0.7 * np.exp(-density))
    return np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)


def _band(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, half: float, thick: float) -> np.ndarray:
    """Optical density, at most about 1, of a band at the origin: a flat core, bent ends, a smear behind."""
    bend = rng.normal(0.12, 0.12) * thick * (x / half) ** 2  # its ends lag: "smiling"
    down = y - bend + 0.5 * clouds(rng, x.shape, 12)
    across = soft_step(half - np.abs(x) + 0.8 * clouds(rng, x.shape, 10), rng.uniform(4, 12))
    core = np.exp(-(np.abs(down / thick) ** rng.uniform(2, 4.5)))
    # Protein that was held back leaves a trail where the band came from.
    smear = rng.uniform(0, 0.35) * np.exp(np.minimum(down, 0) / rng.uniform(6, 20)) * (down < 0)
    return across * np.maximum(core, smear) * (1 + 0.08 * clouds(rng, x.shape, (6, 10)))


def windows(blot: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to three windows (SIZE, SIZE) of a blot, which may overlap, each with bands and with background."""
    wanted, found = int(rng.integers(1, 4)), []
    for _ in range(40):
        top, left = rng.integers(HEIGHT - SIZE + 1), rng.integers(WIDTH - SIZE + 1)
        window = blot[top : top + SIZE, left : left + SIZE]
        mask = window <= otsu(window)
        contrast = window[~mask].mean() - window[mask].mean()
        if BANDS[0] <= mask.mean() <= BANDS[1] and contrast >= CONTRAST:
            found.append(window)
        if len(found) == wanted:
            break
    return found


def otsu(image: np.ndarray) -> int:
    """The threshold that parts uint8 pixels into two classes of least variance within (Otsu, 1979).

    Dark pixels are those up to it.
    """
    counts = np.bincount(image.ravel(), minlength=256).astype(float)
    dark, total = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    light = dark[-1] - dark
    with np.errstate(invalid="ignore", divide="ignore"):
        between = dark * light * (total / dark - (total[-1] - total) / light) ** 2
    return int(np.argmax(np.nan_to_num(between)))


def base_pattern(image: np.ndarray, mask: np.ndarray, blur: float = BLUR) -> np.ndarray:
    """The background without bands: they are filled with its median, and the whole is blurred."""
    level = np.median(image[~mask])
    filled = np.where(mask, level, image).astype(np.uint8)
    return np.asarray(Image.fromarray(filled).filter(ImageFilter.GaussianBlur(blur)))
