"""Shapes and parameter counts of the U-Net and its blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import models


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 64, "depth": 4}, 31_037_633),
        ({"width": 64, "depth": 4, "head_kernel": 3}, 31_038_145),
        ({"width": 12, "depth": 3}, 271_909),
    ],
)
def test_parameter_counts(settings, expected):
    with torch.device("meta"):
        network = models.UNet(3, 1, **settings)
    assert models.count_parameters(network) == expected


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("head_kernel", [1, 3])
def test_logits_have_the_size_of_the_image(upsampling, head_kernel):
    network = models.UNet(2, 5, width=2, depth=3, upsampling=upsampling, head_kernel=head_kernel)
    assert network(torch.zeros(2, 2, 16, 24)).shape == (2, 5, 16, 24)


def test_unknown_upsampling_is_named():
    with pytest.raises(ValueError, match='not "nearest"'):
        models.UNet(upsampling="nearest", width=2)


def test_each_skip_reaches_the_output():
    """The finest skip alone carries a single pixel's detail to its place."""
    torch.manual_seed(0)
    network = models.UNet(1, 1, width=4, depth=2).eval()
    image = torch.zeros(1, 1, 16, 16)
    dotted = image.clone()
    dotted[0, 0, 5, 6] = 10
    with torch.no_grad():
        change = (network(dotted) - network(image)).abs()[0, 0]
    assert change.argmax().item() // 16 in (4, 5, 6)


def test_counts_tell_trainable_from_frozen():
    block = models.DoubleConv(1, 2)
    before = models.count_parameters(block)
    block[0].requires_grad_(False)
    assert models.count_parameters(block) == before
    assert models.count_parameters(block, trainable=True) == before - 18


def test_stages_are_recorded_not_typed():
    network = models.UNet(1, 1, width=2, depth=1).train()
    running = network.stem[1].running_mean.clone()
    table = models.stages(
        network,
        {"stem": network.stem, "down": network.downs[0], "head": network.head},
        torch.randn(1, 1, 8, 6),
    )
    assert table.values.tolist() == [
        ["stem", "2 × 8 × 6", 2 * 9 + 4 + 4 * 9 + 4],
        ["down", "4 × 4 × 3", 8 * 9 + 8 + 16 * 9 + 8],
        ["head", "1 × 8 × 6", 3],
    ]
    assert network.training
    assert torch.equal(network.stem[1].running_mean, running)
    assert not any(module._forward_hooks for module in network.modules() if isinstance(module, nn.Module))


@pytest.mark.parametrize("size", [1, 3, 29])
@pytest.mark.parametrize("padding", ["replicate", "reflect"])
def test_box_blur_is_the_mean_over_squares(size, padding):
    images = torch.rand(2, 3, 40, 56, requires_grad=True)
    blurred = models.box_blur(images, size, padding)
    expected = F.avg_pool2d(F.pad(images, [size // 2] * 4, mode=padding), size, stride=1)
    torch.testing.assert_close(blurred, expected, atol=1e-5, rtol=0)
    weight = torch.rand_like(blurred)
    gradients = [torch.autograd.grad((out * weight).sum(), images)[0] for out in (blurred, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=0)


class Misleading(nn.Module):
    """Defines its BatchNorm after the convolution and applies it before."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.convolution(self.norm(x))


def with_statistics(network: nn.Module) -> nn.Module:
    """The network in eval mode, its BatchNorm far from the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.3, 3)
    return network.eval()


@torch.no_grad()
def test_batch_norm_goes_into_the_convolution_before_it():
    torch.manual_seed(0)
    network, images = with_statistics(models.UNet(3, 1, width=2, depth=2)), torch.rand(2, 3, 16, 16)
    expected = network(images)
    folded = models.fold_batch_norm(network, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), expected)
    torch.testing.assert_close(network(images), expected)


@torch.no_grad()
def test_a_batch_norm_that_is_applied_elsewhere_stays():
    torch.manual_seed(0)
    network, images = with_statistics(Misleading()), torch.rand(2, 3, 8, 8)
    assert models.fold_batch_norm(network, images) is network
