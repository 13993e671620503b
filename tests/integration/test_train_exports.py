"""Train = infer: what is exported, loaded anew, predicts what the trained network predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from tests.unit.training.methods.test_lora import image_unet, small_method
from torch import Tensor, nn

from muybridge import load_pipeline
from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion
from muybridge.errors import ConfigError
from muybridge.training.methods.lora import LoraMethod, LoraParts, LoraShape
from muybridge.training.run_file import load_run
from muybridge.training.stages.registry import training_data

RUNS = Path(__file__).resolve().parents[2] / "runs"


def prepared(name: str, *settings: str) -> Any:
    run = load_run(RUNS / f"{name}.yaml", ["batch_size=1", *settings])
    torch.manual_seed(0)
    return run.last.prepare(Path("nowhere"), training_data(run.data))


def trained_somehow(method: nn.Module) -> Any:
    """With other numbers in everything that learns."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return method.eval()


def predictions(backbone: Any) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    latents = torch.randn(1, 4, 2, 16, 16, generator=generator)
    states = torch.randn(1, 24, backbone.config["cross_attention_dim"], generator=generator)
    with torch.no_grad():
        return backbone(latents, torch.tensor([501]), states, frame_positions=torch.arange(2.0)).sample


def assert_same(found: Tensor, trained: Tensor) -> None:
    assert float((found - trained).abs().max() / trained.abs().max()) <= 1e-5


@pytest.mark.parametrize(("name", "settings"), [("motion-lora", ["rank=4"]), ("domain-adapter", ["rank=4", "alpha=1"])])
def test_loras_of_animatediffs_kind(name: str, settings: list[str], tmp_path: Path) -> None:
    work = prepared(name, *settings)
    lora = trained_somehow(work.method)
    wanted = predictions(lora.method.backbone)
    (exported,) = work.trained_parts().values()

    pipeline = load_pipeline("demo/animatediff")
    if name == "domain-adapter":
        pipeline.remove_motion_adapter()
    plain = predictions(pipeline.backbone)
    for dialect in ("original", "diffusers", "kohya"):
        replace(exported, dialect=dialect).save_pretrained(tmp_path / dialect)
        pipeline.load_lora_weights(tmp_path / dialect)
        found = predictions(pipeline.backbone)
        assert_same(found, wanted)
        assert float((found - plain).abs().max()) > 1e-2
        pipeline.unload_lora_weights()


@pytest.mark.parametrize("layout", ["muybridge", "diffusers"])
def test_motion_modules(layout: str, tmp_path: Path) -> None:
    work = prepared("custom-motion", "motion.config={num_heads: 4, trained_frames: 16}")
    wanted = predictions(trained_somehow(work.method).backbone)
    adapter: Any = work.trained_parts()["motion_adapter"]

    write_motion(adapter, tmp_path / "motion", layout)
    pipeline = load_pipeline("demo/animatediff")
    pipeline.set_motion_adapter(read_motion(tmp_path / "motion", numerics="official-v3").adapter)

    assert_same(predictions(pipeline.backbone), wanted)


@pytest.mark.parametrize("dora", [False, True])
def test_diffusers_loads_a_lora(dora: bool, tmp_path: Path) -> None:
    method, _ = small_method("image")
    lora = trained_somehow(LoraMethod(method, LoraParts("spatial"), LoraShape(rank=4, alpha=3.0, dora=dora)))
    backbone: Any = method.backbone
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 4, 16)
    with torch.no_grad():
        wanted = backbone(*inputs).sample
    path = lora.save(tmp_path / "lora.safetensors", "diffusers")
    lora.remove()

    theirs = image_unet()
    theirs.load_state_dict(backbone.state_dict())
    assert type(theirs) is UNet2DConditionModel
    with safe_open(path, "pt") as file:
        assert "lora_adapter_metadata" in file.metadata()
    theirs.load_lora_adapter(tmp_path, prefix="unet", weight_name="lora.safetensors")

    with torch.no_grad():
        assert_same(theirs.eval()(*inputs).sample, wanted)


def test_a_dialect_is_refused_before_anything_is_trained_and_fits_the_model_by_default() -> None:
    transformer, whole = "base=demo/easyanimate", "num_frames=null"
    with pytest.raises(ConfigError, match="in a U-Net only"):
        prepared("motion-lora", transformer, "rank=2", whole, "dialect=original")
    for base, dialect in ((transformer, "diffusers"), ("base=demo/animatediff", "original")):
        (folder,) = prepared("motion-lora", base, "rank=2", whole).trained_parts().values()
        assert folder.dialect == dialect
