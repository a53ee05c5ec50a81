"""Tiny image files in the layouts of the datasets, which tests write and read."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (12, 10), seed: int = 0, mode: str = "L") -> Path:
    """A picture of random pixels; size is (width, height) as in Pillow. The suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = (12, 10), low: int = 0, high: int = 255) -> Path:
    """A mask whose left half is `low` and whose right half is `high`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), low, np.uint8)
    pixels[:, size[0] // 2 :] = high
    Image.fromarray(pixels).save(path)
    return path


def write_drive(root: Path, training=(21, 22, 23), test=(1, 2), size: tuple[int, int] = (12, 10)) -> Path:
    """DRIVE's layout: images, vessels, fields of view, and a second observer for the test part."""
    for split, numbers in (("training", training), ("test", test)):
        for number in numbers:
            write_image(root / split / "images" / f"{number:02d}_{split}.tif", size, number, "RGB")
            write_mask(root / split / "1st_manual" / f"{number:02d}_manual1.gif", size)
            write_mask(root / split / "mask" / f"{number:02d}_{split}_mask.gif", size, low=3, high=253)
            if split == "test":
                write_mask(root / split / "2nd_manual" / f"{number:02d}_manual2.gif", size)
    return root


def write_chest(root: Path, patients: int = 2) -> Path:
    """Kermany's layout: two images of each patient with pneumonia, one of each without, no two alike."""
    seed = 0
    for split in ("train", "val", "test"):
        for patient in range(patients):
            names = [f"PNEUMONIA/person{patient}_{cause}_{patient}.jpeg" for cause in ("bacteria", "virus")]
            names.append(f"NORMAL/IM-{patient:04d}-0001.jpeg")
            for name in names:
                seed += 1
                write_image(root / split / name, seed=seed)
    return root


def write_classes(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    """Class folders by name ("cat" or "train/cat") with that many images each, no two alike."""
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for image in range(count):
            write_image(root / folder / f"{image}.png", size, seed=100 * number + image)
    return root
