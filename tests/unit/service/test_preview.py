"""Previews: when there are any, what they are, and where their maps come from."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.request import GenerateRequest, ModelChoice
from muybridge.service.engine import Engine, Preview, Report
from muybridge.service.inspection import inspect_path
from muybridge.service.preview import Pace, PreviewMaps
from muybridge.vae.preview_map import FILE_NAME, PreviewMap

CHANNELS, PATCH = 4, 2


@pytest.fixture
def with_map(saved_pipeline: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(saved_pipeline, folder)
    weight = 0.1 * torch.randn(9 * CHANNELS + 1, 3 * PATCH**2, generator=torch.Generator().manual_seed(0))
    PreviewMap(weight, PATCH, 1).save(folder / "vae" / FILE_NAME)
    return folder


def test_a_preview_is_a_webp_that_moves_and_loops() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    with Image.open(io.BytesIO(Preview(frames, fps=10).webp())) as image:
        assert (image.format, image.size) == ("WEBP", (12, 8))
        assert getattr(image, "n_frames", 1) == 5
        assert image.info["loop"] == 0
        image.seek(1)
        image.load()
        assert image.info["duration"] == 100


def test_previews_take_their_time() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert not pace.is_due
    now[0] = 0.5
    assert pace.is_due
    pace.taken()
    pace.took(0.05)
    now[0] = 2.9
    assert not pace.is_due
    now[0] = 3.1  # a fortieth of the time, and half a second
    assert pace.is_due


def test_an_engine_offers_them_while_it_denoises(
    with_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muybridge.service.preview._LEAST_SECONDS", 0.0)
    request = GenerateRequest.from_flat(
        {"prompt": "a", "model": str(with_map), "num_frames": 3, "num_inference_steps": 2, "seed": 1}
    )
    seen: list[Preview] = []

    def look(report: Report) -> None:
        if report.preview is not None and (preview := report.preview()) is not None:
            assert report.phase == "denoise"
            seen.append(preview)

    engine = Engine()
    with_previews = engine.run(request, tmp_path / "a.png", report=look)
    assert seen[0].frames.shape == (3, 16, 16, 3)
    assert seen[0].frames.dtype == np.uint8
    plain = engine.run(request, tmp_path / "b.png")
    frames = [sorted(path.iterdir()) for path in (with_previews.path, plain.path)]
    assert [each.read_bytes() for each in frames[0]] == [each.read_bytes() for each in frames[1]]


def test_a_map_beside_a_vae_hinders_nobody(with_map: Path, saved_pipeline: Path, tmp_path: Path) -> None:
    found, plain = load_pipeline(with_map), load_pipeline(saved_pipeline)
    assert isinstance(found, AnimateDiffPipeline)
    assert all(torch.equal(a, b) for a, b in zip(found.vae.parameters(), plain.vae.parameters(), strict=True))
    found.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "vae" / FILE_NAME).exists()
    load_pipeline(tmp_path / "again")
    assert inspect_path(with_map)["parts"]["vae"] == inspect_path(saved_pipeline)["parts"]["vae"]
    other = AnimateDiffPipeline.from_pretrained(saved_pipeline, vae=type(found.vae).from_pretrained(with_map / "vae"))
    assert other.vae.config["latent_channels"] == CHANNELS


def test_a_broken_map_is_none(with_map: Path) -> None:
    (with_map / "vae" / FILE_NAME).write_bytes(b"broken")
    assert PreviewMaps().of(ModelChoice(model=str(with_map))) is None


def test_models_without_a_map_are_learned_from_their_videos(saved_pipeline: Path, tmp_path: Path) -> None:
    choice, kept = ModelChoice(model=str(saved_pipeline)), tmp_path / "maps"
    maps, generator = PreviewMaps(folder=kept), torch.Generator().manual_seed(0)
    latents = torch.randn(CHANNELS, 2, 6, 6, generator=generator)
    for index in range(8):
        assert maps.of(choice) is None
        if index == 4:
            maps = PreviewMaps(folder=kept)  # another day
            assert maps.is_wanted(choice)
        latents = torch.randn(CHANNELS, 2, 6, 6, generator=generator)
        maps.learn(choice, latents, np.full((2, 12, 12, 3), 90, np.uint8), 1)
    found = maps.of(choice)
    assert found is not None
    assert (found.frames(latents).int() - 90).abs().max() <= 1
    assert not maps.is_wanted(choice)
    assert PreviewMaps(folder=kept).of(choice) is not None
    assert not PreviewMaps(learns=False).is_wanted(choice)
    maps.learn(choice, latents, np.full((2, 13, 12, 3), 90, np.uint8), 1)  # no multiple: passed over


def test_an_engine_learns_unless_it_is_told_not_to(saved_pipeline: Path, tmp_path: Path) -> None:
    request = GenerateRequest.from_flat(
        {"prompt": "a", "model": str(saved_pipeline), "num_frames": 2, "num_inference_steps": 1, "seed": 1}
    )
    for learns, expected in ((True, 1), (False, 0)):
        folder = tmp_path / f"{learns}"
        Engine(learns_previews=learns, preview_folder=folder).run(request, tmp_path / "a.png")
        assert len(list(folder.glob("*"))) == expected


@pytest.mark.parametrize("model", ["demo/animatediff", "demo/easyanimate"])
def test_the_demos_come_with_their_maps(model: str) -> None:
    found = PreviewMaps().of(ModelChoice(model=model))
    assert found is not None
    assert (found.channels, found.patch) == (4, 4)
    assert found.frames_per_latent == (4 if model.endswith("easyanimate") else 1)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["demo/animatediff", "demo/easyanimate"])
def test_the_maps_of_the_demos_show_clips_they_were_not_fitted_to(model: str) -> None:
    from muybridge.demo.previews import HELD_OUT_SEED, encoded_clips

    found = PreviewMaps().of(ModelChoice(model=model))
    assert found is not None
    psnr: Callable[[Any, Any], float] = lambda a, b: float(10 * np.log10(255**2 / np.square(a - b).mean()))  # noqa: E731
    clips = list(encoded_clips(load_pipeline(model), 3, HELD_OUT_SEED))
    assert np.mean([psnr(found.frames(each).numpy().astype(float), frames) for each, frames in clips]) > 17
