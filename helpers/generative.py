"""Losses of adversarial networks and of variational autoencoders, and a bound on the likelihood.

Logits of a discriminator have any shape: one number an image, or a map of patches; all are averaged.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# --- adversarial ----------------------------------------------------------------------------------


def discriminator_bce(real: Tensor, fake: Tensor, smooth: float = 0.0) -> Tensor:
    """−mean log D(real) − mean log(1 − D(fake)) from logits (Goodfellow et al., 2014).

    A discriminator that knows nothing has 2 ln 2 = 1.386: two terms of ln 2 each.
    smooth: one-sided label smoothing, real images are labelled 1 − smooth (Salimans et al., 2016). Fake
    ones stay at 0: smoothing them would reward the generator for staying where it is.
    """
    return _bce(real, 1 - smooth) + _bce(fake, 0.0)


def generator_bce(fake: Tensor) -> Tensor:
    """−mean log D(fake) from logits: the non-saturating loss (Goodfellow et al., 2014).

    ln 2 where the discriminator knows nothing. Unlike log(1 − D(fake)), it has a slope where the
    generator is worst.
    """
    return _bce(fake, 1.0)


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits.float(), label))


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean C(fake) − mean C(real): minus the estimated Wasserstein distance (Arjovsky et al., 2017).

    The generator's part is −mean C(fake). The critic must be 1-Lipschitz: see `gradient_penalty`.
    """
    return fake.float().mean() - real.float().mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """mean (‖∇C(x)‖ − 1)² at random points between real and fake images (Gulrajani et al., 2017).

    real, fake: (N, …) of one shape. The norm runs over an image. Weighted by 10 in the paper.
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
    return ((_gradient(critic, between).flatten(1).norm(dim=1) - 1) ** 2).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½ mean ‖∇D(x)‖² at real images (Mescheder et al., 2018). Weighted by γ, 10 in the paper.

    Where the generator already paints real images the discriminator should be flat, and it is only there
    that the penalty asks for it.
    """
    real = real.detach().requires_grad_()
    return 0.5 * _gradient(discriminator, real).flatten(1).pow(2).sum(1).mean()


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    # The sum's gradient is each image's own: no image's output depends on another image, unless a
    # BatchNorm mixes them, which is why penalized discriminators have none.
    return torch.autograd.grad(function(at).float().sum(), at, create_graph=True)[0]


# --- variational ----------------------------------------------------------------------------------


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """−log p(x | z) in nats of independent binary pixels: (N, …) logits and x in {0, 1} → (N,)."""
    return F.binary_cross_entropy_with_logits(logits.float(), x.float(), reduction="none").flatten(1).sum(1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, σ²) ‖ N(0, 1)) in nats, a number for each latent dimension: (N, D) → (N, D).

    ½ (μ² + σ² − 1 − log σ²) (Kingma and Welling, 2014). Summed over D it is the rate of the ELBO.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def gaussian_log_density(z: Tensor, mean: Tensor | float, log_variance: Tensor | float) -> Tensor:
    """log N(z; mean, σ²) in nats, summed over the last axis: (…, D) → (…)."""
    log_variance = torch.as_tensor(log_variance, dtype=z.dtype, device=z.device)
    squares = (z - mean) ** 2 * torch.exp(-log_variance)
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(-1)


@torch.no_grad()
def importance_bound(x: Tensor, encode: Callable, decode: Callable, samples: int,
                     chunk: int = 100) -> Tensor:  # fmt: skip
    """log 1/k Σ p(x, z_i) / q(z_i | x) in nats, z_i from q: (N,) (Burda et al., 2016).

    A lower bound on log p(x) that rises with k to the truth; k = 1 is the ELBO.
    x: (N, …) binary pixels. encode(x) → mean, log variance, each (N, D). decode(z (M, D)) → logits of
    the pixels of M images. samples: k; chunk: how many of them are in memory at once.
    The sum is kept as a logarithm, in float64 on the CPU: its terms span hundreds of nats.
    """
    mean, log_variance = (part.float() for part in encode(x))
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)  # on the CPU: Apple's GPUs know no float64
    for start in range(0, samples, chunk):
        k = min(chunk, samples - start)
        noise = torch.randn(k, *mean.shape, device=x.device)
        z = mean + torch.exp(0.5 * log_variance) * noise  # (k, N, D)
        copies = x.expand(k, *x.shape).flatten(0, 1)
        log_likelihood = -bernoulli_nll(decode(z.flatten(0, 1)), copies).view(k, -1)
        log_prior = gaussian_log_density(z, 0.0, 0.0)
        log_posterior = gaussian_log_density(z, mean, log_variance)
        weights = (log_likelihood + log_prior - log_posterior).cpu().double()
        total = torch.logaddexp(total, torch.logsumexp(weights, 0))
    return total - math.log(samples)


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent dimensions are used: variance of q's means over images above 0.01 (Burda et al., 2016).

    means: (N, D), N images → (D,) booleans. A collapsed dimension has the same mean for every image.
    """
    return means.var(0) > threshold
