"""Assembly: encode, prepare, denoise, decode. The parts live in the rooms below."""

from muybridge.pipelines.animatediff import AnimateDiffPipeline
from muybridge.pipelines.easyanimate import EasyAnimatePipeline
from muybridge.pipelines.load import load_pipeline

__all__ = ["AnimateDiffPipeline", "EasyAnimatePipeline", "load_pipeline"]
