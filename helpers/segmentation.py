"""Metrics of binary segmentation inside a mask, per image and pooled; whole-image prediction.

Arrays: probabilities, truth and inside are (N, H, W); truth and inside are 0 or 1, and only pixels
inside count. "Pooled" counts the pixels of all images together; "per image" averages over images.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from skimage.morphology import skeletonize
from torch import Tensor
from torch.nn import functional as F

from helpers import metrics


def scores(true_positive, false_positive, false_negative, true_negative) -> dict[str, float]:
    """Dice, IoU, two-class mean IoU, sensitivity, specificity, accuracy and MCC from four counts.

    A ratio without a denominator is 1 for the overlaps (both empty: perfect agreement), else 0.
    """
    tp, fp, fn, tn = (float(v) for v in (true_positive, false_positive, false_negative, true_negative))

    def ratio(above: float, below: float, empty: float) -> float:
        return above / below if below else empty

    iou = ratio(tp, tp + fp + fn, 1.0)
    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn, 1.0),
        "iou": iou,
        "miou": (iou + ratio(tn, tn + fp + fn, 1.0)) / 2,  # the background counts as a second class
        "sensitivity": ratio(tp, tp + fn, 0.0),
        "specificity": ratio(tn, tn + fp, 0.0),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn, 0.0),
        "mcc": ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)), 0.0),
    }


def counts(predicted: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(N, 4) integers: true positives, false positives, false negatives, true negatives of each image."""
    predicted, truth, inside = (np.asarray(a).astype(bool) for a in (predicted, truth, inside))
    cells = (predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth)
    return np.stack([(cell & inside).sum((1, 2)) for cell in cells], axis=1)


def pooled(probabilities, truth, inside, threshold: float) -> dict[str, float]:
    """`scores` and AUC over the pixels of all images together."""
    probabilities, truth, inside = (np.asarray(a) for a in (probabilities, truth, inside))
    result = scores(*counts(probabilities >= threshold, truth, inside).sum(0))
    result["auc"] = _auc(probabilities, truth, inside)
    return result


def per_image(probabilities, truth, inside, threshold: float, ids=None) -> pd.DataFrame:
    """A row an image: `scores`, AUC, clDice and HD95 (pixels)."""
    probabilities, truth, inside = (np.asarray(a) for a in (probabilities, truth, inside))
    predicted = (probabilities >= threshold) & inside.astype(bool)
    rows = []
    for number, cells in enumerate(counts(predicted, truth, inside)):
        reference = truth[number].astype(bool) & inside[number].astype(bool)
        rows.append({
            **scores(*cells),
            "auc": _auc(probabilities[number], truth[number], inside[number]),
            "cldice": cldice(predicted[number], reference),
            "hd95": hd95(predicted[number], reference),
        })  # fmt: skip
    return pd.DataFrame(rows, index=pd.Index(ids if ids is not None else range(len(rows)), name="image"))


def _auc(probabilities, truth, inside) -> float:
    chosen = inside.astype(bool)
    return metrics.auc(probabilities[chosen], truth[chosen])


def dice_threshold(probabilities, truth, inside, candidates=None) -> float:
    """The threshold with the largest pooled Dice; to be chosen on validation data."""
    candidates = np.linspace(0.1, 0.9, 81) if candidates is None else candidates
    chosen = np.asarray(inside).astype(bool)
    values, labels = np.asarray(probabilities)[chosen], np.asarray(truth)[chosen].astype(bool)
    order = np.sort(values)
    positives = np.sort(values[labels])
    # Counts at every threshold from two sorted lists, instead of a pass over all pixels for each.
    predicted = len(order) - np.searchsorted(order, candidates, side="left")
    hits = len(positives) - np.searchsorted(positives, candidates, side="left")
    return float(candidates[np.argmax(2 * hits / np.maximum(predicted + len(positives), 1))])


def cldice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Centreline Dice (Shit et al., 2021) of two boolean (H, W) masks.

    1 when each covers the other's skeleton, 0 when neither touches it.
    It asks whether vessels are connected and found at all, whatever their width.
    """
    if not predicted.any() and not truth.any():
        return 1.0
    if not predicted.any() or not truth.any():
        return 0.0
    found, wanted = skeletonize(predicted), skeletonize(truth)
    precision, sensitivity = truth[found].mean(), predicted[wanted].mean()
    total = precision + sensitivity
    return float(2 * precision * sensitivity / total) if total else 0.0


def hd95(predicted: np.ndarray, truth: np.ndarray) -> float:
    """95th percentile of the distances between two outlines, in pixels (Hausdorff distance without its tail).

    Distances of both directions are taken together. nan when one of the (H, W) masks is empty.
    """
    if not predicted.any() or not truth.any():
        return float("nan")
    outlines = [mask & ~binary_erosion(mask) for mask in (predicted, truth)]
    to_truth = distance_transform_edt(~outlines[1])[outlines[0]]
    to_predicted = distance_transform_edt(~outlines[0])[outlines[1]]
    return float(np.percentile(np.concatenate([to_truth, to_predicted]), 95))


def vessel_width(truth: np.ndarray) -> np.ndarray:
    """Local width in pixels at every vessel pixel of an (H, W) mask, 0 elsewhere.

    On the centreline the width is twice the distance to the background; every other vessel pixel takes
    the width of the nearest centreline pixel.
    """
    truth = np.asarray(truth).astype(bool)
    skeleton = skeletonize(truth)
    if not skeleton.any():
        return np.zeros(truth.shape)
    # Measured at twice the resolution, where lines of even width have a middle too, and where the
    # distance from there to the background, in half pixels, is the width.
    distance = distance_transform_edt(truth.repeat(2, axis=0).repeat(2, axis=1))
    height, width = truth.shape
    widths = distance.reshape(height, 2, width, 2).max(axis=(1, 3))
    nearest = distance_transform_edt(~skeleton, return_distances=False, return_indices=True)
    return np.where(truth, widths[tuple(nearest)], 0.0)


def nearest_value(values: np.ndarray) -> np.ndarray:
    """Every zero of an (H, W) array replaced by the nearest value that is not zero."""
    if not values.any():
        return values
    nearest = distance_transform_edt(values == 0, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def predict_whole(
    model: Callable[[Tensor], Tensor], images: Tensor, multiple: int, flips: bool = False
) -> Tensor:
    """Probabilities for whole images: pad to a multiple, predict, cut back to size.

    images: (N, C, H, W) standardized floats → (N, 1, H, W) in [0, 1]. multiple: 2**depth of the U-Net.
    flips: average over the eight flips and quarter turns; a vessel is one from every side.
    """
    views = [(turns, mirror) for turns in range(4) for mirror in (False, True)] if flips else [(0, False)]
    total = torch.zeros(())
    for turns, mirror in views:
        view = torch.rot90(images, turns, (2, 3))
        view = view.flip(3) if mirror else view
        height, width = view.shape[2:]
        padded = F.pad(view, (0, -width % multiple, 0, -height % multiple))
        result = torch.sigmoid(model(padded).float())[..., :height, :width]
        result = result.flip(3) if mirror else result
        total = total.to(result.device) + torch.rot90(result, -turns, (2, 3))
    return total / len(views)
