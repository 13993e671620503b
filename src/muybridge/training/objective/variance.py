"""The variational term of a network that predicts its variance: learned range, as PixArt and EasyAnimate V3 have it.

Sources: Nichol and Dhariwal, "Improved denoising diffusion probabilistic models" (2021), section 3.1; Ho et al. (2020)
for the posterior. Latents are treated as pictures in [-1, 1] of 256 levels at timestep 0, as the originals do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_LEVEL = 1 / 255
_OPEN_END = 0.999
_LEAST_PROBABILITY = 1e-12


class PosteriorTables:
    """What the posterior of a step back is made of, for each timestep; from the betas in float64.

    Attributes:
        alphas_cumprod: share of the variance that is signal.
        variance: of the posterior, which is the smallest that a step can have.
        log_betas: logarithm of the largest variance that a step can have.
        log_variance: logarithm of `variance`, with the entry of timestep 1 for 0, whose variance is zero.
        clean_weight: of the clean latents in the posterior's mean.
        noisy_weight: of the noisy ones.
    """

    def __init__(self, betas: Tensor) -> None:
        """`betas [n]`, of at least two timesteps, none of them 1."""
        betas = betas.double().cpu()
        alphas = self.alphas_cumprod = (1 - betas).cumprod(0)
        before = torch.cat((torch.ones(1, dtype=torch.float64), alphas[:-1]))
        self.variance = betas * (1 - before) / (1 - alphas)
        self.log_betas = betas.log()
        self.log_variance = torch.cat((self.variance[1:2], self.variance[1:])).log()
        self.clean_weight = betas * before.sqrt() / (1 - alphas)
        self.noisy_weight = (1 - before) * (1 - betas).sqrt() / (1 - alphas)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents as these tables know them: float32 tables are too coarse for the first timesteps' variance."""
        signal = _at(self.alphas_cumprod.sqrt(), timesteps, clean)
        return signal * clean + _at((1 - self.alphas_cumprod).sqrt(), timesteps, clean) * noise

    def variational_bound(
        self, clean: Tensor, noisy: Tensor, timesteps: Tensor, noise_prediction: Tensor, variance: Tensor
    ) -> Tensor:
        """The variational term of each sample in bits, `[b]`, the mean over its elements.

        Args:
            clean: latents `[b, c, ...]`.
            noisy: the same at `timesteps`.
            timesteps: int64 `[b]`.
            noise_prediction: of the network; gets no gradient from here.
            variance: the other channels that the network gave, about in [-1, 1] for the smallest to the largest.
        """
        x, x_t, eps, v = clean.float(), noisy.float(), noise_prediction.detach().float(), variance.float()
        inverse = 1 / self.alphas_cumprod
        predicted = _at(inverse.sqrt(), timesteps, x) * x_t - _at((inverse - 1).sqrt(), timesteps, x) * eps
        clean_weight, noisy_weight = (_at(t, timesteps, x) for t in (self.clean_weight, self.noisy_weight))
        mean = clean_weight * x + noisy_weight * x_t
        predicted_mean = clean_weight * predicted + noisy_weight * x_t
        smallest, largest = _at(self.log_variance, timesteps, x), _at(self.log_betas, timesteps, x)
        largest_share = (v + 1) / 2
        log_variance = largest_share * largest + (1 - largest_share) * smallest
        divergence = _divergence(mean, smallest, predicted_mean, log_variance)
        surprise = -_log_likelihood(x, predicted_mean, 0.5 * log_variance)
        first = (timesteps == 0).view(-1, *(1,) * (x.ndim - 1))
        return torch.where(first, surprise, divergence).flatten(1).mean(1) / math.log(2)


def _at(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    values = table.to(timesteps.device)[timesteps].float()
    return values.view(-1, *(1,) * (like.ndim - 1))


def _divergence(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the second Gaussian from the first, in nats."""
    ratio = (log_variance - other_log_variance).exp()
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (-1.0 + other_log_variance - log_variance + ratio + distance)


def _log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Logarithm of a Gaussian's probability for the level of a picture that `x` lies in; the end levels are open."""
    inverse_scale = (-log_scale).exp()
    above = _normal_distribution(inverse_scale * (x - mean + _HALF_LEVEL))
    below = _normal_distribution(inverse_scale * (x - mean - _HALF_LEVEL))
    probability = torch.where(x < -_OPEN_END, above, torch.where(x > _OPEN_END, 1 - below, above - below))
    return probability.clamp(min=_LEAST_PROBABILITY).log()


def _normal_distribution(z: Tensor) -> Tensor:
    """An approximation of the cumulative distribution by a tanh, which the recorded losses contain."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z.pow(3))))
