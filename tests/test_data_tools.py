"""`vision-notebooks data`: get and check, on tiny datasets and a stand-in for Kaggle's package."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_images import write_chest, write_classes, write_drive, write_image, write_mask

from helpers import data_tools
from helpers.errors import UserError


def test_the_list_tells_what_is_present(tmp_path, capsys):
    (tmp_path / "drive").mkdir()
    assert data_tools.main_list(str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert f"  present at {tmp_path / 'drive'}" in out
    assert f"not present at {tmp_path / 'chest_xray'}" in out
    assert "licence: CC BY 4.0" in out


def test_sound_data_passes_the_check(tmp_path, capsys):
    write_chest(tmp_path / "chest_xray")
    assert data_tools.main_check("chest_xray", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "18 images under" in out
    assert "test / PNEUMONIA: 4 images, 2 groups" in out
    assert "sizes: 12 × 10 (18)" in out
    assert "0 sets, 0 of them across splits, 0 across groups" in out
    assert "0 fault(s)" in out


def test_sound_pairs_and_class_folders_pass_too(tmp_path, capsys):
    write_drive(tmp_path / "drive")
    write_classes(tmp_path / "pets", {"cat": 2, "dog": 1})
    assert data_tools.main_check("drive", str(tmp_path)) == 0
    assert data_tools.main_check("pets", str(tmp_path)) == 0
    assert "training: 3 images, 3 groups" in capsys.readouterr().out


def test_the_check_finds_unreadable_files_and_copies_across_splits(tmp_path, capsys):
    root = write_chest(tmp_path / "chest_xray")
    broken = root / "train" / "NORMAL" / "IM-0000-0001.jpeg"
    broken.write_bytes(broken.read_bytes()[:300])
    text = root / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    text.write_text("no image")
    copy, original = (
        root / "test" / "NORMAL" / "IM-0001-0001.jpeg",
        root / "val" / "NORMAL" / "IM-0000-0001.jpeg",
    )
    copy.write_bytes(original.read_bytes())
    assert data_tools.main_check("chest_xray", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert f"fault: {broken}: not a readable image" in out
    assert f"fault: {text}: not a readable image" in out
    assert "exact duplicates: 1 sets, 1 of them across splits" in out
    assert str(copy) in out
    assert str(original) in out
    assert "3 fault(s)" in out


def test_the_check_names_what_training_refuses(tmp_path, capsys):
    """A link to nothing, and sixteen bits, which Pillow would cut to white."""
    root = write_classes(tmp_path / "pets", {"cat": 2, "dog": 1})
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(np.full((10, 12), 4000, np.uint16)).save(root / "dog" / "deep.png")
    assert data_tools.main_check("pets", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert f"fault: {root / 'cat' / 'gone.png'}: cannot be read (No such file or directory)" in out
    assert f"fault: {root / 'dog' / 'deep.png'}: has more than 8 bits a channel" in out
    assert "2 fault(s)" in out


def test_a_hidden_label_is_no_second_label(tmp_path, capsys):
    """AOI's test images: a copy of one in the training half is one fault, not two."""
    root = tmp_path / "aoi"
    for split, label in (("train", "0"), ("test", "")):
        write_image(root / f"{split}_images" / f"{split}.png")
        (root / f"{split}.csv").write_text(f"ID,Label\n{split}.png,{label}\n")
    assert data_tools.main_check("aoi", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "fault: the same picture in two splits: " in out
    assert "1 fault(s)" in out


def test_a_copy_within_a_split_is_counted_only(tmp_path, capsys):
    root = write_classes(tmp_path / "pets", {"cat": 2, "dog": 1})
    (root / "cat" / "1.png").write_bytes((root / "cat" / "0.png").read_bytes())
    assert data_tools.main_check("pets", str(tmp_path)) == 0
    assert "1 sets, 0 of them across splits, 1 across groups" in capsys.readouterr().out


def test_a_copy_under_another_label_is_a_fault(tmp_path, capsys):
    root = write_classes(tmp_path / "pets", {"cat": 2, "dog": 1})
    (root / "cat" / "1.png").write_bytes((root / "dog" / "0.png").read_bytes())
    assert data_tools.main_check("pets", str(tmp_path)) == 1
    assert "fault: the same picture under two labels: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "mask",
    ["training/1st_manual/22_manual1.gif", "test/mask/01_test_mask.gif", "test/2nd_manual/02_manual2.gif"],
)
def test_the_check_finds_a_mask_of_another_size(tmp_path, capsys, mask):
    root = write_drive(tmp_path / "drive")
    write_mask(root / mask, size=(10, 10))
    assert data_tools.main_check("drive", str(tmp_path)) == 1
    assert f"fault: {root / mask}: another size than" in capsys.readouterr().out


def test_the_check_finds_a_mask_that_would_be_lost(tmp_path, capsys):
    root = write_drive(tmp_path / "drive")
    write_mask(root / "training/1st_manual/22_manual1.gif", high=38)
    assert data_tools.main_check("drive", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert f"fault: {root / 'training/1st_manual/22_manual1.gif'}: the mask's values end at 38" in out


def test_the_check_ends_at_a_missing_partner_and_at_nothing(tmp_path):
    root = write_drive(tmp_path / "drive")
    (root / "training" / "mask" / "21_training_mask.gif").unlink()
    with pytest.raises(UserError, match="has no partner 21"):
        data_tools.main_check("drive", str(tmp_path))
    with pytest.raises(UserError, match="pets: no folder"):
        data_tools.main_check("pets", str(tmp_path))


def test_get_names_the_known_datasets(tmp_path):
    with pytest.raises(UserError, match='"pets" is unknown; known are chest_xray, drive'):
        data_tools.main_get("pets", str(tmp_path))


def test_get_without_the_package_prints_the_steps(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert data_tools.main_get("drive", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "1. Register at drive.grand-challenge.org" in out
    assert str(tmp_path / "drive") in out
    assert os.listdir(tmp_path) == []


def test_get_prints_the_steps_where_only_a_person_can(tmp_path, capsys):
    assert data_tools.main_get("aoi", str(tmp_path)) == 1
    assert "1. Register at aidea-web.tw" in capsys.readouterr().out
    assert data_tools.main_get("mnist", str(tmp_path)) == 1
    assert "mnist: this command does not download it. By hand:" in capsys.readouterr().out


def test_get_leaves_present_data_alone(tmp_path, capsys):
    write_drive(tmp_path / "drive")
    assert data_tools.main_get("drive", str(tmp_path)) == 0
    assert "already at" in capsys.readouterr().out


@pytest.fixture
def kaggle(tmp_path, monkeypatch) -> Path:
    """The folder that a stand-in for kagglehub "downloads"; a file `fails` in it makes it fail."""
    folder = tmp_path / "download"
    folder.mkdir()
    package = tmp_path / "site" / "kagglehub"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "def dataset_download(handle):\n"
        "    assert handle.count('/') == 1\n"
        f"    folder = Path({str(folder)!r})\n"
        "    if (folder / 'fails').exists():\n"
        "        raise ConnectionError((folder / 'fails').read_text())\n"
        "    return str(folder)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    yield folder
    sys.modules.pop("kagglehub", None)


def test_get_installs_what_lies_deep_in_the_download(tmp_path, capsys, kaggle):
    """As Kaggle's archive: nested twice, with macOS leftovers of the same folder names."""
    write_chest(kaggle / "chest_xray")
    write_chest(kaggle / "chest_xray" / "chest_xray")
    for leftovers in ("chest_xray/__MACOSX", "__MACOSX"):
        (kaggle / leftovers / "train").mkdir(parents=True)
    (kaggle / "chest_xray" / ".DS_Store").write_text("")
    data = tmp_path / "data"
    assert data_tools.main_get("chest_xray", str(data)) == 0
    assert os.listdir(data) == ["chest_xray"]
    assert sorted(os.listdir(data / "chest_xray")) == ["test", "train", "val"]
    assert "now at" in capsys.readouterr().out
    assert data_tools.main_check("chest_xray", str(data)) == 0


def test_get_takes_an_empty_folder_for_a_missing_one(tmp_path, kaggle):
    write_drive(kaggle / "DRIVE")
    (tmp_path / "data" / "drive").mkdir(parents=True)
    assert data_tools.main_get("drive", str(tmp_path / "data")) == 0
    assert sorted(os.listdir(tmp_path / "data" / "drive")) == ["test", "training"]


def test_a_wrong_download_is_named_and_not_installed(tmp_path, kaggle):
    write_classes(kaggle / "pets", {"cat": 1, "dog": 1})
    (kaggle / "training").write_text("a file, not a folder")
    with pytest.raises(UserError, match="the download holds no folder training"):
        data_tools.main_get("drive", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path, kaggle):
    write_drive(kaggle / "DRIVE")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"drive: could not be written \(.*\); free some space, or name"):
        data_tools.main_get("drive", str(tmp_path / "file" / "data"))


@pytest.mark.parametrize("reason", ["no route to host\nand more", ""])
def test_a_failed_download_prints_the_steps(tmp_path, capsys, kaggle, reason):
    (kaggle / "fails").write_text(reason)
    assert data_tools.main_get("drive", str(tmp_path / "data")) == 1
    out = capsys.readouterr().out
    assert (f"failed ({reason.splitlines()[0]})" if reason else "failed (ConnectionError)") in out
    assert "1. Register" in out
    assert not (tmp_path / "data").exists()
