"""Ten epochs of a frozen ResNet-18: kept features against a plain loop, same machine, same run."""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from helpers import backbones, features, loaders, runtime, weights
from helpers.backbones import TransferModel
from helpers.errors import UserError

EPOCHS, BATCH, TRAIN, VAL, CLASSES = 10, 32, 192, 200, 3


def render(folder: Path) -> tuple[list[str], list[int]]:
    """Gratings of three widths under noise, 224², as PNG files."""
    random = np.random.default_rng(0)
    labels = np.arange(TRAIN + VAL) % CLASSES
    y, x = np.mgrid[:224, :224]
    paths = []
    for number, label in enumerate(labels):
        angle, phase, width = (
            random.uniform(0, np.pi),
            random.uniform(0, 6),
            6 * 2**label * random.normal(1, 0.2),
        )
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / width + phase)
        pixels = 128 + 40 * wave + random.normal(0, 25, x.shape)
        paths.append(str(folder / f"{number:03d}.png"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths, labels.tolist()


class Files:
    """What a plain loop does: open, decode and normalize a file whenever it is asked for."""

    def __init__(self, paths, labels):
        self.paths, self.labels = paths, labels
        self.transform = v2.Compose([
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*backbones.IMAGENET),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key):
        _, index = key
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


def loader(data, shuffle: bool) -> DataLoader:
    """The same order for both, so that only the arithmetic differs."""
    return DataLoader(data, BATCH, sampler=loaders.EpochSampler(len(data), shuffle, seed=0))


def train(model: nn.Module, head: nn.Module, train_data, val_data) -> float:
    """Ten epochs with Adam at 1e-3 on the head; returns the accuracy on validation data after the last."""
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    train_loader, val_loader = loader(train_data, True), loader(val_data, False)
    for epoch in range(EPOCHS):
        train_loader.sampler.set_epoch(epoch)
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        with torch.inference_mode():
            hits = [(model(inputs).argmax(1) == labels).float() for inputs, labels in val_loader]
    return float(torch.cat(hits).mean())


def test_kept_features_are_many_times_faster_at_the_same_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path / "cache"))  # nothing decoded beforehand
    paths, labels = render(tmp_path)
    try:
        weights.path("resnet18")
        pretrained = True
    except UserError:
        pretrained = False  # random layers take the same time
    torch.manual_seed(0)
    plain = backbones.classifier("resnet18", pretrained).requires_grad_(False)
    plain.fc = nn.Linear(512, CLASSES)
    torch.manual_seed(0)  # equal layers also where they are random
    model = TransferModel(backbones.backbone("resnet18", pretrained), CLASSES, depth=0, head="linear")
    model.head[0].load_state_dict(plain.fc.state_dict())

    started = time.perf_counter()
    train_files = Files(paths[:TRAIN], labels[:TRAIN])
    plain_accuracy = train(plain, plain.fc, train_files, Files(paths[TRAIN:], labels[TRAIN:]))
    plain_seconds = time.perf_counter() - started

    runtime.start(precision="auto")
    started = time.perf_counter()
    images = loaders.decode(paths)
    kept = [
        features.extract(model, loaders.ImageDataset(images[part], labels[part]))
        for part in (slice(TRAIN), slice(TRAIN, None))
    ]
    accuracy = train(model.tail, model.head, *kept)
    seconds = time.perf_counter() - started
    ratio = plain_seconds / seconds
    with capsys.disabled():
        print(
            f"\nplain loop {plain_seconds:.1f} s, accuracy {plain_accuracy:.3f}; "
            f"kept features ({runtime.current().precision}) {seconds:.2f} s, accuracy {accuracy:.3f}: "
            f"{ratio:.1f} times faster"
        )
    assert ratio >= (25 if runtime.current().precision == "bf16" else 10)
    assert abs(accuracy - plain_accuracy) <= 0.005 + 1e-6
