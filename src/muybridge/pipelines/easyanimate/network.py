"""How EasyAnimate's transformer is called: what it takes besides latents, and what of its output is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.conditioning.text import EncodedPrompts
from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError
from muybridge.pipelines.base import Network, Told
from muybridge.sampling.guidance import Predict
from muybridge.types import SettingsView

_FRAMES = 2  # axis of latents


def transformer_network(
    transformer: Transformer3DModel, told: Told, picture: Tensor | None, clip_apply_ratio: float
) -> Network:
    """The transformer, told the text, what is given of the video, and a picture's embedding.

    Args:
        transformer: of the model.
        told: text, conditions and settings.
        picture: CLIP's embedding `[1, d]`, or None. Without it its tokens are left out: masked, as the original has
            them, they have no weight.
        clip_apply_ratio: last share of the steps in which the picture counts.
    """
    prepared, task, text = told.prepared, told.task, told.text
    states, count = text.positive, task.count
    shared: dict[str, Tensor] = {}
    if told.inpaint is not None:
        shared["inpaint_latents"] = told.inpaint.expand(count, -1, -1, -1, -1)
    if transformer.transformer_config.has_size_condition:
        height, width = task.shape.height, task.shape.width
        shared["resolution"] = states.new_tensor([[height, width]]).expand(count, -1)
        shared["aspect_ratio"] = states.new_tensor([[height / width]]).expand(count, -1)
    shared |= prepared.positive
    positive = {**_text(text.positive, text.positive_mask), **shared}
    negative = None
    if text.negative is not None:
        negative = {**_text(text.negative, text.negative_mask), **shared, **prepared.negative}
    if picture is not None:
        embedding = picture.to(states).expand(count, -1)
        positive |= _picture(transformer, embedding, is_there=True)
        if negative is not None:
            negative |= _picture(transformer, torch.zeros_like(embedding), is_there=False)
    settings = {**told.settings, **prepared.settings}
    predict = network_predictor(transformer, settings, clip_apply_ratio, task.timesteps)
    return Network(predict, positive, negative, {**_axes(positive), **prepared.frame_axes})


def _text(states: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"encoder_hidden_states": states} | ({} if mask is None else {"encoder_attention_mask": mask})


def _picture(transformer: Transformer3DModel, embedding: Tensor, is_there: bool) -> dict[str, Tensor]:
    mask = embedding.new_full((len(embedding), transformer.config["clip_tokens"]), float(is_there))
    return {"clip_encoder_hidden_states": embedding, "clip_attention_mask": mask}


def _axes(conditions: Mapping[str, Tensor]) -> dict[str, int]:
    """Conditions that have a part for every latent frame."""
    axes = {"inpaint_latents": _FRAMES} if "inpaint_latents" in conditions else {}
    if conditions["encoder_hidden_states"].ndim == 4:
        axes |= {name: 1 for name in ("encoder_hidden_states", "encoder_attention_mask") if name in conditions}
    return axes


def network_predictor(
    transformer: Transformer3DModel, settings: SettingsView, clip_apply_ratio: float, timesteps: Tensor
) -> Predict:
    """The transformer as guidance calls it; the picture's tokens count in the last steps only."""
    dtype, channels = transformer.dtype, transformer.config["latent_channels"]
    first = math.ceil(len(timesteps) * (1 - clip_apply_ratio))
    # Noise levels only fall, so the level of a step says whether it is one of the last.
    last_level = float(timesteps[first]) if first < len(timesteps) else -1.0

    def predict(latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        given = dict(settings)
        if "motion_strengths" in conditions:
            given["motion_strength"] = conditions.pop("motion_strengths")[0]
        if "clip_attention_mask" in conditions:
            conditions["clip_attention_mask"] = conditions["clip_attention_mask"] * (timestep <= last_level)
        sizes = {name: conditions.pop(name) for name in ("resolution", "aspect_ratio") if name in conditions}
        prediction = transformer(latents.to(dtype), timestep, **conditions, added_cond_kwargs=sizes, **given).sample
        # What follows the noise is its variance, which these solvers do not use.
        return prediction[:, :channels].float()

    return predict


def overflowed(error: NonFiniteError) -> NonFiniteError:
    """The error of a transformer in float16, with what helps there."""
    return NonFiniteError(
        f"{error} This transformer runs in float16, which ends at 65504: load the model with "
        "torch_dtype=torch.bfloat16, or keep the weights in float16 and compute in float32 with "
        "pipeline.transformer.to(torch.float32).enable_layerwise_casting(torch.float16, torch.float32)."
    )


def finite_states(text_encoder: T5EncoderModel, encode: Callable[[], EncodedPrompts]) -> EncodedPrompts:
    """What `encode` gives.

    Raises:
        NonFiniteError: it is NaN or infinite, as T5's states can be in float16; names the first layer.
    """
    encoded = encode()
    states = [each for each in (encoded.positive, encoded.negative) if each is not None]
    if all(bool(torch.isfinite(each).all()) for each in states):
        return encoded
    layer = first_anomalous_module(text_encoder, encode) or "its output"
    raise NonFiniteError(
        f"The text encoder gave NaN or infinite states in {text_encoder.dtype}, first in {layer}. Run it in bfloat16 "
        "or float32, as in pipeline.text_encoder.to(torch.float32); if it is, check its weights."
    )
