"""From the fields of a call to the document of a request."""

from __future__ import annotations

import pytest

from muybridge.api.documents import Usual, asked
from muybridge.api.errors import ApiError
from muybridge.errors import ConfigError
from muybridge.request import GenerateRequest

UPLOAD = "upload_" + "1" * 32


NOT_TOLD = Usual()


def read(fields, kind="picture", usual=NOT_TOLD):
    return asked(fields, lambda *_: (UPLOAD, kind), lambda _: usual)


def test_names_of_openai_and_vllm_omni():
    found = read(
        {
            "prompt": "a cat",
            "model": "demo/easyanimate",
            "size": "64x48",
            "width": "32",
            "seconds": "4",
            "fps": "5",
            "num_inference_steps": "3",
            "guidance_scale": "2.5",
            "seed": "7",
            "negative_prompt": "dark",
            "user": "somebody",
        }
    )
    request = GenerateRequest.parse(found.document)
    assert (request.shape.width, request.shape.height, request.shape.num_frames) == (64, 48, 20)
    assert request.sampling.num_inference_steps == 3
    assert request.model.model == "demo/easyanimate"
    assert found.seconds == "4"


def test_frames_are_said_better_than_seconds():
    assert read({"prompt": "a", "seconds": 9, "num_frames": 8}).document["shape"]["num_frames"] == 8


def test_seconds_become_as_many_frames_as_the_model_can():
    usual = Usual(fps=24.0, multiple=8)
    assert read({"prompt": "a", "seconds": "1.5"}, usual=usual).document["shape"]["num_frames"] == 32
    assert read({"prompt": "a", "seconds": "0.01"}, usual=usual).document["shape"]["num_frames"] == 8


def test_a_reference_is_the_first_frame_or_a_source():
    picture = read({"prompt": "a", "input_reference": UPLOAD}).document["conditions"]
    assert picture == [{"kind": "keyframes", "pictures": {0: UPLOAD}}]
    video = read({"prompt": "a", "input_reference": {"image_url": "data:video/mp4;base64,AA"}}, "video").document
    assert video["conditions"] == [{"kind": "source", "video": UPLOAD}]


def test_a_reference_goes_with_other_keyframes():
    document = read({"prompt": "a", "input_reference": UPLOAD, "keyframes": {"-1": UPLOAD}}).document
    assert document["conditions"][0]["pictures"] == {0: UPLOAD, -1: UPLOAD}
    with pytest.raises(ApiError, match="first keyframe"):
        read({"prompt": "a", "input_reference": UPLOAD, "keyframes": {"0": UPLOAD}})


def test_the_whole_document_and_changes_of_it():
    document = {"prompt": "a", "sampling": {"seed": 1, "eta": 0.5}, "model": "demo/animatediff"}
    found = read({"request": document, "seed": 2}).document
    assert found["sampling"] == {"seed": 2, "eta": 0.5}


def test_further_fields_in_one():
    found = read({"prompt": "a", "extra_params": {"eta": 0.5, "motion": {"strength": 0.5}}}).document
    assert found["sampling"]["eta"] == 0.5
    assert found["motion"]["strength"] == 0.5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"flow_shift": 1}, "flow_shift"),
        ({"guidance_scale_2": 1}, "guidance_scale_2"),
        ({"image_reference": "http://127.0.0.1/a.png"}, "image_reference"),
        ({"image_reference": {"image_url": "file:///etc/passwd"}}, "image_reference"),
        ({"input_reference": "/etc/passwd"}, "input_reference"),
        ({"input_reference": 3}, "input_reference"),
        ({"seconds": "four"}, "seconds"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"size": "big"}, "size"),
        ({"size": "0x8"}, "size"),
        ({"priority": "x"}, "priority"),
        ({"priority": 1e9}, "priority"),
        ({"device": "cuda"}, "device"),
        ({"memory": "max"}, "memory"),
        ({"request": {"model": {"device": "cuda"}}}, "model.device"),
        ({"request": {"nothing": 1}}, "nothing"),
        ({"request": 3}, "request"),
        ({"extra_params": [1]}, "extra_params"),
        ({"extra_params": {"eta": 1}, "eta": 1}, "extra_params"),
    ],
)
def test_a_wrong_field_is_named(fields, param):
    with pytest.raises(ApiError) as caught:
        read({"prompt": "a", **fields} if "request" not in fields else fields)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_request_says_what_is_wrong_with_its_own_fields():
    with pytest.raises(ConfigError, match="num_inference_steps"):
        GenerateRequest.parse(read({"prompt": "a", "num_inference_steps": "many"}).document)
