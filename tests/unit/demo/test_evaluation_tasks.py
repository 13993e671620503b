"""The tasks of the evaluation, run by tiny models that know nothing: what counts is what is compared with what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.demo import evaluation, models, world
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.evaluate_continuation import ENDLESS_MOTIONS, PIECES
from muybridge.demo.figures import psnr
from muybridge.demo.measure import measure_clip
from muybridge.demo.tasks import TASKS, tasks_named
from muybridge.errors import CheckpointError, ConfigError, OutputError
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline
from muybridge.request.request import Sampling
from muybridge.service.evaluation import DemoEvaluation, evaluate_demo
from muybridge.vae import AutoencoderKLMagvit

COUNT, SEED = 2, 5


def make_pipeline(in_channels: int = 12) -> EasyAnimatePipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(
        down_block_types=["SpatialTemporalDownBlock3D"] * 3,
        up_block_types=["SpatialTemporalUpBlock3D"] * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        slice_compression_vae=True,
    )
    transformer = Transformer3DModel(
        num_attention_heads=1,
        attention_head_dim=32,
        in_channels=in_channels,
        out_channels=4,
        num_layers=2,
        sample_size=16,
        caption_channels=16,
        clip_channels=None,
    )
    config = HybridConfig(num_heads=1)
    adapter = MotionAdapter.for_sites(transformer.motion_sites().values(), "hybrid", config, numerics="easyanimate")
    transformer.set_motion_adapter(adapter)
    tokenizer = models.make_tokenizer()
    text = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return EasyAnimatePipeline(
        vae=vae.eval(),
        text_encoder=T5EncoderModel(text).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        scheduler=models.make_scheduler(),
        default_size=(64, 64),
        default_num_frames=16,
        default_steps=1,
        default_guidance=1.0,
        max_tokens=16,
        clean_captions=False,
        known_frames=1,
        profile="clean",
    )


@pytest.fixture(scope="module")
def maker() -> ClipMaker:
    return ClipMaker(make_pipeline())


@pytest.fixture(scope="module")
def folder(maker: ClipMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    maker.pipeline.save_pretrained(path)
    return path


@dataclass(frozen=True)
class Everything:
    result: DemoEvaluation
    told: list[tuple[str, int, int]]
    sheets: Path


@pytest.fixture(scope="module")
def everything(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    sheets, told = tmp_path_factory.mktemp("sheets"), []
    result = evaluate_demo(str(folder), "all", 1, 0, sheets / "sheet.png", lambda *step: told.append(step))
    return Everything(result, told, sheets)


def made(maker: ClipMaker, keyframes: dict[int, str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Clips of the pipeline's own calls, and the true ones."""
    scenes = evaluation.held_out_scenes(COUNT, SEED)
    truth = evaluation.true_clips(scenes, SEED)
    clips = []
    for index, scene in enumerate(scenes):
        given: dict[str, Any] = {}
        if keyframes is not None:
            given["keyframes"] = {frame: truth[index, frame] for frame in keyframes}
        clips.append(maker.pipeline(world.full_caption(scene), seed=SEED + index, **given).frames)
    return np.stack(clips), truth


def test_text_is_judged_beside_renders_and_reconstructions(maker: ClipMaker):
    report = TASKS["text"].run(maker, COUNT, SEED, None)

    scenes = evaluation.held_out_scenes(COUNT, SEED)
    clips, truth = made(maker)
    assert report.columns["generated"] == evaluation.score(scenes, [measure_clip(clip) for clip in clips])
    assert report.columns["renders"]["all_correct"] == 1
    restored = [measure_clip(maker.reconstruct(clip)) for clip in truth]
    assert report.columns["reconstructions"] == evaluation.score(scenes, restored)
    # Made alone or in a batch, a picture may differ by its rounding.
    assert np.abs(report.sheet.astype(int) - evaluation.contact_sheet(clips)).max() <= 1
    assert report.targets["all_correct"] == 0.8
    assert report.by_attribute["motion"].keys() == {scene.motion for scene in scenes}


@pytest.mark.parametrize(("task", "frames"), [("image", (0,)), ("keyframes", (0, -1))])
def test_pinned_frames_are_those_of_the_true_clip(maker: ClipMaker, task: str, frames: tuple[int, ...]):
    steps: list[tuple[int, int]] = []
    report = TASKS[task].run(maker, COUNT, SEED, lambda *step: steps.append(step))

    clips, truth = made(maker, dict.fromkeys(frames, ""))
    free, _ = made(maker)
    restored = np.stack([maker.reconstruct(clip) for clip in truth])
    for column, shown in {"generated": clips, "without_condition": free, "reconstructions": restored}.items():
        for frame, name in zip(frames, ("first", "last"), strict=False):
            values = psnr(shown[:, frame], truth[:, frame])
            assert report.columns[column][f"{name}_frame_psnr"] == pytest.approx(values.mean(), abs=0.05)
            assert report.columns[column][f"{name}_frame_psnr_worst"] == pytest.approx(values.min(), abs=0.05)
    assert report.columns["generated"] != report.columns["without_condition"]
    assert report.columns["renders"]["all_correct"] == 1
    assert steps == [(1, 4), (2, 4), (4, 4)]
    assert report.sheet.shape == (COUNT * 3 * 64, 8 * 64, 3)
    marked = (report.sheet[:, ::64] == (255, 0, 255)).all(axis=2)[32::64]
    wanted = np.zeros((COUNT * 3, 8), bool)
    wanted[1::3, list(frames)] = True
    assert np.array_equal(marked, wanted)


def test_the_same_seed_gives_the_same_figures(maker: ClipMaker):
    one, again, other = (TASKS["image"].run(maker, 1, seed, None).columns for seed in (3, 3, 4))
    assert one == again
    assert one != other


@pytest.mark.slow
def test_continuation_is_measured_from_beginning_to_end(everything: Everything):
    report = everything.result.reports[-1]

    names = [f"{strategy}_{piece}" for strategy in ("crossfade", "latent") for piece in PIECES]
    assert list(report.columns) == names
    for strategy in ("crossfade", "latent"):
        begun, end = report.columns[f"{strategy}_beginning"], report.columns[f"{strategy}_end"]
        assert (begun["brightness_shift"], begun["sharpness_ratio"]) == (0, 1)
        assert begun["sharpness_ratio"] != end["sharpness_ratio"]
    assert report.sheet.shape == (2 * 64, 16 * 64, 3)
    marked = (report.sheet[[32, 96], ::64] == (255, 0, 255)).all(axis=2)
    # Of the frames 0, 6, 13 ... 95 those that segments share: 12-15, 24-27 ... and, as latents, 8-15, 16-23 ...
    assert np.flatnonzero(marked[0]).tolist() == [2, 4, 6, 8, 10, 13]
    assert np.flatnonzero(marked[1]).tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]


def test_only_endless_motions_are_continued():
    renders = evaluation.held_out_scenes(20, SEED, ENDLESS_MOTIONS)
    assert {scene.motion for scene in renders} == {"still", "spinning"}
    assert {scene.shape for scene in renders} == set(world.SHAPES)


def test_models_without_a_place_for_pictures_are_refused():
    image_only = ClipMaker(make_pipeline(in_channels=4))
    animatediff = ClipMaker(
        AnimateDiffPipeline(
            vae=models.make_vae(),
            text_encoder=models.text_tower(models.make_clip(models.make_tokenizer())),
            tokenizer=models.make_tokenizer(),
            unet=models.make_unet(),
            scheduler=models.make_scheduler(),
        )
    )
    for task in ("image", "ends", "keyframes"):
        for maker in (image_only, animatediff):
            with pytest.raises(ConfigError, match=r"pictures|keyframes"):
                TASKS[task].check(maker)
    TASKS["continuation"].check(animatediff)
    TASKS["text"].check(animatediff)


def test_all_stands_for_every_task_once():
    assert tasks_named("all") == ["text", "image", "ends", "continuation"]
    assert tasks_named("keyframes") == ["keyframes"]
    with pytest.raises(ConfigError, match=r"'video'.*text, image, ends, keyframes, continuation, all"):
        tasks_named("video")


def test_all_tasks_of_a_folder_are_reported_and_drawn(folder: Path, everything: Everything):
    report = json.loads(json.dumps(everything.result.to_dict(), allow_nan=False))

    assert list(report["tasks"]) == ["text", "image", "ends", "continuation"]
    assert (report["model"], report["steps"], report["refusals"]) == (str(folder), 1, {})
    assert report["tasks"]["image"]["targets"]["first_frame_psnr"]["at_least"] == 28
    assert {path.name for path in everything.sheets.iterdir()} == {f"sheet-{name}.png" for name in report["tasks"]}
    with Image.open(everything.sheets / "sheet-ends.png") as picture:
        assert picture.size == (8 * 64, 3 * 64)
    assert everything.told == [
        *(("text", 1, 1), ("image", 1, 2), ("image", 2, 2), ("ends", 1, 2), ("ends", 2, 2)),
        *(("continuation", 1, 2), ("continuation", 2, 2)),
    ]


def test_a_single_task_is_reported_flat(folder: Path):
    report = evaluate_demo(str(folder), count=1).to_dict()
    assert (report["task"], report["count"], report["seed"]) == ("text", 1, 0)
    assert report["renders"]["all_correct"] == 1
    assert report["generated"].keys() == report["reconstructions"].keys()


def test_another_way_to_sample_is_what_is_measured(folder: Path, maker: ClipMaker, tmp_path: Path) -> None:
    wanted = Sampling(num_inference_steps=2, guidance_scale=1.5, scheduler="lcm")
    sheet = tmp_path / "sheet.png"
    report = evaluate_demo(str(folder), count=1, sheet=sheet, sampling=wanted).to_dict()
    assert (report["steps"], report["guidance"], report["scheduler"]) == (2, 1.5, "lcm")

    scenes = evaluation.held_out_scenes(1, 0)
    prompts = [world.full_caption(scenes[0])]
    clip = maker.pipeline(prompts[0], seed=0, num_inference_steps=2, guidance_scale=1.5, scheduler="lcm").frames
    made = ClipMaker(maker.pipeline, wanted).from_prompts(prompts, [0])
    np.testing.assert_array_equal(made[0], clip)
    assert not np.array_equal(made, ClipMaker(maker.pipeline).from_prompts(prompts, [0]))


def test_what_a_model_cannot_do_is_said(tmp_path: Path):
    make_pipeline(in_channels=4).save_pretrained(tmp_path / "tiny")
    model = str(tmp_path / "tiny")

    with pytest.raises(ConfigError, match="takes no pictures"):
        evaluate_demo(model, "image", 1)
    result = evaluate_demo(model, "all", 1)

    assert [report.task for report in result.reports] == ["text", "continuation"]
    assert result.refusals.keys() == {"image", "ends"}
    assert list(result.reports[1].columns) == [f"latent_{piece}" for piece in PIECES]


def test_wrong_requests_are_refused_at_once(folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="at least 1; given 0"):
        evaluate_demo(str(folder), count=0)
    with pytest.raises(ConfigError, match="no task 'video'"):
        evaluate_demo(str(folder), "video")
    with pytest.raises(OutputError, match="none"):
        evaluate_demo(str(folder), sheet=tmp_path / "none" / "sheet.png")
    with pytest.raises(ConfigError, match="Unknown scheduler 'none'"):
        evaluate_demo(str(folder), sampling=Sampling(scheduler="none"))
    with pytest.raises(CheckpointError, match="no such model"):
        evaluate_demo("no such model")
