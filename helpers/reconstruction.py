"""How near a picture comes to its original, and at what price: PSNR, SSIM, block PCA, bits a pixel.

Pictures are (N, C, H, W) tensors of floats. Everything here measures or is linear; the networks stand in
the notebooks.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from helpers.errors import UserError


def psnr(a: Tensor, b: Tensor, data_range: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: (N, C, H, W) twice → (N,).

    data_range: white minus black, 1 for pixels in [0, 1], 2 for [-1, 1], 255 for bytes. A range that does
    not belong to the pixels shifts every result by 20·log10 of the error, whatever the pictures are.
    mask: (N, 1, H, W), 0 or 1; only pixels at 1 count. Equal images give infinity, an empty mask nan.
    Raises UserError when the shapes differ.
    """
    _same_shape(a, b)
    error = (a.double() - b.double()).square().mean(1, keepdim=True)
    weight = torch.ones_like(error) if mask is None else mask.to(error)
    mean = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    return 10 * torch.log10(data_range**2 / mean)


def ssim(a: Tensor, b: Tensor, data_range: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Structural similarity of each image (Wang et al., 2004): (N, C, H, W) twice → (N,), 1 for equals.

    Local means, variances and covariance are weighted by a Gaussian of 11 × 11 pixels (σ = 1.5); windows
    that leave the image do not count. data_range: as in `psnr`.
    mask: (N, 1, H, W), 0 or 1; only windows around pixels at 1 count.
    Raises UserError when the shapes differ or the images are smaller than a window.
    """
    _same_shape(a, b)
    margin = 5  # half a window
    if min(a.shape[2:]) <= 2 * margin:
        raise UserError(f"SSIM needs more than {2 * margin} pixels a side; got {a.shape[2]} × {a.shape[3]}.")
    _, local = structural_similarity_index_measure(
        a.float(), b.float(), data_range=data_range, reduction="none", return_full_image=True
    )
    local = local[..., margin:-margin, margin:-margin].mean(1, keepdim=True)
    weight = torch.ones_like(local) if mask is None else mask[..., margin:-margin, margin:-margin].to(local)
    return (local * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() != 4:
        raise UserError(
            f"pictures of one shape (N, C, H, W) are compared; got {tuple(a.shape)} and {tuple(b.shape)}."
        )


@dataclass(frozen=True)
class BlockPCA:
    """Principal components of square blocks: the best linear code of a given size (Eckart and Young, 1936).

    mean: (C, block, block); basis: (values, C, block, block), orthonormal, by falling variance;
    variance: (values,), how much the code of a block varies along each component.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, images: Tensor, block: int, values: int) -> "BlockPCA":
        """Fit to all blocks of floats (N, C, H, W); H and W are multiples of `block`.

        Colours are part of a block: how many values go to brightness and how many to tint is found, not set.
        Raises UserError when blocks do not fill the images, or when `values` exceed the pixels of a block.
        """
        channels, height, width = images.shape[1:]
        if height % block or width % block:
            raise UserError(
                f"blocks of {block} pixels do not fill images of {height} × {width}; resize them."
            )
        size = channels * block**2
        if not 0 < values <= size:
            raise UserError(f"{values} values for a block of {size}: choose between 1 and {size}.")
        total, square, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
        for image in images:  # one at a time: all blocks at once would be a second copy of the set
            blocks = _blocks(image[None], block).double()
            total, square, count = total + blocks.sum(0), square + blocks.T @ blocks, count + len(blocks)
        mean = total / count
        variance, vectors = torch.linalg.eigh(square / count - mean.outer(mean))  # in rising order
        shape = (channels, block, block)
        basis = vectors.flip(1)[:, :values].T.contiguous().float().reshape(values, *shape)
        return cls(mean.float().reshape(shape), basis, variance.flip(0)[:values].float())

    def encode(self, images: Tensor) -> Tensor:
        """(N, C, H, W) → (N, values, H/block, W/block)."""
        block = self.basis.shape[-1]
        offset = (self.basis * self.mean).sum((1, 2, 3))
        return F.conv2d(images, self.basis, stride=block) - offset[:, None, None]

    def decode(self, codes: Tensor) -> Tensor:
        """(N, values, h, w) → (N, C, h·block, w·block)."""
        block = self.basis.shape[-1]
        tiles = self.mean.repeat(1, *codes.shape[2:])
        return F.conv_transpose2d(codes, self.basis, stride=block) + tiles


def _blocks(images: Tensor, block: int) -> Tensor:
    """(N, C, H, W) → (blocks, C·block²)."""
    return F.pixel_unshuffle(images, block).flatten(2).mT.flatten(0, 1)


def code_length(symbols: Tensor, reference: Tensor) -> Tensor:
    """Bits that an ideal entropy coder spends on each image: (N, K, h, w) whole numbers → (N,).

    reference: (M, K, h', w'), symbols of other images, whose counts (plus one each) say how probable a
    symbol of each of the K channels is. Counts of the image itself would have to be sent along. Neighbours
    are taken as independent, so this is an upper bound of what a coder with context would need.
    """
    bits = torch.zeros(len(symbols), dtype=torch.float64)
    for channel in range(symbols.shape[1]):
        here, there = symbols[:, channel].flatten(1).long(), reference[:, channel].flatten().long()
        low = min(int(here.min()), int(there.min()))
        size = max(int(here.max()), int(there.max())) - low + 1
        counts = (
            torch.bincount(there - low, minlength=size).double() + 1
        )  # a symbol never seen stays possible
        bits += -torch.log2(counts / counts.sum())[here - low].sum(1)
    return bits


def compress(images: Tensor, format: str, quality: float) -> tuple[Tensor, Tensor]:
    """Write images to a codec's bytes and read them again: (decoded (N, 3, H, W) in [0, 1], bits (N,)).

    images: uint8 (N, 3, H, W). format: "JPEG" or "WebP" with a quality of 1 to 100, or "JPEG2000" with
    a target of bits a pixel. Bits count the whole file, its header included.
    """
    decoded, bits = [], []
    for image in images:
        picture, file = Image.fromarray(image.permute(1, 2, 0).numpy()), io.BytesIO()
        if format == "JPEG2000":
            picture.save(
                file, "JPEG2000", quality_mode="rates", quality_layers=[24 / quality], irreversible=True
            )
        elif format == "WebP":
            picture.save(file, "WebP", quality=int(quality), method=6)
        elif format == "JPEG":
            picture.save(file, "JPEG", quality=int(quality), optimize=True)
        else:
            raise UserError(f'format "{format}" is unknown; use "JPEG", "WebP" or "JPEG2000".')
        bits.append(8 * file.tell())
        decoded.append(np.asarray(Image.open(file).convert("RGB")))
    pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    return pixels.float() / 255, torch.tensor(bits, dtype=torch.float64)


def rate_distortion(images: Tensor, format: str, qualities: Sequence[float]) -> list[dict[str, float]]:
    """A point for each quality: quality, bits a pixel and PSNR in dB, both averaged over images.

    images: uint8 (N, 3, H, W); formats and qualities as in `compress`.
    """
    points = []
    for quality in qualities:
        decoded, bits = compress(images, format, quality)
        rate = (bits / images[0, 0].numel()).mean()
        distortion = psnr(decoded, images / 255).mean()
        points.append({"quality": quality, "bits_per_pixel": float(rate), "psnr": float(distortion)})
    return points
