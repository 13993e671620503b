"""Conditions as values: kinds by name, one file each, from calls, files and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from muybridge.conditioning.prepared import Prepared
from muybridge.errors import ConfigError
from muybridge.pipelines.call import CallSettings
from muybridge.pipelines.make import _OPTIONS
from muybridge.request import Condition, GenerateRequest, Inputs, Request, condition_kinds, register_condition
from muybridge.request import condition as conditions_module
from muybridge.request.condition import conditions_of_call
from muybridge.request.flat import _NETWORKS, flat_names, nested, over
from muybridge.request.model_choice import ModelChoice

PROMPT = "a red circle"


@pytest.fixture
def brighter() -> Any:
    """A kind of one's own, all of it: a value, its keyword, its check, and what it tells the loop."""

    @register_condition("brighter")
    class Brighter(Condition):
        """Adds to the latents after each step."""

        keywords: ClassVar[tuple[str, ...]] = ("brighter",)

        brighter: float

        def check(self, call: Any) -> None:
            super().check(call)
            if self.brighter < 0:
                raise ConfigError("brighter must not be negative.")

        def prepare(self, parts: Any, task: Any) -> Prepared:
            assert task.latents.channels == parts.codec.latent_shape(task.shape).channels
            return Prepared(after_step=lambda _, latents: latents + self.brighter)

    yield Brighter
    del conditions_module._KINDS["brighter"]


def test_a_kind_of_ones_own_is_one_class(brighter: Any, pipeline: Any) -> None:
    settings: dict[str, Any] = {"num_frames": 2, "num_inference_steps": 2, "seed": 1}
    plain = pipeline(PROMPT, output_type="latent", **settings)
    by_value = pipeline(PROMPT, conditions=[brighter(brighter=0.5)], output_type="latent", **settings)
    by_name = pipeline(PROMPT, brighter=0.5, output_type="latent", **settings)
    assert torch.equal(by_value, by_name)
    assert not torch.equal(by_value, plain)
    with pytest.raises(ConfigError, match="must not be negative"):
        pipeline(PROMPT, brighter=-1.0)
    video = pipeline(PROMPT, brighter=0.5, **settings)
    assert video.request["conditions"] == [{"kind": "brighter", "brighter": 0.5}]
    values = {"prompt": PROMPT, "conditions": [{"kind": "brighter", "brighter": 0.5}], "shape": {"num_frames": 2}}
    values["sampling"] = {"num_inference_steps": 2, "seed": 1}
    assert torch.equal(pipeline.make(Request.parse(values), output_type="latent"), by_name)


@pytest.mark.usefixtures("brighter")
def test_two_classes_cannot_have_one_name() -> None:
    class Other(Condition):
        """Another."""

    with pytest.raises(ConfigError, match="'brighter' is already taken by"):
        register_condition("brighter")(Other)
    with pytest.raises(ConfigError, match="Only a subclass of Condition"):
        register_condition("x")(int)  # type: ignore[type-var]


def test_an_argument_that_there_is_not_names_the_nearest(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="no argument 'keyframe' of a video; did you mean 'keyframes'"):
        pipeline(PROMPT, keyframe={0: "a.png"})


def test_editors_know_every_argument() -> None:
    words = {word for kind in condition_kinds().values() for word in kind.keywords}
    plain = flat_names() - {*_NETWORKS} - {*ModelChoice.model_fields, "lora"} - {"prompt", "negative_prompt"}
    of_segments = {"segment_frames", "overlap_frames", "overlap_strategy"}
    assert CallSettings.__annotations__.keys() == words | (plain - of_segments) | {*_OPTIONS, "conditions"}


def every_setting(folder: Path) -> dict[str, Any]:
    """All flat names that files can hold, with values that are not the default."""
    return {
        "prompt": {0: "a", 8: "b"},
        "negative_prompt": "c",
        "plain_prompt": True,
        "num_frames": 32,
        "width": 64,
        "height": 48,
        "fps": 12.0,
        "seed": 5,
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "scheduler": "ddim",
        "eta": 0.5,
        "windows": {"size": 8, "overlap": 2, "schedule": "uniform", "fusing": "flat", "strides": 2},
        "free_noise": True,
        "free_init": {
            "passes": 2,
            "kind": "gaussian",
            "order": 2,
            "spatial_stop": 0.5,
            "temporal_stop": 0.75,
            "coarse_to_fine": True,
        },
        "profile": "clean",
        "clip_apply_ratio": 0.75,
        "motion_strength": [0.5, 1.5],
        "positions": "stretched",
        "segment_frames": 16,
        "overlap_frames": 8,
        "overlap_strategy": "latent",
        "keyframes": {0: "a.png", -1: "b.png"},
        "sketches": {0: "c.png"},
        "control_strength": 0.5,
        "control_start": 0.25,
        "control_end": 0.75,
        "init_video": "d.mp4",
        "strength": 0.5,
        "mask": "e.png",
        "controls": [
            {"model": "f", "frames": "g.mp4", "strength": 0.5, "start": 0.1, "end": 0.9},
            {"model": "h", "frames": "i.mp4"},
        ],
        "image_prompt": ["j.png", "k.png"],
        "image_prompt_strength": 0.5,
        "original_size": [512, 512],
        "crops_coords_top_left": [8, 0],
        "target_size": [256, 256],
        "negative_original_size": [64, 64],
        "negative_crops_coords_top_left": [4, 4],
        "negative_target_size": [32, 32],
        "model": str(folder),
        "motion_adapter": "l",
        "motion_variant": "m",
        "parts_from": "n",
        "vae": "o",
        "prediction": "v",
        "lora": {"p": 0.5},
        "embeddings": {"q": "r"},
        "keyframe_control": "s",
        "sketch_control": "t",
        "image_prompt_adapter": "u",
        "image_encoder": "v",
        "networks": {"w": "x"},
        "dtype": "bfloat16",
        "device": "cpu",
        "memory": "12GB",
        "speed": ["compile"],
    }


def test_every_setting_survives_the_way_through_a_file(tmp_path: Path) -> None:
    flat = every_setting(tmp_path)
    in_memory = {"known_latents", "latents", "motion_condition"}
    words = {word for kind in condition_kinds().values() for word in kind.keywords}
    states = {word for word in words if word.endswith(("_embeds", "_mask"))}
    assert flat.keys() == (flat_names() | words) - in_memory - states - {"fit"}
    request = GenerateRequest.from_flat(flat)
    through = GenerateRequest.parse(json.loads(json.dumps(request.plain())))
    assert through == request
    assert GenerateRequest.parse(over(request.plain(), {})) == request
    assert GenerateRequest.parse(nested(flat)) == request


def test_changes_touch_what_they_name() -> None:
    document = GenerateRequest.from_flat(
        {
            "prompt": "a",
            "keyframes": {0: "a.png"},
            "sketches": {0: "b.png"},
            "init_video": "c.mp4",
            "strength": 0.25,
            "controls": [{"model": "d", "frames": "e.mp4"}, {"model": "f", "frames": "g.mp4"}],
        }
    ).plain()
    document["conditions"][1]["strength"] = 0.75  # of one of two kinds that share the word

    def conditions(**changes: Any) -> dict[str, Any]:
        return {each["kind"]: each for each in over(document, changes).get("conditions", [])}

    before = {each["kind"]: each for each in document["conditions"]}
    assert conditions() == before
    assert conditions(seed=3) == before
    after = conditions(strength=0.5)
    assert after["source"] == {"kind": "source", "video": "c.mp4", "strength": 0.5}
    assert {**after, "source": None} == {**before, "source": None}
    assert conditions(init_video="h.mp4")["source"] == {"kind": "source", "video": "h.mp4", "strength": 0.25}
    assert conditions(keyframes={3: "i.png"})["keyframes"]["pictures"] == {3: "i.png"}
    assert len([each for each in over(document, {})["conditions"] if each["kind"] == "control"]) == 2
    replaced = over(document, {"controls": [{"model": "j", "frames": "k.mp4"}]})["conditions"]
    assert [each["model"] for each in replaced if each["kind"] == "control"] == ["j"]
    assert over({"model": "my/model"}, {"dtype": "bfloat16"}) == {"model": {"model": "my/model", "dtype": "bfloat16"}}
    sized: dict[str, Any] = {"shape": {"width": 64, "height": 64}}
    assert over(sized, {"fit": 512}) == {"shape": {"fit": 512}}
    assert over({"shape": {"fit": 512}}, {"width": 32, "height": 32}) == {"shape": {"width": 32, "height": 32}}
    assert over({"model": {"model": "a", "vae": "b"}}, {"model": "c"}) == {"model": {"model": "c"}}
    assert sized == {"shape": {"width": 64, "height": 64}}
    with pytest.raises(ConfigError, match="shape: must be settings with names"):
        over({"shape": "64x64"}, {"num_frames": 8})
    with pytest.raises(ConfigError, match="dtyp: there is no such setting"):
        GenerateRequest.parse(over({"model": {"dtyp": "float16"}, "prompt": "a"}, {}))
    assert GenerateRequest.parse({"model": "demo/easyanimate", "prompt": "a"}).model.model == "demo/easyanimate"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": 16}, "sampling.windows: must be settings with names"),
        ({"seed": 1.5}, "sampling.seed: must be a whole number"),
        ({"num_frames": "many"}, "shape.num_frames: must be a whole number"),
        ({"motion_strength": [1, "a"]}, "motion.strength"),
        ({"keyframes": ["a.png"]}, "pictures: must be entries with names"),
        ({"controls": {"model": "a"}}, "controls must be a list"),
        ({"conditions": [{"kind": "edges"}]}, "kind must be one of"),
        ({"negative_prompt": 5}, "negative_prompt must be text"),
        ({"latents": "hello"}, "is a tensor, which no file holds"),
        ({"init_video": 5}, "must be the path of a file"),
        ({"prompt_mask": torch.ones(1, 4)}, "prompt_mask goes with prompt_embeds"),
    ],
)
def test_arguments_of_another_type_are_said(pipeline: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(PROMPT, **settings)


def test_numbers_may_be_numpy_s_and_none_is_the_default(pipeline: Any) -> None:
    settings = {"num_frames": np.int64(2), "num_inference_steps": 1, "seed": np.int64(3), "eta": None}
    video = pipeline(PROMPT, motion_strength=np.float32(0.5), guidance_scale=0.0, **settings)
    request = Request.parse(
        {k: v for k, v in json.loads(json.dumps(video.request)).items() if k in Request.model_fields}
    )
    assert (request.motion.strength, request.sampling.guidance_scale, request.shape.num_frames) == (0.5, 0.0, 2)


def test_one_of_a_kind(pipeline: Any) -> None:
    twice = conditions_of_call({"mask": np.ones((16, 16)), "init_video": np.zeros((2, 16, 16, 3), np.uint8)})
    with pytest.raises(ConfigError, match="two conditions of the kind"):
        pipeline(PROMPT, conditions=[*twice, *twice])
    with pytest.raises(ConfigError, match="prompts are given too"):
        pipeline.make(Request(prompt="a"), prompts=["b"])


def test_files_are_opened_once_and_known_by_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(path)
    request = GenerateRequest.from_flat({"prompt": "a", "keyframes": {0: str(path), 3: str(path)}})
    inputs = Inputs()
    request.open(inputs)
    path.unlink()
    request.open(inputs)
    assert list(inputs.digests) == [str(path)]


def test_what_lives_in_memory_is_not_plain() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    (condition,) = conditions_of_call({"keyframes": {0: black}})
    assert condition.plain() is None
    request = Request(prompt="a", conditions=(condition,))
    assert request.plain() == {"prompt": "a"}


def test_faults_of_a_condition_are_in_words() -> None:
    with pytest.raises(ConfigError, match="strength: must be a number"):
        conditions_of_call({"init_video": "a.mp4", "strength": "much"})
