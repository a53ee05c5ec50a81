"""FID and KID against closed forms and a slow reference; resizing against its definition."""

import numpy as np
import pytest
import torch

from helpers import distances
from helpers.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_the_frechet_distance_of_two_normal_clouds_is_known():
    shift, spread = torch.tensor([3.0, 0.0, 4.0]), 2.0
    real, fake = torch.randn(200_000, 3), shift + spread * torch.randn(200_000, 3)
    # |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) = 25 + 3 · (1 + 4 − 4)
    assert distances.fid(real, fake) == pytest.approx(28, rel=0.01)
    assert distances.fid(real, real) == pytest.approx(0, abs=1e-3)


def test_too_few_images_for_a_frechet_distance_are_refused():
    with pytest.raises(UserError, match=r"needs as many images on each side, there are 4"):
        distances.fid(torch.randn(4, 8), torch.randn(50, 8))


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD, kernel (x·y / D + 1)³, by the definition."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    def among(s):
        return np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])

    return among(x) + among(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kid_is_the_unbiased_kernel_distance():
    real, fake = torch.randn(20, 6), 0.5 + torch.randn(20, 6)
    mean, spread = distances.kid(real, fake, subsets=3, subset_size=50)  # cut to 20: all of them, each time
    assert mean == pytest.approx(slow_kid(real.double().numpy(), fake.double().numpy()), rel=1e-4)
    assert spread == pytest.approx(0, abs=1e-6)


def test_kid_leaves_the_generator_alone_and_repeats():
    real, fake = torch.randn(60, 6), torch.randn(60, 6)
    before = torch.get_rng_state()
    assert distances.kid(real, fake, subset_size=20) == distances.kid(real, fake, subset_size=20)
    assert torch.equal(torch.get_rng_state(), before)


def test_resizing_takes_pixel_i_from_i_times_h_over_299():
    ramp = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 20)
    resized = distances._resize_299(ramp)
    assert resized.shape == (1, 1, 299, 299)
    expected = (torch.arange(299) * 32 / 299).clamp(max=31)
    torch.testing.assert_close(resized[0, 0, :, 0], expected, atol=1e-3, rtol=0)


def test_images_must_be_bytes():
    with pytest.raises(UserError, match="uint8"):
        distances.inception_features(torch.rand(1, 3, 8, 8))
