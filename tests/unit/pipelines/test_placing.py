"""What is chosen for a budget of memory, and that it is done to the pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests import tiny_models

from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines import load_pipeline, placing
from muybridge.pipelines.placing import Place, Wish, _can_offload, bytes_allowed, find_place, fit, put
from muybridge.pipelines.planning import plan_video
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.runtime.placement import Placement, describe
from muybridge.runtime.plan import PlanSettings, choices_in, choose_run
from muybridge.types import VideoShape
from muybridge.vae.magvit import Tiling

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = VideoShape(4, 32, 32)
CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("dtype", "memory", "found"),
    [
        (torch.float16, None, ("float16",)),
        ("bfloat16", "12GB", ("bfloat16",)),  # what is said is never overridden
        ("auto", None, ("float32",)),
        ("auto", "auto", ("float32",)),
        ("auto", "12GB", ("float32", "bfloat16")),
    ],
)
def test_precisions_to_choose_among_on_a_cpu(dtype: Any, memory: Any, found: tuple[str, ...]) -> None:
    assert placing._dtypes(dtype, CPU, memory) == found


@pytest.mark.parametrize(("native", "found"), [(True, "bfloat16"), (False, "float16")])
def test_the_half_precision_that_a_card_multiplies(monkeypatch: pytest.MonkeyPatch, native: bool, found: str) -> None:
    monkeypatch.setattr(placing, "_multiplies_bfloat16", lambda _: native)
    assert placing._dtypes("auto", CARD, "max") == (found,)


def test_budgets() -> None:
    assert bytes_allowed("12GB", CPU) == 12 * 10**9
    assert bytes_allowed(5, CPU) == 5
    assert bytes_allowed("auto", CPU) is None
    assert (bytes_allowed("max", CPU) or 0) > 10**8
    for wrong in (0, True, "much", "0GB", 1.5):
        with pytest.raises(ConfigError, match=r"at least one byte|is a number of bytes"):
            bytes_allowed(wrong, CPU)  # type: ignore[arg-type]


def test_every_way_is_offered_from_what_costs_least() -> None:
    ways = choices_in(("float32", "bfloat16"))
    assert ways[:3] == (PlanSettings("float32"), PlanSettings("bfloat16"), PlanSettings("bfloat16", "sequential"))
    assert ways[-1] == PlanSettings("bfloat16", "sequential", True, "group")
    assert len(set(ways)) == len(ways) == 1 + 12
    assert {way.offload for way in choices_in(("float32",), can_offload=False)} == {"none"}


def test_less_memory_gets_what_costs_more(saved_pipeline: Path) -> None:
    runs = plan_video(saved_pipeline, SHAPE, choices=choices_in(("float32",))).runs
    chosen = [choose_run(runs, budget) for budget in sorted((run.peak for run in runs), reverse=True)]
    assert chosen[0].settings == PlanSettings("float32")
    assert chosen[-1].settings.offload == "group"
    order = [runs.index(run) for run in chosen]
    assert order == sorted(order)

    least = chosen[-1]
    placed = fit(wishes_of(saved_pipeline), least.peak, ("float32",), SHAPE)
    assert placed == Placement(**vars(least.settings), peak_bytes=least.peak, shape=(4, 32, 32))


def as_image_model(saved: Path, target: Path) -> tuple[Path, Path]:
    """The folder of an image model, and its motion adapter's apart from it."""
    folder = Path(shutil.copytree(saved, target / "model"))
    adapter = Path(shutil.move(folder / "motion_adapter", target / "adapter"))
    index = json.loads((folder / "model_index.json").read_text())
    del index["motion_adapter"]
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    return folder, adapter


def test_an_image_model_and_a_motion_adapter_are_planned_as_one(saved_pipeline: Path, tmp_path: Path) -> None:
    folder, adapter = as_image_model(saved_pipeline, tmp_path)
    choices = (PlanSettings("float32", "sequential", False, "model"),)
    whole = plan_video(saved_pipeline, SHAPE, choices=choices).runs[0].peaks

    assert (
        plan_video(ModelChoice(model=str(folder), motion_adapter=str(adapter)), SHAPE, choices=choices).runs[0].peaks
        == whole
    )
    with pytest.raises(CheckpointError, match="together with a motion adapter"):
        plan_video(folder, SHAPE, choices=choices)


def test_without_a_shape_the_plan_is_for_what_the_model_makes_by_default(saved_pipeline: Path) -> None:
    usual = plan_video(saved_pipeline, choices=(PlanSettings("float32"),)).shape
    assert usual == VideoShape(16, 16, 16)  # 8 latents of 2 pixels


def test_a_pipeline_is_put_as_was_decided_and_makes_the_same_video(make_pipeline: Any) -> None:
    video = {"num_frames": 4, "height": 32, "width": 32, "num_inference_steps": 1, "seed": 1, "output_type": "pt"}
    plain, pipeline = make_pipeline(), make_pipeline()
    placement = Placement("float32", "sequential", True, speed=("channels_last",), peak_bytes=10**9, shape=(4, 32, 32))

    put(pipeline, Place(torch.float32, CPU, placement))

    assert pipeline.placement is placement
    assert pipeline.vae.use_slicing
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pipeline("a red circle", **video), plain("a red circle", **video), rtol=0, atol=1e-4)


def test_the_vae_of_easyanimate_works_in_exact_tiles() -> None:
    pipeline = tiny_models.make_easyanimate()
    put(pipeline, Place(torch.float32, None, Placement("float32", tiled_vae=True)))
    assert pipeline.vae.tiling is Tiling.EXACT


def test_a_loaded_pipeline_says_how_it_was_placed(saved_pipeline: Path) -> None:
    loaded: Any = load_pipeline(
        saved_pipeline, "auto", memory="1000GB", device="cpu", shape=SHAPE, speed="channels_last"
    )
    assert loaded.unet.dtype == torch.float32
    said = describe(loaded.placement)
    expected = "float32, guidance at once, the VAE as it is, all weights on the device, channels_last: at most "
    assert said.startswith(expected)
    assert said.endswith(" MB for 4 frames of 32x32.")


def test_a_precision_alone_plans_nothing(saved_pipeline: Path) -> None:
    assert load_pipeline(saved_pipeline).placement is None  # type: ignore[union-attr]
    place = find_place(wishes_of(saved_pipeline), Wish("auto", "auto", device="cpu"))
    assert place.placement == Placement("float32")
    assert describe(Placement("float32")) == "float32."
    assert find_place(wishes_of(saved_pipeline), Wish("float16")).dtype == torch.float16


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"torch_dtype": "int8"}, "torch_dtype must be auto, float32, bfloat16, float16; given int8"),
        ({"torch_dtype": torch.int64}, "torch_dtype must be auto"),
        ({"memory": "1KB", "device": "cpu"}, "Nothing fits 1e-06 GB: the least is"),
        ({"memory": "many"}, "A budget is a number of bytes"),
        ({"speed": "bfloat16"}, "said with torch_dtype"),
        ({"speed": ("channels_last", "warp")}, "Unknown optimization 'warp'"),
        ({"device": "abacus"}, "There is no device 'abacus'"),
        ({"shape": SHAPE}, "give memory too"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(saved_pipeline: Path, wish: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pipeline(saved_pipeline, **wish)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without a card")
def test_a_card_that_is_not_here(saved_pipeline: Path) -> None:
    with pytest.raises(ConfigError, match="is not here; there is the CPU alone"):
        load_pipeline(saved_pipeline, device="cuda")


def test_memory_and_speed_do_not_contradict_each_other(saved_pipeline: Path) -> None:
    with pytest.raises(ConfigError, match="memory decides what waits on the host; leave model_offload out"):
        find_place(wishes_of(saved_pipeline), Wish(memory="1GB", speed="model_offload", device="cpu"))
    assert not _can_offload(("compile",), torch.device("cuda"))
    assert _can_offload(("channels_last",), torch.device("cuda"))


def test_what_cannot_be_planned_is_loaded_whole_where_nobody_asked_for_memory(tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.safetensors"
    save_file({"x": torch.zeros(1)}, stranger)
    with pytest.raises(CheckpointError):
        find_place(wishes_of(stranger), Wish("float32", "1GB", device="cpu"))
    place = find_place(wishes_of(stranger), Wish("float32", "1GB", device="cpu", is_default=True))
    assert place.placement == Placement("float32")
