"""The pages with a movable threshold: what they are made of, and when."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_images import write_classes, write_drive

from helpers import explore
from helpers.explore import PICTURES, classification, segmentation, write


@pytest.fixture
def records(tmp_path: Path) -> dict:
    """The records of a run on folders of cats and dogs."""
    write_classes(tmp_path / "data" / "pets", {"cat": 3, "big dog": 3})
    return {
        "dataset": {"name": "pets", "source": "real"},
        "parameters": {"data_dir": str(tmp_path / "data")},
    }


def write_predictions(folder: Path, rows: list[tuple], classes: tuple[str, ...] = ("cat", "big_dog")) -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label", *(f"p_{name}" for name in classes)), *rows])


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S).group(1))


def test_a_classification_page_has_scores_and_pictures(tmp_path, records):
    rows = [
        ("cat/0.png", "cat", 0.9, 0.1),
        ("big dog/1.png", "big dog", 0.2, 0.8),
        ("x.png", "cat", 0.5, 0.5),
    ]
    write_predictions(tmp_path / "run", rows)
    assert write(tmp_path / "run", "pets <1>", records, {"threshold": 0.4})
    page = tmp_path / "run" / "explore.html"
    data = data_of(page)
    assert data["labels"] == [0, 1, 0]
    assert data["scores"] == [[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]]
    assert (data["threshold"], data["positive"]) == (0.4, 1)
    assert list(data["pictures"]) == ["0", "1"]  # the third file is not there
    text = page.read_text()
    assert "pets &lt;1&gt;" in text
    assert not re.search(r'(src|href)="(?!data:|\.\./index\.html#)', text)


def test_a_text_cannot_leave_its_script(tmp_path, records):
    write_predictions(tmp_path / "run", [("a.png", "cat", 1, 0)], classes=("cat", "</script><b>"))
    assert write(tmp_path / "run", "r", records, {})
    assert data_of(tmp_path / "run" / "explore.html")["classes"][1] == "</script><b>"


def test_many_pictures_are_thinned_out_around_the_threshold(tmp_path):
    rows = [(f"{i}.png", "cat" if i % 2 else "big dog", 1 - i / 2000, i / 2000) for i in range(2000)]
    write_predictions(tmp_path, rows)
    data = classification(tmp_path / "predictions.csv", explore.Source("no", "real", ""), 0.25)
    assert data["pictures"] == {}  # no data on this machine: the page works without
    chosen = explore._spread(data["scores"], 0.25)
    assert PICTURES * 0.6 < len(chosen) <= PICTURES
    assert {0, 1999} <= set(chosen)
    assert set(range(480, 520)) <= set(chosen)


def test_a_page_is_made_again_only_when_predictions_are_newer(tmp_path, records):
    write_predictions(tmp_path / "run", [("a.png", "cat", 1, 0)])
    assert write(tmp_path / "run", "r", records, {})
    page = tmp_path / "run" / "explore.html"
    page.write_text("as it is")
    assert write(tmp_path / "run", "r", records, {})
    assert page.read_text() == "as it is"
    later = page.stat().st_mtime + 5
    os.utime(tmp_path / "run" / "predictions.csv", (later, later))
    assert write(tmp_path / "run", "r", records, {})
    assert page.read_text() != "as it is"


@pytest.mark.parametrize(
    "content", ["", "file,label\na,b\n", "file,label,p_a,p_b\nx,y,z,0\n", "ID,Label\n1,2\n"]
)
def test_other_tables_give_no_page(tmp_path, records, content):
    (tmp_path / "predictions.csv").write_text(content)
    assert not write(tmp_path, "r", records, {})
    assert not (tmp_path / "explore.html").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_broken_arrays_give_no_page(tmp_path, records, damage):
    file = tmp_path / "predictions.npz"
    values = np.arange(3 * 40 * 40, dtype=np.uint8).reshape(3, 40, 40)
    np.savez_compressed(file, ids=["a", "b", "c"], probability=values, masks=values)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    flipped = content[: middle - 200] + bytes(400) + content[middle + 200 :]
    file.write_bytes(
        {"empty": b"", "cut": content[:middle], "flipped": flipped, "text": b"no arrays"}[damage]
    )
    assert not write(tmp_path, "r", records, {})


def test_a_table_with_a_short_row_gives_no_page(tmp_path, records):
    (tmp_path / "predictions.csv").write_text("file,label,p_a,p_b\nx,a,1,0\ny\n")
    assert not write(tmp_path, "r", records, {})


def test_a_segmentation_page_shows_worst_median_and_best(tmp_path):
    write_drive(tmp_path / "data" / "drive")  # each mask: the right half
    probability = np.zeros((3, 10, 12), np.uint8)
    probability[0, :, 6:], probability[1, :, 9:] = 255, 255
    probability[2, :, :6] = 255
    np.savez(tmp_path / "predictions.npz", ids=["21", "22", "23"], probability=probability, threshold=0.3)
    about = explore.Source("drive", "real", str(tmp_path / "data"))
    data = segmentation(tmp_path / "predictions.npz", about)
    assert [film["name"] for film in data["films"]] == ["23 (worst)", "22 (median)", "21 (best)"]
    assert (data["width"], data["height"], data["threshold"]) == (12, 10, 0.3)
    assert all(film["picture"].startswith("data:image/webp") for film in data["films"])


def test_truth_may_come_with_the_predictions(tmp_path):
    masks = np.ones((1, 1, 4, 5), np.uint8)
    values = np.zeros((1, 4, 5), np.uint8)
    np.savez(tmp_path / "predictions.npz", ids=["a"], probability=values, masks=masks)
    data = segmentation(tmp_path / "predictions.npz", explore.Source("", "", ""))
    assert (data["films"][0]["name"], data["films"][0]["picture"]) == ("a (only one)", "")


def test_arrays_of_another_kind_give_no_page(tmp_path, records):
    np.savez(tmp_path / "predictions.npz", ids=["a"], reconstruction=np.zeros((1, 3, 4, 4), np.uint8))
    assert not write(tmp_path, "r", records, {})
