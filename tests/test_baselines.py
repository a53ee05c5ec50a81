"""Trivial baselines: shapes, values, and that they see what they are meant to see."""

import numpy as np
import torch

from helpers import baselines
from helpers.metrics import auc


def test_thumbnails_are_block_means():
    images = torch.arange(2 * 4 * 4, dtype=torch.uint8).reshape(2, 1, 4, 4)
    thumbs = baselines.thumbnails(images, side=2)
    assert thumbs.shape == (2, 4)
    assert thumbs[0, 0] == np.float32((0 + 1 + 4 + 5) / 4 / 255)


def test_many_images_give_the_same_as_few():
    images = torch.randint(0, 256, (600, 1, 16, 16), dtype=torch.uint8)
    for describe in (baselines.thumbnails, baselines.mean_intensity):
        parts = [describe(images[:300]), describe(images[300:])]
        np.testing.assert_array_equal(describe(images), np.concatenate(parts))


def test_the_border_ring_does_not_see_the_middle():
    images = torch.randint(0, 256, (3, 2, 40, 48), dtype=torch.uint8)
    changed = images.clone()
    changed[:, :, 4:-4, 4:-4] = 0
    ring = baselines.border(images)
    assert ring.shape == (3, 2 * 4 * 16)
    np.testing.assert_array_equal(ring, baselines.border(changed))
    changed[:, :, 0, 0] = 255 - changed[:, :, 0, 0]
    assert (ring != baselines.border(changed)).any()


def test_mean_intensity_and_file_size(tmp_path):
    images = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    np.testing.assert_array_equal(baselines.mean_intensity(images), [[1, 0]])
    (tmp_path / "a").write_bytes(b"12345")
    np.testing.assert_array_equal(baselines.file_size([tmp_path / "a"]), [[5]])
    assert len(baselines.image_features(images, [tmp_path / "a"])) == 4


def test_svm_scores_rank_and_choose():
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        labels = rng.integers(classes, size=120)
        features = rng.normal(size=(120, 4)) + 3 * labels[:, None]
        seen, unseen = baselines.svm_probabilities(features[:80], labels[:80], features[:80], features[80:])
        assert unseen.shape == (40, classes)
        np.testing.assert_allclose(seen.sum(1), 1)
        assert auc(unseen, labels[80:]) > 0.9
        assert (unseen.argmax(1) == labels[80:]).mean() > 0.8


def test_local_darkness_finds_a_dark_line_inside_the_field():
    images = torch.full((1, 3, 40, 40), 120, dtype=torch.uint8)
    images[:, 1, 20] = 60
    inside = torch.ones(1, 1, 40, 40, dtype=torch.uint8)
    inside[..., 30:] = 0
    darkness = baselines.local_darkness(images, inside)
    assert darkness.shape == (1, 40, 40)
    assert darkness[0, 20, 10] > 30 > abs(darkness[0, 5, 10])
    assert (darkness[0, :, 30:] == 0).all()
    flat = baselines.local_darkness(torch.full_like(images, 120), inside)
    assert np.abs(flat).max() < 1e-3  # the edge of the field is not a vessel
