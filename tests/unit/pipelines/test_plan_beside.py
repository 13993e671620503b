"""Plans count what is put into a model: LoRAs, networks beside it, another VAE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from muybridge.checkpoints.lora import LoraChange, write_lora
from muybridge.conditioning.kinds.control import Control
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines import load_pipeline
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.planning import plan_wishes
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.runtime.plan import PlannedRun, PlanSettings
from muybridge.types import VideoShape
from muybridge.weights.loading import load_strictly, parts_read_to

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = VideoShape(4, 32, 32)
RANK = 24


def planned(model: Path | ModelChoice, controls: Sequence[str] = (), device: str = "cuda") -> PlannedRun:
    choices = (PlanSettings("float32", "sequential"),)
    return plan_wishes(wishes_of(model, controls), SHAPE, device=device, choices=choices).runs[0]


def bytes_of(path: Path) -> int:
    return sum(tensor.nbytes for tensor in load_file(path).values())


@pytest.fixture
def lora(make_pipeline: Any, tmp_path: Path) -> Path:
    unet = make_pipeline().unet
    layers = {name: each for name, each in unet.named_modules() if isinstance(each, nn.Linear) and ".attn" in name}
    changes = {
        name: LoraChange(torch.randn(RANK, each.in_features), torch.randn(each.out_features, RANK), RANK)
        for name, each in layers.items()
    }
    write_lora(tmp_path / "lora.safetensors", {"backbone": changes}, "unet", "kohya")
    return tmp_path / "lora.safetensors"


def test_a_lora_counts_as_in_a_run(make_pipeline: Any, saved_pipeline: Path, lora: Path) -> None:
    def measured(pipeline: Any) -> int:
        whole = nn.ModuleList(part for part in pipeline.components.values() if isinstance(part, nn.Module))
        weights = sum(tensor.nbytes for tensor in [*whole.parameters(), *whole.buffers()])
        with TensorMemory() as memory:
            pipeline("a", num_frames=4, height=32, width=32, num_inference_steps=1, seed=0, batched_guidance=False)
        return weights + memory.peak_bytes

    pipeline = make_pipeline()
    plain = measured(pipeline)
    pipeline.load_lora_weights(lora)
    more = planned(ModelChoice(model=str(saved_pipeline), loras={str(lora): 1.0})).peak - planned(saved_pipeline).peak

    assert more > 0.99 * bytes_of(lora)  # alphas become plain numbers
    assert more == pytest.approx(measured(pipeline) - plain, rel=0.1)


def test_networks_beside_a_model_count_with_their_weights(saved_pipeline: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(300, 1000), "b": torch.zeros(7)}, tmp_path / "net.safetensors")
    (tmp_path / "image_encoder").mkdir()
    save_file({"c": torch.zeros(2000)}, tmp_path / "image_encoder" / "model.safetensors")
    net, own = str(tmp_path / "net.safetensors"), planned(saved_pipeline).peak
    roles = {"keyframes": net, "image_prompt": net}

    assert planned(saved_pipeline, (net,)).peak - own == 4 * 300_007
    both = planned(ModelChoice(model=str(saved_pipeline), networks=roles))
    assert both.peak - own == 2 * 4 * 300_007 + 4 * 2000
    assert set(both.peaks) - set(planned(saved_pipeline).peaks) == {"picture"}


def test_a_condition_says_which_network_it_brings() -> None:
    assert list(Control(model="edges.safetensors", frames="clip.mp4").networks()) == ["edges.safetensors"]
    assert list(Control(model=object(), frames="clip.mp4").networks()) == []


def test_another_vae_is_planned_in_the_place_of_the_own(saved_pipeline: Path, tmp_path: Path) -> None:
    settings = json.loads((saved_pipeline / "vae" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"layers_per_block": 3}))
    own, other = planned(saved_pipeline), planned(ModelChoice(model=str(saved_pipeline), vae=str(tmp_path)))
    assert other.peaks["denoise"] > own.peaks["denoise"]
    assert planned(ModelChoice(model=str(saved_pipeline), vae=str(saved_pipeline))) == own


def test_a_wrong_file_is_refused_in_the_words_of_loading(saved_pipeline: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "stranger.safetensors")
    with pytest.raises(CheckpointError) as plain:
        load_pipeline(tmp_path / "stranger.safetensors", motion_adapter=saved_pipeline / "motion_adapter")
    with pytest.raises(CheckpointError) as fitted:
        load_pipeline(
            tmp_path / "stranger.safetensors",
            motion_adapter=saved_pipeline / "motion_adapter",
            memory="1GB",
            device="cpu",
        )
    assert str(fitted.value) == str(plain.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"motion_adapter": "mm.ckpt"}, "has its motion modules in itself"),
        ({"networks": {"keyframes": "rgb.ckpt"}}, "has no network for keyframes; leave rgb.ckpt out"),
    ],
)
def test_what_loading_refuses_a_plan_refuses_too(parts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(ModelChoice(model="demo/easyanimate", **parts))


@pytest.mark.parametrize("model", ["demo/easyanimate", None])
def test_parts_go_to_their_place_one_by_one(saved_pipeline: Path, model: str | None) -> None:
    wishes: Wishes = wishes_of(model or saved_pipeline)
    with parts_read_to(torch.device("meta")):
        pipeline = wishes.family.load(wishes, torch.float32)
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    assert len(parts) >= 3
    assert {parameter.device.type for part in parts for parameter in part.parameters()} == {"meta"}

    host = nn.Linear(2, 2)
    load_strictly(host, host.state_dict(), "a layer")
    assert host.weight.device.type == "cpu"
