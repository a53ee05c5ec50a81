"""Pictures that are the same, nearly the same, or cut from the same one.

Three detectors, for three ways in which a test picture can be known from training: equal files, pictures
that look alike (another exposure, another compression), and windows that share pixels though shifted.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 64  # pixels, to which pictures are shrunk before they are compared
BLUR = 2.0  # standard deviation in pixels of what the high-pass takes away
ALIKE = 0.75  # correlation; measured: same tiles reach it, other tiles .73, other children's chests .63
ENOUGH = 10  # pictures, of which a common part can be told
HASH_BITS = 16  # of 64 that may differ between the hashes of two pictures that are alike
PATCH = 8  # pixels, side of the patches that windows may share
MARKS = 150  # patches kept of a picture, about
VARIED = 12  # different grey values in a patch, below which it is background
SHARED = 3  # patches that two pictures must share

Pair = tuple[int, int]


def equal_files(paths: Iterable[str]) -> list[list[int]]:
    """Sets of files with the same content, as places in the list; files that cannot be read equal none."""
    files = [Path(path) for path in paths]
    by_size, by_digest = defaultdict(list), defaultdict(list)
    for place, file in enumerate(files):
        with suppress(OSError):
            by_size[file.stat().st_size].append(place)
    for places in by_size.values():
        if len(places) == 1:  # a file of a size of its own need not be read
            continue
        for place in places:
            with suppress(OSError):
                by_digest[hashlib.sha256(files[place].read_bytes()).digest()].append(place)
    return sorted(places for places in by_digest.values() if len(places) > 1)


def high_pass(pictures: np.ndarray) -> np.ndarray:
    """(N, S, S) grey → (N, S²) with mean 0 and length 1: edges and texture, without exposure and shading.

    What all pictures share (a frame, the rim of a lens) is taken away: it would make all of them alike.
    """
    pictures = pictures.astype(np.float32)
    details = np.stack([picture - gaussian_filter(picture, BLUR) for picture in pictures])
    details = details.reshape(len(details), -1)
    if len(details) >= ENOUGH:
        details -= np.median(details[:: max(1, len(details) // 1000)], axis=0)
    details -= details.mean(1, keepdims=True)
    return details / np.maximum(np.linalg.norm(details, axis=1, keepdims=True), 1e-3)


def difference_hash(pictures: np.ndarray) -> np.ndarray:
    """(N, 64, 64) grey → (N, 64) bits: which of two neighbours is brighter, on a grid of 8 × 9.

    It sees the arrangement of light and dark, where the high-pass sees fine details.
    """
    rows = pictures.reshape(len(pictures), 8, SIDE // 8, SIDE).mean(2)
    edges = np.linspace(0, SIDE, 10).astype(int)
    grid = np.stack([rows[:, :, low:high].mean(2) for low, high in pairwise(edges)], axis=2)
    return (grid[:, :, 1:] > grid[:, :, :-1]).reshape(len(pictures), 64)


def alike(pictures: np.ndarray, threshold: float = ALIKE) -> dict[Pair, float]:
    """Pairs (earlier, later) of (N, 64, 64) grey pictures that look alike, with their correlation.

    Both must say so: the correlation of fine details, and the hash of light and dark.
    """
    details, bits = high_pass(pictures), difference_hash(pictures).astype(np.float32)
    found = {}
    for start in range(0, len(details), 1024):  # the whole matrix of 20,000 pictures would not fit
        block = details[start : start + 1024] @ details.T
        for row, other in zip(*np.nonzero(block >= threshold)):
            first = start + int(row)
            if other > first and np.abs(bits[first] - bits[other]).sum() <= HASH_BITS:
                found[first, int(other)] = min(float(block[row, other]), 1.0)
    return found


class Windows:
    """Finds windows that were cut from one picture and overlap, wherever the shared part lies in them.

    A patch is kept or dropped by its own pixels alone (its hash), so that the same patches are kept in
    both windows, however they are shifted (Schleimer, Wilkerson and Aiken, 2003, for texts).
    """

    def __init__(self, typical: tuple[int, int]):
        """typical: height and width of most pictures; of each, about `MARKS` patches are kept."""
        self.keep = np.uint64(max(4, typical[0] * typical[1] // MARKS))
        odd = np.random.default_rng(0).integers(1, 2**62, 2 * PATCH, dtype=np.uint64) * np.uint64(2)
        self.across, self.down = (odd + np.uint64(1)).reshape(2, PATCH)
        self.owners: dict[int, list[int]] = defaultdict(list)
        self.count = 0

    def add(self, picture: np.ndarray) -> None:
        """The next picture, (H, W) uint8 at its own size."""
        for mark in self._marks(picture):
            self.owners[mark].append(self.count)
        self.count += 1

    def pairs(self) -> dict[Pair, int]:
        """Pairs (earlier, later) and how many of the kept patches they share."""
        shared: Counter = Counter()
        for owners in self.owners.values():
            if 1 < len(owners) <= 20:  # what more pictures have is a frame or a letter, not a place
                shared.update((first, later) for n, later in enumerate(owners) for first in owners[:n])
        return {pair: count for pair, count in shared.items() if count >= SHARED}

    def _marks(self, picture: np.ndarray) -> list[int]:
        height, width = picture.shape[0] - PATCH + 1, picture.shape[1] - PATCH + 1
        if min(height, width) < 1:
            return []
        values = picture.astype(np.uint64)  # sums wrap around, as a hash may
        rows = sum(values[:, i : i + width] * factor for i, factor in enumerate(self.across))
        hashes = sum(rows[i : i + height] * factor for i, factor in enumerate(self.down))
        hashes ^= hashes >> np.uint64(31)
        kept = np.nonzero((hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33) < 2**31 // int(self.keep))
        patches = np.sort(
            sliding_window_view(picture, (PATCH, PATCH))[kept].reshape(-1, PATCH * PATCH), axis=1
        )
        varied = (np.diff(patches, axis=1) > 0).sum(1) + 1 >= VARIED
        return np.unique(hashes[kept][varied]).tolist()


def joined(count: int, pairs: Iterable[Pair], groups: Iterable[str] = ()) -> list[int]:
    """A number for each of `count` pictures, the same for pictures that pairs or equal groups connect.

    It is the place of the first of them.
    """
    links, first = list(pairs), {}
    for place, group in enumerate(groups):
        links.append((first.setdefault(group, place), place))
    rows, columns = np.array(links, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(count, count))
    _, parts = connected_components(graph, directed=False)
    _, firsts = np.unique(parts, return_index=True)
    return firsts[parts].tolist()
