"""What is chosen for somebody who says nothing but where the clips are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muybridge.data.settings import DataSettings
from muybridge.training.newcomer import ClipsRun, run_document


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.mp4").write_bytes(b"%d" % number)  # none is opened
        (folder / f"{number}.txt").write_text(f"a cat, number {number}")
    return folder


def prior_of(clips: Path, **asked: Any) -> tuple[dict[str, Any] | None, int, str]:
    """The prior, the batch size, and what is said."""
    document, picked = run_document(ClipsRun(clips, **asked))
    DataSettings.model_validate(document["data"])
    return document["data"].get("prior"), document["stages"][0]["batch_size"], " ".join(picked)


def test_what_the_model_can_do_is_kept(clips: Path) -> None:
    prior, batch_size, said = prior_of(clips)
    assert prior is not None
    assert prior == prior_of(clips, prior="model")[0]
    assert prior["prompts"] == "demo-world"
    assert batch_size == 4
    assert "clips of what the model can do are made first" in said
    plain, batch_size, said = prior_of(clips, prior="off")
    assert plain is None
    assert prior_of(clips, base="some/model")[0] is None  # clips of a large one take hours
    assert prior_of(clips, method="motion")[0] is None
    assert prior_of(clips, method="motion", prior="model")[0] == {"prompts": "demo-world", "clips": 48}
    assert batch_size == 2
    assert "--prior model holds them" in said
    assert prior_of(clips, prior="model", method="motion-lora")[0] == prior


def test_captions_without_the_word_are_kept_too(clips: Path) -> None:
    assert prior_of(clips, prior="model", base="some/model")[0] == {}
    named, _, _ = prior_of(clips, prior="model", base="some/model", trigger="sks")
    assert named is not None
    assert named["prompts"][0] == "a cat, number 0"
    assert len(named["prompts"]) == 40


def test_what_is_kept_can_be_said(clips: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog\n")
    prior, _, _ = prior_of(clips, prior=str(prompts))
    assert prior is not None
    assert prior["prompts"] == str(prompts)
    known, _, said = prior_of(clips, prior=str(clips))
    assert known == {"path": str(clips)}
    assert f"half of the clips are of {clips}" in said
