"""Motion adapters in everybody's files: read, written, and read again by diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from muybridge.checkpoints.motion_export import MOTION_LAYOUTS, diffusers_weights, original_weights, write_motion
from muybridge.checkpoints.motion_files import adapter_from_weights, read_motion
from muybridge.errors import CheckpointError, ConfigError, OutputError
from muybridge.motion import MotionAdapter, MotionSite
from muybridge.motion.variants import VARIANTS

AdapterMaker = Callable[..., MotionAdapter]
NAMES = {"diffusers": "adapter_v2", "muybridge": "adapter_v2", "original": "adapter_v2.ckpt"}


def as_hotshot(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HotshotXL's names for the original's weights."""
    renamed = {}
    for key, value in original.items():
        name = key.replace(".motion_modules.", ".temporal_attentions.").replace(".temporal_transformer.", ".")
        renamed[name.replace(".pos_encoder.pe", ".pos_encoder.positional_encoding")] = value
    return renamed


def without_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith((".pe", ".positional_encoding"))}


def assert_same(found: MotionAdapter, expected: MotionAdapter) -> None:
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(value.dtype == states[1][name].dtype for name, value in states[0].items())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def diffusers_state(folder: Path) -> dict[str, Any]:
    return diffusers.MotionAdapter.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("mid", [False, True])
@pytest.mark.parametrize("layout", MOTION_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_written_adapter_is_read_bit_by_bit(
    make_adapter: AdapterMaker, tmp_path: Path, layout: str, mid: bool, dtype: torch.dtype
) -> None:
    adapter = make_adapter(mid=mid)
    torch.nn.Module.to(adapter, dtype)
    target = write_motion(adapter, tmp_path / NAMES[layout], layout)
    again = read_motion(target).adapter
    assert_same(again, adapter)
    assert again.trained_frames == 32


def test_three_conversions_in_a_row_change_no_bit(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    adapter = make_adapter(mid=True, frames=24)
    step = write_motion(adapter, tmp_path / "a_v2.safetensors", "original")
    step = write_motion(read_motion(step).adapter, tmp_path / "b_v2", "diffusers")
    step = write_motion(read_motion(step).adapter, tmp_path / "c_v2.ckpt", "original")
    assert_same(read_motion(step).adapter, adapter)
    first, last = load_file(tmp_path / "a_v2.safetensors"), torch.load(step, weights_only=True)
    assert first.keys() == last.keys()
    assert all(torch.equal(first[key], last[key]) for key in first)


@pytest.mark.parametrize(("levels", "mid", "frames"), [(4, False, 24), (4, True, 32), (4, False, 32), (3, False, 32)])
def test_diffusers_opens_what_is_written(
    make_adapter: AdapterMaker, tmp_path: Path, levels: int, mid: bool, frames: int
) -> None:
    adapter = make_adapter(levels, mid, frames)
    folder = write_motion(adapter, tmp_path / "adapter", "diffusers")
    file = write_motion(adapter, tmp_path / "adapter.safetensors", "original")
    found = diffusers_state(folder)
    expected = diffusers_weights(adapter)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    opened = diffusers.MotionAdapter.from_single_file(str(file), config=str(folder)).state_dict()
    weights = without_tables(expected)
    assert all(torch.equal(opened[key], value) for key, value in weights.items())
    assert opened.keys() == found.keys()


@pytest.mark.parametrize(
    ("config", "mid"),
    [({"use_motion_mid_block": True}, True), ({"use_motion_mid_block": False, "motion_max_seq_length": 24}, False)],
)
def test_a_folder_of_diffusers_is_read(tmp_path: Path, config: dict[str, Any], mid: bool) -> None:
    theirs = diffusers.MotionAdapter(
        block_out_channels=(32, 64, 64, 64), motion_num_attention_heads=4, motion_norm_num_groups=16, **config
    )
    theirs.save_pretrained(tmp_path / "theirs_v2")
    loaded = read_motion(tmp_path / "theirs_v2")
    spec = loaded.adapter.config["modules_by_site"]["down_blocks.0.motion_modules.0"]
    assert (spec["config"]["num_heads"], spec["config"]["norm_groups"]) == (4, 16)
    assert ("mid_block.motion_modules.0" in loaded.adapter.sites) == mid
    assert loaded.adapter.trained_frames == config.get("motion_max_seq_length", 32)
    again = write_motion(loaded.adapter, tmp_path / "ours", "diffusers")
    before, after = theirs.state_dict(), diffusers_state(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_half_precision_folders_of_diffusers(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    adapter = make_adapter(mid=True)
    folder = write_motion(adapter, tmp_path / "adapter_v2", "diffusers")
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert_same(read_motion(folder).adapter, adapter)


WRAPPERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bare": dict,
    "state_dict": lambda state: {"state_dict": state},
    "training": lambda state: {
        "epoch": 1,
        "global_step": 10,
        "state_dict": {f"module.{k}": v for k, v in (state | {"conv_in.weight": torch.ones(32, 4, 3, 3)}).items()},
    },
    "dummy entry": lambda state: {**state, "animatediff_config": {"version": 1}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("tables", [True, False])
def test_wrappers_of_the_original(make_adapter: AdapterMaker, tmp_path: Path, wrapper: str, tables: bool) -> None:
    adapter = make_adapter(mid=True)
    state = original_weights(adapter)
    path = tmp_path / "motion_v2.ckpt"
    torch.save(WRAPPERS[wrapper](state if tables else without_tables(state)), path)
    assert_same(read_motion(path).adapter, adapter)


@pytest.mark.parametrize("layout", ["original", "diffusers", "hotshot-xl"])
def test_safetensors_of_every_layout(make_adapter: AdapterMaker, tmp_path: Path, layout: str) -> None:
    adapter = make_adapter(3)
    original = original_weights(adapter)
    states = {"original": original, "diffusers": diffusers_weights(adapter), "hotshot-xl": as_hotshot(original)}
    save_file(states[layout], tmp_path / "motion.safetensors")
    loaded = read_motion(tmp_path / "motion.safetensors")
    assert_same(loaded.adapter, adapter)
    assert loaded.variant.name == ("hotshot-xl" if layout == "hotshot-xl" else "animatediff-sdxl")


@pytest.mark.parametrize(
    ("variant", "levels", "mid", "frames", "name", "numerics", "trained"),
    [
        ("animatediff-v1", 4, False, 24, "a.ckpt", "official-v1", 24),
        ("animatediff-v2", 4, True, 32, "mm_sd_v15_v2.ckpt", "official-v2", 32),
        ("animatediff-v3", 4, False, 32, "a.ckpt", "official-v3", 32),
        ("animatediff-sdxl", 3, False, 32, "a.ckpt", "diffusers", 32),
        ("animatelcm", 4, True, None, "AnimateLCM_sd15_t2v.ckpt", "official-v2", 64),
        ("lightning", 4, True, 32, "animatediff_lightning_8step_comfyui.safetensors", "official-v2", 32),
    ],
)
def test_the_variant_decides_norm_scopes_and_frames(
    make_adapter: AdapterMaker,
    variant: str,
    levels: int,
    mid: bool,
    frames: int | None,
    name: str,
    numerics: str,
    trained: int,
) -> None:
    state = original_weights(make_adapter(levels, mid, frames or 32))
    loaded = adapter_from_weights(without_tables(state) if frames is None else state, name)
    assert (loaded.variant.name, loaded.adapter.numerics) == (variant, numerics)
    assert loaded.adapter.trained_frames == trained
    assert adapter_from_weights(state, name, numerics="diffusers").adapter.numerics == "diffusers"


@pytest.mark.parametrize(
    ("mid", "tables", "assumed", "others"),
    [
        (True, True, "animatediff-v2", "animatelcm and lightning"),
        (True, False, "animatelcm", "animatediff-v2 and lightning"),
        (False, False, "animatediff-v3", "animatediff-v1"),
    ],
)
def test_a_guess_is_said_once_and_a_word_settles_it(
    make_adapter: AdapterMaker, tmp_path: Path, mid: bool, tables: bool, assumed: str, others: str
) -> None:
    state = original_weights(make_adapter(mid=mid))
    path = tmp_path / "motion.ckpt"
    torch.save(state if tables else without_tables(state), path)
    with pytest.warns(UserWarning, match=f"^motion.ckpt .*{assumed}.*{others} share.*taken for {assumed}") as caught:
        assert read_motion(path).variant.name == assumed
    assert len(caught) == 1
    assert "--motion-variant" in str(caught[0].message)
    assert caught[0].filename == __file__
    said = others.rsplit(" ", maxsplit=1)[-1]
    loaded = read_motion(path, variant=said)  # a warning would fail the test
    assert (loaded.variant.name, loaded.adapter.numerics) == (said, VARIANTS[said].numerics)
    named = path.rename(tmp_path / ("animatediff_lightning_2step.ckpt" if mid else "mm_sd_v15.ckpt"))
    assert read_motion(named).variant.name == ("lightning" if mid else "animatediff-v1")


@pytest.mark.parametrize(
    ("layout", "name", "levels", "mid", "frames"),
    [
        ("original", "mm_sd_v15", 4, False, 24),
        ("original", "mm_sd_v15", 4, False, None),
        ("original", "mm_sd_v15_v2", 4, True, 32),
        ("original", "mm_sd_v15_v2", 4, True, None),
        ("original", "v3_sd15_mm", 4, False, 32),
        ("original", "mm_sdxl_v10_beta", 3, False, 32),
        ("original", "mm_sdxl_v10_beta", 3, False, None),
        ("original", "AnimateLCM_sd15_t2v", 4, True, None),
        ("diffusers", "animatediff_lightning_4step", 4, True, 32),
        ("hotshot-xl", "hotshot", 3, False, 24),
    ],
)
def test_there_is_one_reader_of_files(
    make_adapter: AdapterMaker, tmp_path: Path, layout: str, name: str, levels: int, mid: bool, frames: int | None
) -> None:
    """The motion adapter's own and that of the families give the same modules, settings and norm scopes."""
    adapter = make_adapter(levels, mid, frames or 32, widths=(32,) * 4)
    state = diffusers_weights(adapter) if layout == "diffusers" else original_weights(adapter)
    state = as_hotshot(state) if layout == "hotshot-xl" else state
    path = tmp_path / f"{name}.ckpt"
    torch.save(state if frames else without_tables(state), path)
    loaded, alone = read_motion(path), MotionAdapter.from_single_file(path)
    assert alone.settings() == loaded.adapter.settings()
    assert alone.numerics == loaded.variant.numerics
    assert alone.training is loaded.adapter.training is False
    assert_same(alone, loaded.adapter)


def test_a_folder_of_diffusers_has_what_its_config_says(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    adapter = make_adapter(mid=True)
    folder = write_motion(adapter, tmp_path / "adapter_v2", "diffusers")
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(weights).items() if not key.startswith("mid_")}, weights)
    with pytest.raises(CheckpointError, match=r"lacks those at mid_block\.motion_modules\.0\. Copy"):
        read_motion(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"use_motion_mid_block": False}))
    assert "mid_block.motion_modules.0" not in read_motion(folder, variant="animatediff-v3").adapter.sites


def test_levels_of_other_depths_are_read_from_folders_of_diffusers(tmp_path: Path) -> None:
    layers: Any = (1, 2)
    theirs = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=layers, use_motion_mid_block=False
    )
    theirs.save_pretrained(tmp_path / "v3")
    adapter = read_motion(tmp_path / "v3").adapter
    assert len(adapter.sites) == 1 + 2 + 3 + 2
    assert len(read_motion(write_motion(adapter, tmp_path / "again_v3", "diffusers")).adapter.sites) == 8


def test_fewer_modules_on_purpose_are_kept_in_this_packages_layout(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    adapter = make_adapter()
    half = MotionAdapter.for_sites([site for name, site in adapter.sites.items() if name.startswith("up_blocks.3.")])
    assert read_motion(write_motion(half, tmp_path / "half_v3", "muybridge")).adapter.sites == half.sites
    for target, layout in (("half.ckpt", "original"), ("half", "diffusers")):
        with pytest.raises(CheckpointError, match="Save it in this package's own layout"):
            write_motion(half, tmp_path / target, layout)


def test_weights_of_another_kind_are_told_their_place(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    states: dict[str, tuple[dict[str, Any], str]] = {
        "v2_lora_PanLeft.ckpt": (
            {
                f"{site}.{'temporal_transformer.transformer_blocks.0.attention_blocks.0'}.processor.{half}": torch.ones(
                    4
                )
                for site in make_adapter(mid=True).sites
                for half in ("to_q_lora.down.weight", "to_q_lora.up.weight")
            },
            r"is motion-lora \(lora\), not a motion module\. It is a LoRA; its place is load_lora_weights.*--lora",
        ),
        "style.safetensors": ({"lora_unet_x.lora_up.weight": torch.zeros(4, 4)}, "is a LoRA; .*--lora"),
        "sd15.ckpt": ({"model.diffusion_model.out.2.bias": torch.zeros(4)}, "is an image model; .*--model"),
        "rgb.ckpt": (
            original_weights(make_adapter()) | {"controlnet_cond_embedding.weight": torch.zeros(32, 5, 3, 3)},
            "is a SparseCtrl; .*--keyframe-control",
        ),
        "vae.pt": (
            {"encoder.conv_in.weight": torch.zeros(4), "quant_conv.weight": torch.zeros(4)},
            "is a VAE; its place is vae of load_pipeline, or --vae",
        ),
    }
    for name, (state, said) in states.items():
        torch.save(state, tmp_path / "x") if not name.endswith("safetensors") else save_file(state, tmp_path / "x")
        path = (tmp_path / "x").rename(tmp_path / name)
        with pytest.raises(CheckpointError, match=said):
            read_motion(path)


def test_a_variant_that_does_not_fit_is_taken_with_a_warning(make_adapter: AdapterMaker) -> None:
    state = original_weights(make_adapter())
    with pytest.warns(UserWarning, match="shapes of animatediff-v3 and animatediff-v1; it is run as lightning"):
        assert adapter_from_weights(state, "mm.ckpt", variant="lightning").variant.name == "lightning"
    with pytest.raises(ConfigError, match=r"Unknown motion variant 'v2'\. Known: animatediff-v1, animatediff-v2"):
        adapter_from_weights(state, "mm.ckpt", variant="v2")


def test_folders_of_this_package_say_what_they_leave_open(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    """Norm scopes are saved; what else differs between the variants that share them is not."""
    adapter = make_adapter(mid=True)
    adapter.set_numerics("official-v2")
    folder = write_motion(adapter, tmp_path / "adapter", "muybridge")
    with pytest.warns(UserWarning, match=r"adapter has keys and shapes that animatediff-v2, animatelcm and lightning"):
        assert read_motion(folder).variant.name == "animatediff-v2"
    loaded = read_motion(folder, variant="animatelcm")
    assert (loaded.variant.scheduler, loaded.adapter.numerics) == ("lcm", "official-v2")
    assert read_motion(folder.rename(tmp_path / "AnimateLCM")).variant.name == "animatelcm"

    sdxl = write_motion(make_adapter(3), tmp_path / "b", "muybridge")  # any norm scopes at the sites of SDXL
    assert read_motion(sdxl).variant.name == "animatediff-v3"
    elsewhere = MotionAdapter.for_sites([MotionSite("transformer_blocks.0.attn_temporal", 32)], kind="hybrid")
    elsewhere.save_pretrained(tmp_path / "c")
    with pytest.raises(CheckpointError, match="no motion adapter for a U-Net"):
        read_motion(tmp_path / "c")


def test_a_word_about_a_folder_of_this_package_decides_its_norm_scopes(
    make_adapter: AdapterMaker, tmp_path: Path
) -> None:
    """As it does for a file of the same weights; the norm scopes that were saved go with what it was taken for then."""
    adapter = make_adapter()
    adapter.set_numerics("official-v3")
    folder = write_motion(adapter, tmp_path / "adapter", "muybridge")
    file = write_motion(adapter, tmp_path / "adapter.ckpt", "original")
    for source in (folder, file):
        loaded = read_motion(source, variant="animatediff-v1")
        assert loaded.adapter.numerics == loaded.variant.numerics == "official-v1"
        both = read_motion(source, variant="animatediff-v1", numerics="diffusers")
        assert both.adapter.numerics == both.variant.numerics == "diffusers"
    assert read_motion(folder).adapter.numerics == "official-v3"
    with pytest.raises(ConfigError, match="Unknown motion variant 'v1'"):
        read_motion(folder, variant="v1")


def test_the_number_of_steps_of_lightning_is_in_its_name(make_adapter: AdapterMaker) -> None:
    state = original_weights(make_adapter(mid=True))
    for steps in (1, 2, 4, 8):
        name = f"animatediff_lightning_{steps}step_diffusers.safetensors"
        assert adapter_from_weights(state, name).variant.steps == steps


def test_a_dtype_can_be_asked_for(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    file = write_motion(make_adapter(), tmp_path / "a.ckpt", "original")
    assert {p.dtype for p in read_motion(file, dtype=torch.bfloat16).adapter.parameters()} == {torch.bfloat16}


def test_position_tables_of_another_kind_are_warned_of(make_adapter: AdapterMaker) -> None:
    state = original_weights(make_adapter())
    half = {key: value * 0.5 if key.endswith(".pe") else value for key, value in state.items()}
    with pytest.warns(UserWarning, match="position tables of its own"):
        adapter_from_weights(half, "mm-p_0.5.pth")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"conv_in.weight": torch.zeros(32, 9, 3, 3)}, "pia"),
        ({"img_encoder.x": torch.zeros(2)}, "animatelcm-i2v"),
        ({"fps_embedding.x": torch.zeros(2)}, "fancyvideo"),
    ],
)
def test_relatives_that_are_not_supported_are_named(
    make_adapter: AdapterMaker, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError, match=f"of the kind {named}.*not supported.*animatediff-v1"):
        adapter_from_weights(original_weights(make_adapter()) | extra, "x.ckpt")


def test_no_motion_modules() -> None:
    with pytest.raises(CheckpointError, match=r"x.ckpt has no motion modules: none of its 1 keys.*conv_in.bias"):
        adapter_from_weights({"conv_in.bias": torch.zeros(4)}, "x.ckpt")


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_missing_weight_is_named(make_adapter: AdapterMaker, layout: str) -> None:
    adapter = make_adapter()
    state = original_weights(adapter) if layout == "original" else diffusers_weights(adapter)
    victim = next(key for key in state if key.startswith("up_blocks.2.") and key.endswith("proj_in.weight"))
    del state[victim]
    with pytest.raises(CheckpointError, match=r"has no weights for up_blocks\.2\.motion_modules\.0\.proj_in\.weight"):
        adapter_from_weights(state, "x")


def test_what_cannot_be_written_says_so(make_adapter: AdapterMaker, tmp_path: Path) -> None:
    adapter = make_adapter()
    gap = MotionAdapter.for_sites([MotionSite("down_blocks.0.motion_modules.0", 32)])
    other = MotionAdapter.for_sites(adapter.sites.values(), kind="hybrid")
    with pytest.raises(ConfigError, match=r"Unknown layout 'x'. Known: diffusers, original, muybridge"):
        write_motion(adapter, tmp_path / "a", "x")
    with pytest.raises(ConfigError, match=r"one file, ending in \.safetensors or"):
        write_motion(adapter, tmp_path / "a", "original")
    with pytest.raises(ConfigError, match=r"is a folder; given .*Leave \.ckpt out"):
        write_motion(adapter, tmp_path / "a.ckpt", "diffusers")
    with pytest.raises(CheckpointError, match=r"differs at up_blocks.0.motion_modules.0|differs at down"):
        write_motion(gap, tmp_path / "a", "diffusers")
    with pytest.raises(CheckpointError, match="kind hybrid"):
        write_motion(other, tmp_path / "a.ckpt", "original")
    with pytest.raises(OutputError, match="there is no folder"):
        write_motion(adapter, tmp_path / "no" / "a", "diffusers")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        write_motion(adapter, tmp_path / "a", "diffusers")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "holds a UNet2DConditionModel, not a MotionAdapter"),
        ({"conv_in_channels": 9}, "PIA"),
        ({"motion_num_attention_heads": [4, 8, 8, 8]}, "other numbers of heads"),
    ],
)
def test_folders_that_do_not_fit(
    make_adapter: AdapterMaker, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    folder = write_motion(make_adapter(), tmp_path / "a", "diffusers")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(CheckpointError, match=match):
        read_motion(folder)
