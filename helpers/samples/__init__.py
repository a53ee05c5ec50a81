"""Synthetic datasets in the layouts of the real ones, for runs that need no download.

A renderer is a module with `render(folder, seed=0)`. It writes a dataset with the folders, names and
formats of the real one, so that the loaders cannot tell them apart, and the same bytes for one seed.
Where small real data ship in a package, the sample is these (REAL), written in the same way.
"""

import importlib
import os
import tempfile
from pathlib import Path

from helpers import runtime
from helpers.errors import UserError
from helpers.parameters import suggest

VERSION = 2  # raise it when a renderer changes, so that nobody keeps samples of an older one

RENDERERS = {
    "aoi": "helpers.samples.aoi",
    "chest_xray": "helpers.samples.chest_xray",
    "demand": "helpers.samples.demand",
    "drive": "helpers.samples.drive",
    "lungs": "helpers.samples.lungs",
    "lungs_elsewhere": "helpers.samples.lungs_elsewhere",
    "mnist": "helpers.samples.mnist",
    "radiography": "helpers.samples.radiography",
    "reuters": "helpers.samples.reuters",
    "tales": "helpers.samples.tales",
    "western_blot": "helpers.samples.western_blot",
}

REAL = {  # what the sample holds, where it is not synthetic
    "demand": "real demand",
    "mnist": "real digits",
    "reuters": "real news",
    "tales": "real tales",
}


def note(name: str) -> str:
    """What every figure, table and page on the sample of a dataset must say."""
    return f"sample data ({REAL.get(name, 'synthetic')})"


def ensure(name: str) -> Path:
    """The folder of the synthetic dataset `name` in the cache, rendered first where it is missing.

    It is rendered beside its place and renamed into it: a folder under its final name is whole. Of two
    processes that render at once, one publishes its folder and the other discards its own.
    Raises UserError for a name without a renderer and for a cache that cannot be written.
    """
    if name not in RENDERERS:
        raise UserError(f'no sample data is known under the name "{name}"; {suggest(name, RENDERERS)}')
    folder = runtime.cache_dir() / "samples" / f"{name}-v{VERSION}"
    if folder.is_dir():
        return folder
    renderer = importlib.import_module(RENDERERS[name])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as workplace:
            # One level deeper: the temporary folder itself could be read by its owner alone.
            unfinished = Path(workplace) / name
            unfinished.mkdir()
            renderer.render(unfinished)
            _publish(unfinished, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the sample data could not be written ({error.strerror or error}); free some space "
            "or set VISION_NOTEBOOKS_CACHE to another folder, then run again."
        ) from error
    return folder


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same bytes
            raise
