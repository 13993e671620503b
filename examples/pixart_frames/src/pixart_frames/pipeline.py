"""The pipeline: its parts, and the hooks that Muybridge's one way from a request to a video calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL, PixArtTransformer2DModel, SchedulerMixin
from muybridge.backbones.dit import Transformer3DModel
from muybridge.conditioning.t5 import encode_prompts_t5
from muybridge.conditioning.text import EncodedPrompts
from muybridge.pipelines.base import Network, Told
from muybridge.pipelines.integration import video_model_of
from muybridge.pipelines.make import VideoPipeline
from muybridge.pipelines.prompts import Texts
from muybridge.request import Capabilities, WindowSettings
from muybridge.request.following import Usual
from muybridge.types import ScaleFactors, VideoShape
from muybridge.vae.frames import FrameCodec
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from pixart_frames.family import FAMILY

NUM_FRAMES, FPS, MAX_TOKENS = 16, 8.0, 120


class PixArtFramesPipeline(VideoPipeline):
    """Text to video with the transformer of PixArt, which sees each frame alone, and motion modules in its blocks."""

    family = FAMILY
    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: Transformer3DModel | PixArtTransformer2DModel,
        scheduler: SchedulerMixin,
        default_steps: int = 20,
        default_guidance: float = 4.5,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Assemble from parts; PixArt's own transformer is turned into a video one. The numbers are saved with it."""
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=video_model_of(transformer),
            scheduler=scheduler,
        )
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance, max_tokens=max_tokens)

    @property
    def backbone(self) -> Transformer3DModel:
        """The transformer."""
        return self.transformer

    @property
    def codec(self) -> FrameCodec:
        """The image VAE, frame by frame."""
        return FrameCodec(self.vae)

    @property
    def can(self) -> Capabilities:
        """Text alone, or a video to start from; of any length in windows."""
        return Capabilities(
            model="A PixArt of frames",
            instead="an AnimateDiff or EasyAnimate model",
            takes=frozenset({"prompt travel", "text masks", "windows"}),
        )

    def _usual(self, windows: WindowSettings | None) -> Usual:
        multiple = self.codec.spatial * self.transformer.config["patch_size"]
        side = self.transformer.config["sample_size"] * self.codec.spatial
        return Usual(NUM_FRAMES, (side, side), FPS, multiple, lambda most: most, windows is None, _longer)

    def _check_shape(self, shape: VideoShape) -> None:
        ScaleFactors(self.size_multiple).latent_shape(shape, 1)  # patches are larger than latents

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        negatives = texts.negatives() if guided else None
        return encode_prompts_t5(self.tokenizer, self.text_encoder, texts.prompts, negatives, self.config["max_tokens"])

    def _network(self, told: Told) -> Network:
        text, prepared = told.text, told.prepared
        sizes = size_conditions(self.transformer, told.task.shape, text.positive)
        positive = {**_states(text.positive, text.positive_mask), **sizes, **prepared.positive}
        negative = None
        if text.negative is not None:
            negative = {**_states(text.negative, text.negative_mask), **sizes, **prepared.positive, **prepared.negative}
        axes = {name: 1 for name, value in positive.items() if name.startswith("encoder") and by_frame(value, name)}
        predict = Prediction(self.transformer, {**told.settings, **prepared.settings})
        return Network(predict, positive, negative, {**axes, **prepared.frame_axes})


class Prediction:
    """The transformer as guidance calls it."""

    def __init__(self, transformer: Transformer3DModel, settings: Mapping[str, Any]) -> None:
        """`settings` are further arguments of the transformer, the same in every step."""
        self._transformer = transformer
        self._settings = dict(settings)

    def __call__(self, latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        """The noise in `latents [b, c, f, h, w]`, without the variance that PixArt gives behind it."""
        settings = dict(self._settings)
        if "motion_strengths" in conditions:
            settings["motion_strength"] = conditions.pop("motion_strengths")[0]
        sizes = {name: conditions.pop(name) for name in ("resolution", "aspect_ratio") if name in conditions}
        found = self._transformer(
            latents.to(self._transformer.dtype), timestep, **conditions, **settings, added_cond_kwargs=sizes
        )
        return found.sample[:, : latents.shape[1]].float()


def size_conditions(transformer: Transformer3DModel, shape: VideoShape, like: Tensor) -> dict[str, Tensor]:
    """What models of 1024 pixels are told of the size of a picture, for each of the texts `like`."""
    if not transformer.transformer_config.has_size_condition:
        return {}
    return {
        "resolution": like.new_tensor([[shape.height, shape.width]]).expand(len(like), -1),
        "aspect_ratio": like.new_tensor([[shape.height / shape.width]]).expand(len(like), -1),
    }


def by_frame(value: Tensor, name: str) -> bool:
    """Whether text states or their mask have a part for each frame, where a prompt travels."""
    return value.ndim == (4 if name == "encoder_hidden_states" else 3)


def _states(states: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"encoder_hidden_states": states} | ({} if mask is None else {"encoder_attention_mask": mask})


def _longer(num_frames: int) -> str:
    return f"For all, give num_frames={num_frames} with windows (--frames {num_frames} --window 16)."
