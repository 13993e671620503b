"""Adapters that are shared as LoRAs and are none: what their keys tell them by, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OTHER_KINDS = (
    (r"[._]hada_", "LoHa"),
    (r"[._]lokr_", "LoKr"),
    (r"[._]boft_", "BOFT"),
    (r"[._]oft_", "OFT"),
    (r"\.(a|b)[12]\.(weight|bias)$|\.bm\.weight$", "GLoRA"),
    (r"\.on_input$|[._]ia3_", "IA3"),
    (r"\.lora_mid\.", "LoCon with a core between its factors"),
    (r"\.(w|b)_norm$", "weights of norms"),
    (r"\.diff(_b)?$", "whole differences of weights"),
    (r"[._]vera_lambda_", "VeRA"),
    (r"lora_embedding_", "LoRA of embeddings"),
    (r"\.lora_(B|up)\.bias$", "LoRA with biases"),
    (r"^bundle_emb", "embeddings of words"),
)


def other_kinds(keys: Iterable[str]) -> dict[str, str]:
    """The kinds that keys belong to, of those that are not plain LoRA, and the first key of each."""
    found: dict[str, str] = {}
    for key in keys:
        for pattern, kind in _OTHER_KINDS:
            if re.search(pattern, key):
                found.setdefault(kind, key)
                break
    return found
