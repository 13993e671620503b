"""Assembly: encode, prepare, denoise, decode. The parts live in the rooms below."""

from muybridge.pipelines.animatediff import AnimateDiffPipeline
from muybridge.pipelines.load import load_pipeline

__all__ = ["AnimateDiffPipeline", "load_pipeline"]
