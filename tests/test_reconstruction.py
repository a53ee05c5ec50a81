"""PSNR and SSIM against scikit-image, block PCA against scikit-learn, code lengths against SciPy, codecs."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from skimage import metrics as sk_image
from sklearn.decomposition import PCA

from helpers import reconstruction as rec
from helpers.errors import UserError


@pytest.fixture
def pair():
    """Three smooth pictures (3, 3, 48, 64) in [0, 1], and noisy copies."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 6, 8, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    noise = (
        torch.randn(clean.shape, generator=generator) * torch.tensor([0.02, 0.05, 0.1])[:, None, None, None]
    )
    return clean, (clean + noise).clamp(0, 1)


def test_psnr_agrees_with_scikit_image_image_by_image(pair):
    a, b = pair
    expected = [sk_image.peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(a.numpy(), b.numpy())]
    assert rec.psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_does_not_change_when_range_and_pixels_change_together(pair):
    a, b = pair
    torch.testing.assert_close(
        rec.psnr(2 * a - 1, 2 * b - 1, data_range=2), rec.psnr(a, b), atol=1e-4, rtol=0
    )
    flattered = rec.psnr(a, b, data_range=2) - rec.psnr(a, b)  # the range of [-1, 1] on pixels in [0, 1]
    assert flattered.tolist() == pytest.approx([20 * math.log10(2)] * 3)


def test_psnr_inside_a_mask_sees_nothing_else(pair):
    a, b = pair
    mask = torch.zeros(3, 1, 48, 64)
    mask[..., 8:40, 16:48] = 1
    inside = rec.psnr(a[..., 8:40, 16:48], b[..., 8:40, 16:48])
    torch.testing.assert_close(rec.psnr(a, b, mask=mask), inside)
    torch.testing.assert_close(rec.psnr(a * mask, b, mask=mask), inside)
    assert rec.psnr(a, a).isinf().all()
    assert rec.psnr(a, b, mask=0 * mask).isnan().all()


@pytest.mark.parametrize("data_range", [1, 255])
def test_ssim_agrees_with_scikit_image(pair, data_range):
    a, b = (data_range * x for x in pair)
    expected = [
        sk_image.structural_similarity(
            x, y, data_range=data_range, channel_axis=0, gaussian_weights=True, use_sample_covariance=False
        )
        for x, y in zip(a.numpy(), b.numpy())
    ]
    assert rec.ssim(a, b, data_range).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_inside_a_mask_sees_nothing_else(pair):
    a, b = pair
    mask = torch.zeros(3, 1, 48, 64)
    mask[..., :, :32] = 1
    broken = b.clone()
    broken[..., 40:] = 0  # farther than half a window from every pixel of the mask
    torch.testing.assert_close(rec.ssim(a, broken, mask=mask), rec.ssim(a, b, mask=mask))
    assert rec.ssim(a, a, mask=mask).tolist() == pytest.approx([1, 1, 1])


def test_pictures_that_cannot_be_compared_are_named(pair):
    a, b = pair
    for measure in (rec.psnr, rec.ssim):
        with pytest.raises(UserError, match=r"\(3, 3, 48, 64\) and \(2, 3, 48, 64\)"):
            measure(a, b[:2])
    with pytest.raises(UserError, match="10 pixels a side"):
        rec.ssim(a[..., :8, :8], b[..., :8, :8])


def test_block_pca_agrees_with_scikit_learn(pair):
    images = pair[1]
    ours = rec.BlockPCA.fit(images, block=8, values=5)
    rows = images.reshape(3, 3, 6, 8, 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * 64).numpy()
    theirs = PCA(5, svd_solver="full").fit(rows)
    np.testing.assert_allclose(ours.mean.flatten(), theirs.mean_, atol=1e-5)
    # scikit-learn divides by n - 1; a component may point either way.
    np.testing.assert_allclose(
        ours.variance, theirs.explained_variance_ * (len(rows) - 1) / len(rows), rtol=1e-3
    )
    agreement = np.abs((ours.basis.flatten(1).numpy() * theirs.components_).sum(1))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)
    expected = theirs.inverse_transform(theirs.transform(rows))
    restored = ours.decode(ours.encode(images))
    got = restored.reshape(3, 3, 6, 8, 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * 64).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_all_components_restore_the_picture(pair):
    images = pair[1]
    whole = rec.BlockPCA.fit(images, block=4, values=48)
    assert whole.encode(images).shape == (3, 48, 12, 16)
    torch.testing.assert_close(whole.decode(whole.encode(images)), images, atol=1e-4, rtol=0)


def test_block_pca_refuses_what_does_not_fit(pair):
    with pytest.raises(UserError, match="do not fill"):
        rec.BlockPCA.fit(pair[0], block=10, values=4)
    with pytest.raises(UserError, match="between 1 and 48"):
        rec.BlockPCA.fit(pair[0], block=4, values=49)


def test_code_length_is_the_entropy_when_the_counts_are_right():
    generator = torch.Generator().manual_seed(0)
    symbols = torch.randint(-3, 4, (4, 2, 50, 50), generator=generator)
    bits = rec.code_length(symbols, symbols)
    expected = sum(
        entropy(np.unique(symbols[:, channel], return_counts=True)[1], base=2) * 2500 * 4
        for channel in range(2)
    )
    assert float(bits.sum()) == pytest.approx(expected, rel=1e-3)
    constant = torch.zeros(1, 1, 50, 50)
    assert float(rec.code_length(constant, constant)) == 0
    # Counts of other pictures cost more, and a symbol that they never had is still possible.
    surprise = rec.code_length(constant + 9, constant)
    assert 2500 < float(surprise) < math.inf


def test_codecs_spend_more_bits_for_more_quality(pair):
    images = (pair[1] * 255).round().to(torch.uint8)
    for format, qualities in (("JPEG", (10, 90)), ("WebP", (5, 95)), ("JPEG2000", (0.5, 6))):
        poor, good = rec.rate_distortion(images, format, qualities)
        assert poor["bits_per_pixel"] < good["bits_per_pixel"], format
        assert poor["psnr"] < good["psnr"], format
    decoded, bits = rec.compress(images, "JPEG", 90)
    assert decoded.shape == images.shape
    assert bits.shape == (3,)
    assert 0 <= decoded.min() <= decoded.max() <= 1
    with pytest.raises(UserError, match="unknown"):
        rec.compress(images, "GIF", 1)
