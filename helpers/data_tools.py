"""`vision-notebooks data`: which datasets are present, how to get them, whether their files are sound."""

import hashlib
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from helpers import datasets, readers, runtime
from helpers.cards import CARDS, Card
from helpers.errors import UserError


def main_list(data_dir: str = "") -> int:
    """Print every card in short and whether the dataset is present; returns the exit status."""
    root = runtime.data_root(data_dir)
    for card in CARDS.values():
        present = "present" if (root / card.name).is_dir() else "not present"
        print(f"{card.name}: {card.title}\n  {present} at {root / card.name}")
        print(f"  {card.counts}\n  layout: {card.layout}\n  licence: {card.licence}\n  source: {card.source}")
        print("".join(f"  trap: {trap}\n" for trap in card.traps))
    return 0


def card_named(name: str) -> Card:
    """The card of a dataset; UserError with the known names for any other."""
    if name not in CARDS:
        raise UserError(f'dataset "{name}" is unknown; known are {", ".join(CARDS)}.')
    return CARDS[name]


def main_get(name: str, data_dir: str = "") -> int:
    """Download a dataset into the data root, or print the steps where that needs a person.

    Returns the exit status: 0 when the dataset is in place, 1 when steps are left to do by hand.
    """
    card = card_named(name)
    target = runtime.data_root(data_dir) / name
    if target.is_dir() and any(target.iterdir()):
        print(f'{name}: already at {target}; "vision-notebooks data check {name}" tests its files.')
        return 0
    steps = "\n".join(f"  {n}. {step.format(folder=target)}" for n, step in enumerate(card.by_hand, 1))
    if card.download is None:
        print(f"{name}: this command does not download it. By hand:\n{steps}")
        return 1
    try:
        import kagglehub
    except ImportError:
        print(
            f'{name}: the download needs the optional package: pip install -e ".[kaggle]". By hand:\n{steps}'
        )
        return 1
    print(f"{name}: downloading {card.download} from Kaggle. Licence: {card.licence}.")
    try:
        downloaded = Path(kagglehub.dataset_download(card.download))
    except Exception as error:  # network, login and quota fail in many classes, all with the same mend
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"{name}: the download failed ({reason}). By hand:\n{steps}")
        return 1
    _install(downloaded, target, first_folder=card.layout.split("|")[0].split("/")[0].strip())
    print(f'{name}: now at {target}; "vision-notebooks data check {name}" tests its files.')
    return 0


def _install(downloaded: Path, target: Path, first_folder: str) -> None:
    """Copy the folder that holds `first_folder` to `target` in one stroke; archives nest it differently."""
    found = [p for p in downloaded.rglob(first_folder) if p.is_dir() and "__MACOSX" not in p.parts]
    found.sort(key=lambda p: (len(p.parts), p))
    if not found:
        raise UserError(
            f"{downloaded}: the download holds no folder {first_folder}; get the dataset by hand."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
        ) as workplace:
            partial = Path(workplace) / target.name
            shutil.copytree(found[0].parent, partial,
                            ignore=shutil.ignore_patterns("__MACOSX", ".DS_Store", target.name))  # fmt: skip
            if target.is_dir():
                target.rmdir()  # an empty folder; Windows does not rename over it
            partial.rename(target)
    except OSError as error:
        raise UserError(
            f"{target}: could not be written ({error.strerror or error}); free some space, or name another "
            "folder in DATA_DIR."
        ) from error


def main_check(name: str, data_dir: str = "") -> int:
    """Open every file of a dataset and report counts, sizes and faults; returns 1 where there are faults.

    `name` is a dataset with a card or a folder of class subfolders under the data root.
    """
    dataset = datasets.load(name, "real", data_dir)  # a missing partner or an empty class ends here
    table = dataset.table
    if "group" not in table or "text" in table:
        return _check_rows(dataset)
    columns = [c for c in ("path", "image", "mask", "fov", "second", "base") if c in table]
    print(f"{name}: {len(table)} images under {dataset.root}")
    for keys, rows in table.groupby([c for c in ("split", "label") if c in table]):
        print(f"  {' / '.join(filter(None, keys))}: {len(rows)} images, {rows['group'].nunique()} groups")
    faults, sizes, digests = [], Counter(), defaultdict(list)
    if "index" in table:  # MNIST keeps all images of a split in one file
        for path, rows in table.groupby("path"):
            for image, row in zip(readers.read_idx(Path(path)), rows.itertuples(index=False)):
                sizes[image.shape[::-1]] += 1
                digests[image.tobytes()].append((f"{path} [{row.index}]", row))
        columns = []
    for column in columns:
        for path, row in zip(table[column], table.itertuples()):
            if not path:
                continue
            fault, size = _open_fully(path)
            if fault:
                faults.append(fault)
            elif column in ("path", "image"):
                sizes[size] += 1
                digests[hashlib.sha256(Path(path).read_bytes()).hexdigest()].append((path, row))
    print("  sizes: " + ", ".join(f"{w} × {h} ({n})" for (w, h), n in sizes.most_common(5))
          + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""))  # fmt: skip
    if "image" in table:  # of radiography, whose masks are smaller by design, the images are a "path"
        faults += _mask_faults(table)
    copies = [found for found in digests.values() if len(found) > 1]

    def across(column: str) -> list[str]:
        """The sets of copies that differ in a column, as text; a hidden label, "", differs from none."""
        differing = (
            found for found in copies if len({getattr(row, column, "") for _, row in found} - {""}) > 1
        )
        return [", ".join(path for path, _ in found) for found in differing]

    print(f"  exact duplicates: {len(copies)} sets, {len(across('split'))} of them across splits, "
          f"{len(across('group'))} across groups")  # fmt: skip
    faults += [f"the same picture in two splits: {paths}" for paths in across("split")]
    faults += [f"the same picture under two labels: {paths}" for paths in across("label")]
    for fault in faults:
        print(f"  fault: {fault}")
    print(f"  {len(faults)} fault(s)")
    return 1 if faults else 0


def _check_rows(dataset: datasets.Dataset) -> int:
    """The same for texts and series, whose reader has opened everything; returns 1 where there are faults."""
    table, unit = dataset.table, dataset.card.unit.lower()
    print(f"{dataset.name}: {len(table)} {unit} under {dataset.root}")
    if "text" not in table:
        print("  0 fault(s)")
        return 0
    for keys, rows in table.groupby([c for c in ("split", "label") if c in table]):
        print(f"  {' / '.join(keys)}: {len(rows)} {unit}")
    copies = table[table.duplicated("text", keep=False)].groupby("text")
    across = {c: int((copies[c].nunique() > 1).sum()) for c in ("split", "label") if c in table}
    print(f"  exact duplicates: {len(copies)} sets, {across['split']} of them across splits")
    for column, what in (("split", "in two splits"), ("label", "under two labels")):
        if across.get(column):
            print(f"  fault: {across[column]} text(s) {what}")
    faults = sum(count > 0 for count in across.values())
    print(f"  {faults} fault(s)")
    return 1 if faults else 0


def _open_fully(path: str) -> tuple[str, tuple[int, int]]:
    """What is wrong with an image file, "" where nothing is, and its width and height."""
    try:
        with readers.open_image(path) as image:
            image.load()
            return "", image.size
    except UserError as error:
        return str(error), (0, 0)


def _mask_faults(table) -> list[str]:
    """Partners of another size than their image, and masks whose marks would be lost."""
    faults = []
    for row in table.itertuples():
        for kind in ("mask", "fov", "second", "base"):
            other = getattr(row, kind, "")
            if not other:
                continue
            try:
                with readers.open_image(other) as partner, readers.open_image(row.image) as image:
                    same, highest = partner.size == image.size, partner.convert("L").getextrema()[1]
                    transparent = _fault(readers.check_opaque, other, partner)
            except UserError:  # it is reported already
                continue
            if not same:
                faults.append(f"{other}: another size than {row.image}")
            if kind != "base":
                faults += transparent or _fault(readers.check_mask, other, highest)
    return faults


def _fault(check: Callable, *arguments) -> list[str]:
    """What a check says, where it refuses."""
    try:
        check(*arguments)
    except UserError as error:
        return [str(error)]
    return []
