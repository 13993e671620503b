"""The guide from raw videos to a LoRA, command by command, on videos of four seconds and a server in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.docs_pages import DOCS, shell_of
from tests.docs_stand_ins import StandIns
from tests.unit.data.preparation.model_server import Asked, Reply, completion, serving

from muybridge.cli.main import main

PAGE = "guide/clips-to-lora.md"
SERVER = "http://localhost:8000/v1"
SMALL = (
    "--steps",
    "1",
    "--set",
    "batch_size=1",
    "--set",
    "rank=2",
    "--set",
    "num_frames=2",
    "--set",
    "evaluation.every=null",
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def answer(asked: Asked) -> Reply:
    if asked.body["model"] == "a-language-model":
        return completion('{"caption": "Bands of colour drift across the whole picture."}')
    return completion("Bands of colour drift from right to left, and the camera stays where it is.")


def texts() -> list[str]:
    """Captions of what is kept."""
    return [json.loads(line)["text"] for line in Path("sets/beach/manifest.jsonl").read_text().splitlines()]


def test_the_guide_leads_to_a_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    StandIns((DOCS / PAGE).read_text(encoding="utf-8"), tmp_path).write()
    with serving(answer) as server:
        for block in shell_of(PAGE):
            for arguments in block.commands():
                asked = [each.replace(SERVER, server.url) for each in arguments]
                if asked[0] == "train":
                    asked += SMALL
                elif asked[0] == "generate":
                    asked += ["--steps", "1"]
                elif asked[:2] == ["data", "prepare"]:
                    asked += ["--workers", "1"]
                with pytest.raises(SystemExit) as ended:
                    main(asked)
                assert ended.value.code == 0, (block.line, asked, capsys.readouterr().err)
                if "--recipe" in asked:
                    assert texts() == ["Bands of colour drift across the whole picture."] * 4
    assert server.asked
    assert len(texts()) == 4  # the videos were cut where the scene changes
    assert len(json.loads(Path("sets/beach.json").read_text())) == 4
    assert "broken.mp4" in Path("sets/beach/dropped.jsonl").read_text()
    assert Path("sets/beach/report.html").is_file()
    assert Path("work/beach/beach.safetensors").is_file()
