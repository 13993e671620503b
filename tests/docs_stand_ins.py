"""Small files under the names that the documentation uses for files which people have."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tests import third_family
from tests.films import scene
from transformers import CLIPTextConfig, CLIPTextModel

from muybridge import (
    AnimateDiffPipeline,
    MotionAdapter,
    SparseControlModel,
    UNet3DConditionModel,
    Video,
    load_pipeline,
)
from muybridge.checkpoints import locate_model
from muybridge.checkpoints.motion_export import write_motion
from muybridge.demo.models import make_tokenizer
from muybridge.motion import TemporalConfig
from muybridge.sampling import make_scheduler

TEXT_WIDTH = 64
PICTURES = ("first.png", "last.png", "start.png", "end.png")
CLIPS = ("clip.mp4", "phone.mp4")
IMAGE_MODELS = ("path/to/sd15", "path/to/stable-diffusion-v1-5", "stable-diffusion-v1-5", "my-sd15")
EASYANIMATE = ("path/to/folder", "path/to/EasyAnimateV3-XL-2-InP-512x512", "path/to/EasyAnimateV3-XL-2-InP-960x960")
PROMPT_FILE = "configs/prompts/v3/v3-1-T2V.yaml"


class StandIns:
    """Makes what a page names, and nothing else, in a folder."""

    def __init__(self, text: str, folder: Path) -> None:
        self._text = text
        self._folder = folder

    def write(self) -> None:
        """Write all of them."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self._write()

    def _write(self) -> None:
        for name in PICTURES:
            self._make(name, _write_picture)
        for name in CLIPS:
            self._make(name, _write_clip)
        if (shown := re.search(r"^```yaml\n(.*?)^```", self._text, re.MULTILINE | re.DOTALL)) is not None:
            self._make("red.yaml", lambda path: path.write_text(shown.group(1)))
        for name in EASYANIMATE:
            self._make(name, lambda path: path.symlink_to(locate_model("demo/easyanimate")))
        self._make("animatediff-sparsectrl-rgb", lambda path: path.symlink_to(_demo_control()))
        self._make("v3_sd15_sparsectrl_rgb.ckpt", _write_sparse_control)
        self._make("path/to/videos", _write_raw_videos)
        self._make("runs", lambda path: path.symlink_to(Path(__file__).resolve().parents[1] / "runs"))
        self._make("path/to/PixArt-XL-2-512x512", third_family.write_image_model)
        self._make("pixart-motion", third_family.write_motion)
        self._make("my-pixart", _write_third_family)
        if any(name in self._text for name in (*IMAGE_MODELS, "my-model", "mm_sd_v15_v2.ckpt")):
            self._write_models(_make_pipeline())

    def _write_models(self, pipeline: AnimateDiffPipeline) -> None:
        self._make("my-model", pipeline.save_pretrained)
        for name in IMAGE_MODELS:
            self._make(name, lambda path: _write_image_model(pipeline, path))
        self._make("v3_sd15_mm.ckpt", lambda path: _write_motion(pipeline, path, "original", "mid_block"))
        self._make("mm_sd_v15_v2.ckpt", lambda path: _write_motion(pipeline, path, "original"))
        self._make(
            "path/to/motion-adapter-v1-5-3", lambda path: _write_motion(pipeline, path, "diffusers", "mid_block")
        )
        self._make("dreamshaper.safetensors", lambda path: save_file(_make_unet().state_dict(), path))
        for name in ("style.safetensors", "styles/style.safetensors"):
            self._make(name, lambda path: _write_lora(pipeline, path))
        self._make("v2_lora_PanLeft.ckpt", lambda path: _write_motion_lora(pipeline, path))
        self._make("EasyNegative.safetensors", lambda path: save_file({"emb_params": torch.randn(2, TEXT_WIDTH)}, path))
        self._make("vae-ft-mse-840000-ema-pruned.ckpt", lambda path: torch.save(pipeline.vae.state_dict(), path))
        self._make(PROMPT_FILE, lambda path: _write_prompt_file(pipeline, path))

    def _make(self, name: str, write: Callable[[Path], object]) -> None:
        if name in self._text:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)


def _write_third_family(path: Path) -> None:
    place = path.parent
    load_pipeline(place / "path/to/PixArt-XL-2-512x512", motion_adapter=place / "pixart-motion").save_pretrained(path)


def _write_picture(path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(path)


def _write_clip(path: Path) -> None:
    frames = np.full((16, 64, 64, 3), 200, np.uint8)
    frames[:, 20:40, 20:40] = (220, 30, 30)
    Video(frames, 8.0).save(path)


def _write_raw_videos(path: Path) -> None:
    """Two videos of two scenes each, along which a camera passes, and what is no video."""
    path.mkdir()
    (path / "broken.mp4").write_bytes(b"no video")
    for number in (0, 2):
        scenes = [scene(seed, 42, (512, 512), (2.0, 0.0)) for seed in (number, number + 1)]
        Video(np.stack(list(itertools.chain(*scenes))), 12.0).save(path / f"day {number}.mp4")


def _demo_control() -> Path:
    return locate_model("demo/animatediff") / "keyframe_control"


def _write_sparse_control(path: Path) -> None:
    model = SparseControlModel.from_pretrained(_demo_control())
    torch.save(
        {k.replace("_modules.0.", "_modules.0.temporal_transformer."): v for k, v in model.state_dict().items()}, path
    )


def _make_unet() -> UNet2DConditionModel:
    """In proportions that a single file of Stable Diffusion 1.5 may have."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    ).eval()


def _make_pipeline() -> AnimateDiffPipeline:
    tokenizer = make_tokenizer()
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vae: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    unet = UNet3DConditionModel.from_unet2d(_make_unet())
    return AnimateDiffPipeline(
        vae=AutoencoderKL(**vae).eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)).eval(),
        tokenizer=tokenizer,
        unet=unet,
        motion_adapter=MotionAdapter.for_sites(unet.motion_sites().values(), config=TemporalConfig()),
        scheduler=make_scheduler("ddim"),  # type: ignore[arg-type]
        default_steps=2,
        default_guidance=5.0,
    )


def _write_image_model(pipeline: AnimateDiffPipeline, path: Path) -> None:
    pipeline.save_pretrained(path)
    shutil.rmtree(path / "motion_adapter")
    shutil.rmtree(path / "unet")
    _make_unet().save_pretrained(path / "unet")
    index = json.loads((path / "model_index.json").read_text())
    del index["motion_adapter"]
    index |= {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (path / "model_index.json").write_text(json.dumps(index))


def _write_motion(pipeline: AnimateDiffPipeline, path: Path, layout: str, left_out: str = "nothing") -> None:
    sites = [site for name, site in pipeline.unet.motion_sites().items() if not name.startswith(left_out)]
    write_motion(MotionAdapter.for_sites(sites, config=TemporalConfig()), path, layout)


def _write_lora(pipeline: AnimateDiffPipeline, path: Path) -> None:
    out, inner = pipeline.unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight").shape
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2"
    down, up = torch.randn(2, inner), torch.randn(out, 2)
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}, path)


def _write_motion_lora(pipeline: AnimateDiffPipeline, path: Path) -> None:
    content = {}
    for name, site in pipeline.unet.motion_sites().items():
        key = f"{name}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
        content[f"{key}.down.weight"] = torch.randn(2, site.width)
        content[f"{key}.up.weight"] = torch.randn(site.width, 2)
    torch.save({"state_dict": content}, path)


def _write_prompt_file(pipeline: AnimateDiffPipeline, path: Path) -> None:
    motion_module = path.with_name("v3_sd15_mm.ckpt").resolve()
    _write_motion(pipeline, motion_module, "original", "mid_block")
    job = {
        "motion_module": str(motion_module),
        "seed": [1],
        "steps": 2,
        "guidance_scale": 4,
        "L": 2,
        "H": 16,
        "W": 16,
        "prompt": ["a red circle"],
        "n_prompt": [""],
    }
    path.write_text(yaml.safe_dump([job]))
