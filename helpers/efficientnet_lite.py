"""EfficientNet-Lite0, written out: EfficientNet-B0 for small devices.

Against B0 (Tan & Le, 2019): no squeeze-and-excitation, ReLU6 in place of SiLU (both hard to quantize),
and stem and head of fixed width. Layers bear the names that timm's `tf_efficientnet_lite0` gives them,
in the same order, so that its weights fit.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

# expansion, output channels, repeats, stride of the first, kernel: table 1 of the paper
STAGES = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
]


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads: output size ceil(input / stride), the odd pixel at the end.

    The weights were trained with it; PyTorch's symmetric padding would shift strided layers by a pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # TensorFlow's defaults, in which it was trained


class MBConv(nn.Module):
    """Widen by a 1×1 convolution, filter each channel, narrow again; a shortcut where shapes agree.

    (N, in_channels, H, W) → (N, out_channels, H/stride, W/stride). Expansion 1 leaves the first step out.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        middle = in_channels * expansion
        depthwise = (SameConv2d if stride > 1 else nn.Conv2d)(
            middle, middle, kernel, stride, 0 if stride > 1 else kernel // 2, groups=middle, bias=False
        )
        narrow = nn.Conv2d(middle, out_channels, 1, bias=False)
        if expansion == 1:
            layers = [("conv_dw", depthwise), ("bn1", _norm(middle)), ("act1", nn.ReLU6(inplace=True)),
                      ("conv_pw", narrow), ("bn2", _norm(out_channels))]  # fmt: skip
        else:
            layers = [("conv_pw", nn.Conv2d(in_channels, middle, 1, bias=False)),
                      ("bn1", _norm(middle)), ("act1", nn.ReLU6(inplace=True)),
                      ("conv_dw", depthwise), ("bn2", _norm(middle)), ("act2", nn.ReLU6(inplace=True)),
                      ("conv_pwl", narrow), ("bn3", _norm(out_channels))]  # fmt: skip
        for name, layer in layers:
            self.add_module(name, layer)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Sequential):
    """(N, 3, H, W) → logits (N, classes). Trained on 224² images scaled to [-1, 1]; 1,280 features."""

    def __init__(self, classes: int = 1000):
        channels, blocks = 32, []
        for expansion, out_channels, repeats, stride, kernel in STAGES:
            stage = nn.Sequential()
            for repeat in range(repeats):
                stage.append(MBConv(channels, out_channels, expansion, stride if repeat == 0 else 1, kernel))
                channels = out_channels
            blocks.append(stage)
        super().__init__(
            OrderedDict(
                conv_stem=SameConv2d(3, 32, 3, 2, bias=False),
                bn1=_norm(32),
                act1=nn.ReLU6(inplace=True),
                blocks=nn.Sequential(*blocks),
                conv_head=nn.Conv2d(channels, 1280, 1, bias=False),
                bn2=_norm(1280),
                act2=nn.ReLU6(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(1280, classes),
            )
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
