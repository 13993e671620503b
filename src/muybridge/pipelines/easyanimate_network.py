"""How EasyAnimate's transformer is called: what it takes besides latents, and what of its output is used."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.conditioning import EncodedPrompts
from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError
from muybridge.pipelines.easyanimate_task import Task
from muybridge.pipelines.motion_condition import one_a_video
from muybridge.sampling.guidance import Predict

Inputs = dict[str, Tensor]


def network_inputs(
    transformer: Transformer3DModel, task: Task, encoded: EncodedPrompts, inpaint: Tensor | None, picture: Tensor | None
) -> tuple[Inputs, Inputs | None]:
    """Keyword arguments of the transformer, with the prompts and with the negative ones (None without guidance).

    Args:
        transformer: of the model.
        task: what is made.
        encoded: text states of b videos.
        inpaint: latents of mask and masked video, `[b, 2c, f, h, w]`; b may be 1.
        picture: CLIP's embedding `[1, d]`, or None. Without it its tokens are left out: masked, as the original has
            them, they have no weight.

    Raises:
        ShapeError: a motion condition that is not one vector a video.
    """
    positive = {"encoder_hidden_states": encoded.positive}
    negative = None if encoded.negative is None else {"encoder_hidden_states": encoded.negative}
    if encoded.positive_mask is not None:
        positive["encoder_attention_mask"] = encoded.positive_mask
    if negative is not None and encoded.negative_mask is not None:
        negative["encoder_attention_mask"] = encoded.negative_mask
    states, count = encoded.positive, len(encoded.positive)
    shared: Inputs = {}
    if inpaint is not None:
        shared["inpaint_latents"] = inpaint.expand(count, -1, -1, -1, -1)
    if transformer.transformer_config.has_size_condition:
        shared["resolution"] = states.new_tensor([[task.height, task.width]]).expand(count, -1)
        shared["aspect_ratio"] = states.new_tensor([[task.height / task.width]]).expand(count, -1)
    if (condition := task.motion_condition) is not None:
        shared["motion_condition"] = one_a_video(condition, count).to(states)
    positive |= shared
    negative = None if negative is None else negative | shared
    if picture is not None:
        tokens = transformer.config["clip_tokens"]
        embedding = picture.to(states).expand(count, -1)
        positive |= {
            "clip_encoder_hidden_states": embedding,
            "clip_attention_mask": states.new_ones(count, tokens),
        }
        if negative is not None:
            negative |= {
                "clip_encoder_hidden_states": torch.zeros_like(embedding),
                "clip_attention_mask": states.new_zeros(count, tokens),
            }
    return positive, negative


def network_predictor(
    transformer: Transformer3DModel, motion_strength: float, clip_apply_ratio: float, timesteps: Tensor
) -> Predict:
    """The transformer as guidance calls it; the picture's tokens count in the last steps only."""
    dtype, channels = transformer.dtype, transformer.config["latent_channels"]
    first = math.ceil(len(timesteps) * (1 - clip_apply_ratio))
    # Noise levels only fall, so the level of a step says whether it is one of the last.
    last_level = float(timesteps[first]) if first < len(timesteps) else -1.0

    def predict(latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        if "clip_attention_mask" in conditions:
            conditions["clip_attention_mask"] = conditions["clip_attention_mask"] * (timestep <= last_level)
        sizes = {name: conditions.pop(name) for name in ("resolution", "aspect_ratio") if name in conditions}
        prediction = transformer(
            latents.to(dtype), timestep, **conditions, added_cond_kwargs=sizes, motion_strength=motion_strength
        ).sample
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
