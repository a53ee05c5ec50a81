"""Segmentation metrics against scikit-learn and drawn shapes; prediction of whole images."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from helpers import segmentation as seg


def random_case(images: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, truth and inside, (N, 24, 20), the first two in loose agreement."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, 24, 20)) < 0.3).astype(np.uint8)
    probabilities = np.clip(0.5 * truth + rng.random(truth.shape) * 0.7, 0, 1).astype(np.float32)
    inside = (rng.random(truth.shape) < 0.8).astype(np.uint8)
    return probabilities, truth, inside


def line(thickness: int, start: int = 5, end: int = 55) -> np.ndarray:
    """A horizontal line in a mask of 40 × 60 pixels, from row 10 down."""
    mask = np.zeros((40, 60), bool)
    mask[10 : 10 + thickness, start:end] = True
    return mask


def test_pooled_scores_agree_with_scikit_learn_inside_the_mask():
    probabilities, truth, inside = random_case()
    chosen = inside == 1
    predicted, wanted = probabilities[chosen] >= 0.5, truth[chosen] == 1
    assert seg.pooled(probabilities, truth, inside, 0.5) == pytest.approx({
        "dice": sk.f1_score(wanted, predicted),
        "iou": sk.jaccard_score(wanted, predicted),
        "miou": sk.jaccard_score(wanted, predicted, average="macro"),
        "sensitivity": sk.recall_score(wanted, predicted),
        "specificity": sk.recall_score(wanted, predicted, pos_label=0),
        "accuracy": sk.accuracy_score(wanted, predicted),
        "mcc": sk.matthews_corrcoef(wanted, predicted),
        "auc": sk.roc_auc_score(wanted, probabilities[chosen]),
    })  # fmt: skip


def test_what_lies_outside_changes_nothing():
    probabilities, truth, inside = random_case()
    outside = inside == 0
    other = np.where(outside, 1 - probabilities, probabilities), np.where(outside, 1 - truth, truth)
    before = seg.per_image(probabilities, truth, inside, 0.5)
    after = seg.per_image(*other, inside, 0.5)
    assert before.equals(after)
    assert seg.pooled(*other, inside, 0.5) == seg.pooled(probabilities, truth, inside, 0.5)
    assert seg.dice_threshold(*other, inside) == seg.dice_threshold(probabilities, truth, inside)


def test_per_image_has_a_row_an_image():
    probabilities, truth, inside = random_case()
    table = seg.per_image(
        torch.tensor(probabilities), torch.tensor(truth), torch.tensor(inside), 0.5, list("abc")
    )
    assert table.index.tolist() == ["a", "b", "c"]
    one = seg.pooled(probabilities[1:2], truth[1:2], inside[1:2], 0.5)
    assert table.loc["b", list(one)].to_dict() == pytest.approx(one)
    assert {"cldice", "hd95"} <= set(table)


def test_scores_without_a_denominator_are_defined():
    black = seg.scores(0, 0, 0, 10)
    assert (black["dice"], black["iou"], black["miou"]) == (1, 1, 1)
    assert (black["sensitivity"], black["specificity"], black["mcc"]) == (0, 1, 0)
    assert seg.scores(0, 0, 0, 0)["accuracy"] == 0


def test_auc_needs_both_classes():
    probabilities, truth, inside = random_case(1)
    assert math.isnan(seg.pooled(probabilities, np.zeros_like(truth), inside, 0.5)["auc"])
    assert math.isnan(seg.pooled(probabilities, truth, np.zeros_like(inside), 0.5)["auc"])


def test_dice_threshold_is_the_best_of_all_candidates():
    probabilities, truth, inside = random_case()
    candidates = np.linspace(0.1, 0.9, 81)
    dice = [seg.pooled(probabilities, truth, inside, t)["dice"] for t in candidates]
    assert seg.dice_threshold(probabilities, truth, inside) == candidates[np.argmax(dice)]
    assert seg.dice_threshold(probabilities, truth, inside, candidates=[0.3]) == 0.3


def test_hd95_of_drawn_shapes():
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[5, 5] = b[8, 9] = True
    assert seg.hd95(a, b) == 5  # 3 down, 4 to the right
    assert seg.hd95(a, a) == 0
    assert math.isnan(seg.hd95(a, np.zeros_like(a)))
    assert seg.hd95(line(1), np.roll(line(1), 3, axis=0)) == 3
    stray = line(1)
    stray[39, 59] = True  # one pixel far away: a Hausdorff distance would be about 29
    assert seg.hd95(stray, np.roll(line(1), 3, axis=0)) == 3


def test_cldice_of_drawn_lines():
    centre = np.roll(line(1), 1, axis=0)
    assert seg.cldice(centre, line(3)) > 0.98  # thinner, but found along its whole length
    assert seg.cldice(line(3), line(3)) == 1
    half = seg.cldice(line(1, end=30), line(1))  # precision 1, sensitivity 1/2
    assert half == pytest.approx(2 / 3)
    assert seg.cldice(line(1), np.roll(line(1), 5, axis=0)) == 0
    nothing = np.zeros((40, 60), bool)
    assert (seg.cldice(nothing, nothing), seg.cldice(nothing, line(1)), seg.cldice(line(1), nothing)) == (
        1,
        0,
        0,
    )


@pytest.mark.parametrize("thickness", [1, 2, 3, 4, 5, 6])
def test_vessel_width_of_drawn_lines(thickness):
    drawn = line(thickness)
    for mask in (drawn, drawn.T):
        widths = seg.vessel_width(mask)
        middle = widths if mask is drawn else widths.T
        assert (middle[10 : 10 + thickness, 15:45] == thickness).all()
        assert (widths[~mask] == 0).all()
    assert not seg.vessel_width(np.zeros((4, 4))).any()


def test_nearest_value_fills_zeros_from_the_nearest_line():
    filled = seg.nearest_value(seg.vessel_width(line(1) | np.roll(line(3), 20, axis=0)))
    assert (filled[:15, 30] == 1).all()
    assert (filled[30:, 30] == 3).all()
    assert not seg.nearest_value(np.zeros((3, 3))).any()


class Identity(nn.Module):
    """Gives logits equal to the image, and refuses sides that are no multiples of 8."""

    def forward(self, x):
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        return x


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("size", [(24, 16), (17, 13), (1, 9)])
def test_whole_images_of_any_size_come_back_in_place(size, flips):
    images = torch.randn(2, 1, *size)
    result = seg.predict_whole(Identity(), images, multiple=8, flips=flips)
    torch.testing.assert_close(result, torch.sigmoid(images))


def test_averaging_over_flips_makes_prediction_turn_with_the_image():
    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 3, padding=1)  # its kernel has no symmetry
    images = torch.randn(1, 1, 16, 16)
    for turned in (lambda x: torch.rot90(x, 1, (2, 3)), lambda x: x.flip(3), lambda x: x.mT):
        with torch.no_grad():
            average = seg.predict_whole(model, images, 4, flips=True)
            plain = seg.predict_whole(model, images, 4)
            torch.testing.assert_close(
                seg.predict_whole(model, turned(images), 4, flips=True), turned(average)
            )
            assert not torch.allclose(seg.predict_whole(model, turned(images), 4), turned(plain), atol=1e-3)
