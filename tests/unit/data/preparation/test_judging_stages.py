from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from tests.films import Pixels

from muybridge.data.preparation.stages.aesthetics import Aesthetics, AestheticsSettings
from muybridge.data.preparation.stages.consistency import Consistency, ConsistencySettings
from muybridge.data.preparation.stages.match import Match, MatchSettings
from muybridge.data.preparation.stages.text import Text, TextSettings
from muybridge.data.probe import probe
from muybridge.data.record import Record
from muybridge.errors import CheckpointError, ConfigError

ModelFolder = Callable[[str], Path]


def write_head(path: Path, *widths: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    layers = {}
    for place, (inner, outer) in enumerate(itertools.pairwise(widths)):
        layers[f"layers.{2 * place}.weight"] = torch.randn(outer, inner)
        layers[f"layers.{2 * place}.bias"] = torch.randn(outer)
    if path.suffix == ".pth":
        torch.save(layers, path)
    else:
        save_file(layers, path)
    return layers


@pytest.mark.parametrize(("kind", "width", "suffix"), [("clip", 16, ".pth"), ("siglip", 32, ".safetensors")])
def test_a_head_judges_frames(
    kind: str, width: int, suffix: str, record: Record, tmp_path: Path, model_folder: ModelFolder
) -> None:
    from transformers import AutoImageProcessor, AutoModel

    from muybridge.data.preparation.spread_frames import spread_frames

    head = tmp_path / f"head{suffix}"
    layers = write_head(head, width, 8, 1)
    settings = AestheticsSettings(model=str(model_folder(kind)), head=str(head), frames=2, device="cpu", min_score=50)
    stage = Aesthetics(settings)
    stage.load()
    (found,) = stage.run(record, tmp_path)
    model = AutoModel.from_pretrained(model_folder(kind))
    pixels = AutoImageProcessor.from_pretrained(model_folder(kind))(spread_frames(record, 2), return_tensors="pt")
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
    for place in (0, 2):
        vectors = vectors @ layers[f"layers.{place}.weight"].T + layers[f"layers.{place}.bias"]
    assert found.extra["aesthetics"]["mean"] == pytest.approx(float(vectors.mean()), abs=1e-3)
    assert found.extra["aesthetics"]["least"] == pytest.approx(float(vectors.min()), abs=1e-3)
    verdict = stage.verdict(found)
    assert verdict is not None
    assert (verdict.rule, verdict.limit) == ("aesthetics", 50)


def test_heads_that_are_none(record: Record, tmp_path: Path, model_folder: ModelFolder) -> None:
    head = tmp_path / "head.safetensors"

    def loaded() -> Aesthetics:
        stage = Aesthetics(AestheticsSettings(model=str(model_folder("clip")), head=str(head), device="cpu"))
        stage.load()
        return stage

    with pytest.raises(ConfigError, match="there is no file"):
        loaded()
    write_head(head, 16, 8)
    with pytest.raises(CheckpointError, match="to one number"):
        loaded()
    write_head(head, 4, 1)
    with pytest.raises(CheckpointError, match="takes vectors of 4 numbers, and the model gives 16"):
        loaded().run(record, tmp_path)
    assert "no model and head" in (Aesthetics(AestheticsSettings(head=str(head))).idle_reason() or "")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_captions_are_compared_with_the_picture(
    kind: str, record: Record, tmp_path: Path, model_folder: ModelFolder
) -> None:
    stage = Match(MatchSettings(model=str(model_folder(kind)), device="cpu", min_match=1.1))
    stage.load()
    described = replace(record, text="a wall that gets brighter, and so on for longer than there is room")
    (found,) = stage.run(described, tmp_path)
    assert -1 <= found.extra["match"]["mean"] <= 1
    assert stage.verdict(found) is not None
    assert stage.run(record, tmp_path) == [record]
    assert stage.verdict(record) is None


def test_frames_are_compared_with_the_next(
    record: Record, tmp_path: Path, model_folder: ModelFolder, make_film: Callable[..., Path]
) -> None:
    stage = Consistency(ConsistencySettings(model=str(model_folder("clip")), device="cpu", min_similarity=0.99))
    stage.load()

    def looked_at(name: str, frames: list[Pixels]) -> Record:
        found = probe(Record(name, str(make_film(tmp_path / f"{name}.mp4", frames)), "video"))
        assert isinstance(found, Record)
        return stage.run(found, tmp_path)[0]

    here, there = np.full((64, 96, 3), 30, np.uint8), np.full((64, 96, 3), 30, np.uint8)
    there[:, 48:] = (255, 120, 0)
    still, changing = looked_at("still", [here] * 8), looked_at("changing", [here] * 4 + [there] * 4)
    assert still.extra["consistency"]["least"] > 0.999 > changing.extra["consistency"]["least"]
    assert stage.verdict(still) is None
    picture = replace(record, kind="image")
    assert stage.run(picture, tmp_path) == [picture]
    changing.extra["consistency"]["least"] = 0.5
    verdict = stage.verdict(changing)
    assert verdict is not None
    assert (verdict.rule, verdict.limit) == ("consistency", 0.99)
    assert "consistency.model=FOLDER" in (Consistency().idle_reason() or "")


def test_a_model_of_text_alone_gives_no_vectors(model_folder: ModelFolder) -> None:
    with pytest.raises(CheckpointError, match="gives no vectors of pictures"):
        Match(MatchSettings(model=str(model_folder("language_model")))).load()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="rapidocr is not installed")
def test_writing_is_found(tmp_path: Path) -> None:
    picture = Image.new("RGB", (640, 360), "grey")
    picture.save(tmp_path / "plain.png")
    font = ImageFont.load_default(36)
    ImageDraw.Draw(picture).text((30, 150), "SUBSCRIBE FOR MORE VIDEOS", "white", font)
    picture.save(tmp_path / "words.png")
    stage = Text(TextSettings())
    stage.load()

    def looked_at(name: str) -> Record:
        record = Record("x", str(tmp_path / name), "image", width=640, height=360)
        return stage.run(record, tmp_path)[0]

    plain, words = looked_at("plain.png"), looked_at("words.png")
    assert plain.extra["text_area"] == {"most": 0, "least": 0}
    assert 0.04 < words.extra["text_area"]["most"] < 0.2
    assert stage.verdict(plain) is None
    verdict = stage.verdict(words)
    assert verdict is not None
    assert verdict.rule == "text"


def test_without_rapidocr_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    stage = Text(TextSettings())
    assert "pip install 'muybridge[data]'" in (stage.idle_reason() or "")
    with pytest.raises(ConfigError, match="rapidocr is not installed"):
        stage.load()
