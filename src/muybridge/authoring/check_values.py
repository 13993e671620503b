"""Checks of what a motion module returns: its form, what it depends on, and what it must not depend on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from muybridge.authoring.check_subjects import Finding, Subject, apart, judged, not_applicable
from muybridge.authoring.device_guard import OneDevice, TwoDevicesError
from muybridge.motion import MotionModule

TOLERANCE = 1e-4
"""Largest difference of what must be equal in float32, as a share of the largest value."""
BFLOAT16_TOLERANCE = 0.05
"""Root mean square of the error of bfloat16, as a share of that of the float32 result."""
_LATE_FRAME = 300  # beyond 256 bfloat16 no longer tells neighbouring frames apart
_SHUFFLED = (2, 0, 3, 1, 4)
_REVERSED = (4, 3, 2, 1, 0)
_BATCH_SEED = 3
_ELSEWHERE = "meta"


def check_build(subject: Subject) -> Finding:
    """It can be made for a site of either backbone."""
    module = subject.fresh()
    count = sum(parameter.numel() for parameter in module.parameters())
    return judged(True, f"{count:,} parameters for {subject.site.width} channels")


def check_shape(subject: Subject) -> Finding:
    """`motion` returns the shape that it was given, whatever the size of the pictures."""
    module = subject.awake()
    sizes = ((1, 1), (2, 3), (5, 2))
    with torch.no_grad():
        for size in sizes:
            call = subject.call(module, batch=2, size=size)
            if (shape := call.change(module).shape) != call.features.shape:
                return judged(False, f"returns {list(shape)} for {list(call.features.shape)}")
    return judged(True, f"kept for pictures of {', '.join(f'{h}x{w}' for h, w in sizes)}")


def check_dtype(subject: Subject) -> Finding:
    """`motion` returns the dtype that it was given, for every dtype that the module says it supports."""
    wrong, kept, lacking = [], [], []
    for dtype in subject.fresh().supported_dtypes:
        name, module = _name(dtype), subject.awake(dtype)
        try:
            with torch.no_grad():
                found = subject.call(module).to(dtype).change(module).dtype
        except RuntimeError as error:
            if "not implemented for" not in str(error):
                raise
            lacking.append(name)  # torch's gap on this device, not the module's
            continue
        (kept if found == dtype else wrong).append(name if found == dtype else f"{_name(found)} for {name}")
    if wrong:
        return judged(False, f"returns {', '.join(wrong)}; end with .to(features.dtype)")
    note = f"; {', '.join(lacking)} not tried, as torch lacks an operation here" if lacking else ""
    return judged(True, f"{', '.join(kept)} kept{note}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_device(subject: Subject) -> Finding:
    """Everything happens on the device of the features: tried on torch's device without numbers, so without a GPU."""
    module = subject.awake()
    call = subject.call(module).empty_on(_ELSEWHERE)
    weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    there = {name: value.detach().to(_ELSEWHERE) for name, value in weights.items()}
    try:
        with OneDevice(), torch.no_grad():
            found = functional_call(module, there, (call.features, call.context, True)).device.type
    except TwoDevicesError as error:
        return judged(False, f"{error}; make tensors on features.device, and keep constants as buffers")
    except (RuntimeError, NotImplementedError) as error:
        if _ELSEWHERE not in str(error):
            raise
        return not_applicable("cannot be told without a GPU, as what it does depends on values of its features")
    return judged(
        found == _ELSEWHERE, "all on the device of the features" if found == _ELSEWHERE else f"ends on {found}"
    )


def check_input(subject: Subject) -> Finding:
    """The features and the context are as before after the call, with and without gradients."""
    module = subject.awake()
    call = subject.call(module)
    for grad in (False, True):
        features, time = call.features.clone(), _time(call.context.timestep_embedding)
        with torch.set_grad_enabled(grad):
            module.motion(features, call.context)
        when = "while training" if grad else "at inference"
        if not torch.equal(features, call.features):
            return judged(False, f"changes its features in place {when}; the backbone goes on using them")
        if not torch.equal(time, _time(call.context.timestep_embedding)):
            return judged(False, f"changes the timestep embedding in place {when}, which other modules read too")
    return judged(True, "features and context are untouched, with and without gradients")


def _time(embedding: Tensor | None) -> Tensor:
    return torch.empty(0) if embedding is None else embedding.clone()


def check_determinism(subject: Subject) -> Finding:
    """The same call gives the same result, whatever was called in between and whatever the random state."""
    module = subject.awake()
    call, other = subject.call(module), subject.call(module, frames=3, first_frame=5)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        first = call.change(module)
        other.change(module)
        second = call.change(module)
    same = torch.equal(first, second)
    return judged(same, "two calls agree to the bit" if same else f"two calls differ by {apart(first, second):.1%}")


def check_identity(subject: Subject) -> Finding:
    """A fresh module adds nothing, in training and in evaluation."""
    module = subject.fresh()
    call = subject.call(module, batch=2)
    largest = 0.0
    for mode in (False, True):
        module.train(mode)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            change = call.change(module)
        if change.isnan().any():
            return judged(False, "a fresh module adds values that are not numbers")
        largest = max(largest, float(change.abs().max()))
    if largest > 0:
        return judged(
            False, f"a fresh module adds up to {largest:.2g}; zero the weights and the bias of its last layer"
        )
    return judged(True, "a fresh module adds exactly nothing, in training and in evaluation")


def check_strength(subject: Subject) -> Finding:
    """The strength of the call scales what is added, and 0 returns the features."""
    module = subject.awake()
    call = subject.call(module)
    with torch.no_grad():
        added = call.change(module)
        for strength in (0.0, 0.5, 1.0):
            context = type(call.context)(**{**vars(call.context), "strength": strength})
            error = apart(call.features + strength * added, module(call.features.clone(), context))
            if error > TOLERANCE:
                return judged(False, f"strength {strength:g} is off by {error:.1%}; leave forward() to MotionModule")
    return judged(True, "0, 0.5 and 1 add that share of the motion")


def check_batch(subject: Subject) -> Finding:
    """What becomes of a video does not depend on the other videos of its batch."""
    module = subject.awake()
    call = subject.call(module, batch=3)
    with torch.no_grad():
        beside = call.rows([0, 1]).change(module)[:1]
        largest = max(apart(beside, call.rows([0, 2]).change(module)[:1]), apart(beside, call.rows([0]).change(module)))
        module.train()
        largest = max(largest, apart(_seeded(subject, module, [0, 1]), _seeded(subject, module, [0, 2])))
    good = largest <= TOLERANCE
    return judged(good, f"another neighbour changes a video by {_share(largest)}")


def _seeded(subject: Subject, module: MotionModule, rows: list[int]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_BATCH_SEED)
        return subject.call(module, batch=3).rows(rows).change(module)[:1]


def check_order(subject: Subject) -> Finding:
    """Frames in another order give what the class declares as its `frame_order`."""
    module = subject.awake()
    call = subject.call(module, frames=len(_SHUFFLED))
    with torch.no_grad():
        plain = call.change(module)
        errors = {
            name: apart(plain[:, list(order)], call.reordered(order).change(module))
            for name, order in (("shuffled", _SHUFFLED), ("reversed", _REVERSED))
        }
    figures = ", ".join(f"{name} {_share(error)}" for name, error in errors.items())
    if module.frame_order == "equivariant":
        return judged(max(errors.values()) <= TOLERANCE, f"declared equivariant; off by: {figures}")
    if max(errors.values()) <= TOLERANCE:
        return judged(False, 'declared ordered, yet no order makes a difference; set frame_order = "equivariant"')
    return judged(True, f"declared ordered, and it is: {figures}")


def check_causality(subject: Subject) -> Finding:
    """Where the class declares it: later frames do not change what earlier ones become."""
    module = subject.awake()
    if not module.causal:
        return not_applicable("not declared")
    call = subject.call(module, batch=2, frames=5)
    largest = 0.0
    with torch.no_grad():
        plain = call.rows([0]).change(module)
        for frame in range(4):
            spoilt = call.rows([0])
            spoilt.features[:, frame + 1 :] = call.features[1:, frame + 1 :]
            largest = max(largest, apart(plain[:, : frame + 1], spoilt.change(module)[:, : frame + 1]))
    return judged(largest <= TOLERANCE, f"declared causal; later frames change earlier ones by {_share(largest)}")


def check_bfloat16(subject: Subject) -> Finding:
    """The result in bfloat16 is close to that in float32, far into a long video too."""
    module = subject.awake()
    if torch.bfloat16 not in module.supported_dtypes:
        return not_applicable("not among supported_dtypes")
    call = subject.call(module, first_frame=_LATE_FRAME)
    half = subject.awake(torch.bfloat16)
    with torch.no_grad():
        exact = call.change(module)
        error = (call.to(torch.bfloat16).change(half).float() - exact).square().mean().sqrt()
    share = float(error / exact.square().mean().sqrt().clamp(min=1e-12))
    detail = f"{share:.1%} off float32 (at most {BFLOAT16_TOLERANCE:.0%})"
    return judged(share <= BFLOAT16_TOLERANCE, detail)


def _share(value: float) -> str:
    return "nothing" if value == 0 else f"{value:.1e}"
