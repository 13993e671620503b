"""The benchmarks run, and what they report is plausible; no test looks at a clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.config import TransformerConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BLOCKS = pytest.mark.parametrize("kind", ["even", "odd"])
META = torch.device("meta")


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_can_be_imported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture(scope="module")
def dit() -> ModuleType:
    return import_module("dit")


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    return import_module("measuring")


@pytest.fixture(scope="module")
def full_size() -> ModuleType:
    return import_module("full_size")


@pytest.fixture(scope="module")
def narrow() -> TransformerConfig:
    with META:
        model = Transformer3DModel(num_attention_heads=4, attention_head_dim=16, num_layers=1, clip_channels=None)
    return model.transformer_config


@BLOCKS
@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_textbook_block_is_ours(
    dit: ModuleType, narrow: TransformerConfig, kind: str, with_skip: bool, batch: int
) -> None:
    ours, textbook = dit.block_pair(kind, narrow, "cpu")
    inputs = dit.Inputs.random(batch, (3, 4, 6), narrow.width, torch.empty(0))
    skip = torch.randn(inputs.features.shape, generator=torch.Generator().manual_seed(2)) if with_skip else None
    with torch.no_grad():
        expected = dit.call_textbook(textbook, inputs, skip)
        result = dit.call_ours(ours, inputs, None if skip is None else skip.clone())
    assert expected.abs().max() > 1
    assert dit.relative_error(result, expected) < 1e-5


@BLOCKS
def test_the_textbook_block_is_ours_with_gradients(dit: ModuleType, narrow: TransformerConfig, kind: str) -> None:
    ours, textbook = dit.block_pair(kind, narrow, "cpu")
    inputs = dit.Inputs.random(1, (2, 4, 4), narrow.width, torch.empty(0))
    for block, call in ((ours, dit.call_ours), (textbook, dit.call_textbook)):
        call(block, inputs).square().mean().backward()
    for name, weight in ours.named_parameters():
        gradient, expected = weight.grad, textbook.get_parameter(name).grad
        assert gradient is not None
        assert expected is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: name + text)


def test_a_difference_in_one_weight_is_seen_in_the_error(dit: ModuleType, narrow: TransformerConfig) -> None:
    ours, textbook = dit.block_pair("odd", narrow, "cpu")
    inputs = dit.Inputs.random(1, (3, 4, 4), narrow.width, torch.empty(0))
    with torch.no_grad():
        textbook.attn_temporal.transformer_blocks[0].attention_blocks[1].to_q.weight.mul_(1.5)
        error = dit.relative_error(dit.call_ours(ours, inputs), dit.call_textbook(textbook, inputs))
    assert error > 1e-5


def test_block_report(dit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    dit.main(["--json", "--tokens", "2x2x2", "--repeats", "1", "--dtypes", "float32"])
    report = json.loads(capsys.readouterr().out)
    assert report["tokens"] == "2x2x2"
    for kind in ("even", "odd"):
        figures = report["float32"][kind]
        assert figures["max_relative_error"] < 1e-5
        assert figures["ours_s"] > 0
        assert figures["time_ratio"] == pytest.approx(figures["ours_s"] / figures["textbook_s"])
        counted = report["384x672x144 bfloat16 meta"][kind]
        hidden_states = 36 * 24 * 42 * 1152 * 2
        # At the least the result, and what the motion module works on.
        assert 2 * hidden_states <= counted["ours_peak_bytes"] < counted["textbook_peak_bytes"] / 2


def test_counted_operations_of_known_layers(measuring: ModuleType) -> None:
    with META:
        linear, convolution = nn.Linear(16, 32), nn.Conv2d(4, 8, 3, padding=1)
        tokens, picture, heads = torch.empty(2, 10, 16), torch.empty(1, 4, 6, 5), torch.empty(2, 3, 7, 8)
    assert measuring.count(lambda: linear(tokens)).flops == 2 * (2 * 10) * 16 * 32
    assert measuring.count(lambda: convolution(picture)).flops == 2 * (6 * 5) * 8 * 4 * 9
    attention = measuring.count(lambda: nn.functional.scaled_dot_product_attention(heads, heads, heads))
    assert attention.flops == 2 * 2 * (2 * 3) * 7 * 7 * 8
    assert measuring.count(lambda: linear(tokens)).peak_bytes == 2 * 10 * 32 * 4


def test_random_weights_have_no_zeros_left(measuring: ModuleType) -> None:
    model = Transformer3DModel(num_attention_heads=2, attention_head_dim=8, num_layers=4, caption_channels=8)
    measuring.randomise_(model)
    assert all(bool(weight.any()) for weight in model.parameters())
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def test_results_are_written_whole(measuring: ModuleType, tmp_path: Path) -> None:
    measuring.write_results("some", {"figure": 1}, tmp_path)
    path = measuring.write_results("some", {"figure": 2}, tmp_path)
    assert json.loads(path.read_text()) == {"figure": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["some.json"]


@pytest.fixture(scope="module")
def tiny(full_size: ModuleType) -> dict[str, dict[str, Any]]:
    cpu = torch.device("cpu")
    return {name: full_size.measure_case(name, True, cpu, torch.float32, 1) for name in full_size.TINY}


def ways(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: figures for name, figures in record.items() if isinstance(figures, dict)}


@pytest.mark.slow
def test_every_stage_of_both_families_runs(tiny: dict[str, dict[str, Any]]) -> None:
    assert len(tiny) == 2
    for case in tiny.values():
        for stage in ("text", "denoise", "decode"):
            record = case[stage]
            assert record["weight_bytes"] == 4 * record["parameters"] > 0
            assert ways(record)
            for figures in ways(record).values():
                assert figures["peak_bytes"] == record["weight_bytes"] + figures["activation_peak_bytes"]
                expected = record["flops"] / case["matmul_flops_per_s"] / figures["seconds"]
                assert figures["share_of_floor"] == pytest.approx(expected)


@pytest.mark.slow
def test_memory_of_the_ways(tiny: dict[str, dict[str, Any]]) -> None:
    for case in tiny.values():
        peaks = activation_peaks(case["denoise"])
        assert peaks["guidance_in_turn"] < 0.7 * peaks["guidance_at_once"]
    peaks = activation_peaks(next(case["decode"] for name, case in tiny.items() if name.startswith("easyanimate")))
    assert peaks.keys() == {"untiled", "exact_tiles", "reference_tiles"}
    assert max(peaks["exact_tiles"], peaks["reference_tiles"]) < peaks["untiled"]


def activation_peaks(record: dict[str, Any]) -> dict[str, int]:
    return {name: figures["activation_peak_bytes"] for name, figures in ways(record).items()}


@pytest.mark.slow
def test_meta_counts_what_a_cpu_runs(tiny: dict[str, dict[str, Any]], full_size: ModuleType) -> None:
    for name, run in tiny.items():
        counted = full_size.measure_case(name, True, META, torch.float32, 1)
        for stage in ("text", "denoise", "decode"):
            assert counted[stage]["flops"] == run[stage]["flops"] > 0
            for way, figures in ways(counted[stage]).items():
                assert "seconds" not in figures
                # A CPU has kernels of its own for some layers.
                assert figures["activation_peak_bytes"] == pytest.approx(
                    run[stage][way]["activation_peak_bytes"], rel=0.35
                )


@pytest.mark.slow
def test_peak_of_decoding_does_not_grow_with_the_video(full_size: ModuleType, measuring: ModuleType) -> None:
    stages = full_size.easyanimate_stages(full_size.Size(48, 48, 40), full_size.networks.EASYANIMATE_TINY)
    stage = stages["decode"]
    with META:
        network = stage.build()
        calls = {way: (stage.short(network, way), stage.prepare(network, way)) for way in stage.ways}
    peaks = {way: [measuring.activation_peak(call, META) for call in both] for way, both in calls.items()}
    assert all(short == whole for short, whole in peaks.values()), peaks
    short, whole = (measuring.count(call) for call in calls["untiled"])
    assert short.flops < whole.flops


def test_published_networks_have_the_published_sizes(full_size: ModuleType) -> None:
    networks, families = full_size.networks, full_size.FAMILIES
    v3, v2 = (families[name][1] for name in ("easyanimate-v3", "animatediff-v2"))
    counts = {
        build.__name__: sum(weight.numel() for weight in networks.on_meta(build, settings).parameters())
        for build, settings in (
            (networks.t5, v3),
            (networks.easyanimate_transformer, v3),
            (networks.clip, v2),
            (networks.animatediff_unet, v2),
            (networks.image_vae, v2),
        )
    }
    assert counts == {
        "t5": 4_762_310_656,
        "easyanimate_transformer": 1_538_364_704,
        "clip": 123_060_480,
        "animatediff_unet": 859_520_964 + 453_209_280,
        "image_vae": 83_653_863,
    }


@pytest.mark.parametrize("case", ["sd3:512x512x16", "animatediff-v2:512x512", "animatediff-v2"])
def test_unknown_cases_are_refused(full_size: ModuleType, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        full_size.main(["--case", case])
    assert caught.value.code == 2
    assert "easyanimate-v3" in capsys.readouterr().err


@pytest.mark.slow
def test_full_size_counts_from_any_folder(tmp_path: Path) -> None:
    """As a program, at full width, on a machine that has no room for the weights."""
    program = [sys.executable, str(BENCHMARKS / "full_size.py"), "--json", "--case", "easyanimate-v3:128x128x8"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    case = json.loads(done.stdout)["cases"]["easyanimate-v3:128x128x8"]
    assert case["denoise"]["weight_bytes"] == 2 * 1_538_364_704
    # Two branches of 2 x 8 x 8 tokens, each of which meets every weight of the blocks, about 38 width**2 a block.
    least = 2 * 2 * 128 * 28 * 38 * 1152**2
    assert least < case["denoise"]["flops"] < 2 * least
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_built_as_published_loads_and_makes_a_step(
    full_size: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full_size.main(["--build", str(tmp_path), "--tiny"])
    (tmp_path / "v1-5-pruned-emaonly.safetensors").unlink()  # whose settings only full size tells
    capsys.readouterr()
    full_size.main(["--load", str(tmp_path), "--json"])
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert cases.keys() == {"easyanimate", "animatediff-folder"}
    assert all(case["finite"] and case["peak_bytes"] >= case["before_bytes"] for case in cases.values())


def test_more_than_the_disk_has_is_refused(
    full_size: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(full_size.published_layouts.FULL_SIZE_BYTES, "easyanimate", 10**18)
    with pytest.raises(SystemExit, match="more than there is"):
        full_size.main(["--build", str(tmp_path), "--family", "easyanimate"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_previews_are_measured() -> None:
    preview = import_module("preview")
    pipeline = preview.pipeline_of("demo/easyanimate")
    found = preview.PreviewMap.load(preview.locate_model("demo/easyanimate") / "vae" / preview.FILE_NAME)
    likeness = preview.likeness(pipeline, found, 1)
    assert 10 < likeness["preview_db"] < likeness["vae_db"]
    assert preview.cost(pipeline, found, 2)["webp_bytes"] > 100
    assert preview.share_of_denoising("demo/easyanimate", 2)["steps"] == 2
