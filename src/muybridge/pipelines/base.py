"""What every pipeline is made of: its parts, what they can do, and what a video says about how it was made."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from muybridge.conditioning.prepared import Prepared, Task
from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError, NonFiniteError, ShapeError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.lora_tags import LoraTagHost
from muybridge.pipelines.prompts import Texts
from muybridge.request import Capabilities, WindowSettings
from muybridge.request.following import Usual
from muybridge.request.prompt_syntax import Embedding
from muybridge.runtime.placement import Placement
from muybridge.sampling import Scheduler, make_scheduler, set_timesteps
from muybridge.sampling.guidance import Predict
from muybridge.types import SettingsDict, SettingsView, VideoShape
from muybridge.vae.codec import Codec
from muybridge.vae.device import working_device

OutputType = Literal["video", "pil", "np", "pt", "latent"]
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
OUTPUT_TYPES = ("video", "pil", "np", "pt", "latent")


@dataclass(frozen=True, eq=False)
class Network:
    """The backbone of a family with all that it is told, for the denoising loop.

    Attributes:
        predict: calls it.
        positive: conditions by name of what is wanted, each `[b, ...]`.
        negative: the same names, of what is not wanted; None without guidance.
        frame_axes: of each condition with a part for every latent frame, the axis of its frames.
        begin_step: is told the noise level (timestep) of each step before it.
    """

    predict: Predict
    positive: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None
    frame_axes: Mapping[str, int] = field(default_factory=dict)
    begin_step: Callable[[float], None] | None = None


@dataclass(frozen=True, eq=False)
class Told:
    """What a family makes a `Network` from.

    Attributes:
        task: what is made.
        text: states of b videos, on the device and in the precision of the backbone.
        prepared: by the conditions.
        inpaint: latents of mask and masked video, `[b, 2c, f, h, w]`, b may be 1; None for models without channels.
        settings: arguments of the backbone that are the same for all videos: motion strength and positions.
        clip_apply_ratio: last share of the steps in which a picture's embedding counts, or None.
    """

    task: Task
    text: EncodedPrompts
    prepared: Prepared
    inpaint: Tensor | None
    settings: SettingsView
    clip_apply_ratio: float | None = None


class PipelineBase(LoraTagHost):
    """Parts and hooks of a pipeline; a family fills the hooks in, and says its record as `family`."""

    model_name: str | None = None
    _remembered: SettingsView | None = None
    _loaded_with: Mapping[str, str | None] = dict.fromkeys(
        ("motion_adapter", "motion_variant", "parts_from", "vae", "prediction")
    )
    vae: Any
    text_encoder: Any
    placement: Placement | None = None
    """How it was fitted into memory when it was loaded."""
    _network_files: Mapping[str, str] = {}
    _interrupt = False

    def interrupt(self) -> None:
        """Stop the running call after the present step; what there is then is decoded and returned."""
        self._interrupt = True

    @property
    def is_interrupted(self) -> bool:
        """Whether the last call was interrupted."""
        return self._interrupt

    def remember_parts(self, model_name: str | None, loaded_with: Mapping[str, str | None] | None = None) -> None:
        """Say which model this is as it stands; videos made after parts were replaced say so.

        Args:
            model_name: what it is loaded by; None where that would give another.
            loaded_with: arguments of `load_pipeline` that it was loaded with besides; videos record them.
        """
        self.model_name = model_name
        self._loaded_with = {**self._loaded_with, **(loaded_with or {})}
        self._remembered = self._present_parts()

    def _present_parts(self) -> SettingsDict:
        network: Any = self.backbone
        return {**self.components, "motion_adapter": getattr(network, "motion_adapter", None)}

    def _changed_parts(self) -> list[str]:
        before = self._remembered or {}
        found = [f"another {name}" for name, part in self._present_parts().items() if part is not before.get(name)]
        adapter: Any = self._present_parts()["motion_adapter"]
        if adapter is not None and any(strength != 1 for strength in adapter.strengths.values()):
            found.append("motion strengths by site")
        return found if self.model_name is not None else []

    @property
    def backbone(self) -> nn.Module:
        """The denoising network."""
        raise NotImplementedError

    @property
    def can(self) -> Capabilities:
        """What this model can be asked for."""
        raise NotImplementedError

    @property
    def codec(self) -> Codec:
        """Videos to latents and back."""
        raise NotImplementedError

    @property
    def known_frames(self) -> int:
        """For how many frames a picture at either end is held, where it is taken as channels."""
        return 1

    @property
    def working_device(self) -> torch.device:
        """Where networks run, which is not where weights wait while they are offloaded."""
        return self._execution_device

    @property
    def frames_at_once(self) -> int:
        """Frames of a call that names none."""
        return self._usual(None).num_frames

    @property
    def frames_per_second(self) -> float:
        """Playback of a call that names none and follows no video."""
        return self._usual(None).fps

    @property
    def usual_size(self) -> tuple[int, int] | None:
        """Height and width of a call that names none; None where the model does not say."""
        return self._usual(None).size

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return self._usual(None).multiple

    @property
    def encoding_device(self) -> torch.device:
        """Where the VAE runs."""
        return working_device(self.vae)

    def set_motion_adapter(self, adapter: MotionAdapter) -> None:
        """Attach an adapter in place of the present one.

        Raises:
            ConfigError: it is for another backbone, or LoRAs sit in the present one.
        """
        self.check_motion_loras(adapter)
        host: Any = self.backbone
        host.set_motion_adapter(adapter)

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the adapter off; what is left draws independent stills."""
        host: Any = self.backbone
        return host.remove_motion_adapter()

    def network_for(self, role: str) -> Any:
        """A network beside the backbone by what it is for; None where there is none."""
        del role

    def load_network(self, role: str, path: str, beside: Mapping[str, str] | None = None) -> None:
        """Load a network beside the backbone from a file or folder.

        Args:
            role: what it is for, such as "keyframes".
            path: here or on the hub.
            beside: all networks that are asked for, by role, where one needs another.

        Raises:
            ConfigError: this family has no such role.
            CheckpointError: it cannot be loaded.
        """
        del beside
        raise ConfigError(f"{self.can.model} has no network for {role}; leave {path} out, or use {self.can.instead}.")

    def load_embedding(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Load an embedding that prompts can name. Raises ConfigError in families that have none."""
        del name
        raise ConfigError(f"{self.can.model} has no embeddings; leave {path} out, or use {self.can.instead}.")

    def embeddings_in(self, texts: Sequence[str]) -> set[str]:
        """Files of the loaded embeddings that prompts name."""
        del texts
        return set()

    def make_solver(self, name: str) -> Scheduler:
        """Another solver than the model's own, for the noise levels it was trained on."""
        return make_scheduler(name, self.scheduler)

    def _usual(self, windows: WindowSettings | None) -> Usual:
        """What is made where neither a request nor a source video says anything."""
        raise NotImplementedError

    def _check_shape(self, shape: VideoShape) -> None:
        """Warn of a size that the model is not made for. That it can be made, the codec says."""

    def _known_embeddings(self) -> Mapping[str, Embedding] | None:
        """Embeddings that prompts may name, by each of their names in small letters; None for models without."""
        return None

    def _profile(self, profile: str | None) -> str | None:
        """The numeric profile of a call; None for families with one."""
        if profile is not None:
            self.can.require_settings({"profile"})
        return profile

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        """Text states of prompts, and with guidance of their negatives."""
        raise NotImplementedError

    def _network(self, told: Told) -> Network:
        """The backbone, told all that."""
        raise NotImplementedError

    def _explained(self, error: NonFiniteError) -> NonFiniteError:
        """An error of the loop, with what helps there."""
        return error

    def _solver(self, name: str | None, steps: int) -> Scheduler:
        solver: Scheduler = self.scheduler if name is None else self.make_solver(name)
        set_timesteps(solver, steps)
        return solver


def timesteps_of(solver: Scheduler, share: float) -> Tensor:
    """The last `share` (above 0, at most 1) of a solver's timesteps, at least one; counted as diffusers does.

    Raises:
        ConfigError: the solver cannot begin in the middle.
    """
    count = len(solver.timesteps)
    start = count - max(1, min(int(count * share), count))
    if start and type(solver).__name__ == "PNDMScheduler":
        raise ConfigError("The scheduler 'pndm' cannot begin in the middle; use another, or strength 1.")
    return solver.timesteps[start:]


def require(conditions: Mapping[str, bool]) -> None:
    """Raise a `ConfigError` with the first message whose condition does not hold."""
    for message, holds in conditions.items():
        if not holds:
            raise ConfigError(message)


def prompt_list(prompt: str | Sequence[str] | None) -> list[str] | None:
    """One prompt as a list of one."""
    return [prompt] if isinstance(prompt, str) else None if prompt is None else list(prompt)


def check_prompts(
    prompts: list[str] | None,
    negative: str | Sequence[str] | None,
    states: tuple[Tensor | None, Tensor | None],
    guided: bool,
) -> None:
    """Whether prompts or text states are given, not both, and negatives exactly where they have an effect.

    Args:
        prompts: of the call.
        negative: likewise.
        states: positive and negative ones.
        guided: whether there is guidance.

    Raises:
        ConfigError: otherwise.
        ShapeError: negative text states unlike the positive ones.
    """
    given, negative_embeds = states
    if (prompts is None) == (given is None):
        raise ConfigError("Give either prompt or prompt_embeds; not both, and not neither.")
    if negative if prompts is None else negative_embeds is not None:
        raise ConfigError("negative_prompt goes with prompt, and negative_prompt_embeds with prompt_embeds.")
    if not guided and (negative or negative_embeds is not None):
        raise ConfigError("A negative prompt has no effect at guidance_scale 1; leave it out, or raise the scale.")
    if guided and given is not None and (negative_embeds is None or negative_embeds.shape != given.shape):
        raise ShapeError(
            f"With guidance, negative_prompt_embeds must be {list(given.shape)} like prompt_embeds; or set "
            "guidance_scale to 1."
        )


def step_options(solver: Scheduler, eta: float, generators: list[torch.Generator]) -> SettingsDict:
    """What a solver's steps are told besides predictions.

    Raises:
        ConfigError: an `eta` for a solver that has none.
    """
    accepted = inspect.signature(solver.step).parameters
    options: SettingsDict = {}
    if "generator" in accepted:
        options["generator"] = generators
    if "eta" in accepted:
        options["eta"] = eta
    elif eta:
        raise ConfigError(f"{type(solver).__name__} has no eta; leave it 0 or use the scheduler 'ddim'.")
    return options
