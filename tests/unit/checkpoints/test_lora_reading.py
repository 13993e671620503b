"""Every dialect of LoRA files as the same list of layers; what is something else is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.checkpoints.lora import read_lora
from muybridge.errors import CheckpointError

DOWN, UP = torch.arange(6.0).reshape(2, 3), torch.arange(8.0).reshape(4, 2)
LAYER = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def pair(prefix: str, down: str, up: str) -> dict[str, Tensor]:
    return {f"{prefix}{down}.weight": DOWN, f"{prefix}{up}.weight": UP}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (pair(f"lora_unet_{LAYER}", ".lora_down", ".lora_up"), "backbone"),
        (pair(f"lora_unet__{LAYER}", ".lora_down", ".lora_up"), "backbone"),
        (pair(f"unet.{DOTTED}.to_q", ".lora_A", ".lora_B"), "backbone"),
        (pair(f"unet.{DOTTED}.to_q", ".lora.down", ".lora.up"), "backbone"),
        (pair(f"unet.{DOTTED}.processor.to_q_lora", ".down", ".up"), "backbone"),
        (pair(f"transformer.{DOTTED}.to_q", ".lora_A", ".lora_B"), "backbone"),
        (pair(f"module.{DOTTED}.processor.to_q_lora", ".down", ".up"), None),
        (pair(f"base_model.model.{DOTTED}.to_q", ".lora_A", ".lora_B"), None),
        (pair(f"{DOTTED}.to_q", ".lora_A.default", ".lora_B.default"), None),
        (pair(f"text_encoder.{DOTTED}.to_q", ".lora_linear_layer.down", ".lora_linear_layer.up"), "text_encoder"),
        (pair(f"lora_te_{LAYER}", ".lora_down", ".lora_up"), "text_encoder"),
        (pair(f"lora_te1_{LAYER}", ".lora_down", ".lora_up"), "text_encoder"),
        (pair(f"lora_te2_{LAYER}", ".lora_down", ".lora_up"), "text_encoder_2"),
        (pair(f"text_encoder_2.{DOTTED}.to_q", ".lora_A", ".lora_B"), "text_encoder_2"),
    ],
    ids=lambda value: next(iter(value))[:40] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_dialects(content: dict[str, Tensor], part: str | None, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"lora{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": content, "epoch": 3}, path)
    else:
        save_file(content, path)
    (found,) = read_lora(path)
    assert (found.part, found.name, found.alpha, found.rank) == (part, LAYER, None, 2)
    assert torch.equal(found.down, DOWN)
    assert torch.equal(found.up, UP)


def test_alphas(tmp_path: Path) -> None:
    content = pair(f"lora_unet_{LAYER}", ".lora_down", ".lora_up") | {
        f"lora_unet_{LAYER}.alpha": torch.tensor(0.5, dtype=torch.bfloat16)
    }
    save_file(content, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors")[0].alpha == 0.5


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"lora_alpha": 8}, 8.0),
        ({"lora_alpha": 8, "use_rslora": True}, 8 * 2**0.5),
        ({"lora_alpha": 8, "alpha_pattern": {f"^{DOTTED}.to_q": 3, "to_k": 5}}, 3.0),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 3}}, 3.0),
        ({"lora_alpha": 8, "alpha_pattern": {"ttn1.to_q": 3}}, 8.0),
        ({"r": 2}, None),
    ],
)
def test_settings_of_peft_and_diffusers(settings: dict[str, Any], alpha: float | None, tmp_path: Path) -> None:
    save_file(pair(f"base_model.model.{DOTTED}.to_q", ".lora_A", ".lora_B"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert read_lora(tmp_path)[0].alpha == pytest.approx(alpha)
    header = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in settings.items()})}
    save_file(pair(f"unet.{DOTTED}.to_q", ".lora_A", ".lora_B"), tmp_path / "other.safetensors", header)
    assert read_lora(tmp_path / "other.safetensors")[0].alpha == pytest.approx(alpha)


@pytest.mark.parametrize("text", ["{", "3", '{"lora_alpha": "many"}', '{"lora_alpha": NaN}'])
def test_damaged_settings(text: str, tmp_path: Path) -> None:
    save_file(pair(f"{DOTTED}.to_q", ".lora_A", ".lora_B"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="settings"):
        read_lora(tmp_path)


GOOD = pair(f"lora_unet_{LAYER}", ".lora_down", ".lora_up")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"down_blocks.0.resnets.0.conv1.weight": DOWN}, "is no LoRA: none of its 1 keys.*down_blocks.0.resnets"),
        (GOOD | {"lora_unet_x.hada_w1_a": DOWN}, "holds LoHa .*hada_w1_a"),
        (GOOD | {"lora_unet_x.lokr_w1": DOWN}, "holds LoKr"),
        (GOOD | {"lora_unet_x.lora_mid.weight": DOWN}, "LoCon"),
        (GOOD | {"lora_unet_x.diff_b": DOWN}, "differences"),
        (GOOD | {"lora_unet_x.w_norm": DOWN, "lora_unet_y.oft_diag": UP}, r"holds weights of norms and OFT \(.*w_norm"),
        (
            {f"lora_unet_{i}.oft_blocks": DOWN for i in range(300)},
            r"holds OFT \(lora_unet_0\.oft_blocks\), which is not",
        ),
        ({f"lora_unet_x.{name}.weight": DOWN for name in ("a1", "a2", "b1", "b2")}, "holds GLoRA"),
        ({"lora_unet_x.on_input": DOWN, "lora_unet_x.weight": DOWN}, "holds IA3"),
        ({"base_model.model.x.ia3_l": DOWN}, "holds IA3"),
        (GOOD | {"one": DOWN, "two": DOWN}, "neither a factor nor an alpha: one, two"),
        (GOOD | {f"k{i}": DOWN for i in range(9)}, r"neither a factor nor an alpha: k0, k1, k2 and 6 more\."),
        ({f"k{i}": DOWN for i in range(9)}, r"first keys: k0, k1, k2 and 6 more\)"),
        ({f"lora_unet_{LAYER}.lora_down.weight": DOWN}, f"incomplete: lora_unet_{LAYER} has no factor up"),
        (GOOD | {f"lora_unet_{LAYER}.lora_up.weight": torch.ones(4, 5)}, r"do not go together.*\[2, 3\] and \[4, 5\]"),
        (GOOD | {f"lora_unet_{LAYER}.lora_down.weight": torch.ones(2)}, "do not go together"),
        (GOOD | {f"lora_unet_{LAYER}.alpha": torch.ones(2)}, "alpha of 2 numbers"),
        (GOOD | {f"lora_unet_{LAYER}.alpha": torch.tensor(torch.inf)}, r"NaN or infinite values in .*\.alpha"),
        (GOOD | {f"lora_unet_{LAYER}.lora_up.weight": UP * torch.nan}, "NaN or infinite values"),
        (GOOD | pair(f"lora_unet_{LAYER}", ".lora_A", ".lora_B"), "two keys for the factor 'down'"),
    ],
)
def test_what_is_refused(content: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    save_file({key: value.clone() for key, value in content.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_lora(tmp_path / "x.safetensors")


class Runs:
    """Makes a file when unpickled by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_pickles_do_not_run(tmp_path: Path) -> None:
    torch.save({"x": Runs(tmp_path / "ran")}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="refused"):
        read_lora(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no LoRA in it: none of pytorch_lora_weights"):
        read_lora(tmp_path)
    with pytest.raises(CheckpointError, match="no weight file"):
        read_lora(tmp_path / "missing.safetensors")
    save_file(GOOD, tmp_path / "pytorch_lora_weights.safetensors")
    assert len(read_lora(tmp_path)) == 1
