"""The audit finds the known traps in datasets written here, and nothing in sound ones."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_images import write_chest, write_mask

from helpers import audit as audit_module
from helpers import duplicates
from helpers.audit import examine
from helpers.cli import main

SIZE = 96


def texture(seed: int, size: int = SIZE) -> np.ndarray:
    """A surface of blurred noise, (size, size) uint8, unlike that of any other seed."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 2)
    return np.clip(128 + 300 * noise, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Two classes of twelve surfaces each, no two alike."""
    for number in range(24):
        save(tmp_path / "tiles" / ("good" if number % 2 else "bad") / f"{number:02d}.png", texture(number))
    return tmp_path / "tiles"


def test_sound_data_have_no_trap(tiles):
    audit = examine("tiles", str(tiles.parent))
    assert audit.traps == []
    assert audit.pairs == []
    assert [name for name, _ in audit.baselines] == [
        "thumbnails 8×8", "border ring", "mean intensity", "file size",
    ]  # fmt: skip


def test_exposures_of_one_object_are_found_and_grouped(tiles, capsys):
    """Darker, with less contrast, with noise, and compressed: still the same surface."""
    original = texture(3).astype(float)
    noise = np.random.default_rng(99).normal(0, 4, original.shape)
    save(tiles / "good" / "dark, old.png", (original * 0.5 + 10).astype(np.uint8))
    save(tiles / "good" / "noisy.jpg", np.clip(original + noise, 0, 255).astype(np.uint8))
    assert main(["audit", str(tiles), "--out", str(tiles.parent / "page")]) == 1
    assert "trap: 3 pairs are in different groups (3 alike)" in capsys.readouterr().out
    with open(tiles.parent / "page" / "groups.csv", newline="") as file:
        groups = {row["ID"]: row["group"] for row in csv.DictReader(file)}
    assert groups["dark, old.png"] == groups["noisy.jpg"] == groups["03.png"]
    assert len(set(groups.values())) == 24
    page = (tiles.parent / "page" / "index.html").read_text()
    assert page.count("<img src=") == 6
    assert "good/dark, old.png" in page
    # A table from a part of the pictures would tear the others' groups apart.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_module, "MOST", 25)
        assert examine("tiles", str(tiles.parent)).groups == []
    # With the suggested file in place, there is nothing left to find.
    (tiles / "groups.csv").write_text((tiles.parent / "page" / "groups.csv").read_text())
    assert main(["audit", str(tiles), "--out", str(tiles.parent / "page")]) == 0


def test_windows_that_share_pixels_are_found(tmp_path):
    """Cut from one picture, shifted by a third of their side, as windows of a blot are."""
    picture = texture(0, size=200)
    cut = [picture[10:74, 10:74], picture[10:74, 32:96], picture[120:184, 120:184]]
    for number, window in enumerate([*cut, *(texture(seed, 64) for seed in range(50, 60))]):
        save(tmp_path / "blots" / "images" / f"{number}.png", window)
        write_mask(tmp_path / "blots" / "masks" / f"{number}.png", (64, 64))
    audit = examine("blots", str(tmp_path))
    assert audit.traps == [
        "1 pairs are in different groups (1 shared pixels): where they show one thing, a split puts it on "
        "both sides."
    ]
    groups = dict(audit.groups)
    assert groups["0.png"] == groups["1.png"] != groups["2.png"]
    assert audit.baselines == [("mean mask", 1.0)]  # all masks are the same


def test_a_tiny_split_is_named(tmp_path):
    write_chest(tmp_path / "chest_xray", patients=5)
    traps = " ".join(examine("chest_xray", str(tmp_path)).traps)
    assert "the split val has 15 images: one error moves its accuracy by 7 points." in traps


def test_copies_across_splits_and_labels_are_traps(tmp_path):
    for split, seeds in (("train", range(20)), ("test", range(20, 40))):
        for seed in seeds:
            save(tmp_path / "set" / split / "ab"[seed % 2] / f"{seed}.png", texture(seed))
    source = (tmp_path / "set" / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "set" / "test" / "a" / "copy.png").write_bytes(source)
    (tmp_path / "set" / "train" / "b" / "other.png").write_bytes(source)
    traps = examine("set", str(tmp_path)).traps
    assert any(trap.startswith("2 pairs stand in two splits (2 equal files)") for trap in traps)
    assert "2 pairs of equal files have two labels." in traps


@pytest.mark.parametrize("images", [40, 100])
def test_a_shortcut_is_a_trap_where_it_is_no_luck(tmp_path, images):
    """The classes differ in nothing but their exposure."""
    for seed in range(images):
        pixels = texture(seed) // 4 + (100 if seed % 2 else 20)
        save(tmp_path / "set" / "ab"[seed % 2] / f"{seed}.png", pixels.astype(np.uint8))
    audit = examine("set", str(tmp_path))
    assert dict(audit.baselines)["mean intensity"] == 1.0
    said, not_said = (audit.traps, audit.notes) if images == 100 else (audit.notes, audit.traps)
    assert any("alone reaches AUC 1.000 (a fifth held out by group)" in sentence for sentence in said)
    assert not any("alone reaches" in sentence for sentence in not_said)


def test_unreadable_files_and_unequal_classes(tiles):
    for number in range(6):
        (tiles / "bad" / f"{2 * number:02d}.png").write_bytes(b"\x89PNG broken")
    audit = examine("tiles", str(tiles.parent))
    assert audit.traps[0].startswith("6 files cannot be read as images of 8 bits: ")
    assert audit.traps[0].endswith(" and 3 more.")
    assert any(note.startswith("classes are unequal, 12 good to 6 bad") for note in audit.notes)


def test_pictures_that_training_refuses_are_a_trap(tiles):
    save(tiles / "bad" / "00.png", texture(0).astype(np.uint16) * 257)
    trap = examine("tiles", str(tiles.parent)).traps[0]
    assert trap == f"1 files cannot be read as images of 8 bits: {tiles / 'bad' / '00.png'}."


@pytest.mark.parametrize("kind", ["none", "file", "broken"])
def test_bad_input_gets_one_sentence(tmp_path, capsys, kind):
    target = tmp_path / "pets"
    if kind == "file":
        target.write_text("no folder")
    if kind == "broken":
        for name in ("a", "b"):
            (target / name).mkdir(parents=True)
            (target / name / "0.png").write_text("no image")
    assert main(["audit", str(target), "--out", str(tmp_path / "page")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "pets" in shown


def test_what_all_pictures_share_makes_none_alike():
    """The rim of a lens is in every photograph of a retina."""
    y, x = np.mgrid[:64, :64] - 31.5
    inside = (x**2 + y**2 < 28**2).astype(float)
    pictures = np.stack([(texture(seed, 64) // 8 + 100) * inside for seed in range(12)])
    assert duplicates.alike(pictures) == {}


def test_masks_that_training_refuses_are_traps(tmp_path):
    for number in range(4):
        save(tmp_path / "own" / "images" / f"{number}.png", texture(number))
        write_mask(tmp_path / "own" / "masks" / f"{number}.png", (SIZE, SIZE), high=1 if number else 255)
    first = tmp_path / "own" / "masks" / "1.png"
    assert examine("own", str(tmp_path)).traps == [
        f"training refuses 3 masks, the first for this: {first}: the mask's values are 0 and 1; "
        "write them as 0 and 255."
    ]


def test_pairs_and_groups_join_what_belongs_together():
    assert duplicates.joined(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]
    assert duplicates.joined(4, [(0, 1)], ["a", "b", "b", "c"]) == [0, 0, 0, 3]
