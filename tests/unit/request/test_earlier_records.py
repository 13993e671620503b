"""Files that were made before requests had parts repeat as they were made.

The records are those of real files of that version, made with the shipped models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muybridge.request import WindowSettings
from muybridge.request.generate_request import repeated

RECORDS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "earlier_records.json").read_text())


@pytest.mark.parametrize("name", RECORDS)
def test_plain_settings_are_kept(name: str) -> None:
    record = RECORDS[name]
    request = repeated(record)
    assert request.model.model == record["model"]
    assert request.sampling.seed == record["seed"] == 1
    assert request.shape.num_frames == record["num_frames"]
    assert request.plain_prompt is False
    assert repeated(json.loads(json.dumps(request.plain()))) == request


def test_conditions_are_what_the_names_meant() -> None:
    assert repeated(RECORDS["a2"]).plain()["conditions"] == [{"kind": "keyframes", "pictures": {0: "start.png"}}]
    assert repeated(RECORDS["a4"]).plain()["conditions"] == [{"kind": "source", "video": "a1.mp4", "strength": 0.5}]
    assert {each.kind for each in repeated(RECORDS["e3"]).conditions} == {"source", "mask"}
    assert repeated(RECORDS["e1"]).conditions[0].plain() == {
        "kind": "keyframes",
        "pictures": {0: "start.png", -1: "start.png"},
    }


def test_what_has_parts_of_its_own_is_kept() -> None:
    request = repeated(RECORDS["a3"])
    assert request.sampling.windows == WindowSettings(16, 4, "uniform")
    assert request.sampling.free_init is not None
    assert request.sampling.free_init.passes == 2
    assert request.prompt == {0: "a (red:1.2) circle", 10: "square"}
    segments = repeated(RECORDS["e2"]).segments
    assert segments is not None
    assert (segments.frames, segments.overlap, segments.strategy) == (16, 8, "latent")
