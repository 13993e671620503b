"""What is checked before any weight is read."""

from __future__ import annotations

import pytest
import torch

from muybridge.errors import ConfigError, OutputError
from muybridge.request import GenerateRequest
from muybridge.service.generation import generate_file, pick_device

FLAT = {"prompt": "a red circle", "model": "there is no such model"}
REQUEST = GenerateRequest.from_flat(FLAT)


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(None).type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "", "CPU"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ConfigError, match=r"Available: .*cpu"):
        pick_device(name)


def test_the_output_is_checked_before_the_model(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        generate_file(REQUEST, tmp_path / "none" / "out.mp4")
    with pytest.raises(ConfigError, match="suffix"):
        generate_file(REQUEST, tmp_path / "out.avi")


def test_the_scheduler_is_checked_before_the_model(tmp_path):
    request = GenerateRequest.from_flat({**FLAT, "scheduler": "magic"})

    with pytest.raises(ConfigError, match=r"'magic'.*ddim"):
        generate_file(request, tmp_path / "out.mp4")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "shown"),
    [("image_prompt_adapter", "image_prompt"), ("keyframe_control", "keyframes"), ("sketch_control", "sketches")],
)
def test_a_network_that_is_shown_nothing_is_refused_before_the_model(tmp_path, network, shown):
    request = GenerateRequest.from_flat({**FLAT, network: "a.safetensors"})

    with pytest.raises(ConfigError, match=f"{network} has no effect without {shown}"):
        generate_file(request, tmp_path / "out.mp4")
