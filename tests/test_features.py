"""Kept features: equal to recomputed ones, refused where they would be wrong."""

import copy

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from helpers import features, runtime
from helpers.backbones import Backbone, TransferModel
from helpers.errors import UserError
from helpers.loaders import ImageDataset, make_loader


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Three blocks with BatchNorm statistics of their own, enough for every depth."""
    torch.manual_seed(0)
    blocks = nn.Sequential()
    for name, inputs, outputs in (("one", 3, 8), ("two", 8, 8), ("three", 8, 16)):
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        blocks.add_module(name, nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
    blocks(torch.rand(32, 3, 16, 16))
    return Backbone("three_blocks", blocks, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8, generator=generator)
    return ImageDataset(images, torch.arange(20) % 3)


def augmented(data: ImageDataset) -> ImageDataset:
    return ImageDataset(data.images, data.labels, v2.RandomHorizontalFlip(0.5), seed=3)


def pictures(data: ImageDataset, epoch: int = 0) -> torch.Tensor:
    return torch.stack([data[epoch, i][0] for i in range(len(data))])


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_kept_features_give_the_logits_of_recomputed_ones(backbone, data, depth):
    model = TransferModel(backbone, 3, depth).eval()
    kept = features.extract(model, data, batch_size=8)
    with torch.inference_mode():
        torch.testing.assert_close(model.tail(kept.features[0]), model(pictures(data)), atol=1e-5, rtol=0)
    assert len(kept) == len(data)
    assert torch.equal(kept.labels, data.labels)
    assert kept.features.dtype == torch.float32


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_training_on_kept_features_is_training_on_images(backbone, data, depth):
    model = TransferModel(backbone, 3, depth)
    twin = copy.deepcopy(model)
    kept = features.extract(model, data)
    for network, source in ((model.tail, kept), (twin, data)):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network.train()
        for _ in range(2):
            for inputs, labels in make_loader(source, batch_size=10, shuffle=True, seed=5):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs), labels).backward()
                optimizer.step()
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values()):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_views_are_the_first_epochs_of_the_augmented_data(backbone, data):
    model = TransferModel(backbone, 3).eval()
    kept = features.extract(model, augmented(data), views=2)
    assert kept.features.shape == (2, 20, 16)
    for epoch in (1, 2):
        with torch.inference_mode():
            expected = model.frozen(pictures(augmented(data), epoch))
        got = torch.stack([kept[epoch, i][0] for i in range(20)])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert not torch.equal(kept[1, 0][0], kept[2, 0][0]) or not torch.equal(kept[1, 1][0], kept[2, 1][0])
    assert torch.equal(kept[3, 7][0], kept[1, 7][0])


def test_views_of_data_that_never_changes_are_one(backbone, data):
    assert features.extract(TransferModel(backbone, 3), data, views=4).features.shape[0] == 1


def test_what_does_not_fit_in_memory_lies_in_a_file(backbone, data, tmp_path, monkeypatch):
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path))
    model = TransferModel(backbone, 3, 2).eval()
    mapped = features.extract(model, data, memory=0)
    assert torch.equal(mapped.features, features.extract(model, data).features)
    (tmp_path / "features" / "left.kept").touch()  # by a killed process, where files in use stay
    assert torch.equal(features.extract(model, data, memory=0).features, mapped.features)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_disk_that_is_too_small_is_said_beforehand(tmp_path, monkeypatch):
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"the features need 4000000\.0 GB"):
        features._allocate((10**9, 10**6), torch.float32, memory=1)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"features: cannot be written \(.*\); set VISION_NOTEBOOKS_CACHE"):
        features._allocate((10, 10), torch.float32, memory=0)


def test_half_precision_halves_the_storage_and_stays_close(backbone, data):
    model = TransferModel(backbone, 3, 1).eval()
    kept = features.extract(model, data, dtype=torch.float16)
    assert kept.features.dtype == torch.float16
    assert kept[0, 0][0].dtype == torch.float32
    with torch.inference_mode():
        full = model.frozen(pictures(data))
    torch.testing.assert_close(kept.features[0].float(), full, atol=2e-3, rtol=2e-3)


def test_numbers_beyond_half_precision_are_refused(backbone, data):
    model = TransferModel(backbone, 3)
    with torch.no_grad():
        model.blocks.three[0].weight.mul_(1e9)
    with pytest.raises(UserError, match=r"not finite as torch\.float16"):
        features.extract(model, data, dtype=torch.float16)


def test_bf16_is_kept_as_computed(backbone, data, monkeypatch):
    monkeypatch.setattr(runtime, "_current", runtime.Runtime(0, "cpu", "bf16", 2))
    model = TransferModel(backbone, 3, 1).eval()
    kept = features.extract(model, data)
    assert kept.features.dtype == torch.bfloat16
    with torch.inference_mode(), runtime.current().autocast():
        ours = model.tail(torch.stack([kept[0, i][0] for i in range(20)]))
        torch.testing.assert_close(ours, model(pictures(data)))


def test_a_part_that_is_not_frozen_is_refused(backbone, data):
    with pytest.raises(UserError, match='depth "all" trains every layer'):
        features.extract(TransferModel(backbone, 3, "all"), data)
    model = TransferModel(backbone, 3, 0)
    model.blocks.two.requires_grad_(True)
    with pytest.raises(UserError, match=r"two\.0\.weight is trainable"):
        features.extract(model, data)


def test_random_data_needs_a_number_of_views(backbone, data):
    with pytest.raises(UserError, match="give views=K"):
        features.extract(TransferModel(backbone, 3), augmented(data))


def test_labels_that_do_not_fit_are_refused(backbone, data):
    with pytest.raises(UserError, match="the model has 2 classes"):
        features.extract(TransferModel(backbone, 2), data)
