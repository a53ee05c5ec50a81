"""Losses of GANs and VAEs against closed forms and slow references in float64."""

import math

import pytest
import torch
from torch import nn

from helpers import generative as g


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_discriminator_that_knows_nothing_has_two_terms_of_ln_2():
    nothing = torch.zeros(5, 1)
    assert g.discriminator_bce(nothing, nothing).item() == pytest.approx(2 * math.log(2))
    assert g.generator_bce(nothing).item() == pytest.approx(math.log(2))


def test_smoothing_is_one_sided():
    real, fake = torch.randn(8), torch.randn(8)
    p, q = torch.sigmoid(real.double()), torch.sigmoid(fake.double())
    expected = -(0.9 * p.log() + 0.1 * (1 - p).log()).mean() - (1 - q).log().mean()
    assert g.discriminator_bce(real, fake, smooth=0.1).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_critic_estimates_a_shift_as_wasserstein_distance():
    real = torch.randn(64, 1)
    assert -g.critic_loss(real + 3, real).item() == pytest.approx(3, abs=1e-5)


def test_gradient_penalty_of_a_linear_critic_is_known():
    weight = torch.randn(3 * 4 * 4, dtype=torch.float64)
    real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    penalty = g.gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake)
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2)


def test_gradient_penalty_reaches_the_critics_weights():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
    g.gradient_penalty(critic, torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)).backward()
    assert all(p.grad is not None for n, p in critic.named_parameters() if "weight" in n)


def test_r1_of_a_quadratic_discriminator_is_known():
    real = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    penalty = g.r1_penalty(lambda x: (x**2).flatten(1).sum(1), real)  # gradient 2x
    assert penalty.item() == pytest.approx(0.5 * (2 * real).pow(2).flatten(1).sum(1).mean().item())


def test_r1_against_one_image_at_a_time():
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    real = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    squares = [
        torch.autograd.functional.jacobian(lambda x: net(x[None])[0, 0], image).pow(2).sum() for image in real
    ]
    assert g.r1_penalty(net, real).item() == pytest.approx(0.5 * torch.stack(squares).mean().item())


def test_kl_is_the_closed_form_and_zero_for_the_prior():
    mean, log_variance = torch.randn(7, 3), torch.randn(7, 3)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(g.gaussian_kl(mean, log_variance), expected)
    assert g.gaussian_kl(torch.zeros(1, 2), torch.zeros(1, 2)).abs().max() == 0


def test_densities_agree_with_torch_distributions():
    z, mean, log_variance = torch.randn(3, 4, 2, 5, dtype=torch.float64)[:, :, 0]
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    torch.testing.assert_close(g.gaussian_log_density(z, mean, log_variance), normal.log_prob(z).sum(-1))
    logits, x = torch.randn(4, 1, 3, 3), torch.randint(0, 2, (4, 1, 3, 3))
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(x.float()).flatten(1).sum(1)
    torch.testing.assert_close(g.bernoulli_nll(logits, x), expected)


class TwoStates:
    """A model whose log p(x) is known: one latent number, its sign decides nine pixels."""

    chance = 0.9

    def decode(self, z):
        logit = math.log(self.chance / (1 - self.chance))
        return torch.where(z > 0, logit, -logit).expand(-1, 9).view(-1, 1, 3, 3)

    def log_p(self, x):
        ones = x.flatten(1).double().sum(1)
        either = [self.chance**k * (1 - self.chance) ** (9 - k) for k in (ones, 9 - ones)]
        return (0.5 * either[0] + 0.5 * either[1]).log()


def test_the_importance_bound_reaches_a_known_likelihood():
    model, x = TwoStates(), torch.randint(0, 2, (6, 1, 3, 3))

    def encode(batch):
        return torch.zeros(len(batch), 1) + 0.3, torch.zeros(len(batch), 1) + 0.2

    estimate = g.importance_bound(x, encode, model.decode, samples=40_000, chunk=4_000)
    torch.testing.assert_close(estimate, model.log_p(x), atol=0.05, rtol=0)


def test_the_importance_bound_is_exact_with_the_true_posterior():
    """p(z) = N(0, 1), x independent of z: with q = prior every weight is p(x), for any k and chunk."""
    logits = torch.randn(1, 1, 3, 3)
    x = torch.randint(0, 2, (4, 1, 3, 3))
    for samples, chunk in ((1, 1), (7, 3)):
        bound = g.importance_bound(
            x, lambda b: (torch.zeros(len(b), 2), torch.zeros(len(b), 2)),
            lambda z: logits.expand(len(z), -1, -1, -1), samples, chunk,
        )  # fmt: skip
        torch.testing.assert_close(bound, -g.bernoulli_nll(logits.expand(4, -1, -1, -1), x).double())


def test_the_importance_bound_rises_with_k():
    model, x = TwoStates(), torch.randint(0, 2, (50, 1, 3, 3))

    def encode(batch):
        return torch.zeros(len(batch), 1), torch.zeros(len(batch), 1)

    one, many = (g.importance_bound(x, encode, model.decode, k).mean() for k in (1, 500))
    assert one < many


def test_a_collapsed_unit_is_not_active():
    means = torch.stack([torch.randn(100), torch.full((100,), 0.7), 0.01 * torch.randn(100)], 1)
    assert g.active_units(means).tolist() == [True, False, False]
