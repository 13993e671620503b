"""The family of `examples/pixart_frames`, as installed, and tiny models of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from torch import nn
from transformers import T5Config, T5EncoderModel

from muybridge import MotionAdapter, Transformer3DModel
from muybridge.demo.models import make_tokenizer
from muybridge.motion import TemporalConfig
from muybridge.sampling import make_plain_scheduler
from muybridge.sampling.schedulers import EASYANIMATE_BETAS

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "pixart_frames"
NAME = "PixArtFramesPipeline"


def install(site: Path, name: str = "pixart-frames", value: str = "pixart_frames.family:FAMILY") -> Path:
    """What an installer leaves of a package in editable form: the facts about it, with its entry point."""
    info = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[muybridge.families]\n{NAME} = {value}\n")
    return site


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """The package is installed, by what an installer leaves in `site`; afterwards nothing of it is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(install(site)))
        patch.syspath_prepend(str(EXAMPLE / "src"))
        yield
    for name in [each for each in sys.modules if each.split(".")[0] == "pixart_frames"]:
        del sys.modules[name]


def image_parts() -> dict[str, Any]:
    """A tiny PixArt for pictures of 64 x 64."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
        caption_channels=16,
        cross_attention_dim=32,
        use_additional_conditions=None,
    )
    nn.init.normal_(transformer.proj_out.weight, std=0.1)
    vae: dict[str, Any] = {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "norm_num_groups": 4,
    }
    return {
        "vae": AutoencoderKL(**vae).eval(),
        "text_encoder": T5EncoderModel(text).eval(),
        "tokenizer": tokenizer,
        "transformer": transformer.eval(),
        "scheduler": make_plain_scheduler("ddim", EASYANIMATE_BETAS),
    }


def write_image_model(folder: Path) -> None:
    """As diffusers saves PixArt."""
    parts = image_parts()
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    classes = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    classes |= {name: ["transformers", classes[name][1]] for name in ("tokenizer", "text_encoder")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline", **classes}))


def write_motion(folder: Path) -> None:
    """A motion adapter for it, of AnimateDiff's kind."""
    host = Transformer3DModel.from_transformer2d(image_parts()["transformer"], 4, clip_channels=None, enable_uvit=False)
    config = TemporalConfig(num_heads=2, norm_groups=8)
    adapter = MotionAdapter.for_sites(host.motion_sites().values(), "temporal", config)
    for _, module in adapter.motion_modules():
        nn.init.normal_(module.get_parameter("proj_out.weight"), std=0.3)
    adapter.save_pretrained(folder)
