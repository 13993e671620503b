"""Pipelines by family, and one call that loads any.

A name brings torch in only when it is used, so that records of families can be read without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muybridge.pipelines.animatediff.pipeline import AnimateDiffPipeline
    from muybridge.pipelines.easyanimate.pipeline import EasyAnimatePipeline
    from muybridge.pipelines.load import load_pipeline
    from muybridge.pipelines.make import VideoPipeline

_HOMES = {
    "AnimateDiffPipeline": "muybridge.pipelines.animatediff.pipeline",
    "EasyAnimatePipeline": "muybridge.pipelines.easyanimate.pipeline",
    "VideoPipeline": "muybridge.pipelines.make",
    "load_pipeline": "muybridge.pipelines.load",
}

__all__ = ["AnimateDiffPipeline", "EasyAnimatePipeline", "VideoPipeline", "load_pipeline"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'muybridge.pipelines' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
