"""Trivial baselines: what a result must beat before it says anything about lungs or vessels."""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F


def thumbnails(images: Tensor, side: int = 8) -> np.ndarray:
    """uint8 (N, C, H, W) → (N, C·side²): every image averaged down to side × side values."""
    # In parts: thousands of images as floats would need four times the memory that they have as bytes.
    parts = [F.adaptive_avg_pool2d(part.float() / 255, side) for part in images.split(256)]
    return torch.cat(parts).flatten(1).numpy()


def border(images: Tensor, pixels: int = 4, side: int = 16) -> np.ndarray:
    """uint8 (N, C, H, W) → the outermost `pixels` pixels alone, averaged into 4·side values a channel."""
    strips = (images[:, :, :pixels], images[:, :, -pixels:],
              images[..., :pixels].mT, images[..., -pixels:].mT)  # fmt: skip
    return np.concatenate(
        [F.adaptive_avg_pool2d(strip.float() / 255, (1, side)).flatten(1).numpy() for strip in strips], axis=1
    )


def mean_intensity(images: Tensor) -> np.ndarray:
    """uint8 (N, C, H, W) → (N, 2): mean and standard deviation of each image."""
    parts = [part.float().flatten(1) / 255 for part in images.split(256)]
    return torch.cat([torch.stack([flat.mean(1), flat.std(1)], dim=1) for flat in parts]).numpy()


def file_size(paths) -> np.ndarray:
    """(N, 1): bytes of each file. A classifier that gains from it looks at compression, not at disease."""
    return np.array([[Path(p).stat().st_size] for p in paths], dtype=float)


def image_features(images: Tensor, paths) -> dict[str, np.ndarray]:
    """All four trivial descriptions of the same images, by the name that a result table shows."""
    return {
        "thumbnails 8×8": thumbnails(images),
        "border ring": border(images),
        "mean intensity": mean_intensity(images),
        "file size": file_size(paths),
    }


def svm_probabilities(train: np.ndarray, labels: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Scores of an SVM (RBF kernel, balanced classes) on each of `others`: (N, classes), rows sum to 1.

    They rank samples (for AUC) and choose a class; they are not calibrated probabilities.
    """
    machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced", decision_function_shape="ovr"))
    machine.fit(train, labels)
    results = []
    for features in others:
        decision = machine.decision_function(features)
        if decision.ndim == 1:
            decision = np.stack([-decision, decision], axis=1)
        exponent = np.exp(decision - decision.max(axis=1, keepdims=True))
        results.append(exponent / exponent.sum(axis=1, keepdims=True))
    return results


def local_darkness(images: Tensor, inside: Tensor, radius: float = 8.0) -> np.ndarray:
    """How much darker the green channel is than its surroundings: a vessel detector of one line.

    images: uint8 (N, 3, H, W); inside: (N, 1, H, W), 0 or 1 → (N, H, W), larger where more vessel-like.
    radius: standard deviation in pixels of the Gaussian that defines the surroundings.
    """
    green, inside = images[:, 1].numpy().astype(np.float32), inside[:, 0].numpy().astype(np.float32)
    blurred = np.stack([gaussian_filter(g * m, radius) / np.maximum(gaussian_filter(m, radius), 1e-3)
                        for g, m in zip(green, inside)])  # fmt: skip
    return (blurred - green) * inside
