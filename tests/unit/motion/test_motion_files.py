"""Motion files in the original's names, in every wrapper in which they are about."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig
from muybridge.motion.reading import position_table
from muybridge.motion.sites import sites_of_unet

WIDTHS = {"down_blocks.0": 32, "down_blocks.1": 64, "up_blocks.0": 64, "up_blocks.1": 32}
SITES = [MotionSite(name, WIDTHS[name.split(".motion")[0]]) for name in sites_of_unet([1, 1], mid=False)]
MID = MotionSite("mid_block.motion_modules.0", 64)


@pytest.fixture(scope="module")
def adapter() -> MotionAdapter:
    """A whole set for two levels, random weights, 4 heads."""
    return drawn(SITES, num_heads=4)


def drawn(sites: Sequence[MotionSite], **config: Any) -> MotionAdapter:
    made = MotionAdapter.for_sites(sites, config=TemporalConfig(**config))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def original_names(adapter: MotionAdapter, table_frames: int | None = None) -> dict[str, Tensor]:
    state = {}
    for key, value in adapter.state_dict().items():
        name = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", key)
        state[name] = value.clone()
        if table_frames is not None and name.endswith("to_q.weight"):
            state[name.removesuffix("to_q.weight") + "pos_encoder.pe"] = position_table(table_frames, len(value))
    return state


def with_unet_around(state: dict[str, Tensor]) -> dict[str, Tensor]:
    image = {"conv_in.weight": torch.ones(32, 4, 3, 3), "down_blocks.0.resnets.0.norm1.weight": torch.ones(32)}
    return {f"module.{key}": value for key, value in (image | state).items()}


def with_steps(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 3, "global_step": 1000, "state_dict": with_unet_around(state)}


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "bare": dict,
    "state_dict": lambda state: {"state_dict": state},
    "trainer": with_steps,
    "whole network": with_unet_around,
    "dummy entry": lambda state: {**state, "animatediff_config": {"version": 1}},
}


def load(content: Any, folder: Path, suffix: str = ".ckpt", name: str = "v3_sd15_mm", **options: Any) -> MotionAdapter:
    path = folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return MotionAdapter.from_single_file(path, **{"num_heads": 4, **options})


def assert_same(found: MotionAdapter, expected: MotionAdapter) -> None:
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert found.sites == expected.sites


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_wrappers(adapter: MotionAdapter, tmp_path: Path, wrapper: str, suffix: str) -> None:
    assert_same(load(WRAPPERS[wrapper](original_names(adapter, 32)), tmp_path, suffix), adapter)


@pytest.mark.parametrize("wrapper", ["bare", "whole network"])
def test_safetensors(adapter: MotionAdapter, tmp_path: Path, wrapper: str) -> None:
    assert_same(load(WRAPPERS[wrapper](original_names(adapter)), tmp_path, ".safetensors"), adapter)


@pytest.mark.parametrize(
    ("table_frames", "mid", "numerics", "trained"),
    [
        (24, False, "official-v1", 24),
        (32, False, "official-v3", 32),
        (None, False, "official-v3", 32),
        (32, True, "official-v2", 32),
        (24, True, "official-v2", 24),
    ],
)
def test_version(
    adapter: MotionAdapter, tmp_path: Path, table_frames: int | None, mid: bool, numerics: str, trained: int
) -> None:
    if mid:
        adapter = drawn([*SITES, MID], num_heads=4)
    found = load(original_names(adapter, table_frames), tmp_path, name="mm_sd_v15_v2" if mid else "v3_sd15_mm")
    assert_same(found, adapter)
    assert found.numerics == numerics
    assert found.trained_frames == trained


def test_numerics_can_be_chosen(adapter: MotionAdapter, tmp_path: Path) -> None:
    found = load(original_names(adapter), tmp_path, numerics="diffusers")
    assert found.numerics == "diffusers"
    assert {module.config.to_dict()["norm_scope"] for _, module in found.motion_modules()} == {"video"}


def test_depths_are_read_from_the_names(tmp_path: Path) -> None:
    config: dict[str, Any] = {"num_heads": 4, "num_blocks": 2, "attentions_per_block": 1}
    made = drawn(SITES, **config)
    found = load(original_names(made), tmp_path)
    assert_same(found, made)
    assert {module.config for _, module in found.motion_modules()} == {TemporalConfig(**config)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_smaller_dtypes_become_float32(adapter: MotionAdapter, tmp_path: Path, dtype: torch.dtype) -> None:
    """Without an alarm about position tables, which are rounded too, those of 8 bits from half precision."""
    stored = {name: value.half().to(dtype) for name, value in original_names(adapter, 32).items()}
    found = load(stored, tmp_path, ".safetensors").state_dict()
    assert all(torch.equal(found[name], value.half().to(dtype).float()) for name, value in adapter.state_dict().items())


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_not_a_motion_file(tmp_path: Path, suffix: str) -> None:
    state = {"conv_in.bias": torch.zeros(4), "conv_in.weight": torch.zeros(4, 4)}
    with pytest.raises(CheckpointError, match=r"no motion modules: none of its 2 keys.*conv_in.bias, conv_in.weight"):
        load(state, tmp_path, suffix)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (r"up_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight", "up_blocks.0.motion_modules.0.proj_out"),
        (r"up_blocks.0.motion_modules.0.temporal_transformer.norm.weight", "up_blocks.0.motion_modules.0.norm.weight"),
        (r"up_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.", "attention_blocks.0.to_q.weight"),
        (r"temporal_transformer.transformer_blocks.0.attention_blocks.1.", "norms.1"),
        (
            r"up_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.",
            "1 of the 2 att",
        ),
        (r"up_blocks.1.", "has 4 and lacks those at up_blocks.1.motion_modules.0, up_blocks.1.motion_modules.1. Copy"),
        (r"down_blocks.1.", "lacks those at down_blocks.1.motion_modules.0."),
        (r"up_blocks.0.motion_modules.1.", "lacks those at up_blocks.0.motion_modules.1."),
        (r"down_blocks.", "down_blocks.0.motion_modules.0, down_blocks.1.motion_modules.0."),
    ],
)
def test_incomplete(adapter: MotionAdapter, tmp_path: Path, missing: str, named: str) -> None:
    state = {name: value for name, value in original_names(adapter).items() if missing not in name}
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        load(state, tmp_path)


@pytest.mark.parametrize("shape", [(32, 32), (64,), (64, 64, 1, 1)])
def test_wrong_shape(adapter: MotionAdapter, tmp_path: Path, shape: tuple[int, ...]) -> None:
    state = original_names(adapter)
    state["up_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=r"shapes that do not fit: up_blocks.0.*proj_in.weight .*\(64, 64\)"):
        load(state, tmp_path)


@pytest.mark.parametrize("shape", [(), (64, 1), (1, 64), (32,)])
def test_wrong_shape_of_what_tells_the_width(adapter: MotionAdapter, tmp_path: Path, shape: tuple[int, ...]) -> None:
    state = original_names(adapter)
    state["up_blocks.0.motion_modules.0.temporal_transformer.norm.weight"] = torch.zeros(shape)
    with pytest.raises((CheckpointError, ConfigError)):
        load(state, tmp_path)


def test_damaged_position_table_is_ignored(adapter: MotionAdapter, tmp_path: Path) -> None:
    state = original_names(adapter, 24)
    tables = {name: torch.zeros(3) for name in state if name.endswith("pos_encoder.pe")}
    assert load(state | tables, tmp_path).numerics == "official-v3"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_not_numbers(adapter: MotionAdapter, tmp_path: Path, value: float) -> None:
    state = original_names(adapter)
    state["up_blocks.0.motion_modules.0.temporal_transformer.proj_in.bias"][5] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in up_blocks.0.motion_modules.0.proj_in.bias"):
        load(state, tmp_path)


def test_two_names_for_one_weight(adapter: MotionAdapter, tmp_path: Path) -> None:
    state = original_names(adapter)
    name = "up_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
    with pytest.raises(CheckpointError, match=r"both mean 'up_blocks.0.motion_modules.0.norm.weight'"):
        load(state | {f"module.{name}": state[name]}, tmp_path)


def test_a_long_list_of_missing_sites_is_cut_with_a_count(tmp_path: Path) -> None:
    widths = dict.fromkeys(sites_of_unet([2, 2, 2], mid=True), 16)
    made = drawn([MotionSite(name, width) for name, width in widths.items()], num_heads=4, norm_groups=16)
    state = {key: value for key, value in original_names(made).items() if not key.startswith("up_")}
    with pytest.raises(
        CheckpointError, match=r"has 7 and lacks those at up_blocks\.0\.[^,]*, [^,]*, [^,]* and 6 more\."
    ):
        load(state, tmp_path)


def test_heads_must_divide_the_width(adapter: MotionAdapter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_heads"):
        load(original_names(adapter), tmp_path, num_heads=7)


class RunsCode:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("through_torch", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    adapter: MotionAdapter, tmp_path: Path, through_torch: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "motion.ckpt"
    content = {**original_names(adapter), "extra": RunsCode(marker)}
    if through_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match=r"was refused.*Nothing in it was run.*safetensors"):
        MotionAdapter.from_single_file(path, num_heads=4)
    assert not marker.exists()
    pickle.loads(pickle.dumps(content))  # the trap works where nobody looks out for it
    assert marker.exists()
