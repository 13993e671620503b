"""EasyAnimate end to end at tiny size: every task, folders, and the command line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from muybridge import load_pipeline
from muybridge.cli.main import main
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion.integration import integrate_motion
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.vae import AutoencoderKLMagvit
from muybridge.video import Video, read_video

PROMPT = "a red circle moving left"
PipelineMaker = Callable[..., EasyAnimatePipeline]


BLACK = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline(make_easyanimate: PipelineMaker) -> EasyAnimatePipeline:
    return make_easyanimate()


@pytest.fixture(scope="module")
def folder(pipeline: EasyAnimatePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(path)
    return path


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_text_to_video_and_to_picture(pipeline: EasyAnimatePipeline) -> None:
    video = pipeline(PROMPT, seed=1)
    assert video.frames.shape == (8, 32, 32, 3)
    assert pipeline(PROMPT, seed=1, num_frames=1).frames.shape == (1, 32, 32, 3)
    assert np.array_equal(pipeline(PROMPT, seed=1).frames, video.frames)
    assert not np.array_equal(pipeline(PROMPT, seed=2).frames, video.frames)
    assert not np.array_equal(pipeline("a blue heart", seed=1).frames, video.frames)


@pytest.mark.parametrize("keyframes", [{0: "first"}, {0: "first", -1: "last"}, {0: "first", 1: "last", 2: "first"}])
def test_keyframes_change_the_video(pipeline: EasyAnimatePipeline, keyframes: dict[int, str]) -> None:
    pictures = {"first": picture((200, 30, 30)), "last": picture((30, 30, 200), (50, 20))}
    given = {frame: pictures[name] for frame, name in keyframes.items()}
    video = pipeline(PROMPT, seed=1, keyframes=given)
    assert not np.array_equal(video.frames, pipeline(PROMPT, seed=1).frames)
    assert video.request["made"]["unrecorded"] == ["keyframes"]


def test_video_to_video_keeps_more_at_lower_strength(pipeline: EasyAnimatePipeline) -> None:
    source = np.random.default_rng(0).integers(0, 255, (10, 40, 40, 3), dtype=np.uint8)
    settings: dict[str, Any] = {"seed": 1, "num_frames": 8, "num_inference_steps": 10, "output_type": "latent"}
    weak, strong = (
        pipeline(PROMPT, init_video=Video(source), strength=strength, **settings) for strength in (0.1, 0.9)
    )
    start = pipeline.vae.encode(
        torch.from_numpy(np.stack([np.asarray(Image.fromarray(f).resize((32, 32), 3)) for f in source[:8]]))
        .permute(3, 0, 1, 2)[None]
        .float()
        .div(127.5)
        .sub(1)
    ).latent_dist.mean * float(pipeline.vae.config["scaling_factor"])
    assert (weak - start).abs().mean() < (strong - start).abs().mean()


def test_a_source_video_is_followed_as_far_as_the_model_can(pipeline: EasyAnimatePipeline) -> None:
    source = Video(np.zeros((20, 24, 48, 3), np.uint8), fps=12.5)
    mask = np.zeros((24, 48), np.uint8)
    mask[:, 24:] = 255
    with pytest.warns(UserWarning, match=r"20 frames, .* first 8 are used\. For more, .*num_frames=|made for") as said:
        video = pipeline(PROMPT, init_video=source, mask=mask, num_inference_steps=1, seed=1)
    assert len(said) == 2
    assert (video.frames.shape, video.fps) == ((8, 24, 48, 3), 12.5)


def test_a_mask_is_obeyed_by_models_without_channels_for_it(make_easyanimate: PipelineMaker) -> None:
    pipeline = make_easyanimate(in_channels=4)
    source = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    settings: dict[str, Any] = {"seed": 1, "init_video": source, "mask": mask, "output_type": "latent"}
    another: dict[str, Any] = {**settings, "seed": 9}
    one, other = pipeline(PROMPT, **settings), pipeline("a blue heart", **another)
    assert torch.allclose(one[..., :3], other[..., :3], atol=1e-5)
    assert not torch.allclose(one[..., 5:], other[..., 5:], atol=1e-2)
    with pytest.raises(ConfigError, match=r"4 channels.*12"):
        pipeline(PROMPT, keyframes={0: picture((0, 0, 0))})


def test_batched_and_single_guidance_agree(pipeline: EasyAnimatePipeline) -> None:
    one, other = (
        pipeline([PROMPT, "a blue heart"], seed=3, batched_guidance=batched, output_type="latent")
        for batched in (True, False)
    )
    assert one.shape == (2, 4, 2, 8, 8)
    assert torch.allclose(one, other, atol=1e-4)


def test_profiles_differ_in_smoothing(pipeline: EasyAnimatePipeline) -> None:
    clean, reference = (pipeline(PROMPT, seed=1, num_frames=16, profile=name).frames for name in ("clean", "reference"))
    assert not np.array_equal(clean, reference)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_frames": 12}, ShapeError, r"multiple of 8.*given 12"),
        ({"width": 36}, ShapeError, r"multiples of 8; given 36x32.*(32x32|40x32)"),
        (
            {"keyframes": {0: np.zeros((32, 32, 3), np.uint8)}, "init_video": np.zeros((8, 32, 32, 3), np.uint8)},
            ConfigError,
            "not both",
        ),
        ({"mask": np.zeros((32, 32))}, ConfigError, "init_video"),
        ({"strength": 0.5}, ConfigError, "init_video"),
        ({"init_video": np.zeros((4, 32, 32, 3), np.uint8)}, ShapeError, "4 frames"),
        (
            {"init_video": np.zeros((8, 32, 32, 3), np.uint8), "mask": np.zeros((32, 32))},
            ConfigError,
            "black everywhere",
        ),
        ({"init_video": np.zeros((8, 32, 32, 3), np.uint8), "mask": np.ones((9, 9))}, ShapeError, r"\[9, 9\]|9, 9"),
        ({"keyframes": {9: BLACK}}, ShapeError, "outside the video, which has 8"),
        ({"profile": "fast"}, ConfigError, "reference"),
        ({"clip_apply_ratio": 2.0}, ConfigError, "between 0 and 1"),
    ],
)
def test_wrong_calls_say_what_is_allowed(
    pipeline: EasyAnimatePipeline, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline(PROMPT, **arguments)


def test_another_size_than_the_models_warns_once(pipeline: EasyAnimatePipeline) -> None:
    with pytest.warns(UserWarning, match=r"made for 32x32 pixels \(width x height\); given 32x48") as caught:
        pipeline(PROMPT, seed=1, height=48, output_type="latent")
    assert len(caught) == 1
    unknown = EasyAnimatePipeline(**pipeline.components)
    unknown.set_progress_bar_config(disable=True)
    unknown(PROMPT, num_frames=1, height=48, width=32, num_inference_steps=1, output_type="latent")


def test_keyframes_at_both_ends_need_room(make_easyanimate: PipelineMaker) -> None:
    pipeline = make_easyanimate()
    pipeline.register_to_config(known_frames=5)
    with pytest.raises(ShapeError, match="no room"):
        pipeline(PROMPT, keyframes={0: picture((0, 0, 0)), -1: picture((9, 9, 9))})


def test_a_prompt_that_is_too_long_is_reported(pipeline: EasyAnimatePipeline) -> None:
    with pytest.warns(UserWarning, match=r"tokens, of which this model reads 16"):
        pipeline(" ".join(["red circle"] * 12), seed=1, output_type="latent")


def test_a_folder_comes_back(pipeline: EasyAnimatePipeline, folder: Path) -> None:
    again = load_pipeline(folder)
    assert isinstance(again, EasyAnimatePipeline)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(PROMPT, seed=5).frames, pipeline(PROMPT, seed=5).frames)
    assert again.config["profile"] == "clean"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # as notes in what the program prints
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_command_line_pins_keyframes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture((200, 30, 30), (60, 40)).save("start.png")
    command = ["generate", PROMPT, "--model", str(folder), "--seed", "1", "--keyframe", "0=start.png", "--json"]
    status, out, err = run(capsys, *command, "-o", "short.mp4", "--size", "fit:64")
    assert status == 0, err
    settings = json.loads(out)["settings"]
    assert (settings["shape"]["height"], settings["shape"]["width"]) == (48, 72)
    assert "note: This model is made for 32x32 pixels (width x height); given 72x48." in err
    status, out, err = run(capsys, *command, "-o", "long.mp4", "--frames", "20", "--overlap", "2")
    assert (status, err) == (0, "")
    assert read_video(tmp_path / "long.mp4").frames.shape == (20, 32, 32, 3)
    before = (tmp_path / "long.mp4").read_bytes()
    assert run(capsys, *command, "-o", "long.mp4", "--frames", "20", "--overlap", "2")[0] == 0
    assert (tmp_path / "long.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keyframe", "start.png"], "FRAME=FILE"),
        (["--keyframe", "0=missing.png"], "no picture"),
        (["--size", "fit:512"], "first keyframe"),
        (["--frames", "7"], "multiple of 8"),
        (["--frames", "8", "--segment", "16"], "Settings of segments have no effect"),
    ],
)
def test_command_line_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, _, err = run(capsys, "generate", PROMPT, "--model", str(folder), *arguments)
    assert status == 2
    assert message in err


def test_animatediff_refuses_what_it_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "generate", PROMPT, "--set", "sampling.profile=clean")
    assert status == 2
    assert "An AnimateDiff model has no profile; leave out, or use an EasyAnimate model." in err


def test_easyanimate_refuses_what_it_does_not_have(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "lines.png")
    sketch = f"0={tmp_path / 'lines.png'}"
    status, _, err = run(capsys, "generate", PROMPT, "--model", str(folder), "--sketch", sketch)
    assert status == 2
    assert "An EasyAnimate model has no sketches; leave out, or use an AnimateDiff model." in err
    status, _, err = run(capsys, "generate", PROMPT, "--model", str(folder), "--frames", "16", "--window", "12")
    assert status == 2
    assert "the size of windows must be a multiple of 8; given 12. The nearest is 16" in err


def test_a_missing_picture_is_named_before_a_model_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "generate", PROMPT, "--model", "nowhere", "--keyframe", "0=a.png")
    assert status == 2
    assert "There is no picture a.png" in err


def test_a_file_of_easyanimate_is_repeated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "generate", PROMPT, "--model", str(folder), "-o", "a.mp4")[0] == 0
    status, _, err = run(capsys, "generate", "--like", "a.mp4", "-o", "b.mp4")
    assert status == 0, err
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_video_does_not_depend_on_its_batch(pipeline: EasyAnimatePipeline) -> None:
    settings: dict[str, Any] = {"num_frames": 16, "profile": "reference", "output_type": "np"}
    both = pipeline([PROMPT, PROMPT], seed=3, **settings)
    alone = pipeline([PROMPT], seed=4, **settings)
    assert np.allclose(both[1], alone[0], atol=1e-3)


def test_a_keyframe_cannot_be_held_for_no_frame(make_easyanimate: PipelineMaker) -> None:
    with pytest.raises(ConfigError, match="known_frames must be at least 1; given 0"):
        EasyAnimatePipeline(**make_easyanimate().components, known_frames=0)


def test_a_motion_condition_reaches_modules_that_read_one(make_easyanimate: PipelineMaker) -> None:
    pipe = make_easyanimate()
    with pytest.raises(ConfigError, match="No motion module here reads a motion_condition"):
        pipe(PROMPT, seed=1, motion_condition=torch.ones(1, 6))
    config = {"motion_rank": 4, "num_heads": 2, "motion_condition_width": 6}
    adapter = integrate_motion(pipe, "low_rank", mode="replace", config=config).adapter
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def latents(condition: torch.Tensor, **options: Any) -> torch.Tensor:
        return pipe(PROMPT, seed=1, motion_condition=condition, output_type="latent", **options)

    one, other = latents(torch.ones(1, 6)), latents(-torch.ones(1, 6))
    assert (one - other).abs().max() > 1e-4
    both = latents(torch.stack([torch.ones(6), -torch.ones(6)]), num_videos_per_prompt=2)
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latents(torch.ones(1, 6), batched_guidance=False), one, rtol=1e-4, atol=1e-5)
    assert (
        pipe(PROMPT, seed=1, motion_condition=torch.ones(1, 6)).request["made"]["unrecorded"][0] == "motion_condition"
    )
    with pytest.raises(ShapeError, match=r"motion_condition must be \[1, d\], one a video"):
        latents(torch.ones(3, 6))


def test_another_vae_and_another_prediction(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = make_vae((8, 8, 16))
    other.save_pretrained(tmp_path / "own" / "vae")
    plain = load_pipeline(folder)
    plain.set_progress_bar_config(disable=True)
    for place in (tmp_path / "own" / "vae", tmp_path / "own"):
        loaded = load_pipeline(folder, vae=place)
        assert torch.equal(loaded.vae.quant_conv.weight, other.quant_conv.weight)
    loaded.set_progress_bar_config(disable=True)
    video = loaded(PROMPT, seed=1)
    assert (video.request["model"]["vae"], video.request["made"]["unrecorded"]) == (str(tmp_path / "own"), [])
    assert not np.array_equal(video.frames, plain(PROMPT, seed=1).frames)

    with pytest.warns(UserWarning, match=r"predicts epsilon .*run as predicting v_prediction"):
        loaded = load_pipeline(folder, prediction="v")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.make_solver("euler").config["prediction_type"] == "v_prediction"
    assert loaded(PROMPT, seed=1).request["model"]["prediction"] == "v_prediction"


def test_a_vae_that_is_not_for_the_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(CheckpointError, match="the VAE of an EasyAnimate is a folder"):
        load_pipeline(folder, vae=tmp_path / "vae.safetensors")
    make_vae((8, 8, 16), latent_channels=8).save_pretrained(tmp_path / "eight")
    with pytest.raises(ConfigError, match=r"has latent channels 8, and .*tiny was trained on 4"):
        load_pipeline(folder, vae=tmp_path / "eight")


def make_vae(widths: tuple[int, ...], **settings: Any) -> AutoencoderKLMagvit:
    return AutoencoderKLMagvit(
        down_block_types=["SpatialTemporalDownBlock3D"] * 3,
        up_block_types=["SpatialTemporalUpBlock3D"] * 3,
        block_out_channels=widths,
        norm_num_groups=4,
        slice_compression_vae=True,
        **settings,
    ).eval()
