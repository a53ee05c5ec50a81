"""A tiny training with everything that holds state: dropout, BatchNorm, momentum, a schedule, random crops.

As a script it trains until the middle of an epoch, says so, and waits to be killed:
`python tiny_training.py FOLDER`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms import v2

from helpers import loaders, metrics, runtime, training
from helpers.training import Run, evaluate, train_epoch

EPOCHS = 4
SAMPLES, BATCH = 20, 6  # a last batch of two
KILLED_IN = (3, 2)  # epoch, step


def network(width: int = 4) -> nn.Sequential:
    """(N, 1, 8, 8) → (N, 2)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 2),
    )  # fmt: skip


def data(workers: int = 0) -> tuple:
    """Loaders of the same 20 images, with and without random transforms."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SAMPLES, 1, 10, 10), dtype=torch.uint8, generator=generator)
    labels = torch.arange(SAMPLES) % 2
    transform = v2.Compose([v2.RandomCrop(8), v2.RandomHorizontalFlip()])
    training = loaders.ImageDataset(images, labels, transform, seed=0)
    validation = loaders.ImageDataset(images[..., :8, :8], labels)
    return (
        loaders.make_loader(training, BATCH, shuffle=True, seed=0, workers=workers),
        loaders.make_loader(validation, BATCH, workers=workers),
    )


def scores(outputs, labels) -> dict[str, float]:
    """The metrics of an epoch."""
    return {"auc": metrics.auc(outputs.softmax(1), labels)}


def prepare(folder: Path, epochs: int = EPOCHS, resume: bool = False, width: int = 4, **options) -> Run:
    """A run of the tiny network with everything that training changes."""
    model = network(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    steps = epochs * -(-SAMPLES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    options = {"monitor": "val_auc", **options}
    return Run(
        epochs, folder, name="tiny", resume=resume, **options, model=model, optimizer=optimizer,
        schedule=schedule, plateau=plateau, average=average,
    )  # fmt: skip


def train(
    folder: Path, epochs: int = EPOCHS, resume: bool = False, workers: int = 0,
    at: tuple[int, int] = (0, 0), then: Callable[[], None] = lambda: None,
) -> Run:  # fmt: skip
    """Train, and call `then` in the given epoch after the given step."""
    run = prepare(folder, epochs, resume)
    model, optimizer, schedule, plateau, average = run.parts.values()
    train_loader, val_loader = data(workers)
    for epoch in run:

        def after_step() -> None:
            average.update_parameters(model)
            if (epoch.number, epoch.step) == at:  # noqa: B023 (called within this turn of the loop)
                then()

        batches = epoch.batches(train_loader)
        loss = train_epoch(model, batches, nn.CrossEntropyLoss(), optimizer, schedule, after_step)
        epoch.log(train_loss=loss, **evaluate(model, val_loader, scores, split="val"))
        plateau.step(loss)
    return run


def wait() -> None:
    """Say where we are, and stay there."""
    print("in the middle", flush=True)
    time.sleep(100)


if __name__ == "__main__":
    training.SAVE_EVERY = 0
    runtime.start(seed=0, device="cpu")
    train(Path(sys.argv[1]), at=KILLED_IN, then=wait)
