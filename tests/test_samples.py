"""The sample renderers: layouts as the real datasets have them, honest difficulty, safe caching."""

import csv
import importlib
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from scipy.ndimage import label as label_components
from skimage.morphology import skeletonize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import samples
from helpers.errors import UserError
from helpers.samples import aoi, chest_xray, drive, lungs, lungs_elsewhere, radiography, western_blot


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """`rendered(name)`: the sample of that name, rendered once for this file."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISION_NOTEBOOKS_CACHE", str(cache))
        yield samples.ensure


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# --- every renderer -----------------------------------------------------------------------------------


SMALL = {  # tables of a renderer that say how much it renders
    "aoi": {"TRAIN": {0: 2, 1: 2, 2: 1, 3: 1, 4: 1, 5: 2}, "TEST": {0: 1, 5: 1}},
    "chest_xray": {"COUNTS": {"train": {"NORMAL": 2, "PNEUMONIA": 5}, "test": {"PNEUMONIA": 2}}},
    "drive": {"NUMBERS": {"training": [21], "test": [1]}},
    "lungs": {"FILMS": 3},
    "lungs_elsewhere": {"FILMS": 3},
    "mnist": {},
    "radiography": {"COUNTS": {"COVID": 2, "Lung_Opacity": 2, "Normal": 2, "Viral Pneumonia": 2}},
    "western_blot": {"MEMBRANES": 3},
}


def test_a_sample_is_rendered_from_a_seed_or_says_that_it_is_real():
    assert set(samples.RENDERERS) == set(SMALL) | set(samples.REAL)


@pytest.mark.parametrize("name", sorted(SMALL))  # the others copy what ships in a package
def test_one_seed_gives_the_same_bytes_and_another_seed_other_images(name, tmp_path, monkeypatch):
    renderer = importlib.import_module(samples.RENDERERS[name])
    for table, small in SMALL[name].items():
        monkeypatch.setattr(renderer, table, small)
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / folder).mkdir()
        renderer.render(tmp_path / folder, seed=seed)
    first, again, other = (files(tmp_path / folder) for folder in ("first", "again", "other"))
    assert again == first
    images = {path for path in first if "mask" not in path and not path.endswith(".csv")}
    assert images
    assert not any(first[path] == other.get(path) for path in images)


# --- chest_xray ---------------------------------------------------------------------------------------


def patient(path: Path) -> str:
    return re.match(r"person\d+|(NORMAL2-)?IM-\d+", path.name)[0]


def chest_films(folder: Path, part: str) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, name in enumerate(("NORMAL", "PNEUMONIA"))
        for path in sorted((folder / part / name).iterdir())
    ]


def test_chest_films_have_the_layout_names_and_sizes_of_the_original(rendered):
    folder = rendered("chest_xray")
    for part, classes in chest_xray.COUNTS.items():
        for label, count in classes.items():
            assert len(list((folder / part / label).glob("*.jpeg"))) == count
    for path, label in chest_films(folder, "train"):
        pattern = r"person\d+_(bacteria|virus)_\d+" if label else r"(NORMAL2-)?IM-\d{4}-0001(-000\d)?"
        assert re.fullmatch(pattern + r"\.jpeg", path.name)
        with Image.open(path) as image:
            assert image.mode == "L"
            assert 150 <= image.width <= 200
            assert 110 <= image.height <= 170


def test_chest_patients_have_several_films_and_stay_in_one_part(rendered):
    folder = rendered("chest_xray")
    parts = {
        part: Counter(patient(path) for path, _ in chest_films(folder, part)) for part in chest_xray.COUNTS
    }
    assert sum(count > 1 for count in parts["train"].values()) > 50
    assert not parts["train"].keys() & parts["test"].keys()
    assert not parts["train"].keys() & parts["val"].keys()


def test_chest_films_of_one_patient_resemble_each_other(rendered):
    """One anatomy: rib spacing and heart make two films of a patient closer than films of two patients."""
    films = [path for path, _ in chest_films(rendered("chest_xray"), "train")]
    vectors = np.stack([thumbnail(path, 16) for path in films])
    vectors -= vectors.mean(1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = vectors @ vectors.T
    names = np.array([patient(path) for path in films])
    same = (names[:, None] == names) & ~np.eye(len(names), dtype=bool)
    assert alike[same].mean() > alike[~same].mean() + 0.01


def thumbnail(path: Path, size: int = 8) -> np.ndarray:
    return np.asarray(Image.open(path).resize((size, size), Image.Resampling.BOX), float).ravel() / 255


def test_trivial_baselines_beat_chance_but_do_not_solve_the_chest_films(rendered):
    folder = rendered("chest_xray")
    train, test = chest_films(folder, "train"), chest_films(folder, "test")
    groups = [patient(path) for path, _ in train]
    x, x_test = (np.stack([thumbnail(path) for path, _ in part]) for part in (train, test))
    y, y_test = (np.array([label for _, label in part]) for part in (train, test))

    def aucs(x, x_test):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        scores = cross_val_predict(model, x, y, groups=groups, cv=folds, method="decision_function")
        return roc_auc_score(y, scores), roc_auc_score(y_test, model.fit(x, y).decision_function(x_test))

    thumbnails_train, thumbnails_test = aucs(x, x_test)
    mean_train, _ = aucs(x.mean(1, keepdims=True), x_test.mean(1, keepdims=True))
    assert 0.85 < thumbnails_train < 0.97
    assert 0.7 < thumbnails_test < thumbnails_train - 0.05  # another hospital
    assert 0.55 < mean_train < 0.8


# --- drive --------------------------------------------------------------------------------------------


def test_fundus_images_have_the_layout_of_the_original(rendered):
    folder = rendered("drive")
    expected = set()
    for part, numbers in drive.NUMBERS.items():
        for number in numbers:
            expected |= {
                f"{part}/images/{number:02d}_{part}.tif",
                f"{part}/1st_manual/{number:02d}_manual1.gif",
                f"{part}/mask/{number:02d}_{part}_mask.gif",
            }
            if part == "test":
                expected.add(f"{part}/2nd_manual/{number:02d}_manual2.gif")
    assert set(files(folder)) == expected
    for name in expected:
        with Image.open(folder / name) as image:
            assert image.size == (284, 292)
            assert image.mode == ("RGB" if name.endswith(".tif") else "L")
            assert name.endswith(".tif") or set(np.unique(image)) == {0, 255}


def test_vessels_thin_out_from_about_six_pixels_to_one_and_fill_a_tenth_of_the_field(rendered):
    folder = rendered("drive") / "training"
    for number in drive.NUMBERS["training"]:
        vessels = read(folder / "1st_manual" / f"{number}_manual1.gif") > 0
        field = read(folder / "mask" / f"{number}_training_mask.gif") > 0
        assert not (vessels & ~field).any()
        assert 0.08 < vessels[field].mean() < 0.17  # DRIVE: 0.09 to 0.17
        width = 2 * distance_transform_edt(vessels)[skeletonize(vessels)] - 1
        assert np.median(width) < 3
        assert 4 <= np.quantile(width, 0.98) <= 9


def test_vessels_are_darker_than_what_lies_beside_them_and_the_thin_ones_less(rendered):
    folder = rendered("drive") / "training"
    thick, thin = [], []
    for number in drive.NUMBERS["training"]:
        green = read(folder / "images" / f"{number}_training.tif")[..., 1].astype(float)
        vessels = read(folder / "1st_manual" / f"{number}_manual1.gif") > 0
        inner = read(folder / "mask" / f"{number}_training_mask.gif") > 0
        darker = gaussian_filter(green, 8) - green
        wide = binary_dilation(distance_transform_edt(vessels) >= 2, iterations=2) & vessels
        thick.append(darker[wide & inner].mean())
        thin.append(darker[vessels & ~wide & inner].mean())
    assert np.mean(thick) > 1.5 * np.mean(thin) > 3


def test_second_observer_agrees_with_the_first_as_people_do(rendered):
    folder = rendered("drive") / "test"
    for number in drive.NUMBERS["test"]:
        first = read(folder / "1st_manual" / f"{number:02d}_manual1.gif") > 0
        second = read(folder / "2nd_manual" / f"{number:02d}_manual2.gif") > 0
        assert 0.74 < 2 * (first & second).sum() / (first.sum() + second.sum()) < 0.88


# --- radiography --------------------------------------------------------------------------------------


def test_radiography_has_the_layout_of_the_original_with_a_mask_for_each_film(rendered):
    folder = rendered("radiography")
    for label, count in radiography.COUNTS.items():
        names = {f"{label}-{number}.png" for number in range(1, count + 1)}
        for kind, side in (("images", 150), ("masks", 128)):
            assert {path.name for path in (folder / label / kind).iterdir()} == names
            with Image.open(folder / label / kind / f"{label}-1.png") as image:
                assert (image.size, image.mode) == ((side, side), "L")


def test_lung_masks_are_two_dark_fields(rendered):
    folder = rendered("radiography") / "Normal"
    for path in sorted((folder / "masks").iterdir())[:30]:
        mask = read(path)
        assert set(np.unique(mask)) == {0, 255}
        lungs, count = label_components(mask > 0)
        areas = np.bincount(lungs.ravel())[1:] / mask.size
        assert (areas > 0.04).sum() == 2, f"{path.name}: {count} parts of {areas}"
        film = np.asarray(Image.open(folder / "images" / path.name).resize(mask.shape), float)
        middle = film[32:96, 32:96]
        assert film[mask > 0].mean() < middle[mask[32:96, 32:96] == 0].mean() - 40


def test_the_border_of_a_film_tells_a_little_about_its_class(rendered):
    borders, labels = [], []
    for number, (label, count) in enumerate(radiography.COUNTS.items()):
        for image in range(1, count + 1):
            film = read(rendered("radiography") / label / "images" / f"{label}-{image}.png") / 255
            ring = np.concatenate([film[:6].T, film[-6:].T, film[:, :6], film[:, -6:]])
            borders.append(ring.reshape(40, -1).mean(1))
            labels.append(number)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    accuracy = cross_val_score(
        model, borders, labels, cv=StratifiedKFold(5, shuffle=True, random_state=0)
    ).mean()
    assert 0.36 < accuracy < 0.6  # always "Normal": 0.31


# --- lungs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "renderer"), [("lungs", lungs), ("lungs_elsewhere", lungs_elsewhere)])
def test_every_lung_film_has_a_mask_of_its_name_and_size(rendered, name, renderer):
    folder = rendered(name)
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == sorted(path.name for path in (folder / "masks").iterdir())
    assert len(names) == renderer.FILMS
    for file in names:
        film, mask = read(folder / "images" / file), read(folder / "masks" / file)
        assert film.shape == mask.shape
        assert set(np.unique(mask)) == {0, 255}
        around = binary_dilation(mask > 0, iterations=8) & ~binary_dilation(mask > 0, iterations=2)
        if "_0.png" in file:  # healthy
            assert film[mask > 0].mean() < film[around & (film > 12)].mean() - 15


def test_the_other_hospital_differs_in_tone_and_shape_and_not_in_lungs(rendered):
    def look(name, kind):
        return [read(path) for path in sorted((rendered(name) / kind).iterdir())]

    here, there = look("lungs", "images"), look("lungs_elsewhere", "images")
    assert {film.shape for film in here} == {(160, 160)}
    assert {film.shape for film in there} == {(176, 144), (144, 176)}
    assert all((film[:, [0, 1, -2, -1]] == 0).all() for film in there)  # a black plate left and right
    within = [
        np.mean([film[mask > 0].mean() for film, mask in zip(films, look(name, "masks"))])
        for name, films in (("lungs", here), ("lungs_elsewhere", there))
    ]
    assert within[1] < within[0] - 20
    areas = [
        np.mean([(mask > 0).mean() for mask in look(name, "masks")]) for name in ("lungs", "lungs_elsewhere")
    ]
    assert 0.5 < areas[1] / areas[0] < 1


# --- western_blot -------------------------------------------------------------------------------------


def triples(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [
        (
            read(path),
            read(folder / "wb_template" / f"BandMask_{path.name}"),
            read(folder / "wb_template2" / f"BasePattern_{path.name}"),
        )
        for path in sorted((folder / "wb_dataset").iterdir())
    ]


def test_blots_have_the_layout_of_the_original_and_membranes_give_several_windows(rendered):
    folder = rendered("western_blot")
    names = {path.name for path in (folder / "wb_dataset").iterdir()}
    assert all(re.fullmatch(r"bg_\d{4}\.png", name) for name in names)
    groups = table(folder / "groups.csv")
    assert groups.keys() == names
    assert max(Counter(groups.values()).values()) > 1
    for parts in triples(folder):
        assert {part.shape for part in parts} == {(64, 64)}
        assert {part.dtype for part in parts} == {np.dtype(np.uint8)}
        assert set(np.unique(parts[1])) == {0, 255}


def test_the_band_mask_is_a_threshold_and_the_base_pattern_a_blur(rendered):
    """What notebook 08 shows to leak: both templates are functions of the blot alone."""
    for blot, mask, base in triples(rendered("western_blot")):
        bands = mask > 0
        assert blot[bands].max() < blot[~bands].min()
        assert western_blot.BANDS[0] <= bands.mean() <= western_blot.BANDS[1]
        filled = np.where(bands, np.median(blot[~bands]), blot).astype(float)
        expected = gaussian_filter(filled, western_blot.BLUR, mode="nearest")
        assert np.abs(base - expected).mean() < 1.5  # grey levels; Pillow's blur is nearly a Gaussian


def test_otsu_parts_two_clusters_of_pixels():
    generator = np.random.default_rng(0)
    two = np.concatenate([generator.normal(60, 8, 400), generator.normal(180, 8, 600)])
    assert 80 < western_blot.otsu(two.astype(np.uint8)) < 160
    assert western_blot.otsu(np.array([10] * 5 + [200], np.uint8)) < 200


def test_bands_differ_in_darkness_so_that_a_mask_alone_does_not_tell_it(rendered):
    levels = [blot[mask > 0].mean() for blot, mask, _ in triples(rendered("western_blot"))]
    assert np.std(levels) > 20


# --- aoi ----------------------------------------------------------------------------------------------


def table(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row[0]: row[1] for row in list(csv.reader(file))[1:]}


def test_aoi_has_the_layout_of_the_original(rendered):
    folder = rendered("aoi")
    assert (folder / "train.csv").read_text().startswith("ID,Label\ntrain_00000.png,")
    assert (folder / "test.csv").read_text().startswith("ID,Label\ntest_00000.png,\n")
    train, test, groups = (table(folder / f"{name}.csv") for name in ("train", "test", "groups"))
    assert Counter(map(int, train.values())) == aoi.TRAIN
    assert set(test.values()) == {""}
    assert train.keys() == groups.keys() == {path.name for path in (folder / "train_images").iterdir()}
    assert test.keys() == {path.name for path in (folder / "test_images").iterdir()}
    for path in folder.glob("*_images/*.png"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "L")


def test_exposures_of_one_panel_share_its_label_and_differ(rendered):
    folder = rendered("aoi")
    train, groups = table(folder / "train.csv"), table(folder / "groups.csv")
    panels = defaultdict(list)
    for name, group in groups.items():
        panels[group].append(name)
    assert sum(len(names) > 1 for names in panels.values()) > 80
    for names in panels.values():
        assert len({train[name] for name in names}) == 1
        assert len({(folder / "train_images" / name).read_bytes() for name in names}) == len(names)


def test_thumbnails_hardly_tell_the_defects_apart(rendered):
    folder = rendered("aoi")
    train, groups = table(folder / "train.csv"), table(folder / "groups.csv")
    x = np.stack([thumbnail(folder / "train_images" / name) for name in train])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    guessed = cross_val_predict(model, x, list(train.values()), groups=list(groups.values()), cv=folds)
    assert np.mean(guessed == np.array(list(train.values()))) < 0.5


# --- ensure -------------------------------------------------------------------------------------------

SMALL_RENDERER = """
import os, pathlib, sys, time
def render(folder, seed=0):
    (folder / "one.txt").write_text("1")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    if os.environ.get("FAIL"):
        raise OSError(28, "No space left on device")
    (folder / "two.txt").write_text("2")
"""
ENSURE = """
import sys; sys.path.insert(0, {folder!r})
from helpers import samples
samples.RENDERERS["small"] = "small_renderer"
print(samples.ensure("small"))
"""


@pytest.fixture
def ensure_in_process(tmp_path):
    """Start `samples.ensure` on a small renderer in a process of its own."""
    (tmp_path / "small_renderer.py").write_text(SMALL_RENDERER)

    def start(**environment):
        return subprocess.Popen(
            [sys.executable, "-c", ENSURE.format(folder=str(tmp_path))],
            env={**os.environ, "VISION_NOTEBOOKS_CACHE": str(tmp_path / "cache"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_two_processes_at_once_end_with_one_whole_folder(ensure_in_process, tmp_path):
    both = [ensure_in_process(PAUSE="0.5") for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert set(files(Path(answers[0]))) == {"one.txt", "two.txt"}
    assert [path.name for path in (tmp_path / "cache" / "samples").iterdir()] == [Path(answers[0]).name]


def test_a_folder_whose_rendering_was_killed_is_never_taken(ensure_in_process, tmp_path):
    process = ensure_in_process(PAUSE="60")
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("cache/samples/.*/*/one.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    whole = ensure_in_process()
    folder = Path(whole.communicate(timeout=60)[0].strip())
    assert set(files(folder)) == {"one.txt", "two.txt"}


def test_a_full_disk_leaves_nothing_and_says_what_to_do(ensure_in_process, tmp_path):
    process = ensure_in_process(FAIL="1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"UserError: .*small-v\d+: .*No space left on device.*VISION_NOTEBOOKS_CACHE", errors)
    assert list((tmp_path / "cache" / "samples").iterdir()) == []


def test_a_whole_folder_is_kept(rendered):
    folder = rendered("drive")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert rendered("drive") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(UserError, match='"chest_xrays"; did you mean "chest_xray"'):
        samples.ensure("chest_xrays")
