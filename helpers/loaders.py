"""From files to batches: images decoded once, splits by group, transforms that repeat exactly."""

import hashlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open
from helpers.readers import check_mask, check_opaque, open_image, read_idx

CACHED = 2  # raised whenever decoding or what it refuses changes: older images in the cache are made anew


def decode(
    paths: Sequence[str], size: tuple[int, int] | None = None, mode: str = "L", cache: bool = True
) -> Tensor:
    """Read images once: uint8, (N, C, height, width), values 0 to 255; kept in the cache folder.

    size: (height, width) in pixels, reached by antialiased bilinear resizing; None keeps the files'
    own size, which must then be the same for all. mode: "L" gives one channel, "RGB" three.
    cache: False for images that are looked at once.
    Raises UserError for a file that cannot be read, one with more than 8 bits a channel, or one of
    another size where none is asked for.
    """

    def read() -> Tensor:
        return _decode_all(paths, size, mode, Image.Resampling.BILINEAR)

    return _cached(read, paths, size, mode) if cache else read()


def decode_masks(
    paths: Sequence[str],
    like: Sequence[str],
    size: tuple[int, int] | None = None,
    same_size: bool = True,
) -> Tensor:
    """Read masks once: uint8, (N, 1, height, width), values 0 or 1 (files are cut at 127).

    like: the images that the masks belong to; a mask of another size raises UserError naming both, one
    that holds other marks than 255, such as 1, raises UserError too.
    same_size: False where masks are kept at another scale than their images, as `radiography`'s are;
    then only the ratio of the sides must agree, within 2%.
    Resizing uses nearest neighbour: a mixture of two labels is not a label.
    """

    def read() -> Tensor:
        for path, image in zip(paths, like):
            with open_image(path) as one, open_image(image) as other:
                mask_size, image_size = one.size, other.size
                check_opaque(path, one)
            ratio = mask_size[0] * image_size[1] / (mask_size[1] * image_size[0])
            if abs(ratio - 1) > 0.02 or (same_size and mask_size != image_size):
                raise UserError(
                    f"{path}: the mask is {mask_size[0]} × {mask_size[1]} pixels, its image {image} is "
                    f"{image_size[0]} × {image_size[1]}; replace the mask by one of the image's "
                    f"{'size' if same_size else 'shape'}."
                )
        masks = _decode_all(paths, size, "L", Image.Resampling.NEAREST)
        for path, mask in zip(paths, masks):
            check_mask(path, int(mask.max()))
        return (masks > 127).to(torch.uint8)

    # The images are part of the name: when one of them changes, the sizes are compared again.
    return _cached(read, [*paths, *like], size, "mask" if same_size else "mask, any scale")


def _decode_all(paths, size, mode, resampling) -> Tensor:
    def read(path: str) -> np.ndarray:
        with open_image(path) as file:
            image = file.convert(mode)
        if size and image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), resampling)
        return np.asarray(image)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        arrays = list(pool.map(read, paths))
    for path, array in zip(paths, arrays):
        if array.shape[:2] != arrays[0].shape[:2]:
            raise UserError(
                f"{path}: {array.shape[1]} × {array.shape[0]} pixels, but {paths[0]} has "
                f"{arrays[0].shape[1]} × {arrays[0].shape[0]}; bring all images to one size."
            )
    stack = torch.from_numpy(np.stack(arrays))
    return stack[:, None] if mode == "L" else stack.permute(0, 3, 1, 2).contiguous()


def _cached(read: Callable[[], Tensor], paths, size, kind: str) -> Tensor:
    """What `read` gives, from a file named by the names, sizes and times of `paths`."""
    if not len(paths):
        raise UserError("no images to read: the table is empty; check the split or the class names.")
    digest = hashlib.sha256(repr((CACHED, size, kind)).encode())
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError as error:
            raise UserError(f"{path}: the file is gone; restore it or run again.") from error
        line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))  # names are bytes, not always UTF-8
    file = runtime.cache_dir() / "images" / f"{digest.hexdigest()[:20]}.npz"
    if file.exists():
        try:
            with np.load(file) as archive:
                return torch.from_numpy(archive["images"])  # the archive's checksum is verified here
        except (ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile):
            print(f"{file.name}: the cached images are damaged; reading the files again.")
    images = read()
    with atomic_open(file, "wb") as handle:
        np.savez(handle, images=images.numpy())
    return images


def mnist_images(table: pd.DataFrame) -> Tensor:
    """The images of rows of `readers.read_mnist`'s table: uint8 (N, 1, 28, 28)."""
    pixels = torch.empty(len(table), 1, 28, 28, dtype=torch.uint8)
    for path in table["path"].unique():
        rows = (table["path"] == path).to_numpy(copy=True)  # pandas hands out what torch may not write to
        pixels[rows, 0] = torch.from_numpy(read_idx(Path(path))[table["index"].to_numpy()[rows]])
    return pixels


def grouped_folds(table: pd.DataFrame, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (training, held out) of each of `folds` equal parts; every row is held out once.

    table: columns label and group. No group is on both sides; classes keep their shares as far as
    groups allow. Raises UserError for fewer than two folds, and when a class has fewer groups than folds.
    """
    if folds < 2:
        raise UserError(f"folds is {folds}: there must be at least 2, one to train on and one held out.")
    groups = table.groupby("label")["group"].nunique()
    if groups.min() < folds:
        raise UserError(
            f"class {groups.idxmin()} has {groups.min()} group(s) of images, too few for {folds} folds; "
            "lower the number of folds or add images."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(table, table["label"], table["group"]))


def grouped_split(table: pd.DataFrame, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and validation: the first of the `grouped_folds`."""
    return grouped_folds(table, folds, seed)[0]


@contextmanager
def sample_rng(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Inside, torch's CPU generator depends on (seed, epoch, index) alone; outside it goes on undisturbed.

    So a random transform gives the same picture whatever worker makes it, in whatever order, and
    also after a resume.
    """
    # Not torch.manual_seed: that would reseed a GPU's generator too, and with it dropout.
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(
        int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)
    )
    try:
        yield
    finally:
        generator.set_state(state)


class ImageDataset(TorchDataset):
    """Images with labels; an item is asked for by (epoch, index).

    images: uint8 (N, C, H, W); labels: (N,) integers. An item is (float image in [0, 1], label).
    transform: applied to the uint8 image; it may draw from torch's generator. `random` tells
    whether there is one: only datasets without it give the same item in every epoch.
    """

    def __init__(self, images: Tensor, labels, transform: Callable | None = None, seed: int = 0):
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, but {len(labels)} labels")
        self.images, self.labels = images, torch.as_tensor(labels)
        self.transform, self.seed = transform, seed

    @property
    def random(self) -> bool:
        return self.transform is not None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = self.images[index]
        if self.transform is not None:
            with sample_rng(self.seed, epoch, index):
                image = self.transform(image)
        return _as_float(image), self.labels[index]


class SegmentationDataset(TorchDataset):
    """Images with masks, cut and turned together; an item is asked for by (epoch, index).

    images: (N, C, H, W), uint8 or already standardized floats; masks and weights: (N, 1, H, W), 0 or
    1. weights say which pixels count; None counts all. An item is (image, mask, weight), floats.
    transform: applied to all three at once. repeats: random crops of an image in one epoch.
    """

    def __init__(self, images: Tensor, masks: Tensor, weights: Tensor | None = None,
                 transform: Callable | None = None, seed: int = 0, repeats: int = 1):  # fmt: skip
        self.images, self.masks = images, masks
        self.weights = torch.ones_like(masks) if weights is None else weights
        self.transform, self.seed, self.repeats = transform, seed, repeats

    @property
    def random(self) -> bool:
        return self.transform is not None

    def __len__(self) -> int:
        return len(self.images) * self.repeats

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = key
        at = index // self.repeats
        image, mask, weight = self.images[at], self.masks[at], self.weights[at]
        if self.transform is not None:
            with sample_rng(self.seed, epoch, index):
                # The wrappers tell a transform what to interpolate and what to pick by nearest neighbour.
                image, mask, weight = self.transform(
                    tv_tensors.Image(image), tv_tensors.Mask(mask), tv_tensors.Mask(weight)
                )
        return _as_float(image), _plain(mask).float(), _plain(weight).float()


def _plain(image: Tensor) -> Tensor:
    return image.as_subclass(Tensor)


def _as_float(image: Tensor) -> Tensor:
    image = _plain(image)
    return image / 255 if image.dtype == torch.uint8 else image


class EpochSampler(Sampler):
    """Yields (epoch, index); the order depends only on (seed, epoch). `set_epoch` moves it on."""

    def __init__(self, size: int, shuffle: bool, seed: int):
        self.size, self.shuffle, self.seed, self.epoch = size, shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = range(self.size)
        if self.shuffle:
            generator = np.random.default_rng([self.seed, self.epoch])
            order = generator.permutation(self.size).tolist()
        return ((self.epoch, index) for index in order)


def make_loader(
    dataset, batch_size: int, shuffle: bool = False, seed: int = 0, workers: int = 0
) -> DataLoader:
    """A DataLoader over a dataset asked by (epoch, index); the same batches for any number of workers.

    A last batch of one image is dropped in training: BatchNorm cannot estimate a variance from it.
    Raises UserError for a batch_size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: a batch needs at least 1 image.")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), shuffle, seed),
        num_workers=workers,
        drop_last=shuffle and len(dataset) > batch_size and len(dataset) % batch_size == 1,
        pin_memory=runtime.current().device.startswith("cuda"),  # pays on a GPU only
        persistent_workers=workers > 0,
        # A loader draws a seed for its workers whenever they start. From torch's global generator, that
        # would move dropout along: by another count with workers, and after a resume.
        generator=torch.Generator(),
        # Only forked workers know the functions that a notebook's cells define.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def standardize(images: Tensor, inside: Tensor | None = None) -> Tensor:
    """Subtract each image's mean and divide by its standard deviation, channel by channel.

    images: (N, C, H, W), uint8 or float; inside: (N, 1, H, W), the pixels that the statistics are
    taken from (the field of view), and outside of which the result is 0; None takes all.
    Returns floats. An image of one value becomes 0 everywhere, not infinite.
    """
    images = images.float()
    weight = torch.ones_like(images[:, :1]) if inside is None else inside.float()
    total = weight.sum((2, 3), keepdim=True).clamp_min(1)

    def average(values: Tensor) -> Tensor:
        return (values * weight).sum((2, 3), keepdim=True) / total

    centred = images - average(images)
    # Twice: a sum over a million pixels is rounded, and a flat image would keep a deviation.
    centred = (centred - average(centred)) * weight
    return centred / average(centred.square()).sqrt().clamp_min(1e-6)
