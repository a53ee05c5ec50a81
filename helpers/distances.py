"""Distances between sets of images: FID and KID with InceptionV3, or with another feature network.

A distance is comparable only for the same feature network, resizing and number of images: state them.
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from helpers import runtime, weights
from helpers.errors import UserError


@lru_cache(maxsize=1)
def inception() -> nn.Module:
    """FID's own InceptionV3: float (N, 3, 299, 299) from −1 to 1 → (N, 2048). Fetched when not cached."""
    return weights.load("fid_inception_v3").to(runtime.current().device)


@torch.no_grad()
def inception_features(images: Tensor, batch_size: int = 50) -> Tensor:
    """Features of uint8 images (N, 1 or 3, H, W) → (N, 2048) on the CPU, as in the original FID code.

    Grey is repeated in three channels; resizing to 299² is bilinear without antialiasing, in TensorFlow's
    old convention (pixel i comes from i · H / 299); values become (x − 128) / 128.
    About 9 to 13 images a second on two cores, 15 to 18 with precision bf16: compute the features of the
    real images once. In bf16 they differ by 2%, and a distance of two sets hardly at all where *both* are
    computed so (two halves of 4,096 digits: FID 5.86 instead of 5.88); never mix the two.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"the images are {images.dtype}; FID takes uint8 images with values 0 to 255.")
    net, device = inception(), runtime.current().device
    parts = []
    for part in images.split(batch_size):
        part = (_resize_299(part.to(device).float()).expand(-1, 3, -1, -1) - 128) / 128
        # Kernels fused for a GPU would take longer to compile than they save.
        with torch.jit.optimized_execution(False), runtime.current().autocast():
            parts.append(net(part.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts)


def _resize_299(images: Tensor) -> Tensor:
    """Bilinear, (N, C, H, W) → (N, C, 299, 299): pixel i of the result is taken at i · H / 299."""
    height, width = images.shape[2:]
    steps = torch.arange(299, device=images.device)
    # grid_sample counts from −1 to 1 between the outer edges of the outer pixels.
    y, x = ((2 * (steps * size / 299 + 0.5) / size - 1) for size in (height, width))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class _Given(nn.Module):
    """Lets torchmetrics work on features that were computed before."""

    def __init__(self, features: int):
        super().__init__()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        return x


def fid(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of two sets of features (N, D) and (M, D) (Heusel et al., 2017).

    With Inception's 2,048 features it is called FID, and needs at least 2,048 images on each side; raises
    UserError below that. Biased: it falls with the number of images, so compare equal numbers only.
    """
    fewest = min(len(real), len(fake))
    if fewest < real.shape[1]:
        raise UserError(
            f"a Fréchet distance of {real.shape[1]} features needs as many images on each side, there are "
            f"{fewest}; use kid, which has no such bias, or more images."
        )
    metric = FrechetInceptionDistance(_Given(real.shape[1]), normalize=False)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, fake: Tensor, subsets: int = 50, subset_size: int = 500,
        seed: int = 0) -> tuple[float, float]:  # fmt: skip
    """Kernel distance of two sets of features and its spread over subsets (Bińkowski et al., 2018).

    The unbiased squared MMD with a cubic polynomial kernel: near 0 (also below) for two sets of one kind,
    whatever their size. Features (N, D), (M, D). subset_size is cut to the smaller set.
    """
    subset_size = min(subset_size, len(real), len(fake))
    with warnings.catch_warnings():  # that it keeps all features is what it is used for here
        warnings.simplefilter("ignore", UserWarning)
        metric = KernelInceptionDistance(_Given(real.shape[1]), subsets=subsets, subset_size=subset_size)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, spread = metric.compute()
    return float(mean), float(spread)
