"""The files of a new motion package, as templates of `$package`, `$kind`, `$name`, `$project` and `$version`.

What they make passes its own tests and trains as it is, so that one changes something that works.
"""

from __future__ import annotations

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$project"
version = "0.1.0"
description = "The motion module $kind for Muybridge."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["muybridge>=$version", "torch>=2.8"]

[project.entry-points."muybridge.motion_modules"]
$kind = "$package.motion:${name}MotionModule"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["src"]
"""

_INIT = '''\
"""The motion module `$kind` for Muybridge."""

from $package.motion import ${name}Config, ${name}MotionModule

__all__ = ["${name}Config", "${name}MotionModule"]
'''

_MOTION = '''\
"""The kind `$kind`: each position looks at itself in the frames around, through a convolution along the frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion import MotionContext, MotionModule, MotionModuleConfig, register_motion_module


@dataclass(frozen=True)
class ${name}Config(MotionModuleConfig):
    """Settings of the kind `$kind`.

    Attributes:
        trained_frames: how many frames the weights will see in training; more are allowed, with a warning.
        hidden_width: channels in which frames are mixed.
        kernel_size: frames that a frame looks at, itself in the middle; odd.

    Raises:
        ConfigError: numbers below 1, or an even kernel.
    """

    trained_frames: int | None = 16
    hidden_width: int = 64
    kernel_size: int = 5

    def __post_init__(self) -> None:
        if min(self.hidden_width, self.kernel_size) < 1 or self.kernel_size % 2 == 0:
            raise ConfigError(f"$kind needs a hidden_width of at least 1 and an odd kernel_size; given {self}.")


@register_motion_module("$kind")
class ${name}MotionModule(MotionModule):
    """Norm, projection to few channels, convolution along the frames, projection back."""

    config_class: ClassVar[type[MotionModuleConfig]] = ${name}Config
    config: ${name}Config

    def __init__(self, config: ${name}Config, width: int) -> None:
        """Build for a site of `width` channels."""
        super().__init__(config, width)
        hidden, kernel = config.hidden_width, config.kernel_size
        self.norm = nn.LayerNorm(width)
        self.proj_in = nn.Linear(width, hidden)
        self.mix = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2)
        self.proj_out = nn.Linear(hidden, width)
        # A fresh module must add nothing: its last layer, and only that, begins at zero.
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """What is added to `features [b, f, h, w, c]`; of the same shape and dtype."""
        b, _, h, w, _ = features.shape
        hidden = self.proj_in(self.norm(features))
        sequences = hidden.permute(0, 2, 3, 4, 1).flatten(0, 2)  # [b * h * w, hidden, f]
        mixed = F.silu(self.mix(sequences)).unflatten(0, (b, h, w))
        return self.proj_out(mixed.permute(0, 4, 1, 2, 3))
'''

_TEST = '''\
"""The kind `$kind` keeps to the contract of motion modules, and does what it is for."""

from __future__ import annotations

import pytest
import torch

from muybridge.authoring.checks import check_motion_module
from muybridge.errors import ConfigError
from muybridge.motion import ModuleSpec, MotionContext, MotionModule, build_motion_module, motion_module_class

from $package import ${name}Config, ${name}MotionModule


def make(**config: int) -> MotionModule:
    torch.manual_seed(0)
    module = build_motion_module(ModuleSpec("$kind", 16, config))
    for parameter in module.parameters():  # a fresh module adds nothing
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def test_it_is_known_by_its_name():
    assert motion_module_class("$kind") is ${name}MotionModule


def test_it_keeps_to_the_contract():
    report = check_motion_module("$kind")

    assert report.passed, str(report)


def test_a_frame_looks_as_far_as_its_kernel():
    module = make(kernel_size=3)
    features = torch.randn(1, 6, 2, 2, 16)
    other = features.clone()
    other[:, 0] += 1.0
    context = MotionContext(torch.arange(6.0))

    with torch.no_grad():
        changed = (module.motion(features, context) != module.motion(other, context)).any(dim=-1).flatten(2)

    assert changed.any(dim=-1).tolist() == [[True, True, False, False, False, False]]


@pytest.mark.parametrize("wrong", [{"kernel_size": 4}, {"hidden_width": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError, match="odd kernel_size"):
        ${name}Config(**wrong)
'''

_README = """\
# $project

The motion module `$kind` for [Muybridge](https://pypi.org/project/muybridge/).

    pip install -e .
    pytest
    muybridge motion check $kind

Change `src/$package/motion.py`: `motion` gets the features of all frames, `[b, f, h, w, c]`, and a context (frame
positions, noise level, text), and returns what is to be added to them. `muybridge motion check` tells whether the
result keeps to the contract, check by check.

Train it on the toy world, evaluate what came of it, and use it:

    muybridge train runs/custom-motion.yaml --set motion.kind=$kind --output work/$kind
    muybridge evaluate demo --model work/$kind/model
    muybridge generate "a red circle moving left" --model work/$kind/model

Its settings are the fields of `${name}Config`: `--set motion.config.hidden_width=32`. The run file
`custom-motion.yaml` comes with Muybridge's sources.
"""

TEMPLATES: dict[str, str] = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "src/$package/__init__.py": _INIT,
    "src/$package/motion.py": _MOTION,
    "tests/test_$package.py": _TEST,
}
"""From the path of a file to its text."""
