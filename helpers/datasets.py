"""Dataset cards and on-disk layouts: from a folder to a table of paths, labels and groups.

One reader serves real and sample data: the renderers in `helpers.samples` write the real layout.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from helpers import runtime, samples
from helpers.errors import UserError

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".gif"}


@dataclass(frozen=True)
class Card:
    """What a reader should know of a dataset before training on it."""

    name: str
    title: str
    source: str
    download: str | None  # the Kaggle slug that `vision-notebooks data get` fetches
    by_hand: tuple[str, ...]  # steps of the other way to get it
    licence: str
    citation: str
    layout: str
    counts: str
    traps: tuple[str, ...]

    def markdown(self) -> str:
        """The card as a Markdown table and a list of traps, for the head of a notebook."""
        layout = self.layout.replace("|", " or ")  # a bar would end the cell of the table
        rows = {"Source": self.source, "Licence": self.licence, "Cite": self.citation,
                "Images": self.counts, "Layout": f"`{layout}`"}  # fmt: skip
        table = "\n".join(f"| **{key}** | {value} |" for key, value in rows.items())
        traps = "\n".join(f"- {trap}" for trap in self.traps)
        return f"### {self.title}\n\n| | |\n|---|---|\n{table}\n\n**Known traps**\n\n{traps}"


CARDS = {
    card.name: card
    for card in (
        Card(
            name="chest_xray",
            title="Chest X-rays of children, normal or pneumonia",
            source="Kermany et al.; doi.org/10.17632/rscbjbr9sj and "
            "kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
            download="paultimothymooney/chest-xray-pneumonia",
            by_hand=(
                "Open doi.org/10.17632/rscbjbr9sj and download ChestXRay2017.zip.",
                "Unpack it and move its folders train and test to {folder}.",
            ),
            licence="CC BY 4.0",
            citation="Kermany et al., Cell 172:1122–1131, 2018",
            layout="train|val|test / NORMAL|PNEUMONIA / *.jpeg",
            counts="5,216 train, 16 val, 624 test; children of one to five years, one hospital",
            traps=(
                "The official `val` holds 16 images: far too few to choose anything by. "
                "It is pooled with `train` and split again.",
                "Several images show one child. Splits go by patient, which the file name tells.",
                "Three of four training images show pneumonia.",
                "The test half comes from another distribution: validation results do not carry over.",
            ),
        ),
        Card(
            name="drive",
            title="DRIVE, vessels in photographs of the retina",
            source="Staal et al.; drive.grand-challenge.org and "
            "kaggle.com/datasets/andrewmvd/drive-digital-retinal-images-for-vessel-extraction",
            download="andrewmvd/drive-digital-retinal-images-for-vessel-extraction",
            by_hand=(
                "Register at drive.grand-challenge.org, accept the terms and download the archive.",
                "Unpack it and move its folders training and test to {folder}.",
            ),
            licence="research use only; pictures are not redistributed here",
            citation="Staal et al., IEEE TMI 23:501–509, 2004",
            layout="training|test / images|1st_manual|2nd_manual|mask / NN_…",
            counts="20 training and 20 test images of 565 × 584 pixels; 7 of the 40 show mild retinopathy",
            traps=(
                "Only pixels inside the field of view count: the black corners flatter every number.",
                "Newer copies come without test labels: then a part of `training` is held out, "
                "and the result says so.",
                "Field-of-view masks read 0/255 or 3/253 depending on the copy; they are cut at 127.",
                "Labels must be resized with nearest neighbour, or they stop being labels.",
            ),
        ),
        Card(
            name="radiography",
            title="COVID-19 Radiography Database, four classes of chest X-rays",
            source="Rahman, Chowdhury et al.; "
            "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
            download="tawsifurrahman/covid19-radiography-database",
            by_hand=(
                "Log in at kaggle.com/datasets/tawsifurrahman/covid19-radiography-database and download it.",
                "Unpack it and move COVID, Lung_Opacity, Normal and Viral Pneumonia to {folder}.",
            ),
            licence="see the Kaggle page; each source of the collection has its own",
            citation="Rahman et al., Computers in Biology and Medicine 132:104319, 2021",
            layout="COVID|Lung_Opacity|Normal|Viral Pneumonia / images|masks / *.png",
            counts="21,165: COVID 3,616, lung opacity 6,012, normal 10,192, viral pneumonia 1,345; "
            "299 × 299 pixels, masks 256 × 256",
            traps=(
                "The classes come from different hospitals and countries: a network can tell the hospital "
                "by borders, markers and exposure, and never look at a lung.",
                "Some pictures occur twice; patients are not named, so no split by patient is possible.",
                "The viral pneumonias are Kermany's children, the COVID patients are adults.",
            ),
        ),
        Card(
            name="aoi",
            title="Defects in automatic optical inspection, six classes",
            source="AIdea (Industrial Technology Research Institute of Taiwan), aidea-web.tw, topic "
            "'AOI defect classification'",
            download=None,
            by_hand=(
                "Register at aidea-web.tw, join the topic on AOI defects and download its archive.",
                "Unpack it and move train.csv, test.csv, train_images and test_images to {folder}.",
            ),
            licence="for participants of the AIdea topic; not redistributed here",
            citation="AIdea, AOI defect classification, 2018",
            layout="train_images|test_images / *.png, train.csv and test.csv (ID,Label)",
            counts="2,528 to train on, 10,142 test images without labels; 512 × 512 pixels, grey",
            traps=(
                "The classes are unequal: 100 horizontal defects among 2,528. Accuracy hides rare classes, "
                "macro F1 does not.",
                "Several exposures may show one object: where groups.csv names them, splits go by object.",
                "The test labels are hidden; predictions are scored by uploading submission.csv.",
            ),
        ),
    )
}


@dataclass(frozen=True)
class Dataset:
    """A dataset found on disk. `table` has a row an image; its columns depend on the task.

    Classification: path, label, group, split. Segmentation: id, image, mask, fov, second, group, split.
    Paths are absolute strings, "" where a file is not there; `split` is the folder on disk.
    """

    name: str
    source: str
    root: Path
    table: pd.DataFrame
    card: Card | None
    classes: tuple[str, ...] = field(default=())

    @property
    def note(self) -> str:
        """What every figure and table of this data must say; empty for real data."""
        return "sample data (synthetic)" if self.source == "sample" else ""

    def fingerprint(self) -> str:
        """Twelve hex digits that change when a file is added, removed, renamed or resized."""
        columns = [c for c in ("path", "image", "mask", "fov", "second") if c in self.table]
        paths = sorted({p for c in columns for p in self.table[c] if p})
        lines = (f"{Path(p).relative_to(self.root).as_posix()} {Path(p).stat().st_size}" for p in paths)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def about(self) -> dict:
        """The lines for `run.json`."""
        return {"name": self.name, "source": self.source, "images": len(self.table),
                "fingerprint": self.fingerprint()}  # fmt: skip


def find(name: str, source: str = "sample", data_dir: str = "") -> Path:
    """The folder of a dataset: rendered in the cache for "sample", `<data root>/<name>` for "real".

    Raises UserError, with what is missing, where it belongs and how to get it.
    """
    if source not in ("sample", "real"):
        raise UserError(f'source "{source}" is unknown; use "sample" or "real".')
    if source == "sample":
        return samples.ensure(name)
    root = runtime.data_root(data_dir) / name
    if not root.is_dir():
        layout = f" with {CARDS[name].layout}" if name in CARDS else " with one subfolder a class"
        mend = f'; "vision-notebooks data get {name}" fetches it' if name in CARDS else ""
        raise UserError(
            f"{name}: no folder {root}. Put the dataset there{layout}{mend}, "
            'or use source="sample" for synthetic data.'
        )
    return root


def load(name: str, source: str = "sample", data_dir: str = "", by_cause: bool = False) -> Dataset:
    """Find and read a dataset by name; a name without a card is a folder of class subfolders.

    by_cause: `chest_xray` only: three classes, NORMAL, BACTERIA and VIRUS, from the file names.
    Raises UserError for a missing folder, an empty class or a missing partner file.
    """
    root = find(name, source, data_dir)
    if name == "drive":
        return Dataset(name, source, root, read_drive(root), CARDS[name])
    if name == "radiography":
        table = read_radiography(root)
        return Dataset(name, source, root, table, CARDS[name], tuple(sorted(table["label"].unique())))
    if name == "aoi":
        return Dataset(name, source, root, read_aoi(root), CARDS[name], AOI_CLASSES)
    table = read_class_folders(root, patient=chest_patient if name == "chest_xray" else None)
    if by_cause:
        table["label"] = [chest_cause(p, label) for p, label in zip(table["path"], table["label"])]
    classes = tuple(sorted(table["label"].unique()))
    return Dataset(name, source, root, table, CARDS.get(name), classes)


def images_in(folder: Path) -> list[Path]:
    """The image files directly inside a folder, sorted by name; hidden files are not images."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")


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
    grouped = _read_groups(root)
    rows = []
    for split, folder in folders.items():
        for label in classes:
            files = images_in(folder / label)
            if not files:
                raise UserError(
                    f"{root.name}: no images under {folder / label}. Expected {', '.join(classes)} with "
                    f"images in each; {_how_to_get(root.name)}."
                )
            for file in files:
                group = (
                    patient(file.name) if patient else grouped.get(file.name, f"{split}/{label}/{file.name}")
                )
                rows.append((str(file), label, str(group), split))
    if grouped and not patient and not any(Path(path).name in grouped for path, *_ in rows):
        raise UserError(
            f"{root / 'groups.csv'}: its ID {next(iter(grouped))} and all others name no image; IDs are file "
            f"names such as {Path(rows[0][0]).name}."
        )
    return pd.DataFrame(rows, columns=["path", "label", "group", "split"])


def _how_to_get(name: str) -> str:
    return (
        f'"vision-notebooks data get {name}" fetches them' if name in CARDS else "remove or fill the folder"
    )


def _read_groups(root: Path) -> dict[str, str]:
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
    return dict(zip(table["ID"], table["group"]))


def read_radiography(root: Path) -> pd.DataFrame:
    """Read `<class>/images/*` into columns path, label, mask, group, split.

    mask: the file of the same name in `<class>/masks`, "" where there is none. Every image is a group
    of its own unless `groups.csv` says otherwise; split is "train" throughout: the set has no other.
    """
    classes = [f.name for f in sorted(root.iterdir()) if (f / "images").is_dir()]
    if len(classes) < 2:
        raise UserError(
            f"radiography: {len(classes)} class folder(s) with images/ under {root}. Expected "
            f"{CARDS['radiography'].layout}; {_how_to_get('radiography')}."
        )
    grouped = _read_groups(root)
    rows = []
    for label in classes:
        files = images_in(root / label / "images")
        if not files:
            raise UserError(
                f"radiography: no images under {root / label / 'images'}; {_how_to_get('radiography')}."
            )
        for file in files:
            mask = root / label / "masks" / file.name
            group = grouped.get(file.name, f"{label}/{file.name}")
            rows.append((str(file), label, str(mask) if mask.is_file() else "", group, "train"))
    return pd.DataFrame(rows, columns=["path", "label", "mask", "group", "split"])


AOI_CLASSES = ("normal", "void", "horizontal defect", "vertical defect", "edge defect", "particle")


def read_aoi(root: Path) -> pd.DataFrame:
    """Read AIdea's layout into columns id, path, label, group, split ("train", "test").

    Labels are names of `AOI_CLASSES`, "" for the test images, whose labels are hidden. Without
    `groups.csv` (ID, group) every image is a group of its own.
    Raises UserError for a missing list, a listed image that is not there, and a label out of range.
    """
    grouped = _read_groups(root)
    rows = []
    for split in ("train", "test"):
        file = root / f"{split}.csv"
        if not file.is_file():
            if split == "test":
                continue
            raise UserError(
                f"aoi: no {file}; expected columns ID,Label. See data/README.md for how to get it."
            )
        listed = pd.read_csv(file, dtype=str, keep_default_na=False)
        if list(listed.columns[:1]) != ["ID"] or (split == "train" and "Label" not in listed):
            raise UserError(f'{file}: expected the columns "ID,Label", found "{",".join(listed.columns)}".')
        labels = listed["Label"] if split == "train" else [""] * len(listed)
        for name, label in zip(listed["ID"], labels):
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
    `test/` may lack labels. Files belong together by the number that begins their names.
    Raises UserError for a missing partner, naming the image that lacks it.
    """
    rows = []
    for split in ("training", "test"):
        images = images_in(root / split / "images")
        if not images and split == "training":
            raise UserError(
                f"drive: no images under {root / split / 'images'}. Expected 21_training.tif and so on; "
                f"{_how_to_get('drive')}."
            )
        for image in images:
            number = image.name.split("_")[0]
            partner = {kind: _partner(root / split / kind, number)
                       for kind in ("1st_manual", "2nd_manual", "mask")}  # fmt: skip
            for kind in ("mask", "1st_manual"):
                if not partner[kind] and not (split == "test" and kind == "1st_manual"):
                    raise UserError(
                        f"drive: {image} has no partner {number}_… in {root / split / kind}; "
                        "add the missing file or remove the image."
                    )
            rows.append((number, str(image), partner["1st_manual"], partner["mask"], partner["2nd_manual"],
                         f"{split}/{number}", split))  # fmt: skip
    return pd.DataFrame(rows, columns=["id", "image", "mask", "fov", "second", "group", "split"])


def _partner(folder: Path, number: str) -> str:
    return next((str(p) for p in images_in(folder) if p.name.split("_")[0] == number), "")
