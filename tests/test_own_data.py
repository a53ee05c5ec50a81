"""Bring your own images: notebooks run on folders that nobody has seen before, by parameters alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

# So small that a network learns nothing: what is tested is that everything fits together.
SMALL = {
    "pneumonia_cnn": [
        "image_size=16", "channels=[4, 8]", "probe_channels=[4, 8]", "probe_images=0", "probe_epochs=1",
        "trials=2", "trial_epochs=1", "epochs=1", "folds=3",
    ],
    "transfer_depth": [
        "backbones=['mobilenet_v2']", "image_size=32", "depths=[0, 1]", "seeds=[0]", "views=0", "epochs=1",
        "scratch_epochs=1", "scratch_size=16", "scratch_channels=[4, 8]", "probe_images=12", "probe_epochs=1",
        "folds=3",
    ],
    "drive_unet": [
        "width=4", "depth=2", "crop_size=32", "crops_per_image=2", "compare_steps=2", "epochs=1",
        "flip_average=false",
    ],
    "lung_unet": [
        "image_size=32", "input_size=16", "compare_size=16", "width=4", "depth=2", "views_per_film=1",
        "compare_steps=2", "epochs=1", "flip_average=false", "external_dir={data}/elsewhere",
    ],
}  # fmt: skip


def picture(seed: int, size: int, colours: int = 1) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 2) * 300
    grey = np.clip(120 + noise, 0, 255).astype(np.uint8)
    return grey if colours == 1 else np.repeat(grey[..., None], colours, axis=-1)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_class_folders(root: Path) -> None:
    """Healthy and sick leaves, in colour and of unequal sizes; `groups.csv` joins two of one plant."""
    lines = ["ID,group"]
    for number in range(144):
        label = ("healthy", "sick")[number % 2]
        pixels = picture(number, 30 + number % 3, colours=3)
        pixels[8:20, 8:20] //= 1 + number % 2
        save(root / label / f"leaf{number:03d}.jpg", pixels)
        lines.append(f"leaf{number:03d}.jpg,plant{number // 4}{label}")
    (root / "groups.csv").write_text("\n".join(lines))


def write_three_classes(root: Path) -> None:
    """Three kinds of rust, few of the last; a test part of their own, and names with a space."""
    for split, counts in {"train": (12, 12, 3), "test": (4, 4, 4)}.items():
        for kind, count in zip(("brown rust", "none", "stem_rust"), counts):
            for number in range(count):
                pixels = picture(number, 40, colours=3)
                pixels[..., len(kind) % 3] //= 2
                save(root / split / kind / f"{split}{number}.png", pixels)


def write_images_and_masks(root: Path) -> None:
    """Roots in soil: bright lines of one to three pixels."""
    for number in range(6):
        pixels, mask = picture(number, 64, colours=3) // 2, np.zeros((64, 64), np.uint8)
        for row in range(10 + number, 60, 17):
            mask[row : row + 1 + row % 3, 5:60] = 255
        pixels[mask == 255] = 230
        save(root / "images" / f"soil{number}.png", pixels)
        save(root / "masks" / f"soil{number}.png", mask)


def write_two_hospitals(root: Path) -> None:
    """Kidneys of five patients, one of whom has none on the picture; and three pictures from elsewhere."""
    for number in range(8):
        pixels, mask = picture(number, 48), np.zeros((48, 48), np.uint8)
        if number:
            mask[10 + number : 30, 5:18] = mask[12:30, 28 : 36 + number % 4] = 255
        pixels[mask == 255] //= 3
        folder = root if number < 5 else root.with_name("elsewhere")
        save(folder / "images" / f"kidney {number}.jpg", pixels)
        save(folder / "masks" / f"kidney {number}.png", mask)


@pytest.mark.parametrize(
    ("run", "write", "metric"),
    [
        ("pneumonia_cnn", write_class_folders, "val_auc"),
        ("transfer_depth", write_three_classes, "test_auc"),
        ("drive_unet", write_images_and_masks, "val_dice"),
        ("lung_unet", write_two_hospitals, "external_dice"),
    ],
)
def test_a_folder_of_your_own(tmp_path, run, write, metric):
    write(tmp_path / "data" / "mine")
    given = [text.format(data=tmp_path / "data") for text in ("source=real", "dataset=mine", *SMALL[run])]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "helpers.cli", "run", run, "--results", str(tmp_path / "results")),
            *("-p", f"data_dir={tmp_path / 'data'}"),
            *(word for text in given for word in ("-p", f"{run}.{text}")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / run
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert 0 <= metrics[metric] <= 1
    records = json.loads((folder / "run.json").read_text())
    assert (records["dataset"]["name"], records["dataset"]["source"]) == ("mine", "real")
    assert (folder / "explore.html").exists()  # its predictions, with a threshold to move
