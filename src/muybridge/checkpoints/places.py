"""Weights given where those of another kind belong: what they are, and what their own place is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from muybridge.checkpoints.detect import detect_weights
from muybridge.errors import CheckpointError

_PLACES = {
    "motion-module": ("a motion module", "motion_adapter of load_pipeline, or --motion-adapter"),
    "lora": ("a LoRA", "load_lora_weights of the pipeline, or --lora"),
    "sparse-control": (
        "a SparseCtrl",
        "set_sparse_control of the pipeline, or --keyframe-control and --sketch-control",
    ),
    "control": ("a ControlNet", "controls of the call, or --control"),
    "ip-adapter": ("an IP-Adapter", "load_image_prompt_adapter of the pipeline, or --image-prompt-adapter"),
    "base-model": ("an image model", "model of load_pipeline, or --model"),
    "vae": ("a VAE", "vae of load_pipeline, or --vae"),
    "embedding": ("an embedding", "load_embedding of the pipeline, or --embedding"),
    "parts": ("a folder with the parts of a whole model", "parts_from of load_pipeline, or --parts-from"),
    "transformer": ("the network of EasyAnimate", "the folder of an EasyAnimate, which is given as model or --model"),
}
"""By the kind that `detect_weights` gives: what it is, and where it is given."""


def require_kind(state: Mapping[str, Tensor], kind: str, source: str, name: str = "") -> None:
    """Refuse weights that are known to be of another kind; what no rule knows, the reader of `kind` has to judge.

    Args:
        state: all keys of the file.
        kind: that is wanted, one of those of `checkpoints.detect.Detection`.
        source: the file, for messages.
        name: of the file, as of `detect_weights`.

    Raises:
        CheckpointError: another kind; the message says which, and what its place is.
    """
    found = detect_weights(state, name)
    if found.kind in (kind, "unknown") or found.kind not in _PLACES:
        return
    what, place = _PLACES[found.kind]
    raise CheckpointError(
        f"{source} is {found.variant} ({found.kind}), not {_PLACES[kind][0]}. It is {what}; its place is {place}."
    )
