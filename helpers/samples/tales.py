"""Sample of `tales`: fairy tales of the brothers Grimm in English, as Orange's text add-on ships them."""

import re
from pathlib import Path

from helpers.samples import packaged


def render(folder: Path, seed: int = 0) -> None:
    """Write a text file a tale, named by its number and title; nothing is random."""
    for number, (_, title, _, content, *_) in enumerate(packaged.rows("tales"), 1):
        name = re.sub(r"[^a-z]+", "_", title.lower()).strip("_")
        (folder / f"{number:02d}_{name}.txt").write_text(content.strip() + "\n", encoding="utf-8")
