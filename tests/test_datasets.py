"""Layouts on disk become tables; what is missing is named."""

import os

import pytest
import torch
import torchvision
from tiny_images import write_chest, write_classes, write_drive, write_image

from helpers import datasets, loaders, readers
from helpers.cards import CARDS
from helpers.errors import UserError


def test_every_card_has_a_head_for_its_notebook():
    for name, card in CARDS.items():
        assert card.name == name
        text = card.markdown()
        assert card.licence in text
        assert all(trap in text for trap in card.traps)
        assert all(line.startswith("|") for line in text.split("\n\n")[1].splitlines())


@pytest.mark.parametrize(
    ("file", "patient"),
    [
        ("person12_bacteria_34.jpeg", "person12"),
        ("person1_virus_6.jpeg", "person1"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-0115"),
        ("NORMAL2-IM-1427-0001.jpeg", "NORMAL2-IM-1427"),
        ("another.jpeg", "another"),
    ],
)
def test_the_patient_stands_in_the_file_name(file, patient):
    assert readers.chest_patient(file) == patient


def test_the_cause_stands_in_the_file_name():
    assert readers.chest_cause("a/IM-0115-0001.jpeg", "NORMAL") == "NORMAL"
    assert readers.chest_cause("a/person1_virus_6.jpeg", "PNEUMONIA") == "VIRUS"
    assert readers.chest_cause("a_virus_b/person1_bacteria_6.jpeg", "PNEUMONIA") == "BACTERIA"
    with pytest.raises(UserError, match=r"other\.jpeg: the file name tells no cause"):
        readers.chest_cause("other.jpeg", "PNEUMONIA")


def test_chest_xray_has_a_row_an_image_and_groups_by_patient(tmp_path):
    write_chest(tmp_path / "chest_xray")
    (tmp_path / "chest_xray" / "train" / ".DS_Store").write_text("")
    (tmp_path / "chest_xray" / "train" / "NORMAL" / "._IM-0000-0001.jpeg").write_text("")
    data = datasets.load("chest_xray", "real", str(tmp_path))
    assert data.classes == ("NORMAL", "PNEUMONIA")
    assert data.table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): count
        for split in ("train", "val", "test")
        for label, count in (("NORMAL", 2), ("PNEUMONIA", 4))
    }
    assert data.table["group"].nunique() == 4
    assert all(os.path.isabs(path) for path in data.table["path"])
    assert data.note == ""
    causes = datasets.load("chest_xray", "real", str(tmp_path), by_cause=True)
    assert causes.classes == ("BACTERIA", "NORMAL", "VIRUS")


def test_drive_joins_files_by_their_number(tmp_path):
    data = datasets.load("drive", "real", str(write_drive(tmp_path / "drive").parent))
    assert data.table["id"].tolist() == ["21", "22", "23", "01", "02"]
    row = data.table.iloc[3]
    for column, file in {
        "image": "images/01_test.tif", "mask": "1st_manual/01_manual1.gif",
        "fov": "mask/01_test_mask.gif", "second": "2nd_manual/01_manual2.gif",
    }.items():  # fmt: skip
        assert row[column] == str(tmp_path / "drive" / "test" / file)
    assert data.table["second"][0] == ""
    assert data.table["group"].is_unique


def test_drive_may_lack_the_labels_of_its_test_part_and_the_part_itself(tmp_path):
    root = write_drive(tmp_path / "drive")
    for file in (root / "test" / "1st_manual").iterdir():
        file.unlink()
    assert readers.read_drive(root)["mask"].tolist()[3:] == ["", ""]
    assert len(readers.read_drive(write_drive(tmp_path / "other", test=()))) == 3


@pytest.mark.parametrize("missing", ["training/1st_manual/22_manual1.gif", "test/mask/01_test_mask.gif"])
def test_an_image_without_a_partner_is_named(tmp_path, missing):
    root = write_drive(tmp_path / "drive")
    (root / missing).unlink()
    number = missing.split("/")[-1][:2]
    with pytest.raises(UserError, match=rf"{number}_\w+\.tif has no partner {number}_… in .*{missing[:6]}"):
        readers.read_drive(root)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (
            "training/images/21_again.tif",
            r"training.images: 21_again\.tif and 21_training\.tif have the same",
        ),
        (
            "training/1st_manual/21_b.gif",
            r"1st_manual: 21_b\.gif and 21_manual1\.gif have the same number, 21",
        ),
    ],
)
def test_files_of_drive_that_share_a_number_are_refused(tmp_path, more, named):
    """As in CHASE_DB1 (Image_01L.jpg, Image_01R.jpg): every image would get the first one's vessels."""
    root = write_drive(tmp_path / "drive")
    write_image(root / more)
    with pytest.raises(UserError, match=named):
        readers.read_drive(root)


def test_an_empty_class_folder_is_named_with_the_mend(tmp_path):
    root = write_chest(tmp_path / "chest_xray")
    for file in (root / "test" / "NORMAL").iterdir():
        file.unlink()
    with pytest.raises(UserError) as caught:
        datasets.load("chest_xray", "real", str(tmp_path))
    message = str(caught.value)
    assert str(root / "test" / "NORMAL") in message
    assert "NORMAL, PNEUMONIA" in message
    assert "data get chest_xray" in message


def test_a_class_that_one_split_lacks_is_named(tmp_path):
    write_classes(tmp_path / "pets", {"train/cat": 1, "train/dog": 1, "test/cat": 1})
    with pytest.raises(UserError, match=r"pets: no images under .*dog"):
        datasets.load("pets", "real", str(tmp_path))


@pytest.mark.parametrize("name", ["chest_xray", "drive", "pets"])
def test_real_data_that_is_not_there_is_named_with_place_and_mend(tmp_path, name):
    with pytest.raises(UserError) as caught:
        datasets.load(name, "real", str(tmp_path))
    message = str(caught.value)
    assert str(tmp_path / name) in message
    assert 'source="sample"' in message
    if name in CARDS:
        assert CARDS[name].layout in message
        assert f'data get {name}" fetches it' in message
    else:
        assert "one subfolder a class" in message


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if not card.download])
def test_a_command_that_fetches_nothing_is_not_said_to_fetch(tmp_path, name):
    (tmp_path / "empty" / name).mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "empty"):
        with pytest.raises(UserError) as caught:
            datasets.load(name, "real", str(folder))
        assert '" fetches' not in str(caught.value)
    with pytest.raises(UserError, match=f'data get {name}" tells how to get it'):
        datasets.load(name, "real", str(tmp_path))


def test_a_drive_folder_without_images_is_named(tmp_path):
    (tmp_path / "drive").mkdir()
    with pytest.raises(UserError, match=r"no images under .*images\. Expected 21_training\.tif"):
        datasets.load("drive", "real", str(tmp_path))


def test_unknown_sources_and_samples_are_named(cache):
    with pytest.raises(UserError, match='source "reel" is unknown; use "sample" or "real"'):
        datasets.load("drive", "reel")
    with pytest.raises(UserError, match='"drove"; did you mean "drive"'):
        datasets.load("drove", "sample")


def test_class_folders_need_no_card_and_no_splits(tmp_path):
    write_classes(tmp_path / "pets", {"cat": 2, "dog": 1, "owl": 1})
    data = datasets.load("pets", "real", str(tmp_path))
    assert data.classes == ("cat", "dog", "owl")
    assert data.card is None
    assert data.table["split"].tolist() == ["train"] * 4
    assert data.table["group"].is_unique


def test_class_folders_may_lie_in_splits(tmp_path):
    write_classes(
        tmp_path / "pets", {f"{split}/{pet}": 1 for split in ("train", "test") for pet in ("cat", "dog")}
    )
    table = datasets.load("pets", "real", str(tmp_path)).table
    assert table["split"].tolist() == ["train", "train", "test", "test"]
    assert table["group"].is_unique  # files of one name in two folders are not one patient


def test_one_class_is_none(tmp_path):
    write_classes(tmp_path / "pets", {"cat": 2})
    with pytest.raises(UserError, match="found 1 class folder"):
        datasets.load("pets", "real", str(tmp_path))


def test_groups_csv_tells_which_images_belong_together(tmp_path):
    root = write_classes(tmp_path / "pets", {"cat": 3, "dog": 1})
    (root / "groups.csv").write_text("ID,group\n0.png,tom\n2.png,tom\n1.png,\n")
    table = datasets.load("pets", "real", str(tmp_path)).table
    assert table["group"].tolist() == ["tom", "train/cat/1.png", "tom", "tom"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"name,group\n0.png,1\n", 'expected the columns "ID,group", found "name,group"'),
        (b"", "not a readable table"),
        (b"ID,group\n\xff\xfe,1\n", "not a readable table"),
        (b"ID,group\n0,tom\n", r"its ID 0 and all others name no image; .* such as 0\.png"),
        (b"ID,group\n0.png,tom\n0.png,tim\n", r"gives 0\.png more than one group; correct the table"),
    ],
)
def test_a_groups_csv_that_would_group_nothing_is_refused(tmp_path, content, named):
    root = write_classes(tmp_path / "pets", {"cat": 1, "dog": 1})
    (root / "groups.csv").write_bytes(content)
    with pytest.raises(UserError, match=named):
        datasets.load("pets", "real", str(tmp_path))


def write_pairs(root):
    for name in ("a", "b", "c"):
        write_image(root / "images" / f"{name}.png")
        write_image(root / "masks" / f"{name}.png")


def write_blots(root):
    for name in ("a", "b", "c"):
        for folder, prefix in readers.BLOT_FOLDERS.values():
            write_image(root / folder / f"{prefix}bg_{name}.png")


def write_radiography(root):
    for number, label in enumerate(("COVID", "Normal")):
        write_image(root / label / "images" / f"{label}-1.png", seed=2 * number)
        write_image(root / label / "images" / f"{label}-2.png", seed=2 * number + 1)


@pytest.mark.parametrize(
    ("name", "write", "ids"),
    [
        ("radiography", write_radiography, ["COVID-1.png", "Normal-2.png"]),
        ("lungs", write_pairs, ["a.png", "c.png"]),
        ("western_blot", write_blots, ["bg_a.png", "bg_c.png"]),
        ("aoi", lambda root: write_aoi(root), ["train_0.png", "test_0.png"]),
        ("eyes", write_drive, ["21_training.tif", "02_test.tif"]),
    ],
)
def test_every_reader_of_groups_csv_refuses_one_that_names_no_image(tmp_path, name, write, ids):
    write(tmp_path / name)
    own = datasets.load(name, "real", str(tmp_path)).table["group"].tolist()
    file = tmp_path / name / "groups.csv"
    file.write_text("ID,group\n" + "".join(f"{file_name},one\n" for file_name in ids))
    groups = datasets.load(name, "real", str(tmp_path)).table["group"].tolist()
    assert groups == ["one", *own[1:-1], "one"]  # the others keep their own
    file.write_text("ID,group\n" + "".join(f"{file_name[:-4]},one\n" for file_name in ids))
    with pytest.raises(UserError, match=rf"groups\.csv: its ID {ids[0][:-4]} and all others name no image"):
        datasets.load(name, "real", str(tmp_path))


def test_equal_files_of_radiography_are_one_group(tmp_path):
    root = tmp_path / "radiography"
    write_radiography(root)
    (root / "Normal/images/Normal-3.png").write_bytes((root / "COVID/images/COVID-2.png").read_bytes())
    (root / "Normal/images/Normal-4.png").symlink_to(root / "gone.png")  # the decoder will name it
    groups = readers.read_radiography(root)["group"].tolist()
    assert groups[1] == groups[4] == "COVID/COVID-2.png"
    assert len(set(groups)) == 5
    # A table may join more, but what is one picture stays together.
    (root / "groups.csv").write_text("ID,group\nNormal-3.png,tom\nNormal-1.png,tom\n")
    groups = readers.read_radiography(root)["group"].tolist()
    assert groups[1] == groups[2] == groups[4]
    assert len(set(groups)) == 4


def test_the_fingerprint_follows_the_files_not_their_place(tmp_path):
    def fingerprint(folder: str = "one") -> str:
        return datasets.load("pets", "real", str(tmp_path / folder)).fingerprint()

    for folder in ("one", "two"):
        write_classes(tmp_path / folder / "pets", {"cat": 2, "dog": 1})
    first = fingerprint()
    assert first == fingerprint("two")
    file = tmp_path / "one" / "pets" / "cat" / "1.png"
    file.rename(file.with_name("2.png"))
    renamed = fingerprint()
    write_image(file.with_name("2.png"), size=(20, 20))
    resized = fingerprint()
    write_image(file)
    assert len({first, renamed, resized, fingerprint()}) == 4


def test_what_run_json_tells_of_a_dataset(tmp_path):
    data = datasets.load("drive", "real", str(write_drive(tmp_path / "drive").parent))
    assert data.about() == {
        "name": "drive", "source": "real", "images": 5, "fingerprint": data.fingerprint()
    }  # fmt: skip
    assert len(data.fingerprint()) == 12


def write_aoi(root):
    for number in range(3):
        write_image(root / "train_images" / f"train_{number}.png", seed=number)
    write_image(root / "test_images" / "test_0.png")
    (root / "train.csv").write_text("ID,Label\ntrain_0.png,0\ntrain_1.png,5\ntrain_2.png,2\n")
    (root / "test.csv").write_text("ID,Label\ntest_0.png,\n")
    return root


def test_aoi_reads_its_lists(tmp_path):
    write_aoi(tmp_path / "aoi")
    data = datasets.load("aoi", "real", str(tmp_path))
    assert data.table["label"].tolist() == ["normal", "particle", "horizontal defect", ""]
    assert data.table["split"].tolist() == ["train", "train", "train", "test"]
    assert data.classes == readers.AOI_CLASSES
    data.about()


@pytest.mark.parametrize(
    ("list_", "named"),
    [
        ("ID,Label\ntrain_0.png,6\n", "6"),
        ("ID,Label\ntrain_0.png,x\n", "x"),
        ("ID,Label\ntrain_9.png,0\n", r"lists train_9\.png"),
        ("ID,Label\ntrain_0.png,0\ntrain_0.png,1\n", r"lists train_0\.png twice; remove one of the rows"),
        ("name,Label\ntrain_0.png,0\n", "has no column ID; expected the columns ID,Label"),
        ("", "not a readable CSV file"),
        ("ID,Label\n瑕疵.png,0\n", "not a readable CSV file .* save it as UTF-8"),
    ],
)
def test_wrong_lists_of_aoi_are_named(tmp_path, list_, named):
    (write_aoi(tmp_path / "aoi") / "train.csv").write_text(list_, encoding="big5")
    with pytest.raises(UserError, match=rf"train\.csv.*{named}"):
        datasets.load("aoi", "real", str(tmp_path))


def test_radiography_has_masks_where_there_are_any(tmp_path):
    root = tmp_path / "radiography"
    for label in ("COVID", "Viral Pneumonia"):
        write_image(root / label / "images" / f"{label}-1.png")
    write_image(root / "COVID" / "masks" / "COVID-1.png")
    data = datasets.load("radiography", "real", str(tmp_path))
    assert data.classes == ("COVID", "Viral Pneumonia")
    assert data.table["mask"].tolist() == [str(root / "COVID" / "masks" / "COVID-1.png"), ""]
    data.about()
    (root / "COVID" / "images" / "COVID-1.png").unlink()
    with pytest.raises(UserError, match="radiography: no images under"):
        datasets.load("radiography", "real", str(tmp_path))


def test_mnist_is_read_in_torchvisions_layout(cache):
    data = datasets.load("mnist")
    assert data.table.groupby("split").size().to_dict() == {"test": 1000, "train": 4000}
    assert data.classes == tuple("0123456789")
    assert data.note == "sample data (real digits)"
    ours = loaders.mnist_images(data.table)
    for split, train in (("train", True), ("test", False)):
        theirs = torchvision.datasets.MNIST(data.root, train=train)
        rows = (data.table["split"] == split).to_numpy(copy=True)
        assert torch.equal(ours[rows][:, 0], theirs.data)
        assert data.table["label"][rows].astype(int).tolist() == theirs.targets.tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x03\0\0\0\5ab",
        b"\0\0\x08\x03\0\0\0\5\0\0\0\5\0\0\0",
        b"\0\0\x08\x01\0\0\0\5ab",
        b"\0\0\x0d\x01\0\0\0\1a",
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content):
    file = tmp_path / "t10k-labels-idx1-ubyte"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte: not a whole file"):
        readers.read_idx(file)


def test_fewer_images_than_labels_are_named(tmp_path):
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, images in (("train", 2), ("t10k", 1)):
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (2).to_bytes(4) + b"\x07\x03")
        sides = b"".join(number.to_bytes(4) for number in (images, 28, 28))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sides + bytes(784 * images))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte: has 1 images for 2 labels"):
        readers.read_mnist(tmp_path / "mnist")
    (raw / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte: cannot be read"):
        readers.read_mnist(tmp_path / "mnist")


def test_a_folder_of_your_own_images_and_masks_reads_as_lungs(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "mydata/images" / f"{name}.jpg")
        write_image(tmp_path / "mydata/masks" / f"{name}.png")
    data = datasets.load("mydata", "real", str(tmp_path))
    assert data.table["id"].tolist() == ["a", "b"]
    assert data.card is None
    (tmp_path / "mydata/masks/a.png").unlink()
    with pytest.raises(UserError, match=r"mydata: .*a\.jpg has no mask"):
        datasets.load("mydata", "real", str(tmp_path))


def test_lungs_and_blots_name_a_missing_partner(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "lungs/images" / f"{name}.png")
        write_image(tmp_path / "lungs/masks" / f"{name}.png")
        for kind, (folder, prefix) in readers.BLOT_FOLDERS.items():
            write_image(tmp_path / "western_blot" / folder / f"{prefix}bg_{name}.png")
            assert kind in ("image", "mask", "base")
    assert datasets.load("lungs", "real", str(tmp_path)).table["id"].tolist() == ["a", "b"]
    write_image(tmp_path / "lungs/masks/b.gif")
    with pytest.raises(UserError, match=r"masks: b\.gif and b\.png share a name; rename or remove one"):
        datasets.load("lungs", "real", str(tmp_path))
    (tmp_path / "lungs/masks/b.gif").unlink()
    (tmp_path / "western_blot/groups.csv").write_text("ID,group\nbg_a.png,7\nbg_b.png,7\n")
    assert datasets.load("western_blot", "real", str(tmp_path)).table["group"].tolist() == ["7", "7"]
    (tmp_path / "lungs/masks/b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png has no mask of the same name"):
        datasets.load("lungs", "real", str(tmp_path))
    (tmp_path / "western_blot/wb_dataset/bg_a.png").unlink()
    with pytest.raises(UserError, match=r"bg_a\.png has no partner .*wb_dataset"):
        datasets.load("western_blot", "real", str(tmp_path))


# --- texts and series ---------------------------------------------------------------------------------


def write_news(root, **rows):
    root.mkdir()
    for split, lines in rows.items():
        (root / f"{split}.csv").write_text("\n".join(["label,text", *lines]) + "\n", encoding="utf-8")


def test_equal_news_are_one_group_and_a_test_half_may_be_missing(tmp_path):
    write_news(tmp_path / "own", train=["a,one two", "b,three", "a,one two"])
    table = readers.read_news(tmp_path / "own")
    assert table["split"].tolist() == ["train"] * 3
    assert table["group"].iloc[0] == table["group"].iloc[2] != table["group"].iloc[1]
    write_news(tmp_path / "both", train=["a,one"], test=["a,one"])
    assert readers.read_news(tmp_path / "both")["group"].nunique() == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label,words\na,b\n", "no column text"),
        ("label,text\n", "no rows"),
        ("label,text\na,one\n,two\n", "row 3 has no label or no text"),
    ],
)
def test_news_that_cannot_be_read_are_named(tmp_path, content, said):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        readers.read_news(tmp_path)
    assert "train.csv" in str(error.value)


def test_the_last_tenth_of_the_tales_is_for_testing(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02d}_a_tale.txt").write_text(f"Once upon a time {number}.\n", encoding="utf-8")
    table = readers.read_tales(tmp_path)
    assert table["title"].unique().tolist() == ["a tale"]
    assert table["split"].tolist() == ["train"] * 18 + ["test"] * 2
    (tmp_path / "05_a_tale.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        readers.read_tales(tmp_path)


def test_demand_is_sorted_by_time_and_its_gaps_are_named(tmp_path):
    file = tmp_path / "demand.csv"
    rows = [f"2000-06-05 {hour:02d}:00,{1000 + hour}" for hour in range(6)]
    file.write_text("\n".join(["time,demand", *reversed(rows)]) + "\n")
    table = readers.read_demand(tmp_path)
    assert table["demand"].tolist() == [1000, 1001, 1002, 1003, 1004, 1005]
    file.write_text("\n".join(["time,demand", *rows[:3], *rows[4:]]) + "\n")
    with pytest.raises(UserError, match="not equal at 2000-06-05 04:00:00"):
        readers.read_demand(tmp_path)
    file.write_text("time,demand\n2000-03-26 00:30+00:00,1\n2000-03-26 02:30+01:00,2\n")
    with pytest.raises(UserError, match="its times have several offsets; write all of them in UTC"):
        readers.read_demand(tmp_path)
    file.write_text("time,demand\n2000-06-05 00:00,low\n")
    with pytest.raises(UserError, match="row 2 is not a time and a number"):
        readers.read_demand(tmp_path)


def test_samples_that_ship_in_packages_are_whole_and_say_that_they_are_real():
    news = datasets.load("reuters")
    assert news.table.groupby("split").size().to_dict() == {"test": 2189, "train": 5485}
    assert len(news.classes) == 8
    assert news.note == "sample data (real news)"
    demand = datasets.load("demand").table
    assert len(demand) == 12 * 7 * 48
    assert demand["time"].iloc[0].day_name() == "Monday"
    assert datasets.load("tales").table["text"].str.len().sum() > 390_000
