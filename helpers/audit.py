"""`vision-notebooks audit`: whether a dataset's result could be trusted, told before anyone trains."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import datasets, duplicates, readers, runtime
from helpers.duplicates import SIDE, Pair
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.pages import new_environment, webp_uri

MOST = 20_000  # pictures that are compared; of more, as many are drawn
SHOWN = 24  # pairs on the page
FEW = 50  # images of a split below which one error moves the accuracy by two points
UNEQUAL = 2.0  # largest class to smallest
LUCK = 20  # held-out images, below which the best of several baselines is soon strong by luck
STRONG = 0.9  # AUC of a trivial baseline, from which a result says little by itself
FOLDS = 5
OWN_GROUPS = ("chest_xray", "mnist", "fashion_mnist")  # whose readers take no groups.csv
SVM_ROWS = 3000  # training rows of the baselines; an SVM's time grows with their square


@dataclass
class Audit:
    """What was found. traps: sentences on what would make a result false; notes: what to know."""

    name: str
    root: Path
    counts: list[tuple[str, int, int]]  # (split / label, images, groups)
    traps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    baselines: list[tuple[str, float]] = field(default_factory=list)  # (name, score)
    baseline_score: str = ""  # what the score is, and on which images
    pairs: list[dict] = field(default_factory=list)  # those shown: pictures, names, why
    groups: list[tuple[str, str]] = field(default_factory=list)  # suggested groups.csv: (ID, group)


@dataclass(frozen=True)
class Found:
    """A pair of pictures that know each other."""

    pair: Pair
    how: str  # "equal files", "alike" or "shared pixels"
    strength: float


def main(target: str, data_dir: str = "", out: str = "") -> int:
    """Audit a dataset by name or folder, print what was found, write a page; returns 1 for traps, else 0."""
    name, data_dir = _locate(target, data_dir)
    folder = Path(out) if out else runtime.project_root() / "results" / f"audit_{name}"
    audit = examine(name, data_dir)
    print(f"{name}: {sum(count for _, count, _ in audit.counts)} images under {audit.root}")
    for part, images, groups in audit.counts:
        print(f"  {part}: {images} images, {groups} groups")
    for what, score in audit.baselines:
        print(f"  trivial baseline, {what}: {audit.baseline_score.split(',')[0]} {score:.3f}")
    for sentence in audit.traps:
        print(f"  trap: {sentence}")
    for sentence in audit.notes:
        print(f"  note: {sentence}")
    if audit.groups:
        with atomic_open(folder / "groups.csv") as file:
            csv.writer(file, lineterminator="\n").writerows([("ID", "group"), *audit.groups])
        print(f"  suggested: {folder / 'groups.csv'}; look at the pairs, then copy it to {audit.root}")
    with atomic_open(folder / "index.html") as file:
        file.write(_render(audit))
    print(f"  {len(audit.traps)} trap(s)\n{folder / 'index.html'}")
    return 1 if audit.traps else 0


def _locate(target: str, data_dir: str) -> tuple[str, str]:
    """A dataset's name and the folder that holds it; a path of an existing folder is taken for itself."""
    folder = Path(target).expanduser()
    known = (runtime.data_root(data_dir) / target).is_dir()
    if folder.is_dir() and (folder.is_absolute() or not known):
        return folder.resolve().name, str(folder.resolve().parent)
    return target, data_dir


def examine(name: str, data_dir: str = "") -> Audit:
    """Everything that can be told without training. Raises UserError for what the reader refuses."""
    dataset = datasets.load(name, "real", data_dir)
    table = dataset.table
    if "text" in table or "group" not in table:
        raise UserError(
            f'{name}: audit compares pictures, and there are none; use "vision-notebooks data check {name}".'
        )
    if len(table) > MOST:
        table = table.sample(MOST, random_state=0).sort_index().reset_index(drop=True)
    parts = [column for column in ("split", "label") if column in table]
    counts = [
        (" / ".join(filter(None, keys)), len(rows), rows["group"].nunique())
        for keys, rows in dataset.table.groupby(parts)
    ]
    audit = Audit(name, dataset.root, counts)
    sampled = len(table) < len(dataset.table)
    if sampled:
        audit.notes.append(f"of {len(dataset.table):,} images, {MOST:,} were drawn and compared.")
    table, small, windows = _read(table, audit)
    _look_at_counts(table, audit)
    found = _duplicates(table, small, windows)
    _judge(table, found, audit)
    if sampled:
        audit.groups.clear()  # a table of a part would leave the others' groups to themselves
    if "label" in table and table["label"].replace("", None).nunique() > 1:
        _classes(table, small, audit)
    elif "mask" in table:
        _masks(table, audit)
    _show(table, found, audit)
    return audit


def _file(row) -> str:
    return getattr(row, "path", "") or row.image


def _read(table, audit: Audit):
    """The readable rows, their pictures as (N, 64, 64) grey, and their windows."""
    pictures, kept, windows, faults = [], [], None, []
    if "index" in table:  # MNIST keeps all images of a split in one file
        arrays = {path: readers.read_idx(Path(path)) for path in table["path"].unique()}
    for place, row in enumerate(table.itertuples()):
        try:
            if "index" in table:
                picture = Image.fromarray(arrays[row.path][row.index])
            else:
                with readers.open_image(_file(row)) as image:
                    picture = image.convert("L")
        except UserError:
            faults.append(_file(row))
            continue
        full = np.asarray(picture)
        windows = windows or duplicates.Windows(full.shape)
        windows.add(full)
        pictures.append(np.asarray(picture.resize((SIDE, SIDE), Image.BOX)))
        kept.append(place)
    if not kept:
        raise UserError(
            f"{audit.root}: none of the files can be read as an image of 8 bits; convert them, or get the "
            "dataset again."
        )
    if faults:
        others = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        audit.traps.append(
            f"{len(faults)} files cannot be read as images of 8 bits: {', '.join(faults[:3])}{others}."
        )
    return table.iloc[kept].reset_index(drop=True), np.stack(pictures), windows


def _look_at_counts(table, audit: Audit) -> None:
    for split, rows in table.groupby("split"):
        if split != "train" and len(rows) < FEW and "label" in table:
            audit.traps.append(
                f"the split {split} has {len(rows)} images: one error moves its accuracy by "
                f"{100 / len(rows):.0f} points. Pool it with train and split again."
            )
    if "label" in table:
        labels = Counter(table["label"][table["label"] != ""])
        (most, many), (least, few) = labels.most_common()[0], labels.most_common()[-1]
        if many >= UNEQUAL * few:
            audit.notes.append(
                f"classes are unequal, {many} {most} to {few} {least}: who always says {most} has an "
                f"accuracy of {many / sum(labels.values()):.2f}. Report balanced accuracy or AUC."
            )
        if few < FEW:
            audit.notes.append(f"the class {least} has {few} images: its share of a hold-out says little.")
    if table["group"].nunique() == len(table):
        audit.notes.append(
            "every image is a group of its own. If several show one patient or object, a groups.csv "
            "(ID,group) must say so."
        )


def _duplicates(table, small: np.ndarray, windows: duplicates.Windows) -> list[Found]:
    """All pairs that know each other, the surest detector's word for each."""
    found: dict[Pair, Found] = {}
    for pair, correlation in duplicates.alike(small).items():
        found[pair] = Found(pair, "alike", correlation)
    for pair, patches in windows.pairs().items():
        found[pair] = Found(pair, "shared pixels", float(patches))
    if "index" not in table:
        for places in duplicates.equal_files(_file(row) for row in table.itertuples()):
            for pair in combinations(places, 2):
                found[pair] = Found(pair, "equal files", 1.0)
    return list(found.values())


def _differ(table, column: str, found: list[Found]) -> list[Found]:
    if column not in table:
        return []
    values = table[column].to_numpy()
    return [one for one in found if values[one.pair[0]] != values[one.pair[1]]]


def _judge(table, found: list[Found], audit: Audit) -> None:
    def count(pairs: list[Found]) -> str:
        kinds = Counter(one.how for one in pairs)
        return ", ".join(f"{number} {how}" for how, number in kinds.most_common())

    across = _differ(table, "split", found)
    if across:
        audit.traps.append(
            f"{len(across)} pairs stand in two splits ({count(across)}): the test is known from training."
        )
    conflicts = [one for one in _differ(table, "label", found) if "" not in
                 {table["label"][place] for place in one.pair}]  # fmt: skip
    certain = [one for one in conflicts if one.how == "equal files"]
    if certain:
        audit.traps.append(f"{len(certain)} pairs of equal files have two labels.")
    if len(conflicts) > len(certain):
        audit.notes.append(
            f"{len(conflicts) - len(certain)} pairs that look alike have two labels: are both right?"
        )
    apart = _differ(table, "group", found)
    if apart:
        audit.traps.append(
            f"{len(apart)} pairs are in different groups ({count(apart)}): where they show one thing, a "
            "split puts it on both sides."
        )
        names = [Path(_file(row)).name for row in table.itertuples()]
        numbers = duplicates.joined(len(table), [one.pair for one in apart], table["group"])
        if audit.name not in OWN_GROUPS and len(set(names)) == len(names):
            audit.groups = [(name, str(number)) for name, number in zip(names, numbers)]


def _classes(table, small: np.ndarray, audit: Audit) -> None:
    """What a support vector machine reaches on things that know nothing of the matter."""
    import torch

    from helpers import baselines, loaders, metrics

    labelled = table["label"] != ""
    rows, pictures = table[labelled].reset_index(drop=True), torch.from_numpy(small[labelled])[:, None]
    classes = sorted(rows["label"].unique())
    labels = rows["label"].map(classes.index).to_numpy()
    test = (rows["split"] == "test").to_numpy()
    enough = (
        test.any() and not test.all() and set(labels[test]) == set(labels[~test]) == set(range(len(classes)))
    )
    try:
        train, held = (
            (np.flatnonzero(~test), np.flatnonzero(test)) if enough else loaders.grouped_split(rows, FOLDS, 0)
        )
    except (UserError, ValueError):  # too few groups of a class
        audit.notes.append("too few groups for a hold-out: no trivial baselines.")
        return
    train = np.random.default_rng(0).permutation(train)[:SVM_ROWS]
    if len(set(labels[train])) < len(classes) or len(set(labels[held])) < len(classes):
        audit.notes.append("a class is missing in the hold-out: no trivial baselines.")
        return
    audit.baseline_score = f"AUC, {'official test half' if enough else 'a fifth held out by group'}"
    features = baselines.image_features(pictures, rows["path"])
    if "index" in rows:
        del features["file size"]
    for name, values in features.items():
        (scores,) = baselines.svm_probabilities(values[train], labels[train], values[held])
        audit.baselines.append((name, float(metrics.auc(scores, labels[held]))))
    name, score = max(audit.baselines, key=lambda baseline: baseline[1])
    if score >= STRONG:
        sentence = f"{name} alone reaches AUC {score:.3f} ({audit.baseline_score.split(', ')[1]})"
        if len(held) < LUCK:
            audit.notes.append(f"{sentence}, but {len(held)} images are few: it may be luck.")
        else:
            audit.traps.append(
                f"{sentence}: a network may learn no more than that. Report the margin over it."
            )


def _masks(table, audit: Audit) -> None:
    """How well the mean mask does, which knows where things usually are, and not the picture."""
    masks, faults = [], []
    for path in filter(None, table["mask"]):
        try:
            with readers.open_image(path) as mask:
                readers.check_opaque(path, mask)
                grey = mask.convert("L")
            readers.check_mask(path, grey.getextrema()[1])
        except UserError as error:
            faults.append(str(error))
            continue
        masks.append(np.asarray(grey.resize((SIDE, SIDE), Image.NEAREST)) > 127)
    if faults:
        audit.traps.append(f"training refuses {len(faults)} masks, the first for this: {faults[0]}")
    if len(masks) < 2:
        return
    stack = np.stack(masks).astype(np.float32)
    others = (stack.sum(0) - stack) / (len(stack) - 1)  # of each picture, the mean of all others
    guess = others >= 0.5
    dice = 2 * (guess & (stack > 0)).sum((1, 2)) / np.maximum(guess.sum((1, 2)) + stack.sum((1, 2)), 1)
    audit.baseline_score = "Dice, each picture against the mean mask of the others"
    audit.baselines.append(("mean mask", float(dice.mean())))
    audit.notes.append(f"the masks cover {stack.mean():.1%} of the pixels.")
    empty = int((stack.sum((1, 2)) == 0).sum())
    if empty:
        audit.notes.append(f"{empty} masks are empty.")


def _show(table, found: list[Found], audit: Audit) -> None:
    """The worst pairs: across splits and labels first, then across groups, the surest before the others."""
    worst = {id(one) for column in ("split", "label") for one in _differ(table, column, found)}
    apart = {id(one) for one in _differ(table, "group", found)}
    order = ("equal files", "shared pixels", "alike")
    found.sort(
        key=lambda one: (id(one) not in worst, id(one) not in apart, order.index(one.how), -one.strength)
    )
    for one in found[:SHOWN]:
        rows = [table.iloc[place] for place in one.pair]
        about = f"correlation {one.strength:.2f}" if one.how == "alike" else one.how
        differ = [column for column in ("split", "label", "group") if column in table and
                  rows[0][column] != rows[1][column]]  # fmt: skip
        audit.pairs.append({
            "why": about + (f"; differ in {', '.join(differ)}" if differ else ""),
            "pictures": [
                {"name": _name(row, audit.root), "label": row.get("label", ""), "uri": _thumbnail(row)}
                for row in rows
            ],
        })  # fmt: skip


def _name(row, root: Path) -> str:
    path = row.get("path", "") or row.get("image", "")
    return Path(path).relative_to(root).as_posix() + (f" [{row['index']}]" if "index" in row else "")


def _thumbnail(row) -> str:
    if "index" in row:
        picture = Image.fromarray(readers.read_idx(Path(row["path"]))[row["index"]])
    else:
        picture = Image.open(row.get("path", "") or row.get("image", "")).convert("RGB")
    picture.thumbnail((160, 160))
    return webp_uri(picture, quality=80)


def _render(audit: Audit) -> str:
    return new_environment().get_template("audit.html.j2").render(audit=audit)
