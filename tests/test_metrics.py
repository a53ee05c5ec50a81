"""Metrics of classification against scikit-learn, and bootstrap intervals."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from helpers import metrics


def scored(samples: int = 200, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, classes), rounded so that many are tied, and labels that agree with them a little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=samples)
    raw = rng.random((samples, classes)) + 0.5 * np.eye(classes)[labels]
    raw = raw.round(1) + 0.01
    return raw / raw.sum(1, keepdims=True), labels


def test_two_classes_agree_with_scikit_learn():
    probabilities, labels = scored()
    result = metrics.classification(probabilities, labels, threshold=0.4)
    predicted = probabilities[:, 1] >= 0.4
    assert result == pytest.approx({
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted),
        "recall": sk.recall_score(labels, predicted),
        "f1": sk.f1_score(labels, predicted),
        "auc": sk.roc_auc_score(labels, probabilities[:, 1]),
        "average_precision": sk.average_precision_score(labels, probabilities[:, 1]),
        "specificity": sk.recall_score(labels, predicted, pos_label=0),
    })  # fmt: skip


def test_more_classes_agree_with_scikit_learn():
    probabilities, labels = scored(classes=4)
    result = metrics.classification(probabilities, labels)
    predicted = probabilities.argmax(1)
    assert result == pytest.approx({
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="macro"),
        "recall": sk.recall_score(labels, predicted, average="macro"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "average_precision": sk.average_precision_score(np.eye(4)[labels], probabilities),
    })  # fmt: skip


def test_tensors_and_scores_of_one_column_serve_too():
    probabilities, labels = scored()
    assert metrics.classification(torch.tensor(probabilities), torch.tensor(labels)) == pytest.approx(
        metrics.classification(probabilities, labels)
    )
    assert metrics.auc(probabilities[:, 1], labels) == metrics.auc(probabilities, labels)


def test_an_absent_class_leaves_areas_undefined_and_the_rest_defined():
    probabilities, _ = scored(20)
    result = metrics.classification(probabilities, np.ones(20, int))
    assert math.isnan(result["auc"])
    assert math.isnan(result["average_precision"])
    assert math.isnan(result["specificity"])
    assert 0 < result["recall"] < 1
    assert result["balanced_accuracy"] == result["recall"] == result["accuracy"]
    assert math.isnan(metrics.auc(scored(20, classes=3)[0], np.zeros(20, int)))


def test_precision_of_no_prediction_is_zero():
    result = metrics.classification(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    assert (result["precision"], result["recall"], result["f1"]) == (0, 0, 0)


def test_youden_threshold_is_the_best_cut_and_lies_between_two_scores():
    assert metrics.youden_threshold([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1]) == pytest.approx(0.4)
    probabilities, labels = scored()
    scores = probabilities[:, 1]
    chosen = metrics.youden_threshold(scores, labels)

    def gain(threshold: float) -> float:
        return np.mean(scores[labels == 1] >= threshold) - np.mean(scores[labels == 0] >= threshold)

    assert gain(chosen) == pytest.approx(max(gain(t) for t in np.linspace(0, 1.01, 2000)))
    assert chosen not in scores


def test_youden_threshold_stays_a_probability_where_scores_tell_nothing():
    assert 0 <= metrics.youden_threshold([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]) <= 1
    assert 0 <= metrics.youden_threshold([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]) <= 1  # upside down


def test_bootstrap_of_a_mean_is_the_textbook_interval():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = metrics.bootstrap(np.mean, values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)
    assert metrics.bootstrap(np.mean, values) == (low, high)
    assert metrics.bootstrap(np.mean, values, seed=1) != (low, high)


def test_bootstrap_resamples_patients_not_their_images():
    """Twenty copies of ten patients are the evidence of ten, not of two hundred."""
    patients = np.random.default_rng(0).random(10)
    images, groups = patients.repeat(20), np.arange(10).repeat(20)
    by_patient = np.ptp(metrics.bootstrap(np.mean, images, groups=groups))
    by_image = np.ptp(metrics.bootstrap(np.mean, images))
    assert by_patient == pytest.approx(np.ptp(metrics.bootstrap(np.mean, patients)), rel=0.1)
    assert by_patient > 3 * by_image


def test_bootstrap_takes_groups_in_any_order_and_size():
    """A metric that fails when a group is torn apart, on groups of one to five shuffled rows."""
    names = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c", "d", "e"], [1, 2, 3, 4, 5]))
    sizes = {name: int((names == name).sum()) for name in names}

    def torn(rows: np.ndarray) -> float:
        assert all((rows == name).sum() % size == 0 for name, size in sizes.items())
        return 0.0

    assert metrics.bootstrap(torn, names, groups=names, repeats=50) == (0, 0)


def test_a_difference_between_models_is_paired():
    rng = np.random.default_rng(0)
    difficulty = rng.random(100)
    worse, better = difficulty, difficulty + 0.02 + 0.01 * rng.random(100)
    low, high = metrics.bootstrap(lambda a, b: b.mean() - a.mean(), worse, better)
    assert 0.02 < low < high < 0.03
    assert high - low < 0.1 * np.ptp(metrics.bootstrap(np.mean, worse))


def test_resamples_without_a_value_are_left_out():
    labels, scores = np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    assert metrics.bootstrap(metrics.auc, scores, labels) == (1, 1)  # a third of the resamples lack class 1
    assert np.isnan(metrics.bootstrap(metrics.auc, scores, np.zeros(4, int))).all()


def test_one_patient_gives_no_interval():
    assert np.isnan(metrics.bootstrap(np.mean, np.arange(5.0), groups=["only"] * 5)).all()


def test_a_headline_has_three_entries():
    assert metrics.with_interval("test_auc", 0.9, (0.8, 0.95)) == {
        "test_auc": 0.9, "test_auc_low": 0.8, "test_auc_high": 0.95,
    }  # fmt: skip


def test_per_class_has_a_row_a_class_and_macro_f1_is_their_mean():
    _, labels = scored(classes=3)
    predicted = (labels + np.arange(len(labels)) % 2) % 3
    table = metrics.per_class(labels, predicted, ["a", "b", "c", "absent"])
    assert table.loc["absent"].tolist() == [0, 0, 0, 0]
    assert table["images"].sum() == len(labels)
    assert table["recall"]["a"] == pytest.approx((predicted[labels == 0] == 0).mean())
    assert metrics.macro_f1(torch.tensor(labels), predicted) == pytest.approx(table["F1"].iloc[:3].mean())
