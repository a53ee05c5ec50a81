"""Network blocks that two or more notebooks use, and what can be told of or done to any network."""

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions, each with BatchNorm and ReLU (Ronneberger et al., 2015).

    (N, in_channels, H, W) → (N, out_channels, H, W). Introduced in notebook 04.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),  # BatchNorm brings its own shift
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """Halve the resolution, then DoubleConv: (N, C, H, W) → (N, out_channels, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    """Double the resolution, join the encoder's picture of that size, then DoubleConv.

    x (N, in_channels, H, W) and skip (N, in_channels/2, 2H, 2W) → (N, in_channels/2, 2H, 2W).
    upsampling: "transposed" learns its filter; "bilinear" interpolates, then mixes channels by a
    1×1 convolution, and cannot paint checkerboards.
    """

    def __init__(self, in_channels: int, upsampling: str = "transposed"):
        super().__init__()
        half = in_channels // 2
        if upsampling == "transposed":
            self.up = nn.ConvTranspose2d(in_channels, half, kernel_size=2, stride=2)
        elif upsampling == "bilinear":
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(in_channels, half, kernel_size=1),
            )
        else:
            raise ValueError(f'upsampling is "transposed" or "bilinear", not "{upsampling}"')
        self.mix = DoubleConv(in_channels, half)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.mix(torch.cat([skip, self.up(x)], dim=1))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with padded convolutions: logits of the input's size.

    (N, in_channels, H, W) → (N, out_channels, H, W), H and W multiples of 2**depth.
    width: channels after the first block, doubled at each of `depth` poolings; width 64 and depth 4
    give the 64-128-256-512-1024 network. head_kernel: size of the last convolution, 1 or 3.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        width: int = 64,
        depth: int = 4,
        upsampling: str = "transposed",
        head_kernel: int = 1,
    ):
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.stem = DoubleConv(in_channels, width)
        self.downs = nn.ModuleList(Down(c, 2 * c) for c in channels[:-1])
        self.ups = nn.ModuleList(Up(c, upsampling) for c in reversed(channels[1:]))
        self.head = nn.Conv2d(width, out_channels, head_kernel, padding=head_kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.head(x)


def box_blur(images: Tensor, size: int, padding: str = "replicate") -> Tensor:
    """The mean over the square of size × size pixels around each pixel; size is odd.

    (N, C, H, W) in and out; padding: "replicate" or "reflect", what continues the images past their edges.
    A difference of two running sums costs the same for every size, while pooling pays for every pixel of a
    square (Crow, 1984).
    """
    images = F.pad(images, [size // 2] * 4, mode=padding)
    rows = F.pad(images, (1, 0)).cumsum(3)
    means = (rows[..., size:] - rows[..., :-size]) / size
    columns = F.pad(means, (0, 0, 1, 0)).cumsum(2)
    return (columns[..., size:, :] - columns[..., :-size, :]) / size


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network in eval mode whose BatchNorms sit in the weights of the convolutions before them.

    The same function up to rounding, in half the operations. Modules that follow each other where they are
    defined are taken to do so in the data flow too. Where that is wrong, the outputs for `example`, a batch
    of inputs, tell, and the network is returned as it came.
    """
    folded = deepcopy(network)
    for parent in folded.modules():
        for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, name, nn.Identity())
    before, after = network(example), folded(example)
    same = (after - before).norm() <= 0.01 * before.norm()  # room for GPUs, which round products to TF32
    return folded if same else network


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many numbers the model learns (or holds, frozen ones included)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def stages(model: nn.Module, blocks: dict[str, nn.Module], example: Tensor):
    """A table of what flows through a model: stage, output shape, parameters.

    Shapes are recorded in one forward pass in eval mode, not typed.
    """
    import pandas as pd

    rows = []
    hooks = [
        block.register_forward_hook(
            lambda module, _, output, name=name: rows.append(
                (name, " × ".join(map(str, output.shape[1:])), count_parameters(module))
            )
        )
        for name, block in blocks.items()
    ]
    mode = model.training
    try:
        with torch.inference_mode():
            model.eval()(example)
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows, columns=["stage", "output (C × H × W)", "parameters"])
