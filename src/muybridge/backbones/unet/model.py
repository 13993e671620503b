"""The Stable Diffusion U-Net for videos: an image model on every frame, with sites where motion modules may sit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from muybridge.backbones.unet.blocks import DownLevel, Level, MidLevel, UpLevel
from muybridge.backbones.unet.config import FIXED_SETTINGS, UNetConfig
from muybridge.backbones.unet.image_prompt import text_and_image
from muybridge.backbones.unet.layers import FrameLayout
from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import MotionAdapter, MotionHost, MotionSite
from muybridge.motion.linear import Convolution
from muybridge.motion.normalisation import group_norm
from muybridge.types import SettingsDict
from muybridge.weights.loading import load_folder


@dataclass
class UNet3DConditionOutput(BaseOutput):
    """`sample`: the prediction, `[b, c, f, h, w]`."""

    sample: Tensor


class UNet3DConditionModel(MotionHost):
    """Stable Diffusion 1.5's U-Net with motion sites after every spatial transformer (every row where there is none).

    Without an adapter the frames are independent of each other. Weight names outside the motion modules are those of
    diffusers' `UNet2DConditionModel`. Source: AnimateDiff, `animatediff/models/unet.py`.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DownLevel", "MidLevel", "UpLevel"]
    _repeated_blocks = ["SpatialTransformerBlock", "MotionTransformerBlock"]
    _skip_layerwise_casting_patterns = ["norm", "time_embedding"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = 64,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types: Sequence[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        cross_attention_dim: int = 768,
        attention_head_dim: int | Sequence[int] = 8,
        transformer_layers_per_block: int | Sequence[int] = 1,
        use_linear_projection: bool = False,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        motion_adapter: SettingsDict | None = None,
    ) -> None:
        """The defaults are Stable Diffusion 1.5.

        Names and meanings are diffusers'; as there, `attention_head_dim` is the *number* of heads. `motion_adapter`
        holds the settings of an adapter to build and attach, which is how a model saved with one is built again.

        Raises:
            ConfigError: block types that are not supported, or an adapter that does not fit.
        """
        super().__init__()
        config = UNetConfig.from_keywords(self.config)
        channels = config.block_out_channels
        self.conv_in = Convolution(config.in_channels, channels[0], 3, padding=1)
        self.time_proj = Timesteps(channels[0], config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(channels[0], config.time_embedding_dim)
        self.add_time_proj, self.add_embedding = None, None
        if (addition := config.addition) is not None:
            self.add_time_proj = Timesteps(addition.time_width, config.flip_sin_to_cos, config.freq_shift)
            self.add_embedding = TimestepEmbedding(addition.input_width, config.time_embedding_dim)
        levels = range(len(channels))
        self.down_blocks = nn.ModuleList(DownLevel(config, level) for level in levels)
        self.mid_block = MidLevel(config)
        self.up_blocks = nn.ModuleList(UpLevel(config, level) for level in reversed(levels))
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, channels[0], eps=config.norm_eps)
        self.conv_out = Convolution(channels[0], config.out_channels, 3, padding=1)
        self.in_channels = config.in_channels
        if motion_adapter is not None:
            self.set_motion_adapter(MotionAdapter.from_settings(motion_adapter))

    @classmethod
    def from_unet2d(
        cls,
        unet: UNet2DConditionModel | str | os.PathLike[str],
        motion_adapter: MotionAdapter | None = None,
        subfolder: str | None = None,
    ) -> UNet3DConditionModel:
        """Make the video model of an image model; its weights are shared where it is given as a module.

        Args:
            unet: the image U-Net, or a folder of it (then `subfolder` may name where in it).
            motion_adapter: attached, if given.
            subfolder: for example "unet" in the folder of a whole pipeline.

        Raises:
            ConfigError: the image model uses a feature that this network does not have.
            CheckpointError: the folder cannot be loaded.
        """
        if not isinstance(unet, UNet2DConditionModel):
            options = {"subfolder": subfolder} if subfolder else {}
            loaded = load_folder(UNet2DConditionModel.from_pretrained, unet, "UNet2DConditionModel", options)
            return cls.from_unet2d(loaded, motion_adapter)
        settings = dict(unet.config)
        foreign = [
            f"{name}={settings[name]!r}"
            for name, known in FIXED_SETTINGS.items()
            if name in settings and settings[name] not in known
        ]
        if foreign:
            raise ConfigError(f"This image U-Net has features that are not supported here: {', '.join(foreign)}.")
        own = {name: settings[name] for name in cls._get_init_keys(cls) & settings.keys()}
        with torch.device("meta"):
            model = cls(**own)
        model.load_state_dict(unet.state_dict(), strict=True, assign=True)
        model.train(unet.training)
        if motion_adapter is not None:
            model.set_motion_adapter(motion_adapter)
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: object
    ) -> UNet3DConditionModel:
        """Load a folder written by `save_pretrained`, motion modules included if there were any.

        Raises:
            CheckpointError: missing, damaged or NaN-filled weights, or weights that do not fit the config.
        """
        return load_folder(super().from_pretrained, pretrained_model_name_or_path, cls.__name__, kwargs)

    def motion_sites(self) -> dict[str, MotionSite]:
        """All sites, named as in AnimateDiff's files: `down_blocks.0.motion_modules.1`."""
        levels = ((name, module) for name, module in self.named_modules() if isinstance(module, Level))
        config = UNetConfig.from_keywords(self.config)
        context = (config.time_embedding_dim, config.cross_attention_dim)
        sites = (
            MotionSite(f"{prefix}.{name}", level.width, *context)
            for prefix, level in levels
            for name in level.site_names()
        )
        return {site.name: site for site in sites}

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        down_block_additional_residuals: Sequence[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        motion_strength: float | Sequence[float] | Tensor = 1.0,
        frame_positions: Tensor | None = None,
        motion_condition: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        image_prompt: Tensor | None = None,
        image_prompt_strength: float = 1.0,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[Tensor]:
        """Predict noise (or velocity).

        Args:
            sample: noisy latents `[b, c, f, h, w]`; any height and width.
            timestep: one for all, or `[b]`.
            encoder_hidden_states: text states `[b, n, d]`, shared by the frames of a video, or `[b, f, n, d]`, one text
                for each frame.
            down_block_additional_residuals: added to the skips, each `[b, c, f, h, w]`, or `[b, c, h, w]` for all
                frames.
            mid_block_additional_residual: added to the output of the middle, likewise.
            motion_strength: scales what the motion modules add, one number or one for each frame; 0 is the image model
                on every frame.
            frame_positions: `[f]` positions in time; by default 0, 1, 2 and so on.
            motion_condition: `[b, d]`, for motion modules that take one.
            added_cond_kwargs: of SDXL, as diffusers has it: `text_embeds [b, d]`, the whole text as one vector, and
                `time_ids [b, 6]`, height and width of the original picture, top and left of the crop, height and width
                asked for.
            image_prompt: tokens of a picture to attend to beside the text, `[b, m, d]`, where an image prompt adapter
                is loaded.
            image_prompt_strength: what the attention to the picture is multiplied with; 0 is the text alone.
            return_dict: False returns a tuple.

        Returns:
            The prediction, `[b, c, f, h, w]` like `sample`.

        Raises:
            ShapeError: `sample` is not five-dimensional, the text states are not one for each video, or the residuals
                not one for each skip.
            ConfigError: SDXL's conditions are missing, or given to another model; a picture without an image prompt
                adapter.
        """
        if sample.ndim != 5:
            raise ShapeError(f"sample must be [b, c, f, h, w]; given {tuple(sample.shape)}.")
        batch, _, num_frames = sample.shape[:3]
        text, text_of_video = _texts(encoder_hidden_states, batch, num_frames)
        prompt = text_and_image(self, text, image_prompt, image_prompt_strength, batch)
        time = self._embed_time(timestep, sample, added_cond_kwargs or {})
        context = self.motion_context(
            num_frames, frame_positions, time, text_of_video, motion_strength, motion_condition
        )
        layout = FrameLayout(batch, num_frames, self.backbone_norm_scope(context))
        active = nn.functional.silu(time)

        x = self.conv_in(layout.fold(sample.permute(0, 2, 3, 4, 1).contiguous()))
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, active, prompt, context, layout)
            skips += more
        if down_block_additional_residuals is not None:
            skips = _add_residuals(skips, down_block_additional_residuals, num_frames)
        x = self.mid_block(x, active, prompt, context, layout)
        if mid_block_additional_residual is not None:
            x = x + _fold_residual(mid_block_additional_residual, num_frames)
        for block in self.up_blocks:
            # Each gets a list of its own: offloading hooks hand copies to a block, so its pops are not seen here.
            rows = len(cast("UpLevel", block).resnets)
            own, skips = skips[-rows:], skips[:-rows]
            height, width = (skips or own)[-1].shape[-2:]
            x = block(x, own, (height, width), active, prompt, context, layout)
        x = group_norm(layout.unfold(x), self.conv_norm_out, layout.norm_scope)
        x = self.conv_out(layout.fold(nn.functional.silu(x)))
        prediction = layout.unfold(x).permute(0, 4, 1, 2, 3)
        return UNet3DConditionOutput(sample=prediction) if return_dict else (prediction,)

    def _embed_time(self, timestep: Tensor | float, sample: Tensor, added: Mapping[str, Tensor]) -> Tensor:
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        time = self.time_embedding(self.time_proj(steps).to(sample.dtype))
        if self.add_time_proj is None or self.add_embedding is None:
            if added:
                raise ConfigError("text_embeds and time_ids are conditions of SDXL; this U-Net has none of them.")
            return time
        if added.keys() != {"text_embeds", "time_ids"}:
            raise ConfigError("This U-Net is of the kind of SDXL: it needs text_embeds and time_ids.")
        text_embeds, time_ids = added["text_embeds"], added["time_ids"]
        sizes = self.add_time_proj(time_ids.flatten()).unflatten(0, time_ids.shape).flatten(1)
        return time + self.add_embedding(torch.cat([text_embeds, sizes.to(text_embeds)], dim=-1).to(time.dtype))


def _texts(states: Tensor, batch: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """What the spatial transformers attend to, `[b or b * f, n, d]`, and what motion modules are told, `[b, n, d]`."""
    if states.ndim == 3 and len(states) == batch:
        return states, states
    if states.ndim == 4 and states.shape[:2] == (batch, num_frames):
        return states.flatten(0, 1), states.mean(dim=1)
    raise ShapeError(
        f"encoder_hidden_states must be [{batch}, n, d], one text for each video, or [{batch}, {num_frames}, n, d], "
        f"one for each frame; given {tuple(states.shape)}."
    )


def _fold_residual(residual: Tensor, num_frames: int) -> Tensor:
    if residual.ndim == 4:
        return residual.repeat_interleave(num_frames, dim=0)
    return residual.transpose(1, 2).flatten(0, 1)


def _add_residuals(skips: list[Tensor], residuals: Sequence[Tensor], num_frames: int) -> list[Tensor]:
    if len(residuals) != len(skips):
        raise ShapeError(f"down_block_additional_residuals must be {len(skips)} tensors; given {len(residuals)}.")
    return [skip + _fold_residual(extra, num_frames) for skip, extra in zip(skips, residuals, strict=True)]
