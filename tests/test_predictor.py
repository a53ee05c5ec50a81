"""Export of a trained model and `vision-notebooks predict`, with tiny models of both tasks."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import write_image
from torch import nn

from helpers import loaders, models, predictor
from helpers.errors import UserError
from helpers.predictor import Settings


def classifier() -> nn.Sequential:
    """A grey image is "bright" where its mean is above a half; dropout and BatchNorm as in notebook 01."""
    network = nn.Sequential(
        nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(1, 2)
    )
    nn.init.constant_(network[-1].bias, 0)
    network[-1].weight.data = torch.tensor([[0.0], [20.0]])
    network[-1].bias.data = torch.tensor([0.0, -10.0])
    return network


@pytest.fixture(scope="module")
def classification(tmp_path_factory) -> Path:
    """The folder of a finished run that tells bright images from dark ones."""
    folder = tmp_path_factory.mktemp("classification")
    settings = Settings(
        "classification", "L", 0.5, ["dark", "bright"], [16, 12], note="sample data (synthetic)"
    )
    predictor.save(folder, classifier(), torch.zeros(2, 1, 16, 12), settings)
    return folder


@pytest.fixture(scope="module")
def network() -> models.UNet:
    torch.manual_seed(0)
    return models.UNet(3, 1, width=2, depth=2)


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory, network) -> Path:
    """The folder of a finished run with an untrained U-Net."""
    folder = tmp_path_factory.mktemp("segmentation")
    predictor.save(
        folder, network, torch.zeros(2, 3, 16, 16), Settings("segmentation", "RGB", 0.5, multiple=4)
    )
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_probabilities_and_overlays(classification, tmp_path, capsys):
    for name, value in (("night", 10), ("day", 240)):
        Image.new("RGB", (33, 21), (value,) * 3).save(tmp_path / f"{name}.png")
    images = [str(tmp_path / "night.png"), str(tmp_path / "day.png")]
    assert predictor.main(str(classification), images, str(tmp_path / "out")) == 0
    night, day = rows(tmp_path / "out")
    assert (night["image"], night["class"], day["class"]) == (images[0], "dark", "bright")
    assert float(night["p_dark"]) > 0.99 > 0.01 > float(day["p_dark"])
    assert sorted(os.listdir(tmp_path / "out")) == ["day_overlay.png", "night_overlay.png", "predictions.csv"]
    assert Image.open(tmp_path / "out" / "day_overlay.png").size == (12, 16)
    assert "trained on sample data (synthetic)" in capsys.readouterr().out


def test_the_overlay_points_at_what_the_class_rests_on():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 2:4, 12:14] = 30  # the mean is over a half because of this spot alone
    rests_on = predictor.occlusion(classifier().eval(), image, chosen=1)
    assert rests_on.shape == (8, 8)
    assert rests_on.argmax().item() == 1 * 8 + 6
    assert rests_on[1, 6] > 0.3


def test_the_threshold_decides_between_two_classes(classification, tmp_path):
    shutil.copytree(classification / "predictor", tmp_path / "predictor")
    file = tmp_path / "predictor" / "predictor.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"threshold": 1e-9}))
    Image.new("L", (16, 12), 10).save(tmp_path / "night.png")
    predictor.main(str(tmp_path), [tmp_path / "night.png"])
    assert rows(tmp_path / "predicted")[0]["class"] == "bright"


@pytest.mark.parametrize("size", [(33, 21), (16, 16), (5, 50)])
def test_segmentation_of_any_size(segmentation, network, tmp_path, size):
    image = write_image(tmp_path / "eye.tif", size, mode="RGB")
    assert predictor.main(str(segmentation), [str(image)], str(tmp_path / "out")) == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        "eye_mask.png", "eye_overlay.png", "eye_probability.png", "predictions.csv",
    ]  # fmt: skip
    probability, mask = (
        np.array(Image.open(tmp_path / "out" / f"eye_{k}.png")) for k in ("probability", "mask")
    )
    assert probability.shape == mask.shape == size[::-1]
    assert set(np.unique(mask)) <= {0, 255}
    inside = predictor.field_of_view(loaders.decode([image], mode="RGB", cache=False))[0, 0].numpy()
    share = float(rows(tmp_path / "out")[0]["vessel_share"])
    assert share == pytest.approx((mask == 255).sum() / inside.sum(), abs=1e-4)
    assert Image.open(tmp_path / "out" / "eye_overlay.png").mode == "RGB"


def test_a_network_of_the_whole_frame_is_not_given_a_lit_disc(tmp_path):
    """Your own pictures without a field of view: training saw the whole frame, black corners included."""
    settings = Settings("segmentation", "L", 0.5, field_of_view=False)
    network = nn.Conv2d(1, 1, 1)
    predictor.save(tmp_path, network, torch.zeros(2, 1, 8, 8), settings)
    cells = np.zeros((20, 20), np.uint8)
    cells[2:6, 2:6], cells[12:15, 12:15] = 250, 200  # two cells on black; the smaller is no "lit disc"
    Image.fromarray(cells).save(tmp_path / "cells.png")
    predictor.main(str(tmp_path), [tmp_path / "cells.png"])
    found = np.array(Image.open(tmp_path / "predicted" / "cells_probability.png"))
    image = torch.from_numpy(cells)[None, None]
    with torch.no_grad():
        expected = network(loaders.standardize(image)).sigmoid()[0, 0].numpy()
    np.testing.assert_allclose(found / 255, expected, atol=0.01)


def test_settings_of_older_runs_mean_what_they_meant(segmentation, tmp_path):
    shutil.copytree(segmentation / "predictor", tmp_path / "predictor")
    file = tmp_path / "predictor" / "predictor.json"
    said = json.loads(file.read_text())
    del said["field_of_view"]
    file.write_text(json.dumps(said))
    assert predictor.load(tmp_path)[1].field_of_view


def test_the_export_predicts_as_the_network_does(segmentation, network):
    exported, settings = predictor.load(segmentation)
    images = torch.rand(3, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(exported(images), network.eval()(images))
    assert settings == Settings("segmentation", "RGB", 0.5, multiple=4)


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = classifier().train()
    model[0].eval()  # a part that is frozen
    predictor.save(tmp_path, model, torch.zeros(2, 1, 4, 4), Settings("classification", "L", 0.5))
    assert model.training
    assert not model[0].training


def test_grey_images_are_segmented_too(tmp_path):
    network = nn.Conv2d(1, 1, 3, padding=1)
    predictor.save(tmp_path, network, torch.zeros(2, 1, 8, 8), Settings("segmentation", "L", 0.5))
    image = write_image(tmp_path / "lung.png", (11, 9))
    assert predictor.main(str(tmp_path), [image]) == 0
    assert Image.open(tmp_path / "predicted" / "lung_overlay.png").size == (11, 9)


@pytest.mark.parametrize("file", ["model.pt2", "predictor.json"])
@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: c[:-60] + b"x" * 60])
def test_a_damaged_predictor_is_named(classification, tmp_path, capfd, file, damage):
    shutil.copytree(classification / "predictor", tmp_path / "predictor")
    broken = tmp_path / "predictor" / file
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(UserError, match="the saved predictor is damaged; run the notebook again"):
        predictor.load(tmp_path)
    assert capfd.readouterr().err == ""  # torch's own account of it would bury the sentence


@pytest.mark.parametrize("file", ["model.pt2", "predictor.json"])
def test_a_folder_without_a_predictor_is_named(classification, tmp_path, file):
    shutil.copytree(classification / "predictor", tmp_path / "predictor")
    (tmp_path / "predictor" / file).unlink()
    with pytest.raises(UserError, match=rf"holds no predictor/{file}; give the folder of a finished run"):
        predictor.main(str(tmp_path), ["a.png"])
    with pytest.raises(UserError, match=r"holds no predictor/predictor\.json"):
        predictor.load(tmp_path / "nowhere")


def test_bad_images_are_named_before_anything_is_written(classification, tmp_path):
    good, text = write_image(tmp_path / "good.png"), tmp_path / "text.png"
    text.write_text("no image")
    for bad, named in (
        (tmp_path / "gone.png", r"gone\.png: no such image; check the path"),
        (text, r"text\.png: not a readable image"),
        (tmp_path / "good.png", r"good\.png: another image has the same name"),
    ):
        with pytest.raises(UserError, match=named):
            predictor.main(str(classification), [str(good), str(bad)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_predictions_are_not_written_beside_the_images(classification, tmp_path):
    image = write_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: lies in .*, where predictions go; choose another --out"):
        predictor.main(str(classification), [str(image)], str(tmp_path))
    assert [path.name for path in tmp_path.glob("a*")] == ["a.png"]


def test_predicted_images_do_not_fill_the_cache(classification, tmp_path, cache):
    predictor.main(str(classification), [write_image(tmp_path / "a.png")], str(tmp_path / "out"))
    assert not cache.exists()


def test_the_field_of_view_is_the_lit_disc():
    height, width = np.mgrid[:60, :80]
    disc = (height - 30) ** 2 + (width - 40) ** 2 < 25**2
    eye = np.where(disc, 120, 2).astype(np.uint8)
    eye[28:32, 38:42] = 0  # a dark spot inside belongs to it
    eye[0, 0] = 255  # a stray bright pixel does not
    found = predictor.field_of_view(torch.from_numpy(np.stack([eye] * 3))[None])
    np.testing.assert_array_equal(found[0, 0].numpy().astype(bool), disc)
    black = predictor.field_of_view(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert (black == 1).all()
