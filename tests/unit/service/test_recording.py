"""What a video file says about how it was made, and making the same video from that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from muybridge.backbones.unet.image_prompt import text_attention_blocks
from muybridge.errors import ConfigError, InputFileError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.request import GenerateRequest, Inputs
from muybridge.request.digests import digest_of
from muybridge.request.generate_request import check_inputs, repeated
from muybridge.service.generation import generate_file, open_inputs
from muybridge.video import read_request, read_video

TEXT, PROJECTED = 16, 24


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "style.png")
    return tmp_path / "style.png"


@pytest.fixture
def image_prompt_adapter(saved_pipeline: Path, tmp_path: Path) -> Path:
    """An IP-Adapter for the small pipeline, with its encoder beside it."""
    torch.manual_seed(0)
    pipeline = load_pipeline(saved_pipeline)
    assert isinstance(pipeline, AnimateDiffPipeline)
    weights = {"image_proj.proj.weight": torch.randn(4 * TEXT, PROJECTED), "image_proj.proj.bias": torch.zeros(64)}
    weights |= {"image_proj.norm.weight": torch.ones(TEXT), "image_proj.norm.bias": torch.zeros(TEXT)}
    for index, block in enumerate(text_attention_blocks(pipeline.unet).values()):
        for name in "kv":
            shape = (block.attn2.to_q.out_features, TEXT)
            weights[f"ip_adapter.{2 * index + 1}.to_{name}_ip.weight"] = torch.randn(shape)
    save_file(weights, tmp_path / "ip-adapter.safetensors")
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=PROJECTED,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "image_encoder")
    return tmp_path / "ip-adapter.safetensors"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_image_prompt_and_its_strength_are_recorded_and_repeated(
    saved_pipeline: Path, image_prompt_adapter: Path, picture: Path, tmp_path: Path
) -> None:
    request = GenerateRequest.from_flat(
        {
            "model": str(saved_pipeline),
            "prompt": "a red circle",
            "image_prompt": [str(picture)],
            "image_prompt_adapter": str(image_prompt_adapter),
            "image_prompt_strength": 0.4,
            "num_frames": 2,
            "num_inference_steps": 2,
            "seed": 3,
        }
    )
    generate_file(request, tmp_path / "a.png", show_progress=False)
    embedded = read_request(tmp_path / "a.png")
    assert embedded is not None
    assert embedded["conditions"] == [{"kind": "image-prompt", "pictures": [str(picture)], "strength": 0.4}]
    assert embedded["made"]["unrecorded"] == []

    again = repeated(embedded)
    generate_file(again, tmp_path / "b.png", show_progress=False)
    weaker = repeated(embedded, {"image_prompt_strength": 0.1})
    generate_file(weaker, tmp_path / "c.png", show_progress=False)

    first, second, third = (read_video(tmp_path / f"{name}.png").frames for name in "abc")
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_a_record_gives_the_request_again(saved_pipeline: Path, picture: Path) -> None:
    asked = GenerateRequest.from_flat(
        {
            "model": str(saved_pipeline),
            "prompt": "a",
            "init_video": str(picture.parent),
            "fit": 64,
            "num_inference_steps": 2,
            "motion_strength": 0.5,
        }
    )
    (picture.parent / "0000.png").write_bytes(picture.read_bytes())
    picture.unlink()
    pipeline = load_pipeline(saved_pipeline)
    embedded = json.loads(json.dumps(pipeline.make(asked).request))

    again = repeated(embedded)

    assert again.model == asked.model.model_copy(update={"dtype": "float32"})
    assert (again.shape.width, again.shape.height, again.shape.fit) == (64, 64, None)
    assert again.sampling.seed == embedded["sampling"]["seed"]
    assert (again.motion, again.sampling.num_inference_steps) == (asked.motion, 2)
    assert again.conditions[0].plain() == {"kind": "source", "video": str(picture.parent), "strength": 0.8}
    assert np.array_equal(pipeline.make(again).frames, pipeline.make(again).frames)
    assert list(embedded["inputs"]) == [str(picture.parent)]


def test_a_request_without_files_has_no_digests(saved_pipeline: Path) -> None:
    video = load_pipeline(saved_pipeline)("a", num_frames=1, num_inference_steps=1)
    assert "inputs" not in video.request


def opened(**values: object) -> Inputs:
    return open_inputs(GenerateRequest.from_flat({"prompt": "a", **values}))


def test_a_file_that_became_another_is_named(picture: Path, tmp_path: Path) -> None:
    embedded = {"inputs": opened(image_prompt=[str(picture)]).digests}
    check_inputs(opened(image_prompt=[str(picture)]), embedded)

    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture)

    with pytest.raises(ConfigError, match=r"style\.png is not the file any more"):
        check_inputs(opened(image_prompt=[str(picture)]), embedded)
    check_inputs(opened(image_prompt=[str(picture)]), {})
    other = tmp_path / "other.png"
    picture.rename(other)
    check_inputs(opened(image_prompt=[str(other)]), embedded)
    with pytest.raises(InputFileError, match=r"style\.png"):
        opened(image_prompt=[str(picture)])


@pytest.mark.parametrize("named", ["pose", "pose.png"])  # either name reads what was saved as pose.png
def test_a_folder_that_became_another_is_named(picture: Path, tmp_path: Path, named: str) -> None:
    folder = tmp_path / "pose"
    folder.mkdir()
    for index in range(2):
        (folder / f"{index:04d}.png").write_bytes(picture.read_bytes())
    embedded = {"inputs": opened(init_video=str(tmp_path / named)).digests}
    (folder / ".directory").touch()  # of a file manager; not read
    check_inputs(opened(init_video=str(tmp_path / named)), embedded)

    for change in (
        lambda: Image.new("RGB", (16, 16)).save(folder / "0001.png"),
        lambda: (folder / "0001.png").rename(folder / "0002.png"),
        (folder / "0002.png").unlink,
    ):
        change()
        with pytest.raises(ConfigError, match=f"{named} is not the file any more"):
            check_inputs(opened(init_video=str(tmp_path / named)), embedded)
        embedded = {"inputs": opened(init_video=str(tmp_path / named)).digests}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_picture_replaced_or_lost_while_the_video_is_made(
    saved_pipeline: Path, image_prompt_adapter: Path, picture: Path, tmp_path: Path
) -> None:
    """The digest is that of what was read, and the video is not lost with the picture."""
    values = {"model": str(saved_pipeline), "prompt": "a", "image_prompt": [str(picture)], "num_frames": 2}
    values |= {"image_prompt_adapter": str(image_prompt_adapter), "num_inference_steps": 1, "seed": 3}
    request = GenerateRequest.from_flat(values)
    before = open_inputs(request).digests

    def replace(*_: object) -> None:
        if picture.is_file():
            picture.unlink()
            (picture / "0000.png").mkdir(parents=True)  # nothing that can be read

    hook = register_module_forward_pre_hook(replace)  # from the first network that runs on
    try:
        generate_file(request, tmp_path / "a.png", show_progress=False)
    finally:
        hook.remove()

    assert picture.is_dir()
    embedded = read_request(tmp_path / "a.png")
    assert embedded is not None
    assert embedded["inputs"] == before


@pytest.mark.parametrize("name", ["a" * 300, "loop.png"])
def test_a_name_that_no_file_can_have_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.png").mkdir()
    (tmp_path / "loop.png" / "0000.png").mkdir()
    with pytest.raises(InputFileError, match=r"cannot be read \((File name too long|Is a directory)\)") as caught:
        digest_of(str(tmp_path / name))
    assert len(str(caught.value)) < 300


def test_what_was_said_of_one_adapter_is_not_said_of_the_next() -> None:
    embedded = {"model": "m", "prompt": "p", "motion_adapter": "a.ckpt", "motion_variant": "animatelcm"}
    assert repeated(embedded).model.motion_variant == "animatelcm"
    assert repeated(embedded, {"motion_adapter": "b.ckpt"}).model.motion_variant is None


def test_a_variant_needs_an_adapter(tmp_path: Path) -> None:
    request = GenerateRequest.from_flat({"prompt": "a", "motion_variant": "animatelcm"})
    with pytest.raises(ConfigError, match="give motion_adapter too"):
        generate_file(request, tmp_path / "a.mp4")
