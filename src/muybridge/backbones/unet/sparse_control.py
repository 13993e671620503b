"""SparseCtrl: an encoder beside the U-Net that tells it what a few frames of the video look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from diffusers import SparseControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from muybridge.backbones.unet.blocks import DownLevel, Level, MidLevel
from muybridge.backbones.unet.config import UNetConfig
from muybridge.backbones.unet.layers import FrameLayout, PointwiseConvolution
from muybridge.backbones.unet.model import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control_embedding import PictureEmbedding, zeroed
from muybridge.backbones.unet.sparse_control_keys import (
    PublishedControl,
    describe_control_file,
    describe_diffusers_control,
    saved_class,
)
from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import MotionAdapter, MotionHost, MotionSite, TemporalConfig
from muybridge.motion.linear import Convolution
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_weights
from muybridge.weights.loading import load_folder, load_strictly

ConditionKind = Literal["rgb", "scribble"]
"""Pictures as latents of the VAE, or drawings (white lines on black) as pixels."""
_EMBEDDING_WIDTHS = (16, 32, 96, 256)
_EMBEDDING_FACTORS = (2, 4, 8)
"""By how much the first two of these widths make drawings smaller, the first three, and all."""


@dataclass
class SparseControlOutput(BaseOutput):
    """What the U-Net adds: `down_block_residuals` to its skips, `mid_block_residual` to its middle.

    Each is `[b, c, f, h, w]`.
    """

    down_block_residuals: tuple[Tensor, ...]
    mid_block_residual: Tensor


class SparseControlModel(MotionHost):
    """The down path and the middle of a U-Net, with motion modules of its own, and a convolution behind each skip.

    It never sees the noisy video: its input is the condition, known frames and zeros between them, and its motion
    modules carry what is known to the other frames. Source: arXiv 2311.16933; AnimateDiff,
    `animatediff/models/sparse_controlnet.py`.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DownLevel", "MidLevel"]
    _repeated_blocks = ["SpatialTransformerBlock", "MotionTransformerBlock"]
    _skip_layerwise_casting_patterns = ["norm", "time_embedding"]

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917  # the settings that `config.json` holds
        self,
        in_channels: int = 4,
        conditioning_channels: int = 4,
        use_simplified_condition_embedding: bool = True,
        conditioning_embedding_out_channels: Sequence[int] = _EMBEDDING_WIDTHS,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
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
        motion_adapter: SettingsDict | None = None,
    ) -> None:
        """The defaults are the published network for latents ("rgb"), without its motion modules.

        Names and meanings are diffusers'; as there, `attention_head_dim` is the *number* of heads. A network for
        drawings ("scribble") has 3 `conditioning_channels` and not the simplified embedding. `motion_adapter` as in
        `UNet3DConditionModel`.

        Raises:
            ConfigError: block types that are not supported, or an adapter that does not fit.
        """
        super().__init__()
        mirrored = [name.replace("Down", "Up") for name in reversed(down_block_types)]
        config = UNetConfig.from_keywords({**self.config, "out_channels": in_channels, "up_block_types": mirrored})
        channels = config.block_out_channels
        self.condition_channels = conditioning_channels + 1
        self.conv_in = Convolution(config.in_channels, channels[0], 3, padding=1)
        self.controlnet_cond_embedding: nn.Module = (
            zeroed(Convolution(self.condition_channels, channels[0], 3, padding=1))
            if use_simplified_condition_embedding
            else PictureEmbedding(self.condition_channels, conditioning_embedding_out_channels, channels[0])
        )
        self.time_proj = Timesteps(channels[0], config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(channels[0], config.time_embedding_dim)
        self.down_blocks = nn.ModuleList(DownLevel(config, level) for level in range(len(channels)))
        self.mid_block = MidLevel(config)
        self.controlnet_down_blocks = nn.ModuleList(
            zeroed(PointwiseConvolution(width, width)) for width in _skip_widths(config)
        )
        self.controlnet_mid_block = zeroed(PointwiseConvolution(channels[-1], channels[-1]))
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(_planes_on_cpu)
        if motion_adapter is not None:
            self.set_motion_adapter(MotionAdapter.from_settings(motion_adapter))

    @classmethod
    def from_unet(
        cls,
        unet: UNet3DConditionModel | UNet2DConditionModel,
        kind: ConditionKind = "rgb",
        motion: TemporalConfig | None = None,
        spatial_factor: int = 8,
    ) -> SparseControlModel:
        """A fresh one to train, in float32, whose output is zero: copies of the U-Net's layers, and new motion modules.

        Args:
            unet: the image model; its own motion modules are not taken over.
            kind: what the condition is.
            motion: settings of the motion modules; by default one attention of 8 heads, as published.
            spatial_factor: of the VAE, a power of 2 up to 8: by how much drawings are larger than latents.

        Raises:
            ConfigError: a U-Net with features that are not supported.
        """
        if isinstance(unet, UNet2DConditionModel):
            unet = UNet3DConditionModel.from_unet2d(unet)
        if unet.config.get("addition_embed_type") is not None:
            raise ConfigError("SparseCtrl is not made for U-Nets of SDXL's kind; use one of Stable Diffusion 1.5's.")
        own = {name: unet.config[name] for name in cls._get_init_keys(cls) & unet.config.keys() - {"motion_adapter"}}
        if kind == "scribble":
            if spatial_factor not in _EMBEDDING_FACTORS:
                raise ConfigError(f"Drawings are larger than latents by one of {_EMBEDDING_FACTORS}; {spatial_factor}.")
            widths = _EMBEDDING_WIDTHS[: _EMBEDDING_FACTORS.index(spatial_factor) + 2]
            own |= {"conditioning_channels": 3, "use_simplified_condition_embedding": False}
            own |= {"conditioning_embedding_out_channels": widths}
        else:
            own |= {"conditioning_channels": unet.config["out_channels"]}
        model = cls(**own)
        parts = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
        copied = {
            key: value for key, value in unet.state_dict().items() if key.startswith(parts) and ".motion_mod" not in key
        }
        model.load_state_dict({**model.state_dict(), **copied}, strict=True)
        sites = [site for name, site in model.motion_sites().items() if not name.startswith("mid_block.")]
        config = motion or TemporalConfig(attentions_per_block=1)
        model.set_motion_adapter(MotionAdapter.for_sites(sites, config=config))
        return cast("SparseControlModel", nn.Module.to(model, unet.device))

    @classmethod
    def from_single_file(
        cls,
        path: str | os.PathLike[str],
        numerics: str = "official-v3",
        num_heads: int = 8,
        norm_num_groups: int = 32,
        torch_dtype: torch.dtype = torch.float32,
    ) -> SparseControlModel:
        """Read one file, with the original's names (`v3_sd15_sparsectrl_rgb.ckpt`) or diffusers'.

        Wrappers (`controlnet`, `state_dict`), a leading `module.` and position tables are taken off. Which of the two
        networks it is, is read from its keys and shapes.

        Args:
            path: the file.
            numerics: norm scopes to run under; `official-v3` gives the original's numbers, `diffusers` diffusers'.
            num_heads: attention heads of all layers, which a file does not tell (8 in the published ones).
            norm_num_groups: groups of the norms around the motion modules, likewise (32).
            torch_dtype: what to convert the weights to.

        Raises:
            CheckpointError: unreadable or unsafe file, not a SparseCtrl, or an incomplete one.
        """
        found = read_weights(path, torch_dtype)
        published = describe_control_file(found, str(path), num_heads)
        settings = {"attention_head_dim": num_heads, "norm_num_groups": norm_num_groups}
        return cls._assembled(published, settings, numerics, str(path))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: object
    ) -> SparseControlModel:
        """Load a folder written by `save_pretrained`, or one of diffusers' `SparseControlNetModel`.

        The latter runs under the preset `diffusers` and gives the numbers that it gives there; for the original's,
        call `set_numerics("official-v3")`.

        Raises:
            CheckpointError: missing, damaged or NaN-filled weights, or weights that do not fit the config.
            ConfigError: diffusers' model has a feature that is not supported here.
        """
        folder = pretrained_model_name_or_path
        if folder is not None and saved_class(folder, kwargs) == SparseControlNetModel.__name__:
            name = SparseControlNetModel.__name__
            return cls.from_diffusers(load_folder(SparseControlNetModel.from_pretrained, folder, name, kwargs))
        return load_folder(super().from_pretrained, folder, cls.__name__, kwargs)

    @classmethod
    def from_diffusers(cls, source: SparseControlNetModel) -> SparseControlModel:
        """Make our model of diffusers' own; the two share their weights, and give the same numbers.

        Raises:
            ConfigError: a feature that is not supported here.
        """
        published = describe_diffusers_control(source.config, source.state_dict())
        return cls._assembled(published, {}, "diffusers", "SparseControlNetModel").train(source.training)

    @classmethod
    def _assembled(
        cls, published: PublishedControl, settings: SettingsView, numerics: str, source: str
    ) -> SparseControlModel:
        with torch.device("meta"):
            model = cls(**{**published.settings, **settings})
            model.set_motion_adapter(MotionAdapter(published.modules, numerics=numerics))
        load_strictly(model, published.state, source, assign=True)
        return model.eval()

    @property
    def kind(self) -> ConditionKind:
        """What its condition is: latents of pictures ("rgb") or pixels of drawings ("scribble")."""
        return "rgb" if self.config["use_simplified_condition_embedding"] else "scribble"

    @property
    def numerics(self) -> str | None:
        """Name of the preset of norm scopes; None without motion modules."""
        return None if self.motion_adapter is None else self.motion_adapter.numerics

    def set_numerics(self, name: str) -> None:
        """Switch to another preset of norm scopes; the weights stay.

        Raises:
            ConfigError: unknown preset, or there are no motion modules whose scopes could change.
        """
        if self.motion_adapter is None:
            raise ConfigError("This SparseCtrl has no motion modules; the preset would have no effect.")
        self.motion_adapter.set_numerics(name)
        self.register_to_config(motion_adapter=self.motion_adapter.settings())

    def motion_sites(self) -> dict[str, MotionSite]:
        """All sites, named as in the U-Net. The published networks leave that of the middle empty."""
        levels = ((name, module) for name, module in self.named_modules() if isinstance(module, Level))
        sites = (MotionSite(f"{prefix}.{name}", level.width) for prefix, level in levels for name in level.site_names())
        return {site.name: site for site in sites}

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        condition: Tensor,
        conditioning_scale: float = 1.0,
        guess_mode: bool = False,
        frame_positions: Tensor | None = None,
        return_dict: bool = True,
    ) -> SparseControlOutput | tuple[tuple[Tensor, ...], Tensor]:
        """Encode a condition.

        Args:
            sample: the noisy latents `[b, c, f, h, w]`; only their shape and dtype count.
            timestep: one for all, or `[b]`.
            encoder_hidden_states: text states, `[b, n, d]` or `[b, f, n, d]`.
            condition: `[a, c + 1, f, h', w']`, with the mask as last channel (1 where a frame is known); see
                `conditioning.keyframe_condition` and `conditioning.sketch_condition`. `h'`, `w'` are those of the
                latents for "rgb", of the pixels for "scribble". `a` must divide `b`; it is repeated, as guidance does.
            conditioning_scale: factor of all residuals.
            guess_mode: smaller factors for finer features, from 0.1 up to 1.
            frame_positions: `[f]` positions in time; by default 0, 1, 2 and so on.
            return_dict: False returns a tuple.

        Returns:
            The residuals for `UNet3DConditionModel`.

        Raises:
            ShapeError: a condition of another size than the sample, or text that is not one for each video.
        """
        self._check(sample, encoder_hidden_states, condition)
        batch, _, num_frames = sample.shape[:3]
        adapter = self.motion_adapter
        layout = FrameLayout(batch, num_frames, "frame" if adapter is None else adapter.preset.backbone_norm_scope)
        steps = torch.as_tensor(timestep, device=sample.device).expand(batch)
        time = self.time_embedding(self.time_proj(steps).to(sample.dtype))
        per_frame = encoder_hidden_states.ndim == 4
        text = encoder_hidden_states.flatten(0, 1) if per_frame else encoder_hidden_states
        of_video = encoder_hidden_states.mean(dim=1) if per_frame else encoder_hidden_states
        context = self.motion_context(num_frames, frame_positions, time, of_video, 1.0)
        active = nn.functional.silu(time)

        x = self._embed(condition.to(sample.dtype), sample)
        factors = self._factors(conditioning_scale, guess_mode)
        convolutions = iter(zip(self.controlnet_down_blocks, factors[:-1], strict=True))
        residuals = [_residual(*next(convolutions), x, layout)]
        for block in self.down_blocks:
            x, skips = block(x, active, text, context, layout)
            residuals += [_residual(*next(convolutions), skip, layout) for skip in skips]
        x = self.mid_block(x, active, text, context, layout)
        mid = _residual(self.controlnet_mid_block, factors[-1], x, layout)
        if not return_dict:
            return tuple(residuals), mid
        return SparseControlOutput(down_block_residuals=tuple(residuals), mid_block_residual=mid)

    def _check(self, sample: Tensor, text: Tensor, condition: Tensor) -> None:
        if sample.ndim != 5:
            raise ShapeError(f"sample must be [b, c, f, h, w]; given {tuple(sample.shape)}.")
        batch, _, num_frames = sample.shape[:3]
        per_frame = text.ndim == 4 and text.shape[1] == num_frames
        if len(text) != batch or not (text.ndim == 3 or per_frame):
            raise ShapeError(
                f"encoder_hidden_states must be [{batch}, n, d] or [{batch}, {num_frames}, n, d]; given "
                f"{tuple(text.shape)}."
            )
        known = condition.ndim == 5 and condition.shape[1:3] == (self.condition_channels, num_frames)
        if not known or batch % max(1, len(condition)):
            raise ShapeError(
                f"condition must be [a, {self.condition_channels}, {num_frames}, h, w] for {self.kind}, with a number "
                f"of conditions that divides the batch of {batch}; given {tuple(condition.shape)}."
            )

    def _embed(self, condition: Tensor, sample: Tensor) -> Tensor:
        """The first features `[b * f, c, h, w]`, channels last in memory."""
        count, _, num_frames = condition.shape[:3]
        images = condition.permute(0, 2, 3, 4, 1).contiguous().flatten(0, 1).permute(0, 3, 1, 2)
        embedded = self.controlnet_cond_embedding(images)
        if embedded.shape[-2:] != sample.shape[-2:]:
            raise ShapeError(
                f"This condition is for latents of {tuple(embedded.shape[-2:])}, and the sample's are "
                f"{tuple(sample.shape[-2:])}. Give {self.kind} conditions the size of the "
                f"{'latents' if self.kind == 'rgb' else 'pixels'}."
            )
        # The noisy input is replaced by zeros, of which a convolution leaves its bias; one pixel of it is enough.
        embedded = embedded + self.conv_in(sample.new_zeros(1, sample.shape[1], 1, 1))
        videos = embedded.unflatten(0, (count, num_frames)).repeat(sample.shape[0] // count, 1, 1, 1, 1)
        return videos.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def _factors(self, scale: float, guess_mode: bool) -> list[float]:
        count = len(self.controlnet_down_blocks) + 1
        return [scale * 10 ** (index / (count - 1) - 1) if guess_mode else scale for index in range(count)]


def _planes_on_cpu(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    # Frames without a condition are nearly constant, and torch's CPU kernel for channels-last input then loses most
    # digits of the variance; the one for whole planes does not.
    (image,) = inputs
    return (image.contiguous() if image.device.type == "cpu" else image,)


def _residual(convolution: nn.Module, factor: float, x: Tensor, layout: FrameLayout) -> Tensor:
    residual = layout.unfold(convolution(x)).permute(0, 4, 1, 2, 3)
    return residual if factor == 1.0 else residual * factor


def _skip_widths(config: UNetConfig) -> list[int]:
    channels = config.block_out_channels
    last = len(channels) - 1
    rows = [[width] * (config.layers_per_block + (level < last)) for level, width in enumerate(channels)]
    return [channels[0], *(width for row in rows for width in row)]
