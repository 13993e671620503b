"""Checks of how a motion module learns: gradients that arrive, and gradients that are right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call

from muybridge.authoring.check_subjects import Finding, Subject, judged, not_applicable

STEPS = 2
"""Of training, within which gradients must have reached every parameter; the first ones find zeros in their way."""
_SHOWN = 4


def check_gradients(subject: Subject) -> Finding:
    """Every parameter gets a gradient that is not zero within two steps of training from the fresh start."""
    module = subject.fresh().train().requires_grad_(True)
    call = subject.call(module, batch=2)
    waiting = dict(module.named_parameters())
    if not waiting:
        return not_applicable("there are no parameters")
    total = len(waiting)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    direction = torch.randn(call.features.shape, generator=torch.Generator().manual_seed(5))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for step in range(STEPS + 1):
            change = call.change(module)
            if not change.requires_grad:
                break
            (change.float() - direction).square().mean().backward()
            waiting = {name: p for name, p in waiting.items() if p.grad is None or not p.grad.any()}
            if not waiting:
                return judged(True, f"all {total} parameters are reached {_after(step)}")
            optimizer.step()
            optimizer.zero_grad()
    names = ", ".join(list(waiting)[:_SHOWN]) + (", ..." if len(waiting) > _SHOWN else "")
    return judged(False, f"{len(waiting)} of {total} parameters are dead after {STEPS} steps: {names}")


def _after(step: int) -> str:
    return "at once" if step == 0 else f"after {step} step{'s' if step > 1 else ''}"


def check_numerical_gradient(subject: Subject) -> Finding:
    """Gradients with respect to features and parameters are those of finite differences in float64."""
    module = subject.awake(torch.float64).requires_grad_(True)
    if torch.float64 not in module.supported_dtypes:
        return not_applicable("float64 is not among supported_dtypes")
    call = subject.call(module, frames=3, size=(1, 2)).to(torch.float64)
    names = [name for name, _ in module.named_parameters()]

    def added(features: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        return functional_call(module, state, (features.clone(), call.context, True))

    inputs = (call.features.requires_grad_(), *module.parameters())
    try:
        with torch.enable_grad():
            gradcheck(added, inputs, fast_mode=True, atol=1e-5, nondet_tol=1e-9)
    except GradcheckError as error:
        reason = str(error).strip().splitlines()[0].rstrip(":.")
        return judged(False, f"{reason}; a backward of its own is wrong, or it computes in less than float64")
    return judged(True, f"features and {len(names)} parameters agree with finite differences in float64")
