"""Muon: momentum whose matrix updates are orthogonalised. Also for convolutions, which torch.optim.Muon refuses.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the scale of the update
that matches AdamW's is from "Muon is scalable for LLM training" (arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from muybridge.processor import fast_half
from muybridge.training.shards import shared_out_like, whole

_QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values into about 0.7..1.2 in five steps


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Replace the singular values of [..., m, n] by about 1 (Newton-Schulz).

    In bfloat16 where that is faster than float32; five steps are too coarse for the difference to matter.
    """
    a, b, c = _QUINTIC
    x = matrix.to(fast_half(matrix.device) or torch.float32)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions; convolutions count as [out, in * kernel] matrices.

    Its state is one momentum buffer a parameter, half of Adam's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        """Learning rates are on AdamW's scale: the root mean square of an update is 0.2 times the rate."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(momentum, group["momentum"])
                # A matrix that is shared out between processes is orthogonalised whole, by each of them.
                matrix = whole(direction)
                update = orthogonalise(matrix.reshape(matrix.size(0), -1))
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(shared_out_like(parameter, update.view_as(matrix)), alpha=-group["lr"] * scale)
        return loss


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (for Muon, for AdamW): hidden matrices, and all that is not a hidden matrix.

    Embeddings, vectors, and the first and last convolution of a network are not: their rows stand for things of
    their own (a word, a colour channel), which orthogonalisation would force to be equally large.
    """
    ends = ("conv_in.", "conv_out.", "embedding", "embed_tokens")
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim >= 2 and not any(end in name for end in ends)
            (matrices if hidden else others).append(parameter)
    return matrices, others
