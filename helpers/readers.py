"""Readers of on-disk layouts: from a folder to a table of paths, labels and groups.

One reader serves real and sample data: the renderers in `helpers.samples` write the real layout.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from helpers.cards import CARDS
from helpers.errors import UserError

JPEG_NOISE = 8  # grey values up to which a mask packed as JPEG may differ from black
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
ORIENTATION = 0x0112  # the EXIF tag; 1: as stored


def images_in(folder: Path) -> list[Path]:
    """The image files directly inside a folder, sorted by name; hidden files are not images."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """An image file, opened, and turned as a camera's EXIF mark says, which viewers follow as well.

    What training refuses is refused here, for whoever reads images. Raises UserError for a file that
    cannot be read, also when that shows inside the block only, for one with more than 8 bits a channel, and
    for a name that is not UTF-8, as Windows' archives leave some: tables and pages could not show it.
    """
    shown = str(path).encode(errors="backslashreplace").decode()
    if shown != str(path):
        raise UserError(f"{shown}: the name is not UTF-8; rename the file.")
    try:
        with Image.open(path) as file:
            # Pillow would cut all above 255 to white, or in colours drop the lower 8 bits, silently.
            deep_colours = any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()))
            if file.mode.startswith(("I", "F")) or deep_colours:
                raise UserError(
                    f"{path}: has more than 8 bits a channel (mode {file.mode}); convert it to 8 bits, "
                    "choosing yourself which values become black and white."
                )
            # What cameras write, MPO being a JPEG with more than one picture; Pillow turns TIFF itself.
            camera = file.format in ("JPEG", "MPO", "WEBP")
            turned = camera and file.getexif().get(ORIENTATION, 1) != 1
            yield ImageOps.exif_transpose(file) if turned else file
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has too many pixels; make it smaller.") from error
    except Exception as error:  # broken files fail in many ways, truncated ones while they decode
        if getattr(error, "errno", None):
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); mend that, then run again."
            ) from error
        raise UserError(f"{path}: not a readable image; replace or remove the file.") from error


def check_opaque(path: str, mask: Image.Image) -> None:
    """Raise UserError for a mask whose shape may lie in its transparency, which is not read."""
    if "A" in mask.getbands() and mask.getchannel("A").getextrema()[0] < 255:
        raise UserError(f"{path}: the mask is partly transparent; save it in black and white without alpha.")


def check_mask(path: str, highest: int) -> None:
    """Raise UserError where a mask's highest value says that marks would be lost: masks are cut at 127."""
    noise = JPEG_NOISE if Path(path).suffix.lower() in (".jpg", ".jpeg") else 0
    if highest == 1 or noise < highest <= 127:
        values = "are 0 and 1" if highest == 1 else f"end at {highest}"
        raise UserError(f"{path}: the mask's values {values}; write them as 0 and 255.")


def read_class_folders(root: Path, patient=None) -> pd.DataFrame:
    """Read `<split>/<class>/*` or `<class>/*` into columns path, label, group, split.

    patient: a function from file name to group; without it an optional `groups.csv` (ID, group) in
    `root` tells which images belong together, and else every image is a group of its own.
    Raises UserError where a class folder is empty or a split lacks a class that another one has.
    """
    splits = [s for s in ("train", "val", "test") if (root / s).is_dir()]
    folders = {split: root / split for split in splits} or {"train": root}
    names = {split: [f.name for f in sorted(folder.iterdir()) if f.is_dir() and f.name[0] not in "._"]
             for split, folder in folders.items()}  # fmt: skip
    classes = sorted(set().union(*names.values()))
    if len(classes) < 2:
        raise UserError(
            f"{root}: found {len(classes)} class folder(s); expected at least two subfolders with images, "
            "one a class, directly inside or under train/."
        )
    found = []
    for split, folder in folders.items():
        for label in classes:
            files = images_in(folder / label)
            if not files:
                raise UserError(
                    f"{root.name}: no images under {folder / label}. Expected {', '.join(classes)} with "
                    f"images in each ({' '.join(IMAGE_SUFFIXES)}); {_how_to_get(root.name)}."
                )
            found += [(file, label, split) for file in files]
    grouped = {} if patient else _read_groups(root, (file.name for file, *_ in found))
    rows = []
    for file, label, split in found:
        group = patient(file.name) if patient else grouped.get(file.name, f"{split}/{label}/{file.name}")
        rows.append((str(file), label, str(group), split))
    return pd.DataFrame(rows, columns=["path", "label", "group", "split"])


def _how_to_get(name: str) -> str:
    return CARDS[name].command if name in CARDS else "remove or fill the folder"


def _read_groups(root: Path, names: Iterable[str]) -> dict[str, str]:
    """The groups of `groups.csv` by file name, {} without one; it may leave out some of the images.

    names: the dataset's images. Raises UserError for a table that is damaged, gives an image two groups,
    or names no image: windows of one picture would come to stand on both sides of a split.
    """
    file = root / "groups.csv"
    if not file.is_file():
        return {}
    try:
        table = pd.read_csv(file, dtype=str)
    except ValueError as error:  # what pandas raises for an empty or broken table, or one not in UTF-8
        raise UserError(f'{file}: not a readable table; expected CSV with the columns "ID,group".') from error
    if list(table.columns[:2]) != ["ID", "group"]:
        raise UserError(f'{file}: expected the columns "ID,group", found "{",".join(table.columns)}".')
    table = table.dropna(subset=["ID", "group"])  # no group is given: the image stands for itself
    twice = table.groupby("ID")["group"].nunique()
    if (twice > 1).any():
        raise UserError(
            f"{file}: gives {twice.idxmax()} more than one group; correct the table, or where two folders "
            "hold an image of that name, rename one."
        )
    grouped, names = dict(zip(table["ID"], table["group"])), set(names)
    if grouped and not names & grouped.keys():
        raise UserError(
            f"{file}: its ID {next(iter(grouped))} and all others name no image; IDs are file names such as "
            f"{min(names)}."
        )
    return grouped


def read_radiography(root: Path) -> pd.DataFrame:
    """Read `<class>/images/*` into columns path, label, mask, group, split.

    mask: the file of the same name in `<class>/masks`, "" where there is none. An optional `groups.csv`
    (ID, group) tells which images belong together; without it every image is its own. Equal files are one
    group in any case, since some pictures of the real set occur twice. split is "train": the set has no
    other.
    """
    classes = [f.name for f in sorted(root.iterdir()) if (f / "images").is_dir()]
    if len(classes) < 2:
        raise UserError(
            f"radiography: {len(classes)} class folder(s) with images/ under {root}. Expected "
            f"{CARDS['radiography'].layout}; {_how_to_get('radiography')}."
        )
    rows = []
    for label in classes:
        files = images_in(root / label / "images")
        if not files:
            raise UserError(
                f"radiography: no images under {root / label / 'images'}; {_how_to_get('radiography')}."
            )
        for file in files:
            mask = root / label / "masks" / file.name
            rows.append(
                (str(file), label, str(mask) if mask.is_file() else "", f"{label}/{file.name}", "train")
            )
    table = pd.DataFrame(rows, columns=["path", "label", "mask", "group", "split"])
    names = table["path"].map(lambda path: Path(path).name)
    grouped = _read_groups(root, names)
    table["group"] = [grouped.get(name, own) for name, own in zip(names, table["group"])]
    from helpers import duplicates  # here, because scipy takes long to import

    for copies in duplicates.equal_files(table["path"]):
        one = table["group"][copies[0]]
        table.loc[table["group"].isin(table["group"][copies]), "group"] = one
    return table


AOI_CLASSES = ("normal", "void", "horizontal defect", "vertical defect", "edge defect", "particle")


def read_aoi(root: Path) -> pd.DataFrame:
    """Read AIdea's layout into columns id, path, label, group, split ("train", "test").

    Labels are names of `AOI_CLASSES`, "" for the test images, whose labels are hidden. Without
    `groups.csv` (ID, group) every image is a group of its own.
    Raises UserError for a list that is missing or not readable, a listed image that is not there or listed
    twice, and a label out of range.
    """
    lists = {"train": _read_columns(root / "train.csv", ["ID", "Label"])}
    if (root / "test.csv").is_file():
        lists["test"] = _read_columns(root / "test.csv", ["ID"]).assign(Label="")
    grouped = _read_groups(root, pd.concat(lists)["ID"])
    rows = []
    for split, listed in lists.items():
        file = root / f"{split}.csv"
        if (twice := listed["ID"].duplicated()).any():
            raise UserError(f"{file}: lists {listed['ID'][twice.idxmax()]} twice; remove one of the rows.")
        for name, label in zip(listed["ID"], listed["Label"]):
            path = root / f"{split}_images" / name
            if not path.is_file():
                raise UserError(
                    f"{file}: lists {name}, which is not in {path.parent}; add it or remove its row."
                )
            if split == "train":
                if label not in ("0", "1", "2", "3", "4", "5"):
                    raise UserError(f'{file}: the label of {name} is "{label}"; expected 0 to 5.')
                label = AOI_CLASSES[int(label)]
            rows.append((name, str(path), label, grouped.get(name, f"{split}/{name}"), split))
    return pd.DataFrame(rows, columns=["id", "path", "label", "group", "split"])


def chest_patient(file_name: str) -> str:
    """The patient in a Kermany file name: `person12_bacteria_34` → person12, `IM-0115-0001` → IM-0115."""
    match = re.match(r"person\d+|(NORMAL2-)?IM-\d+", file_name)
    return match.group() if match else Path(file_name).stem


def chest_cause(path: str, label: str) -> str:
    """NORMAL, BACTERIA or VIRUS: the cause of a pneumonia stands in the file name."""
    if label == "NORMAL":
        return label
    for cause in ("bacteria", "virus"):
        if f"_{cause}_" in Path(path).name:
            return cause.upper()
    raise UserError(f'{path}: the file name tells no cause; expected "_bacteria_" or "_virus_" in it.')


def read_drive(root: Path) -> pd.DataFrame:
    """Read DRIVE's layout into columns id, image, mask, fov, second, group, split.

    Any folder of this layout will do: `training/` must have `images`, `1st_manual` and `mask`;
    `test/` may lack labels. Files belong together by what stands before the first "_" of their names,
    the number. Without `groups.csv` (ID, group) every image is a group of its own.
    Raises UserError for a missing partner, naming the image that lacks it, and for a number that two
    files of a folder share.
    """
    rows = []
    for split in ("training", "test"):
        images = images_in(root / split / "images")
        if not images and split == "training":
            raise UserError(
                f"{root.name}: no images under {root / split / 'images'}. Expected 21_training.tif and so "
                f"on; {_how_to_get(root.name)}."
            )
        partners = {kind: _by_number(images_in(root / split / kind))
                    for kind in ("1st_manual", "2nd_manual", "mask")}  # fmt: skip
        for number, image in _by_number(images).items():
            partner = {kind: str(files.get(number, "")) for kind, files in partners.items()}
            for kind in ("mask", "1st_manual"):
                if not partner[kind] and not (split == "test" and kind == "1st_manual"):
                    raise UserError(
                        f"{root.name}: {image} has no partner {number}_… in {root / split / kind}; "
                        "add the missing file or remove the image."
                    )
            rows.append((number, str(image), partner["1st_manual"], partner["mask"], partner["2nd_manual"],
                         f"{split}/{number}", split))  # fmt: skip
    table = pd.DataFrame(rows, columns=["id", "image", "mask", "fov", "second", "group", "split"])
    names = table["image"].map(lambda path: Path(path).name)
    grouped = _read_groups(root, names)
    table["group"] = [grouped.get(name, own) for name, own in zip(names, table["group"])]
    return table


def _by_number(files: list[Path]) -> dict[str, Path]:
    """DRIVE's files by their number, 21 of 21_training.tif; UserError where two files share one."""
    by_number: dict[str, Path] = {}
    for file in files:
        number = file.name.split("_")[0]
        other = by_number.setdefault(number, file)
        if other != file:
            raise UserError(
                f"{file.parent}: {other.name} and {file.name} have the same number, {number}; give each "
                "image a number of its own and rename its files 21_training.tif, 21_manual1.gif and "
                "21_training_mask.gif, for instance."
            )
    return by_number


def read_lungs(root: Path) -> pd.DataFrame:
    """Read `images/*` and `masks/*` of the same names into columns id, image, mask, group, split.

    Any folder of this layout will do. A mask may have another suffix than its image. Without
    `groups.csv` (ID, group) every image is a group of its own; split is "train" throughout.
    Raises UserError for a missing folder, for an image without a mask, naming it, and for two files of a
    folder that differ in their suffix only.
    """
    images = images_in(root / "images")
    if not images:
        raise UserError(
            f"{root.name}: no images under {root / 'images'}. Expected images/ and masks/ with files of the "
            f"same names; {_how_to_get(root.name)}."
        )
    masks = _by_stem(images_in(root / "masks"))
    grouped = _read_groups(root, (image.name for image in images))
    rows = []
    for image in _by_stem(images).values():
        if image.stem not in masks:
            raise UserError(
                f"{root.name}: {image} has no mask of the same name in {root / 'masks'}; "
                "add the missing file or remove the image."
            )
        group = grouped.get(image.name, image.name)
        rows.append((image.stem, str(image), str(masks[image.stem]), group, "train"))
    return pd.DataFrame(rows, columns=["id", "image", "mask", "group", "split"])


def _by_stem(files: list[Path]) -> dict[str, Path]:
    """Files by their names without suffix; UserError where two share one."""
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            raise UserError(
                f"{file.parent}: {other.name} and {file.name} share a name; rename or remove one."
            )
    return by_stem


BLOT_FOLDERS = {"image": ("wb_dataset", ""), "mask": ("wb_template", "BandMask_"),
                "base": ("wb_template2", "BasePattern_")}  # fmt: skip


def read_western_blot(root: Path) -> pd.DataFrame:
    """Read triples (blot, band mask, base pattern) into columns id, image, mask, base, group, split.

    Files belong together by the name of the blot: `bg_7.png`, `BandMask_bg_7.png`,
    `BasePattern_bg_7.png`. Without `groups.csv` (ID, group) every blot is a group of its own; split is
    "train" throughout. Raises UserError for a missing partner, on either side, naming the file.
    """
    found = {
        kind: {file.name.removeprefix(prefix): str(file) for file in images_in(root / folder)}
        for kind, (folder, prefix) in BLOT_FOLDERS.items()
    }
    if not found["image"]:
        raise UserError(
            f"{root.name}: no images under {root / 'wb_dataset'}. Expected wb_dataset/bg_N.png and its two "
            f"templates in wb_template and wb_template2; {_how_to_get(root.name)}."
        )
    for name in sorted(set().union(*found.values())):
        for kind, (folder, prefix) in BLOT_FOLDERS.items():
            if name not in found[kind]:
                raise UserError(
                    f"{root.name}: {name} has no partner {root / folder / (prefix + name)}; "
                    "add the missing file or remove the others of that name."
                )
    grouped = _read_groups(root, found["image"])
    rows = [
        (Path(name).stem, image, found["mask"][name], found["base"][name], grouped.get(name, name), "train")
        for name, image in sorted(found["image"].items())
    ]
    return pd.DataFrame(rows, columns=["id", "image", "mask", "base", "group", "split"])


IDX_PREFIXES = {"train": "train", "test": "t10k"}


def read_mnist(root: Path) -> pd.DataFrame:
    """Read the labels of MNIST or Fashion-MNIST into columns path, index, label, group, split.

    Layout: torchvision's, `MNIST/raw` or `FashionMNIST/raw` under `root`. path is the file that holds
    all images of a split, index the place of an image in it (`loaders.mnist_images` reads them); labels
    are the digits "0" to "9". Every image is a group of its own: writers are not named.
    Raises UserError for a missing or damaged file.
    """
    folders = [folder / "raw" for folder in (root / "MNIST", root / "FashionMNIST") if folder.is_dir()]
    if not folders:
        raise UserError(
            f"{root.name}: no MNIST/raw or FashionMNIST/raw under {root}; {_how_to_get(root.name)}."
        )
    parts = []
    for split, prefix in IDX_PREFIXES.items():
        label_file, image_file = (
            folders[0] / f"{prefix}-{kind}-ubyte" for kind in ("labels-idx1", "images-idx3")
        )
        labels, images = read_idx(label_file), _idx_length(image_file)
        if images != len(labels):
            raise UserError(f"{image_file}: has {images} images for {len(labels)} labels; get it again.")
        path, index = str(image_file), range(len(labels))
        parts.append(pd.DataFrame({"path": path, "index": index, "label": labels.astype(str),
                                   "group": [f"{split}/{i}" for i in index], "split": split}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def read_idx(file: Path) -> np.ndarray:
    """Read MNIST's format: two zero bytes, the type (8: uint8), the number of axes, their lengths, data.

    Returns a uint8 array. Raises UserError when the file is missing, cut short or of another type.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); get the dataset again.") from error
    axes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    start = 4 + 4 * axes  # of the data
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4) if axes and len(raw) >= start else []
    if not len(shape) or len(raw) != start + np.prod(shape):
        raise UserError(f"{file}: not a whole file of MNIST's format; unpack or get it again.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _idx_length(file: Path) -> int:
    """How many items a file of MNIST's format announces; UserError when it is missing."""
    try:
        with open(file, "rb") as raw:
            return int.from_bytes(raw.read(8)[4:])
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); get the dataset again.") from error


def read_news(root: Path) -> pd.DataFrame:
    """Read train.csv and test.csv (label,text; UTF-8) into columns path, text, label, group, split.

    test.csv may be missing. Equal texts are one group, so that splits keep copies together.
    Raises UserError for a missing file or column, and for a row without label or text.
    """
    files = [(split, root / f"{split}.csv") for split in ("train", "test")]
    parts = []
    for split, file in files:
        if split == "test" and not file.is_file():
            continue
        table = _read_columns(file, ["label", "text"]).astype(str)
        empty = (table == "").any(axis=1)
        if empty.any():
            raise UserError(f"{file}: row {empty.idxmax() + 2} has no label or no text; fill or remove it.")
        parts.append(table.assign(path=str(file), split=split))
    news = pd.concat(parts, ignore_index=True)
    news["group"] = news.groupby("text", sort=False).ngroup().astype(str)
    return news[["path", "text", "label", "group", "split"]]


TEST_TALES = 10  # one file in ten


def read_tales(root: Path) -> pd.DataFrame:
    """Read *.txt (UTF-8) into columns path, title, text, group, split; the last tenth by name is "test".

    Raises UserError where there are fewer than two files, and for one that is empty or not UTF-8.
    """
    files = sorted(file for file in root.glob("*.txt") if file.name[0] != ".")
    if len(files) < 2:
        raise UserError(f"{root}: found {len(files)} file(s) *.txt; expected at least two texts.")
    test = max(1, round(len(files) / TEST_TALES))
    rows = []
    for place, file in enumerate(files):
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read as UTF-8 text ({error}); save it as UTF-8.") from error
        if not text:
            raise UserError(f"{file}: is empty; remove it.")
        title = re.sub(r"^\d+_", "", file.stem).replace("_", " ")
        rows.append((str(file), title, text, file.name, "test" if place >= len(files) - test else "train"))
    return pd.DataFrame(rows, columns=["path", "title", "text", "group", "split"])


def read_demand(root: Path) -> pd.DataFrame:
    """Read demand.csv (time,demand) into columns path, time (datetime), demand (float), in order of time.

    Raises UserError for a missing file or column, values that are no time or number, and unequal steps.
    """
    file = root / "demand.csv"
    table = _read_columns(file, ["time", "demand"])
    try:
        times = pd.to_datetime(table["time"], errors="coerce")
    except ValueError as error:  # offsets that change with daylight saving
        raise UserError(f"{file}: its times have several offsets; write all of them in UTC.") from error
    values = pd.to_numeric(table["demand"], errors="coerce").astype(float)
    bad = times.isna() | values.isna()
    if bad.any():
        raise UserError(f"{file}: row {bad.idxmax() + 2} is not a time and a number; mend or remove it.")
    series = pd.DataFrame({"path": str(file), "time": times, "demand": values}).sort_values("time")
    steps = series["time"].diff().iloc[1:]
    if steps.nunique() != 1:
        where = (
            series["time"][steps.index[(steps != steps.mode()[0]).argmax()]] if len(steps) else "its only row"
        )
        raise UserError(f"{file}: the steps are not equal at {where}; fill the gap or remove the repeat.")
    return series.reset_index(drop=True)


def _read_columns(file: Path, columns: list[str]) -> pd.DataFrame:
    """These columns of a CSV file, as text; "" where a cell is empty."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{file.parent.name}: no {file}; {_how_to_get(file.parent.name)}.") from None
    except (ValueError, OSError) as error:
        raise UserError(
            f"{file}: not a readable CSV file ({error}); save it as UTF-8 with commas."
        ) from error
    missing = [column for column in columns if column not in table]
    if missing or table.empty:
        wrong = f"has no column {' or '.join(missing)}" if missing else "has no rows"
        raise UserError(f"{file}: {wrong}; expected the columns {','.join(columns)}.")
    return table[columns]
