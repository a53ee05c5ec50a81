"""Features of a frozen backbone, computed once: only the rest trains.

A frozen layer gives the same output for the same image in every epoch. Keeping that output instead of
computing it again makes ten epochs of a frozen ResNet-18 tens of times faster, and changes no result but
by rounding.
"""

import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from helpers import models, runtime
from helpers.backbones import TransferModel
from helpers.errors import UserError


class Kept(Dataset):
    """Features with labels in the place of images with labels; an item is asked for by (epoch, index).

    features: (views, N, …); labels: (N,). An item is (float features, label). Epoch e gets view
    (e - 1) modulo `views`: after K epochs the pictures repeat. Serves wherever an ImageDataset does.
    """

    def __init__(self, features: Tensor, labels: Tensor):
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return self.features.shape[1]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        return self.features[(epoch - 1) % len(self.features), index].float(), self.labels[index]


def extract(model: TransferModel, data: Dataset, views: int = 0, *, batch_size: int = 32, workers: int = 0,
            dtype: torch.dtype | None = None, memory: float = 2.0) -> Kept:  # fmt: skip
    """Run `model.frozen` once over a dataset and keep what comes out; then train `model.tail` on it.

    data: gives (float image, label) for (epoch, index), has a length, and tells in `random` whether
    an image differs from epoch to epoch (helpers.loaders.ImageDataset).
    views: 0 for data without random transforms: kept features are exact, up to rounding (every
    BatchNorm is folded into its convolution first). With random ones, how many augmented views of every
    image to keep (epochs 1 to K of the data): fewer pictures than a plain training sees, so an
    approximation.
    dtype: of the kept numbers; None keeps the backbone's own: bfloat16 under the runtime's bf16, else
    float32. torch.float16 halves the latter. memory: GB; what is larger lies in a file in the cache,
    mapped into memory and gone with the process.
    Raises UserError when a layer before the cut is not frozen, the data is random and views is 0,
    labels do not fit the model, or there is not enough disk.
    """
    _check(model, data, views)
    device = runtime.current().device
    epochs = range(1, views + 1) if data.random else range(1)
    keys = [(epoch, index) for epoch in epochs for index in range(len(data))]
    frozen = models.fold_batch_norm(model.frozen.to(device).eval(), data[keys[0]][0][None].to(device))
    features, labels, done = None, [], 0
    with tqdm(total=len(keys), desc="features", unit="image", disable=runtime.quiet()) as progress:
        for images, targets in DataLoader(data, batch_size, sampler=keys, num_workers=workers):
            model.check_labels(targets)
            with torch.inference_mode(), runtime.current().autocast():
                batch = frozen(images.to(device)).to("cpu", dtype)
            if not batch.isfinite().all():
                raise UserError(
                    f"{model.name}: features are not finite as {batch.dtype}; use dtype=torch.bfloat16, "
                    "which has the range of float32, or check the images."
                )
            if features is None:
                features = _allocate((len(keys), *batch.shape[1:]), batch.dtype, memory)
            features[done : done + len(batch)] = batch
            labels.append(targets)
            done += len(batch)
            progress.update(len(batch))
    views_first = features.view(len(epochs), len(data), *features.shape[1:])
    return Kept(views_first, torch.cat(labels)[: len(data)])


def _check(model: TransferModel, data: Dataset, views: int) -> None:
    trainable = [name for name, p in model.frozen.named_parameters() if p.requires_grad]
    if trainable or not any(True for _ in model.frozen.parameters()):
        reason = f"{trainable[0]} is trainable" if trainable else f'depth "{model.depth}" trains every layer'
        raise UserError(
            f"{model.name}: the part before the cut is not frozen ({reason}), so its features change "
            "with every step; keep features with depth 0, 1 or 2, or train on the images themselves."
        )
    if data.random and views < 1:
        raise UserError(
            "the images are transformed at random, so there is no one set of features to keep; "
            "give views=K to keep K augmented views of each, or a dataset without a transform."
        )


def _allocate(shape: Sequence[int], dtype: torch.dtype, memory: float) -> Tensor:
    """An empty tensor, in memory or, when it needs more than `memory` GB, in a file of the cache."""
    size = math.prod(shape) * dtype.itemsize
    if size <= memory * 1e9:
        return torch.empty(shape, dtype=dtype)
    folder = runtime.cache_dir() / "features"
    file = folder / f"{uuid4().hex}.kept"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.kept"):
            _delete(leftover)
        free = shutil.disk_usage(folder).free
        if size > 0.95 * free:  # a mapped file that meets a full disk kills the process
            raise UserError(
                f"{folder}: the features need {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "use fewer views or dtype=torch.float16, or set VISION_NOTEBOOKS_CACHE to another disk."
            )
        file.touch()  # torch's own error would name neither the folder nor the mend
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); set VISION_NOTEBOOKS_CACHE to another folder."
        ) from error
    tensor = torch.from_file(str(file), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    _delete(file)
    return tensor


def _delete(file: Path) -> None:
    """Unix forgets a mapped file when its last user ends; Windows refuses, and the next run sweeps up."""
    with suppress(OSError):
        file.unlink()
