from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.conftest import ClipMaker
from tests.unit.data.preparation.model_server import Asked, Reply, completion, serving

from muybridge.data.preparation.captioning.conversation import Answer
from muybridge.data.preparation.captioning.prompts import prompt_hash, shipped_prompt
from muybridge.data.preparation.captioning.writing import WritingSettings
from muybridge.data.preparation.engine.job import Worker
from muybridge.data.preparation.prepare import PrepareSettings, prepare
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.stage import Refused
from muybridge.data.preparation.stages.caption import Caption, CaptionSettings, whole_sentences
from muybridge.data.preparation.stages.rewrite import Rewrite
from muybridge.data.readers import read_dataset
from muybridge.data.record import Record
from muybridge.errors import CheckpointError, ConfigError, PreparationError

ModelFolder = Callable[[str], Path]
GOOD = completion("A grey wall gets brighter.")
OK = completion("OK")


def captioning(url: str, **settings: object) -> Caption:
    """Loaded, with a server."""
    stage = Caption(CaptionSettings.model_validate({"model": "m", "endpoint": url, "tries": 1, **settings}))
    stage.load()
    return stage


def test_captions_what_a_server_is_shown(record: Record, tmp_path: Path) -> None:
    with serving(OK, GOOD) as server:
        stage = captioning(server.url, frames=3, side=32)
        (found,) = stage.run(record, tmp_path)
    assert found.text == "A grey wall gets brighter."
    prompt = shipped_prompt("caption")
    assert found.extra["caption"] == {"by": "m", "prompt": prompt_hash(prompt)}
    *pictures, text = server.asked[1].body["messages"][0]["content"]
    assert text["text"] == prompt
    frames = [Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))) for p in pictures]
    assert [frame.size for frame in frames] == [(32, 24)] * 3
    levels = [float(np.asarray(frame).mean()) for frame in frames]
    assert levels == pytest.approx([0, 92, 184], abs=8)  # the first, the last, and one between them


def test_an_answer_that_is_no_text_is_asked_for_again(
    tmp_path: Path, make_clip: ClipMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    make_clip(tmp_path / "raw.mp4", size=(64, 48))
    (tmp_path / "list.jsonl").write_text('{"video_path": "raw.mp4"}')
    with serving(OK, completion("A wall \ud800 gets brighter."), GOOD) as server:
        caption = {"model": "m", "endpoint": server.url, "tries": 2}
        recipe = Recipe.of({"stages": [{"probe": {"min_side": 0}}, {"caption": caption}]})
        account = prepare(tmp_path / "list.jsonl", tmp_path / "out", recipe, PrepareSettings(engine="serial"))
    assert account is not None
    assert [record.text for record in account.kept] == ["A grey wall gets brighter."]
    assert read_dataset(tmp_path / "out").records[0].text == "A grey wall gets brighter."


def test_a_clip_that_the_server_does_not_like_costs_itself(tmp_path: Path, make_clip: ClipMaker) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(3):
        make_clip(tmp_path / "raw" / f"{number}.mp4", 12 + number, size=(64, 48))
    with serving(OK, OK, Reply(403, b"moderation"), GOOD) as server:
        caption = {"model": "m", "endpoint": server.url, "tries": 1}
        recipe = Recipe.of({"stages": [{"probe": {"min_side": 0, "min_seconds": 0}}, {"caption": caption}]})
        account = prepare(tmp_path / "raw", tmp_path / "out", recipe, PrepareSettings(engine="serial"))
    assert account is not None
    assert account.statuses == {"ok": 2, "caption-failed": 1}
    assert "refuses the question: 403 Forbidden: moderation" in str(account)


def test_the_same_is_not_asked_twice(record: Record, tmp_path: Path) -> None:
    with serving(OK, GOOD) as server:
        stage = captioning(server.url)
        first = stage.run(record, tmp_path)
        assert stage.run(record, tmp_path) == first
        assert len(server.asked) == 2
        captioning(server.url, frames=2).run(record, tmp_path)
        stage.run(replace(record, id="another"), tmp_path)
    assert len(server.asked) == 5  # what was asked before loading counts


def test_captions_that_are_there_stay(record: Record, tmp_path: Path) -> None:
    described = replace(record, text="A wall.")
    with serving(OK, GOOD) as server:
        assert captioning(server.url).run(described, tmp_path) == [described]
        (found,) = captioning(server.url, replace=True).run(described, tmp_path)
    assert found.text == "A grey wall gets brighter."


@pytest.mark.parametrize("bad", [Reply(500), Reply(200, b"garbage"), completion("Cut off in the", "length")])
def test_no_caption_is_a_status(record: Record, tmp_path: Path, bad: Reply) -> None:
    with serving(OK, bad) as server, pytest.raises(Refused) as refused:
        captioning(server.url).run(record, tmp_path)
    assert (refused.value.rule, refused.value.status) == ("caption-failed", "caption-failed")
    assert not list((tmp_path / "answers").glob("**/*.json"))  # the next run asks again


def test_a_key_that_is_refused_stops_the_run(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret-9")
    with serving(Reply(401)) as server, pytest.raises(ConfigError, match="does not accept the key") as error:
        captioning(server.url, key_env="A_KEY")
    assert "sk-secret-9" not in str(error.value)
    with serving(OK, Reply(401)) as server:
        stage = captioning(server.url, key_env="A_KEY")
        with pytest.raises(PreparationError, match="does not accept the key"):
            stage.run(record, tmp_path)
    assert b"sk-secret-9" not in pickle.dumps(Caption(stage.settings))
    assert "sk-secret-9" not in stage.key(record) + json.dumps(stage.settings.model_dump())


def test_the_engine_hands_on_what_stops_a_run(record: Record, tmp_path: Path) -> None:
    from muybridge.data.preparation.engine.job import Job

    with serving(OK, Reply(401)) as server:
        worker = Worker((captioning(server.url),), tmp_path)
        with pytest.raises(PreparationError, match="does not accept the key"):
            worker.run_first(Job("1", 0, 1, record))


def test_a_server_is_asked_before_anything_is_decoded(tmp_path: Path, make_clip: ClipMaker) -> None:
    (tmp_path / "raw").mkdir()
    make_clip(tmp_path / "raw" / "0.mp4", size=(64, 48))
    with serving(Reply(404)) as server:
        caption = {"model": "m", "endpoint": server.url, "tries": 1}
        recipe = Recipe.of({"stages": [{"probe": {"min_side": 0}}, {"caption": caption}]})
        with pytest.raises(PreparationError, match=r"caption cannot begin: .* knows no such model"):
            prepare(tmp_path / "raw", tmp_path / "out", recipe, PrepareSettings(engine="serial"))
    assert (tmp_path / "out/journal/results.jsonl").read_bytes() == b""
    with serving(GOOD) as server:
        caption = {"model": "m", "endpoint": server.url, "tries": 1}
        recipe = Recipe.of({"stages": [{"probe": {"min_side": 0}}, {"caption": caption}]})
        for _ in range(2):  # the second time there is nothing to do
            prepare(tmp_path / "raw", tmp_path / "out", recipe, PrepareSettings(engine="serial"))
        assert len(server.asked) == 3


def test_how_a_model_is_reached_does_not_change_results(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", "sk-1")
    one = Caption(CaptionSettings(model="m", endpoint="http://a/v1"))
    other = Caption(CaptionSettings(model="m", endpoint="http://b/v1", parallel=9, tries=2, timeout_s=1, key_env="K"))
    assert one.key(record) == other.key(record)
    assert other.seconds_more >= 2 * 1  # as all tries may take
    assert one.key(record) != Caption(CaptionSettings(model="n", endpoint="http://a/v1")).key(record)
    assert one.key(record) != Caption(CaptionSettings(model="m", endpoint="http://a/v1", frames=2)).key(record)


def test_another_prompt_is_another_result(record: Record, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("What?")
    shipped = Caption(CaptionSettings(model="m", endpoint="http://a/v1"))
    own = Caption(CaptionSettings(model="m", endpoint="http://a/v1", prompt=str(tmp_path / "prompt.txt")))
    assert own.prompt == "What?"
    (tmp_path / "prompt.txt").write_text("Which?")
    changed = Caption(CaptionSettings(model="m", endpoint="http://a/v1", prompt=str(tmp_path / "prompt.txt")))
    assert len({each.key(record) for each in (shipped, own, changed)}) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "nowhere"}, "there is no folder nowhere"),
        ({"endpoint": "http://a/v1"}, "caption.model must be the model's name"),
        ({"endpoint": "a", "model": "m"}, "An endpoint is an address"),
        ({"endpoint": "http://a", "model": "m", "prompt": "nowhere.txt"}, "nowhere.txt cannot be read"),
        ({"endpoint": "http://a", "model": "m", "key_env": "NO_SUCH_KEY"}, "in the variable NO_SUCH_KEY"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.of({"stages": ["probe", {"caption": settings}]})


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        Caption(CaptionSettings(model=str(tmp_path)))
    for settings in ("{}", '{"model_type": "clip", "architectures": ["CLIPModel"]}', '{"model_type": ["x"]}'):
        (tmp_path / "config.json").write_text(settings)
        with pytest.raises(ConfigError, match="must be the folder of a model for image-text-to-text"):
            Caption(CaptionSettings(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    Rewrite(WritingSettings(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(CheckpointError, match="cannot be loaded as a model for image-text-to-text"):
        Caption(CaptionSettings(model=str(tmp_path))).load()


def test_without_a_model_the_stages_are_left_out_with_a_note() -> None:
    recipe = Recipe.of({"stages": ["probe", "caption", "rewrite", "check-captions", "match"]})
    assert [stage.name for stage in recipe.stages] == ["probe", "check-captions"]
    assert recipe.idle["caption"].startswith("no model is named (caption.model=FOLDER")
    assert set(recipe.idle) == {"caption", "rewrite", "match"}


def test_captions_by_a_folder(record: Record, tmp_path: Path, model_folder: ModelFolder) -> None:
    settings = CaptionSettings(model=str(model_folder("llava")), frames=2, side=28, most_tokens=8, device="cpu")
    stage = Caption(settings)
    stage.load()
    # Letters without sense: a sentence that never ends.
    with pytest.raises(Refused, match="cut off"):
        stage.run(record, tmp_path)
    assert "llava" not in Caption(settings).digest()  # what is in it counts, not where it lies


def test_rewrites_what_is_json(record: Record, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        assert asked.body["messages"][0]["content"].endswith('Description: The video shows a "wall".')
        return completion('```json\n{"caption": "A  wall."}\n```')

    described = replace(record, text='The video shows\na "wall".')
    with serving(OK, answer) as server:
        stage = Rewrite(WritingSettings(model="m", endpoint=server.url, tries=1))
        stage.load()
        (found,) = stage.run(described, tmp_path)
        assert stage.run(record, tmp_path) == [record]
    assert found.text == "A wall."
    assert found.extra["rewrite"]["was"] == described.text
    assert found.extra["rewrite"]["prompt"] == prompt_hash(shipped_prompt("rewrite"))


def test_three_answers_that_are_no_json_are_enough(record: Record, tmp_path: Path) -> None:
    with serving(OK, completion("A wall."), completion('{"caption": 1}'), completion("{")) as server:
        stage = Rewrite(WritingSettings(model="m", endpoint=server.url))
        stage.load()
        with pytest.raises(Refused, match="3 answers were not the JSON") as refused:
            stage.run(replace(record, text="A wall."), tmp_path)
    assert refused.value.status == "caption-failed"
    assert len(server.asked) == 4
    # Each time it is told what was wrong, as a model that draws nothing would answer the same again.
    assert [turn["role"] for turn in server.asked[2].body["messages"]] == ["user", "assistant", "user"]


def test_rewrites_by_a_folder(record: Record, tmp_path: Path, model_folder: ModelFolder) -> None:
    stage = Rewrite(WritingSettings(model=str(model_folder("language_model")), most_tokens=4, device="cpu"))
    stage.load()
    with pytest.raises(Refused, match="3 answers"):
        stage.run(replace(record, text="A wall."), tmp_path)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer("A cat\n jumps. It"), "A cat jumps. It"),
        (Answer("A cat jumps. It is 3.5", is_cut=True), "A cat jumps."),
        (Answer('A cat says "hm." And', is_cut=True), 'A cat says "hm.'),
        (Answer("A cat", is_cut=True), ""),
    ],
)
def test_sentences_that_are_cut_off_are_left_out(answer: Answer, text: str) -> None:
    assert whole_sentences(answer) == text


def test_an_answer_is_about_a_part_of_the_picture(record: Record, tmp_path: Path) -> None:
    cropped = replace(record, extra={**record.extra, "crop": [0, 0, 32, 48, 64, 48]})
    for kind, is_same in ((Caption, False), (Rewrite, True)):
        keys = [kind().kept(each, tmp_path)[1] for each in (record, cropped)]
        assert (keys[0] == keys[1]) is is_same


def test_three_questions_may_take_three_times_as_long() -> None:
    assert Rewrite().seconds_more == 3 * Caption().seconds_more
