"""Pretrained backbones behind one function, and a model that trains them to a chosen depth."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchvision.models as tv
from torch import Tensor, nn

from helpers import weights
from helpers.efficientnet_lite import EfficientNetLite0
from helpers.errors import UserError
from helpers.parameters import suggest

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # EfficientNet-Lite was trained on values from -1 to 1


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    blocks: named parts in the order of the data; "depth" counts them from the end.
    (N, 3, H, W) → (N, features, H/32, W/32), and `features` numbers an image after average pooling.
    mean, std: of each input channel, for images in [0, 1].
    """

    name: str
    blocks: nn.Sequential
    features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _resnet(net: nn.Module) -> dict[str, nn.Module]:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return {"stem": stem} | {f"layer{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}


def _shufflenet(net: nn.Module) -> dict[str, nn.Module]:
    stages = {name: getattr(net, name) for name in ("stage2", "stage3", "stage4")}
    return {"stem": nn.Sequential(net.conv1, net.maxpool)} | stages | {"conv5": net.conv5}


def _features(net: nn.Module) -> dict[str, nn.Module]:
    """MobileNetV2 and EfficientNet: `features_8` is torchvision's `features[8]`."""
    return {f"features_{i}": block for i, block in enumerate(net.features)}


def _lite(net: nn.Module) -> dict[str, nn.Module]:
    stem = nn.Sequential(net.conv_stem, net.bn1, net.act1)
    head = nn.Sequential(net.conv_head, net.bn2, net.act2)
    return {"stem": stem} | {f"blocks_{i}": block for i, block in enumerate(net.blocks)} | {"conv_head": head}


# name: network with 1,000 classes, its parts in order, features, (mean, std)
_BACKBONES: dict[str, tuple[Callable[[], nn.Module], Callable, int, tuple]] = {
    "efficientnet_lite0": (EfficientNetLite0, _lite, 1280, HALVES),
    "mobilenet_v2": (tv.mobilenet_v2, _features, 1280, IMAGENET),
    "resnet18": (tv.resnet18, _resnet, 512, IMAGENET),
    "shufflenet_v2_x0_5": (tv.shufflenet_v2_x0_5, _shufflenet, 1024, IMAGENET),
    "shufflenet_v2_x1_0": (tv.shufflenet_v2_x1_0, _shufflenet, 1024, IMAGENET),
    "efficientnet_b0": (tv.efficientnet_b0, _features, 1280, IMAGENET),
    "efficientnet_b7": (tv.efficientnet_b7, _features, 2560, IMAGENET),
}
NAMES = tuple(_BACKBONES)


def classifier(name: str, pretrained: bool = True) -> nn.Module:
    """The whole network with its 1,000 ImageNet classes, in eval mode: normalized images → logits."""
    if name not in _BACKBONES:
        raise UserError(f'backbone "{name}" is unknown; {suggest(name, NAMES)}')
    # The weights first: where they cannot be had, that is known before a large network is built.
    state = weights.load(name) if pretrained else None
    net = _BACKBONES[name][0]()
    if state is not None:
        if name == "efficientnet_lite0":  # its file follows the same order under other names
            state = dict(zip(net.state_dict(), state.values()))
        net.load_state_dict(state)
    return net.eval()


def backbone(name: str, pretrained: bool = True) -> Backbone:
    """One of `NAMES`, with ImageNet weights (fetched when not cached) or random ones.

    Raises UserError for an unknown name, and when the weights cannot be had (see `weights.load`).
    """
    net = classifier(name, pretrained)
    _, parts, features, (mean, std) = _BACKBONES[name]
    return Backbone(name, nn.Sequential(OrderedDict(parts(net))), features, mean, std)


class Normalize(nn.Module):
    """(N, 1 or 3, H, W) in [0, 1] → (N, 3, H, W) with the mean and spread that a backbone expects."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std  # one grey channel becomes three here
        return x.contiguous(memory_format=torch.channels_last)


class Head(nn.Sequential):
    """The new classifier: (N, features) → logits (N, classes).

    kind "mlp": features → 1024 → 512 → classes with ReLU between, the transfer-depth lab's;
    "linear": one layer. dropout: probability, before every linear layer.
    Loading weights of another number of classes raises UserError.
    """

    def __init__(self, features: int, classes: int, kind: str = "mlp", dropout: float = 0.0):
        if kind not in ("mlp", "linear"):
            raise UserError(f'head "{kind}" is unknown; use "mlp" or "linear".')
        sizes = [features, 1024, 512, classes] if kind == "mlp" else [features, classes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.ReLU()] if layers else []
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [nn.Linear(inputs, outputs)]
        super().__init__(*layers)
        self.register_load_state_dict_pre_hook(_check_classes)


def _check_classes(head: Head, state: dict, prefix: str, *_) -> None:
    saved, own = state.get(f"{prefix}{len(head) - 1}.weight"), head[-1].out_features
    if saved is not None and len(saved) != own:
        raise UserError(
            f"the checkpoint has {len(saved)} classes, the model {own}; "
            f"build the model with classes={len(saved)}, or train one for these {own} classes."
        )


class TransferModel(nn.Module):
    """A pretrained backbone with a new head, trainable from its end to a chosen depth.

    (N, 1 or 3, H, W) in [0, 1], not normalized → logits (N, classes).
    depth: 0 trains the head; 1 also the backbone's last block, 2 the last two, and so on; "all" everything.
    Frozen blocks get no gradients, and their BatchNorm stays in eval whatever `train()` says: a layer
    whose running statistics drift is not frozen. The backbone is copied, so one serves several models.
    `frozen` and `tail` are the two sides of the cut: tail(frozen(x)) is the model.
    Raises UserError for a depth, head or number of classes that makes no sense.
    """

    def __init__(self, backbone: Backbone, classes: int, depth: int | str = 0, head: str = "mlp",
                 dropout: float = 0.0):  # fmt: skip
        super().__init__()
        blocks = len(backbone.blocks)
        if depth not in (*range(blocks + 1), "all") or isinstance(depth, bool):
            raise UserError(f'depth {depth!r} is unknown; use 0 to {blocks} (blocks from the end) or "all".')
        if not isinstance(classes, int) or classes < 2:
            raise UserError(f"classes is {classes!r}; a classifier needs a number of at least 2.")
        self.name, self.classes, self.depth = backbone.name, classes, depth
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.blocks = deepcopy(backbone.blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = Head(backbone.features, classes, head, dropout)
        self._cut = 0 if depth == "all" else len(self.blocks) - depth
        self.blocks[: self._cut].requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # the layout in which CPUs and GPUs convolve fastest

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.normalize(x))))

    def train(self, mode: bool = True) -> "TransferModel":
        super().train(mode)
        self.blocks[: self._cut].eval()
        return self

    @property
    def frozen(self) -> nn.Sequential:
        """Everything before the first trainable layer, the pooling included where only the head trains."""
        parts = OrderedDict(normalize=self.normalize, **_named(self.blocks[: self._cut]))
        return nn.Sequential(parts | ({"pool": self.pool} if self.depth == 0 else {}))

    @property
    def tail(self) -> nn.Sequential:
        """The trainable rest, sharing its layers with the model: what trains it trains the model."""
        parts = OrderedDict(_named(self.blocks[self._cut :]))
        return nn.Sequential(parts | ({} if self.depth == 0 else {"pool": self.pool}) | {"head": self.head})

    def parameter_groups(self, lr_head: float, lr_backbone: float) -> list[dict]:
        """Groups for an optimizer: the new head, and the pretrained layers that train, with a rate each.

        Pretrained layers want a lower rate: they are near a good place, and the first gradients of a
        random head would push them away from it.
        """
        groups = [{"params": list(self.head.parameters()), "lr": lr_head}]
        if trainable := list(self.blocks[self._cut :].parameters()):
            groups.append({"params": trainable, "lr": lr_backbone})
        return groups

    def check_labels(self, labels: Tensor) -> None:
        """Raise UserError when labels, integers from 0, do not fit the model's number of classes."""
        highest = int(labels.max())
        if highest >= self.classes or int(labels.min()) < 0:
            raise UserError(
                f"labels run from {int(labels.min())} to {highest}, but the model has {self.classes} classes "
                f"(0 to {self.classes - 1}); give TransferModel the dataset's number of classes."
            )


def _named(blocks: nn.Sequential) -> dict[str, nn.Module]:
    return dict(blocks.named_children())
