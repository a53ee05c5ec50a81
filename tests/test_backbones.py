"""Backbones and the transfer model: parameter counts, what is frozen, and input that does not fit."""

import pytest
import torch
from torch import nn

from helpers import backbones, weights
from helpers.backbones import Backbone, TransferModel
from helpers.errors import UserError
from helpers.models import count_parameters

BN = nn.modules.batchnorm._BatchNorm


@pytest.fixture(scope="module")
def shuffle() -> Backbone:
    return backbones.backbone("shufflenet_v2_x0_5", pretrained=False)


@pytest.mark.parametrize(
    ("name", "counts", "total"),
    [  # the reported tables, four classes
        ("efficientnet_b0", (1_838_596, 2_250_756, 2_967_988), 5_846_144),
        ("shufflenet_v2_x1_0", (1_576_452, 2_053_636, 2_554_988), 2_830_056),
        # not reported: what the same rule gives
        ("efficientnet_b7", (3_149_316, 4_792_836, 26_225_732), 66_936_276),
    ],
)
def test_trainable_parameters_are_the_reported_ones(name, counts, total):
    with torch.device("meta"):  # counting needs no numbers
        backbone = backbones.backbone(name, pretrained=False)
        models = [TransferModel(backbone, 4, depth) for depth in (0, 1, 2)]
    assert tuple(count_parameters(model, trainable=True) for model in models) == counts
    assert {count_parameters(model) for model in models} == {total}


def test_one_layer_on_efficientnet_b7_trains_these_numbers():
    """The pneumonia assignment's pair: two classes, a linear head."""
    with torch.device("meta"):
        backbone = backbones.backbone("efficientnet_b7", pretrained=False)
        models = [TransferModel(backbone, 2, depth, head="linear") for depth in (0, 1, 2)]
    assert [count_parameters(model, trainable=True) for model in models] == [5_122, 1_648_642, 23_081_538]


def test_the_linear_head_on_resnet18_has_3078_parameters():
    with torch.device("meta"):
        model = TransferModel(backbones.backbone("resnet18", pretrained=False), 6, 0, head="linear")
    assert count_parameters(model, trainable=True) == 3078


@pytest.mark.parametrize(
    ("name", "last", "last_two"),
    [
        ("efficientnet_lite0", ["conv_head"], ["blocks_6", "conv_head"]),
        ("mobilenet_v2", ["features_18"], ["features_17", "features_18"]),
        ("resnet18", ["layer4"], ["layer3", "layer4"]),
        ("shufflenet_v2_x0_5", ["conv5"], ["stage4", "conv5"]),
    ],
)
def test_depth_opens_blocks_from_the_end(name, last, last_two):
    with torch.device("meta"):
        backbone = backbones.backbone(name, pretrained=False)
    for depth, expected in (
        (0, []),
        (1, last),
        (2, last_two),
        ("all", list(dict(backbone.blocks.named_children()))),
    ):
        with torch.device("meta"):
            model = TransferModel(backbone, 2, depth)
        assert [n for n, block in model.blocks.named_children() if count_parameters(block, True)] == expected
        for block in model.blocks:  # a block trains as a whole, BatchNorm included
            assert count_parameters(block, True) in (0, count_parameters(block))


@pytest.mark.parametrize("name", backbones.NAMES)
def test_every_backbone_gives_as_many_features_as_it_says(name):
    with torch.device("meta"):  # shapes need no numbers either
        backbone = backbones.backbone(name, pretrained=False)
        model = TransferModel(backbone, 3)
        assert backbone.blocks(torch.rand(2, 3, 64, 64)).shape == (2, backbone.features, 2, 2)
        assert model(torch.rand(2, 1, 64, 64)).shape == (2, 3)  # grey images


def test_images_are_normalized_inside(shuffle):
    model = TransferModel(shuffle, 3)
    grey = torch.full((1, 1, 4, 4), 0.456)
    torch.testing.assert_close(
        model.normalize(grey)[0, :, 0, 0], torch.tensor([-0.1266, 0.0, 0.2222]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_frozen_layers_do_not_move(shuffle, depth):
    model = TransferModel(shuffle, 3, depth)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(lr_head=0.1, lr_backbone=0.1))
    model.train()
    for _ in range(2):
        nn.functional.cross_entropy(model(torch.rand(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    opened = tuple(f"blocks.{name}." for name in ("stage3", "stage4", "conv5")[3 - depth :])
    assert moved
    assert all(key.startswith(("head.", *opened)) for key in moved)
    assert any("running_mean" in key for key in moved) == (depth > 0)


def test_batchnorm_of_frozen_blocks_stays_in_eval(shuffle):
    model = TransferModel(shuffle, 3, 1).train()
    assert not any(m.training for m in model.blocks.stage4.modules() if isinstance(m, BN))
    assert all(m.training for m in model.blocks.conv5.modules())


def test_one_backbone_serves_several_models(shuffle):
    first, second = TransferModel(shuffle, 3, "all"), TransferModel(shuffle, 3, 0)
    with torch.no_grad():
        next(first.blocks.parameters()).zero_()
    assert next(second.blocks.parameters()).abs().sum() > 0
    assert next(first.blocks.parameters()).requires_grad


def test_parameter_groups_carry_their_rates(shuffle):
    groups = TransferModel(shuffle, 3, 2).parameter_groups(lr_head=1e-2, lr_backbone=1e-3)
    assert [group["lr"] for group in groups] == [1e-2, 1e-3]
    assert len(TransferModel(shuffle, 3, 0).parameter_groups(1e-2, 1e-3)) == 1


def test_the_head_is_three_linear_layers(shuffle):
    shapes = [
        (m.in_features, m.out_features) for m in TransferModel(shuffle, 4).head if isinstance(m, nn.Linear)
    ]
    assert shapes == [(1024, 1024), (1024, 512), (512, 4)]
    assert sum(isinstance(m, nn.Dropout) for m in TransferModel(shuffle, 4, dropout=0.3).head) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 1}, "at least 2"),
        ({"classes": 3, "depth": 9}, r'use 0 to \d \(blocks from the end\) or "all"'),
        ({"classes": 3, "head": "mpl"}, 'use "mlp" or "linear"'),
    ],
)
def test_senseless_arguments_are_refused(shuffle, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        TransferModel(shuffle, **arguments)


def test_an_unknown_backbone_gets_the_nearest_name():
    with pytest.raises(UserError, match='"efficentnet_b0" is unknown; did you mean "efficientnet_b0"'):
        backbones.backbone("efficentnet_b0")


def test_a_checkpoint_of_other_classes_is_refused(shuffle):
    four, six = TransferModel(shuffle, 4, 1), TransferModel(shuffle, 6, 1)
    with pytest.raises(UserError, match="the checkpoint has 4 classes, the model 6"):
        six.load_state_dict(four.state_dict())
    with pytest.raises(UserError, match="the checkpoint has 4 classes, the model 6"):
        six.tail.load_state_dict(four.tail.state_dict())
    TransferModel(shuffle, 4, 2).load_state_dict(four.state_dict())  # another depth is no matter


def test_labels_beyond_the_classes_are_refused(shuffle):
    with pytest.raises(UserError, match="labels run from 0 to 4, but the model has 4 classes"):
        TransferModel(shuffle, 4).check_labels(torch.tensor([0, 4, 1]))


def test_lite0_has_the_parameters_of_timm():
    state = backbones.classifier("efficientnet_lite0", pretrained=False).state_dict()
    assert len(state) == 296
    assert sum(value.numel() for key, value in state.items() if key.endswith(("weight", "bias"))) == 4_652_008


# Logits of five classes for one made-up image. EfficientNet-Lite0's were compared with timm 1.0.31,
# the others come from torchvision's own networks: what is tested is the file and its mapping.
LOGITS = {
    "efficientnet_lite0": [-0.6418, -0.6226, -1.8216, 0.3981, -0.5406],
    "mobilenet_v2": [-0.2024, 0.1196, -1.5215, 4.2621, -1.5225],
    "resnet18": [-2.7193, 0.2187, -2.4828, 3.6159, -0.4551],
}


@pytest.mark.parametrize("name", LOGITS)
def test_pretrained_logits_are_the_known_ones(name):
    try:
        weights.path(name)
    except UserError as error:
        pytest.skip(str(error))
    waves = torch.arange(224.0).mul(0.1).sin()
    rows, columns = waves[:, None].expand(224, 224), waves.expand(224, 224)
    image = torch.stack([rows * columns, rows, columns])[None]
    with torch.inference_mode():
        logits = backbones.classifier(name)(image)[0, [0, 250, 500, 750, 999]]
    assert logits.tolist() == pytest.approx(LOGITS[name], abs=1e-3)
