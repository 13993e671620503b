"""Checks of a motion module at work: in whole backbones, compiled, saved and loaded; and what it costs."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict, is_dataclass

import torch

from muybridge.authoring.check_subjects import Finding, Subject, add_noise, apart, judged, not_applicable
from muybridge.authoring.check_values import TOLERANCE
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.motion import ModuleSpec, MotionModule, build_motion_module
from muybridge.motion.registry import spec_of

_MORE = 3
_MOST_FRAMES = 300
_UNLIMITED = 40  # frames that are many for a kind which names no number it was trained on
_COST_FRAMES, _COST_SIZE, _REPEATS = 16, (8, 8), 5
_REFERENCE = "temporal"


def check_frames(subject: Subject) -> Finding:
    """In the whole backbone, at all sites: one frame, two, many, and more than it was trained on."""
    adapter = subject.adapter()
    trained = adapter.trained_frames
    counts = sorted({1, 2, 8, min(_MOST_FRAMES, _UNLIMITED if trained is None else trained + _MORE)})
    for count in counts:
        prediction = subject.predict(adapter, count)
        if not prediction.isfinite().all():
            return judged(False, f"values that are not finite with {count} frames in the whole backbone")
    limit = "states no limit" if trained is None else f"trained on {trained}"
    return judged(True, f"{', '.join(map(str, counts))} frames in the whole backbone; {limit}")


def check_compile(subject: Subject) -> Finding:
    """`torch.compile(fullgraph=True)` takes it whole, and the result stays the same. Clears torch's compile caches."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    module = subject.awake()
    call = subject.call(module, batch=2)
    # Ahead-of-time tracing without code generation: needs no compiler, and breaks where the real one would.
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.compiler.reset()  # modules examined before count against a limit of this function's recompilations
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says about its own tracing
            error = apart(module(call.features.clone(), call.context), compiled(call.features.clone(), call.context))
    except TorchDynamoException as reason:
        return judged(False, f"breaks the graph: {_first_line(reason)}")
    finally:
        torch.compiler.reset()
    return judged(error <= TOLERANCE, f"one graph; compiled and plain results differ by {error:.1e}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check_saving(subject: Subject) -> Finding:
    """Settings are plain values in a frozen dataclass; they and the weights are all there is to a module."""
    module = subject.awake()
    config_class = type(module.config)
    if not is_dataclass(config_class) or not config_class.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return judged(False, f"{config_class.__name__} is not a frozen dataclass")
    spec = spec_of(module)
    settings = json.loads(json.dumps(asdict(spec)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # what is random and not among the weights comes out otherwise
        again = build_motion_module(ModuleSpec(**settings)).eval()
    if spec_of(again) != spec:
        return judged(False, f"settings come back changed: {spec_of(again).config} for {spec.config}")
    again.load_state_dict(module.state_dict(), strict=True)
    call = subject.call(module)
    with torch.no_grad():
        error = apart(call.change(module), call.change(again))
    detail = f"{len(spec.config)} settings and {len(module.state_dict())} tensors; the result differs by {error:.1e}"
    return judged(error == 0, detail + ("" if error == 0 else "; keep what is drawn at random as buffers"))


def check_cost(subject: Subject) -> Finding:
    """Time and memory of a frame, beside those of the kind `temporal`; nothing is judged."""
    own = _cost(subject, subject.awake())
    try:
        reference = Subject(subject.label, subject.host, subject.site, _REFERENCE, {}).fresh()
    except Exception as error:  # what is compared with is not what is examined
        return not_applicable(f"{_REFERENCE} cannot be built here: {error}")
    add_noise(reference)
    theirs = _cost(subject, reference)
    return Finding(
        "reported",
        f"{own[0] * 1e3:.2f} ms and {own[1] / 2**10:.0f} KiB a frame of {_COST_SIZE[0]}x{_COST_SIZE[1]}, "
        f"{own[0] / theirs[0]:.2f} and {own[1] / theirs[1]:.2f} times {_REFERENCE}",
    )


def _cost(subject: Subject, module: MotionModule) -> tuple[float, float]:
    """Seconds and bytes a frame at inference."""
    call = subject.call(module, frames=_COST_FRAMES, size=_COST_SIZE)
    with torch.no_grad():
        with TensorMemory() as memory:
            module(call.features, call.context)
        seconds = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            module(call.features, call.context)
            seconds.append(time.perf_counter() - started)
    return min(seconds) / _COST_FRAMES, memory.peak_bytes / _COST_FRAMES
