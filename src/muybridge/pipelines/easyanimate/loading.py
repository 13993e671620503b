"""An EasyAnimate pipeline of a folder, with what is wished for in place of its own."""

from __future__ import annotations

import torch

from muybridge.pipelines.easyanimate.capabilities import check_choice
from muybridge.pipelines.easyanimate.folder import load_own_vae
from muybridge.pipelines.easyanimate.pipeline import EasyAnimatePipeline
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.predicting import predict_as_asked
from muybridge.types import SettingsDict


def load(wishes: Wishes, dtype: torch.dtype) -> EasyAnimatePipeline:
    """Load it on the CPU, all networks in a precision.

    Raises:
        MuybridgeError: as `load_pipeline`.
    """
    check_choice(wishes.choice)
    components: SettingsDict = {}
    if wishes.choice.vae is not None:
        components["vae"] = load_own_vae(wishes.choice.vae, wishes.place, dtype)
    pipeline = EasyAnimatePipeline.from_pretrained(wishes.choice.model, torch_dtype=dtype, **components)
    predict_as_asked(pipeline, wishes.prediction, wishes.choice.model)
    return pipeline
