"""EasyAnimate's video transformer: PixArt on every frame, with a motion site in each block."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import PixArtAlphaTextProjection
from diffusers.models.normalization import AdaLayerNormSingle
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from muybridge.backbones.dit.block import Conditions, TransformerBlock
from muybridge.backbones.dit.config import TransformerConfig
from muybridge.backbones.dit.from_diffusers import pixart_keywords, widened_weights
from muybridge.backbones.dit.layers import PatchEmbed, modulated_norm
from muybridge.backbones.dit.published import load_published
from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import MotionAdapter, MotionHost, MotionSite
from muybridge.types import SettingsDict
from muybridge.weights.loading import load_folder

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

_DROPPED = -10_000.0  # a masked token's score; finite in every precision, and its weight underflows to 0


@dataclass
class Transformer3DOutput(BaseOutput):
    """`sample`: the prediction, `[b, out_channels, f, h, w]`; noise first, then (where learned) its variance."""

    sample: Tensor


class Transformer3DModel(MotionHost):
    """PixArt's transformer with a motion site in every block, U-ViT skips, and picture and mask conditions.

    Without an adapter the frames are independent of each other. Weight names outside the motion modules are the
    original's. Source: EasyAnimate V3, `easyanimate/models/transformer3d.py`.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock"]
    _repeated_blocks = ["TransformerBlock"]
    _skip_layerwise_casting_patterns = ["pos_embed", "norm", "adaln_single", "scale_shift_table"]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 12,
        latent_channels: int = 4,
        out_channels: int = 8,
        num_layers: int = 28,
        sample_size: int = 64,
        patch_size: int = 2,
        caption_channels: int = 4096,
        clip_channels: int | None = 768,
        clip_tokens: int = 8,
        norm_eps: float = 1e-6,
        enable_uvit: bool = True,
        motion_adapter: SettingsDict | None = None,
    ) -> None:
        """The defaults are EasyAnimate V3's; see `TransformerConfig` for what each means.

        `motion_adapter` holds the settings of an adapter to build and attach, which is how a model saved with one is
        built again.

        Raises:
            ConfigError: numbers that do not go together, or an adapter that does not fit.
        """
        super().__init__()
        config = TransformerConfig.from_keywords(self.config)
        width = config.width
        self.transformer_config = config
        self.pos_embed = PatchEmbed(config)
        self.adaln_single = AdaLayerNormSingle(width, use_additional_conditions=config.has_size_condition)
        self.caption_projection = PixArtAlphaTextProjection(config.caption_channels, width)
        self.clip_projection = None
        if config.clip_channels is not None:
            self.clip_projection = PixArtAlphaTextProjection(config.clip_channels, config.clip_tokens * width)
            nn.init.zeros_(self.clip_projection.linear_2.weight)
            nn.init.zeros_(self.clip_projection.linear_2.bias)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.long_connect_fc = nn.ModuleList(nn.Linear(width, width) for _ in range(config.num_skips))
        for connection in self.long_connect_fc.parameters():
            nn.init.zeros_(connection)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, config.patch_size**2 * config.out_channels)
        self.gradient_checkpointing = False
        if motion_adapter is not None:
            self.set_motion_adapter(MotionAdapter.from_settings(motion_adapter))

    @classmethod
    def from_transformer2d(
        cls,
        transformer: PixArtTransformer2DModel | str | os.PathLike[str],
        in_channels: int = 12,
        clip_channels: int | None = 768,
        enable_uvit: bool = True,
    ) -> Transformer3DModel:
        """Make the video model of a PixArt text-to-image transformer, or of a folder of one.

        New input channels, image tokens and long skips begin at zero and there is no motion adapter yet, so that the
        model gives the image model's prediction for every frame.

        Raises:
            ConfigError: the image model uses a feature that this network does not have.
            CheckpointError: the folder cannot be loaded.
        """
        from diffusers import PixArtTransformer2DModel  # slow to import, with all transformers there are

        if not isinstance(transformer, PixArtTransformer2DModel):
            loaded = load_folder(PixArtTransformer2DModel.from_pretrained, transformer, "PixArtTransformer2DModel", {})
            return cls.from_transformer2d(loaded, in_channels, clip_channels, enable_uvit)
        keywords = pixart_keywords(transformer)
        model = cls(**keywords, in_channels=in_channels, clip_channels=clip_channels, enable_uvit=enable_uvit)
        model.load_state_dict(widened_weights(transformer, model), strict=True)
        nn.Module.to(model, transformer.dtype)
        return model.train(transformer.training)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: object
    ) -> Transformer3DModel:
        """Load a folder: a published EasyAnimate V2 or V3 transformer, or one written by `save_pretrained`.

        Of published files, position tables and the settings of weight averaging are passed over; everything else must
        be there and nothing more. `torch_dtype` and `subfolder` are understood.

        Raises:
            CheckpointError: missing, damaged or NaN-filled weights, or weights that do not fit the config.
            ConfigError: the config asks for a feature that this network does not have.
        """
        published = load_published(cls, pretrained_model_name_or_path, kwargs)
        if published is not None:
            return published
        return load_folder(super().from_pretrained, pretrained_model_name_or_path, cls.__name__, kwargs)

    def motion_sites(self) -> dict[str, MotionSite]:
        """One in each block: `transformer_blocks.7.attn_temporal`."""
        width = self.transformer_config.width
        names = (f"transformer_blocks.{index}.attn_temporal" for index in range(self.transformer_config.num_layers))
        return {name: MotionSite(name, width, timestep_width=width, text_width=width) for name in names}

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        inpaint_latents: Tensor | None = None,
        clip_encoder_hidden_states: Tensor | None = None,
        clip_attention_mask: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor | None] | None = None,
        motion_strength: float | Sequence[float] | Tensor = 1.0,
        frame_positions: Tensor | None = None,
        motion_condition: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer3DOutput | tuple[Tensor]:
        """Predict noise, and its variance where the model has learned it.

        Args:
            hidden_states: noisy latents `[b, c, f, h, w]`; height and width multiples of `patch_size`.
            timestep: one for all, or `[b]`; may be fractional.
            encoder_hidden_states: text states `[b, n, d]`, shared by the frames of a video, or `[b, f, n, d]` with a
                text for each latent frame; motion modules are told the mean of these.
            encoder_attention_mask: `[b, n]` or `[b, f, n]`, 1 for tokens that count, 0 for padding; None counts all.
            inpaint_latents: latents of mask and masked video `[b, c', f, h, w]`, for models that have channels for it.
            clip_encoder_hidden_states: an image embedding a video, `[b, e]`.
            clip_attention_mask: `[b, clip_tokens]`, 0 where a video has no image; None counts all.
            added_cond_kwargs: `resolution [b, 2]` and `aspect_ratio [b, 1]`, for models of `sample_size` 128.
            motion_strength: scales what the motion modules add, one number or one for each latent frame; 0 is the
                image model on every frame.
            frame_positions: `[f]` positions in time, in latent frames; by default 0, 1, 2 and so on.
            motion_condition: `[b, d]`, for motion modules that take one.
            return_dict: False returns a tuple.

        Raises:
            ShapeError: sizes or channels that do not fit this model.
            ConfigError: a condition the model cannot take, or lacks one that it needs.
        """
        config = self.transformer_config
        self._check(hidden_states, encoder_hidden_states, inpaint_latents, clip_encoder_hidden_states)
        dtype, batch = hidden_states.dtype, len(hidden_states)
        if inpaint_latents is not None:
            hidden_states = torch.cat((hidden_states, inpaint_latents.to(dtype)), dim=1)
        steps = torch.as_tensor(timestep, device=hidden_states.device).expand(batch)
        modulation, embedded = self.adaln_single(
            steps, self._size_conditions(added_cond_kwargs), batch_size=batch, hidden_dtype=dtype
        )
        text, bias = self._text(
            encoder_hidden_states, encoder_attention_mask, clip_encoder_hidden_states, clip_attention_mask
        )
        conditions = Conditions(
            modulation=modulation.unflatten(1, (6, -1)),
            text=text,
            text_bias=bias,
            motion=self.motion_context(
                hidden_states.shape[2],
                frame_positions,
                embedded,
                text if text.ndim == 3 else text.mean(dim=1),
                motion_strength,
                motion_condition,
            ),
        )
        features = self._blocks(self.pos_embed(hidden_states), conditions)
        shift, scale = (self.scale_shift_table + embedded[:, None])[:, :, None, None, None].unbind(1)
        features = self.proj_out(modulated_norm(features, shift, scale, config.norm_eps))
        patches = features.unflatten(-1, (config.patch_size, config.patch_size, config.out_channels))
        # From frame, row, column, row in patch, column in patch, channel.
        sample = patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return Transformer3DOutput(sample=sample) if return_dict else (sample,)

    def _blocks(self, features: Tensor, conditions: Conditions) -> Tensor:
        count, skips = self.transformer_config.num_skips, []
        last = self.transformer_config.num_layers - count
        for index, block in enumerate(self.transformer_blocks):
            skip = self.long_connect_fc[index - last](skips.pop()) if count and index >= last else None
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                recompute = cast("Callable[..., Tensor]", self._gradient_checkpointing_func)
                features = recompute(block, features, conditions, skip)
            else:
                features = block(features, conditions, skip)
            if index < count:
                skips.append(features)
        return features

    def _text(
        self, text: Tensor, text_mask: Tensor | None, clip: Tensor | None, clip_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """All tokens that the blocks attend to `[b, n, c]`, and what is added to their scores `[b, n]`.

        Where each frame has a text of its own, `[b, f, n, c]` and `[b, f, n]`.
        """
        tokens = self.caption_projection(text)
        if clip is not None and self.clip_projection is not None:
            images = self.clip_projection(clip.to(tokens.dtype)).unflatten(1, (-1, tokens.shape[-1]))
            if text_mask is not None or clip_mask is not None:
                own = _mask_or_ones(clip_mask, images)
                own = own if tokens.ndim == 3 else own[:, None].expand(-1, tokens.shape[1], -1)
                text_mask = torch.cat((_mask_or_ones(text_mask, tokens), own), dim=-1)
            images = images if tokens.ndim == 3 else images[:, None].expand(-1, tokens.shape[1], -1, -1)
            tokens = torch.cat((tokens, images), dim=-2)
        bias = None if text_mask is None else (1 - text_mask.to(tokens.dtype)) * _DROPPED
        return tokens, bias

    def _size_conditions(self, given: Mapping[str, Tensor | None] | None) -> dict[str, Tensor | None]:
        conditions = {name: None if given is None else given.get(name) for name in ("resolution", "aspect_ratio")}
        missing = [name for name, value in conditions.items() if value is None]
        if self.transformer_config.has_size_condition and missing:
            raise ConfigError(f"A model of sample_size 128 needs added_cond_kwargs; without: {', '.join(missing)}.")
        if not self.transformer_config.has_size_condition and len(missing) < len(conditions):
            raise ConfigError(
                "Only models of sample_size 128 are told the picture's size; leave added_cond_kwargs out."
            )
        return conditions

    def _check(self, latents: Tensor, text: Tensor, inpaint: Tensor | None, clip: Tensor | None) -> None:
        config = self.transformer_config
        if latents.ndim != 5:
            raise ShapeError(f"hidden_states must be [b, c, f, h, w]; given {tuple(latents.shape)}.")
        channels = latents.shape[1] + (0 if inpaint is None else inpaint.shape[1])
        if channels != config.in_channels:
            raise ShapeError(
                f"This model takes {config.in_channels} channels ({config.latent_channels} of latents, the rest in "
                f"inpaint_latents); given {latents.shape[1]} and {channels - latents.shape[1]}."
            )
        size = config.patch_size
        if latents.shape[3] % size or latents.shape[4] % size:
            raise ShapeError(f"Latents must have a height and width that {size} divides; given {latents.shape[3:]}.")
        if inpaint is not None and inpaint.shape[2:] != latents.shape[2:]:
            raise ShapeError(f"inpaint_latents must be {latents.shape[2:]} in f, h, w; given {inpaint.shape[2:]}.")
        if (
            text.ndim not in (3, 4)
            or len(text) != len(latents)
            or (text.ndim == 4 and text.shape[1] != latents.shape[2])
        ):
            raise ShapeError(
                f"encoder_hidden_states must be [{len(latents)}, n, d], one text for each video, or "
                f"[{len(latents)}, {latents.shape[2]}, n, d], one for each latent frame; given {tuple(text.shape)}."
            )
        if clip is not None and self.clip_projection is None:
            raise ConfigError("This model takes no image embedding; leave clip_encoder_hidden_states out.")


def _mask_or_ones(mask: Tensor | None, tokens: Tensor) -> Tensor:
    return tokens.new_ones(tokens.shape[:-1]) if mask is None else mask.to(tokens.dtype)
