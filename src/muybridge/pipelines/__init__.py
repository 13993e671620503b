"""Pipelines by family, and one call that loads any."""

from muybridge.pipelines.animatediff.pipeline import AnimateDiffPipeline
from muybridge.pipelines.easyanimate.pipeline import EasyAnimatePipeline
from muybridge.pipelines.load import load_pipeline
from muybridge.pipelines.make import VideoPipeline

__all__ = ["AnimateDiffPipeline", "EasyAnimatePipeline", "VideoPipeline", "load_pipeline"]
