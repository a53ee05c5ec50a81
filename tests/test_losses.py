"""Losses against numbers worked out by hand, and where they must not look."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers.losses import BCEDice, Dice, FocalTversky, WeightedBCE

ALL = [WeightedBCE(), Dice(), FocalTversky(), BCEDice()]
NAMES = [type(loss).__name__ for loss in ALL]


def logit(*probabilities: float) -> torch.Tensor:
    """Logits of four pixels, (1, 1, 2, 2)."""
    return torch.logit(torch.tensor(probabilities)).reshape(1, 1, 2, 2)


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 2, 2)


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 1, 8, 8, generator=generator)
    target = (torch.rand(2, 1, 8, 8, generator=generator) < 0.3).float()
    weight = (torch.rand(2, 1, 8, 8, generator=generator) < 0.7).float()
    return logits, target, weight


def test_focal_tversky_by_hand():
    logits, target, weight = logit(0.9, 0.6, 0.2, 0.5), pixels(1, 1, 0, 0), pixels(1, 1, 1, 0)
    # TP = .9 + .6, FN = .1 + .4, FP = .2; the last pixel lies outside.
    index = (1.5 + 1) / (1.5 + 0.7 * 0.5 + 0.3 * 0.2 + 1)
    loss = FocalTversky(alpha=0.7, beta=0.3, gamma=0.75)(logits, target, weight)
    assert loss.item() == pytest.approx((1 - index) ** 0.75, rel=1e-5)


def test_alpha_weighs_missed_pixels_and_beta_false_alarms():
    everywhere = torch.ones(1, 1, 2, 2)
    missed = logit(0.1, 0.9, 0.1, 0.1), pixels(1, 1, 0, 0), everywhere
    false_alarm = logit(0.9, 0.9, 0.9, 0.1), pixels(1, 1, 0, 0), everywhere
    to_find, to_be_sure = FocalTversky(alpha=0.7, beta=0.3), FocalTversky(alpha=0.3, beta=0.7)
    assert to_find(*missed) > to_be_sure(*missed)
    assert to_find(*false_alarm) < to_be_sure(*false_alarm)


def test_with_equal_weights_it_is_the_dice_loss_to_the_power_of_gamma():
    case = random_case()
    assert FocalTversky().gamma == 0.75
    assert (FocalTversky().alpha, FocalTversky().beta) == (0.5, 0.5)
    assert FocalTversky()(*case).item() == pytest.approx(Dice()(*case).item() ** 0.75, rel=1e-6)


def test_the_dice_loss_is_one_minus_the_dice_coefficient():
    logits, target, weight = random_case()
    probability, target = torch.sigmoid(logits) * weight, target * weight
    overlap = 2 * (probability * target).sum() + 2  # smoothed by 1 above and below, as TP + 1
    dice = overlap / (probability.sum() + target.sum() + 2)
    assert Dice()(logits, target, weight).item() == pytest.approx(1 - dice.item(), rel=1e-5)


def test_cross_entropy_is_torchs_over_the_pixels_that_count():
    logits, target, weight = random_case()
    chosen = weight == 1
    expected = F.binary_cross_entropy_with_logits(logits[chosen], target[chosen])
    assert WeightedBCE()(logits, target, weight).item() == pytest.approx(expected.item(), rel=1e-6)


def test_bce_dice_is_their_sum():
    case = random_case()
    assert BCEDice()(*case).item() == pytest.approx((WeightedBCE()(*case) + Dice()(*case)).item(), rel=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=NAMES)
def test_pixels_outside_change_nothing_and_get_no_gradient(loss):
    logits, target, weight = random_case()
    logits.requires_grad_()
    value = loss(logits, target, weight)
    value.backward()
    assert (logits.grad[weight == 0] == 0).all()
    assert (logits.grad[weight == 1] != 0).all()
    outside = 1 - weight
    other = loss(logits.detach() + 9 * outside, (target + outside).clamp(max=1), weight)
    assert other.item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=NAMES)
@pytest.mark.parametrize("sure", [0.0, 30.0, 200.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_empty_masks_and_perfect_answers_keep_loss_and_gradient_finite(loss, sure, label, weight):
    for sign in (-1, 1):
        logits = torch.full((1, 1, 4, 4), sign * sure, requires_grad=True)
        value = loss(logits, torch.full((1, 1, 4, 4), label), torch.full((1, 1, 4, 4), weight))
        value.backward()
        assert math.isfinite(value.item())
        assert logits.grad.isfinite().all()


def test_bf16_logits_are_summed_in_fp32():
    logits, target, weight = random_case()
    for loss in ALL:
        assert loss(logits.bfloat16(), target, weight).dtype == torch.float32
