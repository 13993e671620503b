"""What all tests share: one thread, no network, and the cases recorded from the original programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

# Before any test module imports a library that reads it.
os.environ["HF_HUB_OFFLINE"] = "1"

GOLDEN_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"

GoldenLoader = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _caches_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shipped_model() -> str:
    """The name of the model in the package; what needs it fails where it is missing, for then the package is broken."""
    from muybridge.checkpoints import locate_model

    name = "demo/animatediff"
    locate_model(name)
    return name


@pytest.fixture(scope="session")
def golden() -> GoldenLoader:
    """A loader: name of a case -> (tensors by name, its description); a manifest has no tensors.

    The folder is not part of the repository, so the tests that need it are skipped where it is absent.
    """
    if not GOLDEN_FOLDER.is_dir():
        pytest.skip(f"the recorded cases are not at {GOLDEN_FOLDER}")

    def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        description = json.loads((GOLDEN_FOLDER / f"{name}.json").read_text())
        tensors = GOLDEN_FOLDER / f"{name}.safetensors"
        return (load_file(tensors) if tensors.exists() else {}), description

    return load


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random Stable Diffusion XL as diffusers writes it: the image model in `base`, a motion adapter in `motion`.

    Copy it before changing it.
    """
    import diffusers
    import transformers

    from muybridge.demo.models import make_tokenizer

    folder = tmp_path_factory.mktemp("sdxl")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizers = make_tokenizer(), make_tokenizer()
        # As published: the second encoder's prompts are padded with another token than the end.
        tokenizers[1].pad_token = tokenizers[1].unk_token
        text: dict[str, Any] = {
            "vocab_size": len(tokenizers[0]),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 24,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        }
        unet: dict[str, Any] = {
            "sample_size": 8,
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "cross_attention_dim": 32,
            "attention_head_dim": (1, 2, 4),
            "transformer_layers_per_block": (1, 1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 12 + 6 * 8,
        }
        vae: dict[str, Any] = {
            "block_out_channels": (16, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "latent_channels": 4,
            "scaling_factor": 0.13025,
        }
        clip = transformers.CLIPTextConfig
        base = diffusers.StableDiffusionXLPipeline(
            vae=diffusers.AutoencoderKL(**vae),
            text_encoder=transformers.CLIPTextModel(clip(**text)),
            text_encoder_2=transformers.CLIPTextModelWithProjection(clip(**text, projection_dim=12, hidden_act="gelu")),
            tokenizer=tokenizers[0],  # type: ignore[arg-type]  # of the same interface as CLIP's
            tokenizer_2=tokenizers[1],  # type: ignore[arg-type]
            unet=diffusers.UNet2DConditionModel(**unet),
            scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),  # type: ignore[arg-type]
            add_watermarker=False,
        )
        motion = diffusers.MotionAdapter(
            block_out_channels=(32, 32, 64), motion_num_attention_heads=8, use_motion_mid_block=False
        )
        with torch.no_grad():
            for network in (base.text_encoder, base.text_encoder_2, base.unet, motion):
                for parameter in network.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        base.save_pretrained(folder / "base")
        motion.save_pretrained(folder / "motion")
    return folder
