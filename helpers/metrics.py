"""Metrics of classification and bootstrap intervals.

Every metric is computed over all samples at once, never averaged over batches.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn import metrics as sk
from torch import Tensor


def _array(values) -> np.ndarray:
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def classification(probabilities, labels, threshold: float = 0.5) -> dict[str, float]:
    """Accuracy, balanced_accuracy, precision, recall, f1, auc, average_precision; two classes: specificity.

    probabilities: (N, classes), rows sum to 1; labels: (N,) integers. With two classes the second is
    the positive one and is predicted where its probability reaches `threshold`; with more, the
    largest probability decides and precision, recall, f1, auc (one against the rest) and
    average_precision are means over classes (macro). auc is nan where a class is absent.
    """
    probabilities, labels = _array(probabilities), _array(labels)
    two = probabilities.shape[1] == 2
    predicted = (probabilities[:, 1] >= threshold).astype(int) if two else probabilities.argmax(1)
    average = "binary" if two else "macro"
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, average=average, zero_division=0
    )
    # Averaged over the classes that occur: a class without samples has no recall.
    recalls = [np.mean(predicted[labels == c] == c) for c in np.unique(labels)]
    result = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean(recalls),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": auc(probabilities, labels),
        "average_precision": _average_precision(probabilities, labels),
    }
    if two:
        result["specificity"] = np.mean(predicted[labels == 0] == 0) if (labels == 0).any() else np.nan
    return {name: float(value) for name, value in result.items()}


def macro_f1(labels, predicted) -> float:
    """F1 of each class, averaged with equal weight: a rare class counts like a frequent one.

    labels, predicted: (N,) integers. A class that occurs in neither is left out, as in a resample
    without its images.
    """
    return float(sk.f1_score(_array(labels), _array(predicted), average="macro", zero_division=0))


def per_class(labels, predicted, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and number of images of each class: a row a class.

    labels, predicted: (N,) integers; classes: their names. What is undefined (nothing predicted, no
    images) is 0.
    """
    values = sk.precision_recall_fscore_support(
        _array(labels), _array(predicted), labels=range(len(classes)), zero_division=0
    )
    return pd.DataFrame(dict(zip(("precision", "recall", "F1", "images"), values)), index=list(classes))


def auc(probabilities, labels) -> float:
    """Area under the ROC curve: nan where a class is absent.

    probabilities: (N,) or (N, 2) scores of the positive class, or (N, classes): one against the rest,
    averaged.
    """
    scores, labels = _array(probabilities), _array(labels)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.shape[1] <= 2:  # of two columns, one is the other one turned round
        scores, positive = scores[:, -1:], labels[:, None] == 1
    else:
        positive = labels[:, None] == np.arange(scores.shape[1])
    hits = positive.sum(0)
    if not hits.all() or (hits == len(labels)).any():
        return float("nan")
    # How often a positive scores above a negative, ties counting half (Hanley and McNeil, 1982): the same
    # number as scikit-learn's area, tens of times faster on the few samples of a bootstrap.
    ranks = np.where(positive, rankdata(scores, axis=0), 0).sum(0)
    return float(np.mean((ranks - hits * (hits + 1) / 2) / (hits * (len(labels) - hits))))


def _average_precision(probabilities: np.ndarray, labels: np.ndarray) -> float:
    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return float("nan")
    scored = [1] if classes == 2 else range(classes)
    return float(np.mean([sk.average_precision_score(labels == c, probabilities[:, c]) for c in scored]))


def youden_threshold(scores, labels) -> float:
    """The threshold of largest sensitivity + specificity (Youden, 1950); to be chosen on validation data.

    scores: (N,) probabilities of the positive class. Between two neighbouring scores the middle is taken:
    a threshold that sits on a training score would not survive the smallest change of it.
    """
    scores, labels = _array(scores), _array(labels)
    false_alarms, hits, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(hits - false_alarms))
    below = scores[scores < thresholds[best]]
    if not np.isfinite(thresholds[best]) or not len(below):
        return float(min(thresholds[best], 1.0))
    return float((thresholds[best] + below.max()) / 2)


def bootstrap(metric: Callable[..., float], *arrays, groups=None, repeats: int = 1000,
              seed: int = 0) -> tuple[float, float]:  # fmt: skip
    """A 95% percentile interval of `metric(*arrays)` (Efron, 1979), resampling whole groups.

    arrays: equally long along their first axis; groups: (N,) labels, such as patients; None makes
    every row its own group. Resampling rows of one patient separately would count it as new evidence.
    A difference between two models is paired by giving both models' outputs as arrays.
    Resamples for which the metric is undefined (nan) are left out; nan, nan if none is left, or if
    there is one group only: its resamples are all alike, and no width would look like certainty.
    """
    arrays = [_array(a) for a in arrays]
    groups = np.arange(len(arrays[0])) if groups is None else np.asarray(groups)
    _, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        return float("nan"), float("nan")
    by_group, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        drawn = generator.integers(len(sizes), size=len(sizes))
        ends = np.cumsum(sizes[drawn])  # without a loop over thousands of groups
        rows = by_group[np.arange(ends[-1]) + np.repeat(starts[drawn] + sizes[drawn] - ends, sizes[drawn])]
        values.append(metric(*(a[rows] for a in arrays)))
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    """The three entries of metrics.json for a headline number: name, name_low, name_high."""
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
