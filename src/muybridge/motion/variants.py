"""The published families of motion modules, as data: how each is run, and what its file's name may add."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict, SettingsView

_DDIM: SettingsDict = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": True,
}
_PLAIN = {name: _DDIM[name] for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")}


@dataclass(frozen=True)
class MotionVariant:
    """How a family of motion modules is run as its authors ran it.

    Attributes:
        name: as `muybridge inspect` shows it.
        numerics: preset of norm scopes, see `motion.numerics`.
        scheduler: name of the solver, see `sampling.scheduler_names()`.
        schedule: noise levels and their spacing, in diffusers' words.
        steps: denoising steps.
        guidance: guidance scale; 1 is off.
        num_frames: frames of a video.
        trained_frames: frames the weights have seen, where the file's position table does not say it.
        distilled: whether it runs with no other noise levels and no stronger guidance than these.
        base: the image models that it is for, "sd15" or "sdxl".
    """

    name: str
    numerics: str
    scheduler: str
    schedule: SettingsView
    steps: int
    guidance: float
    num_frames: int = 16
    trained_frames: int | None = None
    distilled: bool = False
    base: str = "sd15"

    def settings(self) -> SettingsDict:
        """Plain values, for people and machines to read."""
        shown = ("beta_schedule", "beta_start", "beta_end", "timestep_spacing", "steps_offset")
        return {
            "numerics": self.numerics,
            "scheduler": self.scheduler,
            **{name: self.schedule[name] for name in shown if name in self.schedule},
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "num_frames": self.num_frames,
        }


_V1 = MotionVariant("animatediff-v1", "official-v1", "ddim", _DDIM, steps=25, guidance=7.5)
_V2 = replace(_V1, name="animatediff-v2", numerics="official-v2")

VARIANTS: dict[str, MotionVariant] = {
    variant.name: variant
    for variant in (
        _V1,
        _V2,
        replace(_V1, name="animatediff-v3", numerics="official-v3"),
        MotionVariant(
            "animatediff-sdxl",
            # The original's SDXL branch normalises over all frames in the motion modules, as diffusers does everywhere.
            "diffusers",
            "euler",
            {
                **_PLAIN,
                "beta_end": 0.02,
                "beta_schedule": "scaled_linear",
                "timestep_spacing": "leading",
                "steps_offset": 1,
            },
            steps=100,
            guidance=8.5,
            base="sdxl",
        ),
        replace(
            _V2,
            name="animatelcm",
            scheduler="lcm",
            schedule=_PLAIN,
            steps=6,
            guidance=2.0,
            trained_frames=64,
            distilled=True,
        ),
        replace(
            _V2,
            name="lightning",
            scheduler="euler",
            schedule={**_PLAIN, "timestep_spacing": "trailing"},
            steps=4,
            guidance=1.0,
            distilled=True,
        ),
        MotionVariant(
            "hotshot-xl",
            # Residual blocks normalise over all frames, motion modules over each: what the first AnimateDiff did.
            "official-v1",
            "euler-a",
            {**_PLAIN, "beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1},
            steps=30,
            guidance=8.0,
            num_frames=8,
            trained_frames=8,
            base="sdxl",
        ),
    )
}
"""Sources: the original's `configs/inference` and its SDXL branch; the model cards of AnimateLCM and Lightning.

AnimateLCM and Lightning were made from v2, so its norm scopes are taken for them. Steps and guidance of HotshotXL are
our choice.
"""

_HINTS = (
    ("lightning", r"lightning"),
    ("animatelcm", r"animate[-_ ]?lcm|(^|[-_ ])lcm"),
    ("animatediff-v3", r"(^|[-_ ])v3([-_ .]|$)|v1-5-3"),
    ("animatediff-v2", r"[-_ ]v2([-_ .]|$)|v1-5-2"),
    ("animatediff-v1", r"mm[-_]sd[-_]v1[45]$|v1-[45]$"),
)


def motion_variant(name: str, file_name: str = "") -> MotionVariant:
    """Look a variant up; Lightning's number of steps is read from the name of its file, which alone tells it.

    Raises:
        ConfigError: no such variant; lists those there are.
    """
    if name not in VARIANTS:
        raise ConfigError(f"Unknown motion variant {name!r}. Known: {', '.join(VARIANTS)}.")
    variant = VARIANTS[name]
    steps = re.search(r"(\d)[-_ ]?step", file_name.lower())
    return replace(variant, steps=int(steps.group(1))) if name == "lightning" and steps else variant


def hinted_variant(file_name: str) -> str | None:
    """What the name of a file or folder says that it is, if anything."""
    stem = re.sub(r"\.(ckpt|safetensors|pth|pt|bin)$", "", file_name.lower())
    return next((name for name, pattern in _HINTS if re.search(pattern, stem)), None)
