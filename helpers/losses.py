"""Losses for segmentation with few positive pixels.

Shapes: logits, target and weight are (N, 1, H, W); target is 0 or 1, weight is 1 where a pixel
counts (inside the field of view) and 0 elsewhere. Every loss returns a scalar.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WeightedBCE(nn.Module):
    """Binary cross-entropy, averaged over the pixels that count."""

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        # Logits may arrive in bf16 from autocast; a sum over a million pixels needs fp32.
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return (loss * weight).sum() / weight.sum().clamp_min(1)


class FocalTversky(nn.Module):
    """(1 − TI)^γ with TI = (TP + s) / (TP + α·FN + β·FP + s), after Abraham and Khan (2019).

    α weighs missed pixels, β false alarms. The paper writes the power as 1/γ with γ = 4/3; here it
    is γ = 0.75, the same number. With α = β = 0.5 the index TI is the Dice coefficient, and γ = 1
    gives the Dice loss. Sums run over the batch; the smoothing s = 1 keeps empty images finite.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, gamma: float = 0.75, smooth: float = 1.0):
        super().__init__()
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        probability = torch.sigmoid(logits.float()) * weight
        target = target * weight
        true_positive = (probability * target).sum()
        missed = ((1 - probability) * target).sum()
        false_alarm = (probability * (1 - target)).sum()
        wrong = self.alpha * missed + self.beta * false_alarm
        complement = wrong / (true_positive + wrong + self.smooth)  # 1 − TI, without taking a difference
        # The slope of x^γ at 0 is infinite: without a floor a perfect answer would give gradients of nan.
        return complement.clamp_min(1e-12) ** self.gamma


class Dice(FocalTversky):
    """1 − Dice (Milletari et al., 2016): the focal Tversky loss with α = β = 0.5 and γ = 1."""

    def __init__(self, smooth: float = 1.0):
        super().__init__(alpha=0.5, beta=0.5, gamma=1.0, smooth=smooth)


class BCEDice(nn.Module):
    """BCE plus Dice: the first gives every pixel a gradient, the second looks at the overlap."""

    def __init__(self):
        super().__init__()
        self.bce, self.dice = WeightedBCE(), Dice()

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return self.bce(logits, target, weight) + self.dice(logits, target, weight)
