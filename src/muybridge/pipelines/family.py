"""What differs between families of models, besides the hooks of their pipelines: one record a family.

Records are read where no torch may be imported, so this module has none of it, and what a record names it may name by
its place (see `deferred`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from muybridge.motion import MotionHost
    from muybridge.pipelines.skeleton import Skeleton
    from muybridge.pipelines.stages import Stage
    from muybridge.request import Capabilities, ModelChoice
    from muybridge.request.following import Usual
    from muybridge.types import SettingsDict, SettingsView

_PROJECTIONS = r"\.(to_q|to_k|to_v|to_out\.0)$"
LORA_LAYERS: Mapping[str, str] = {
    "motion": r"(motion_modules|attn_temporal)\..*" + _PROJECTIONS,
    "spatial": r"\.attn[12]" + _PROJECTIONS,
    "attention": _PROJECTIONS,
    "linear": "",
}
"""Which layers learn: the attentions of the motion modules, as in AnimateDiff's motion LoRAs; those within the frames
and to the text, as in the domain adapter of version 3 and in most LoRAs of image models; both of them; or every
linear layer and 1 x 1 convolution, as in EasyAnimate's training script."""


def deferred(place: str) -> Callable[..., Any]:
    """A function by its place, as in `package.module:function`, which is imported when it is first called."""
    module, _, name = place.partition(":")

    def call(*arguments: Any, **settings: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **settings)

    return call


@dataclass(frozen=True)
class Recognised:
    """What a folder is to the family that knows it.

    Attributes:
        kind: as `inspect` shows it: "pipeline", or "base-model" for an image model.
        variant: likewise, the name of what it is.
        class_name: of its pipeline.
        makes_videos: as it is; an image model does together with a motion adapter only.
        notes: what a person should know.
    """

    kind: str
    variant: str
    class_name: str
    makes_videos: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """How models of a family are told from others.

    Attributes:
        folder: of a folder and its `model_index.json` (empty where there is none): what it is; None for a stranger.
        file: whether a single weight file may be a model of this family; None where none can be.
        networks: by class name in `config.json`, kind and variant of folders with one network, for `inspect`.
    """

    folder: Callable[[Path, SettingsView], Recognised | None]
    file: Callable[[Path], bool] | None = None
    networks: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wishes:
    """What is to be loaded or planned; see `wishes_of`.

    Attributes:
        family: of the model.
        choice: the model and all that is put into it, as it was asked for.
        place: the file or folder that the model is.
        prediction: what it is said to predict, in diffusers' words; None is what it says itself.
        controls: networks that come with the conditions of a video, which are planned with the model: ControlNets.
        profile: the numeric profile that it is planned for, of families that have several; None is the model's.
    """

    family: Family
    choice: ModelChoice
    place: Path
    prediction: str | None = None
    controls: tuple[str, ...] = ()
    profile: str | None = None


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What can be known of a model without its weights.

    Attributes:
        can: what it can be asked for.
        usual: what it makes of a call that says nothing.
        steps: denoising steps of such a call.
        guidance: of such a call.
        frame_multiple: numbers of frames above 1 are multiples of this.
        networks: roles of networks beside the backbone that it brings, such as "keyframes".
    """

    can: Capabilities
    usual: Usual
    steps: int
    guidance: float
    frame_multiple: int = 1
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planning:
    """What a plan of memory needs of a family; see `plan_video`.

    Attributes:
        skeleton: of what is to be loaded: its networks without their weights.
        stages: of these networks, the shape of a video and whether there is guidance: the stages of making it, of which
            "denoise" is the one that runs in every step. Where the skeleton has a profile, also of a `profile=`.
        facts: of what is to be loaded; None for families that do not say.
    """

    skeleton: Callable[[Wishes], Skeleton]
    stages: Callable[..., Mapping[str, Stage]]
    facts: Callable[[Wishes], ModelFacts] | None = None


@dataclass(frozen=True)
class FullSize:
    """The backbone as it is published, to say how large motion modules are in it.

    Attributes:
        key: for machines.
        title: for people.
        make: builds it, on torch's default device.
    """

    key: str
    title: str
    make: Callable[[], MotionHost]


@dataclass(frozen=True)
class LoraTargets:
    """How LoRAs name the backbone of a family and its layers.

    Attributes:
        root: what other programs call the backbone.
        version: what the header of a file says it is for, in the words of kohya's scripts.
        architecture: likewise, in those of the model spec.
        layers: names that run files have for the layers which learn, and the pattern of each.
        refusals: ways to read alphas that do not exist in this family, and why.
    """

    root: Literal["unet", "transformer"] = "unet"
    version: str = "sd_v1"
    architecture: str = "stable-diffusion-v1"
    layers: Mapping[str, str] = field(default_factory=lambda: LORA_LAYERS)
    refusals: Mapping[str, str] = field(default_factory=dict)


class Networks(Protocol):
    """The networks that training runs; a pipeline has them, and so has a training method."""

    @property
    def backbone(self) -> Any:
        """The denoising network, with its motion adapter attached."""
        ...

    @property
    def text_encoder(self) -> Any:
        """Of the prompts."""
        ...

    @property
    def vae(self) -> Any:
        """Of the videos."""
        ...


@dataclass(frozen=True)
class Training:
    """How models of a family learn from batches of captioned clips, see `training.data`.

    Attributes:
        latents: of networks and a batch: its scaled latents `[b, c, f, h, w]`.
        told: likewise: arguments of the backbone besides latents and noise level. Gradients go through the text
            encoder, where that learns too, and through nothing else.
        text: of that, what follows from the captions alone; None where `told` has to be asked for all of it.
        check: raises ConfigError for networks that cannot be trained.
        prepare_image_model: makes a pipeline of an image model without motion modules ready for fresh ones, as to its
            noise levels; None where image models are not of the family.
        frames: of a clip at a time where a run file does not say; None for families that see whole clips only.
        whole_clip_share: share of the batches with whole clips where a run file does not say.
    """

    latents: Callable[[Networks, Mapping[str, Tensor]], Tensor]
    told: Callable[[Networks, Mapping[str, Tensor]], SettingsDict]
    check: Callable[[Networks], None] = lambda _: None
    text: Callable[[Networks, Mapping[str, Tensor]], SettingsDict] | None = None
    prepare_image_model: Callable[[Any], None] | None = None
    frames: int | None = None
    whole_clip_share: float = 0.0


class RunPromptFile(Protocol):
    """Makes every video of a prompt file."""

    def __call__(
        self,
        path: Path,
        base: str,
        output: Path,
        device: torch.device,
        named: Callable[[str, int], str],
        progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[Path]:
        """Run it.

        Args:
            path: the prompt file.
            base: the model that its jobs are based on.
            output: a new folder, or one that is written into.
            device: where to run.
            named: the name of a file after the first words of a prompt, and how many of them.
            progress: told how many of all videos are done.

        Returns:
            The videos.

        Raises:
            MuybridgeError: anything the user can mend.
        """
        ...


@dataclass(frozen=True)
class PromptFiles:
    """Prompt files of a family's original program, which are run as they are.

    The command line shows the option of the families that ship here; for its help, no other package is imported.

    Attributes:
        option: of the command line, without dashes.
        help: of that.
        base: what has to be given as the model.
        run: makes the videos.
    """

    option: str
    help: str
    base: str
    run: RunPromptFile


@dataclass(frozen=True, eq=False)
class Family:
    """Everything that is true of one family of models and not of others, besides the hooks of its pipeline.

    A package offers one by an entry point of the group `muybridge.families`, under the name of the family.

    Attributes:
        name: class name of its pipelines, as `model_index.json` has it.
        supported: what of it can be loaded, for a list in a sentence.
        recognise: how its models are told from others.
        load: makes a `VideoPipeline` on the CPU, with all networks in a precision.
        planning: what plans of memory need.
        lora: how LoRAs name its layers.
        training: how its models learn; None where they are not trained here.
        full_size: its backbone as published, for the sizes of motion modules.
        prompt_files: of its original program.
    """

    name: str
    supported: str
    recognise: Recognition
    load: Callable[[Wishes, torch.dtype], Any]
    planning: Planning
    lora: LoraTargets = field(default_factory=LoraTargets)
    training: Training | None = None
    full_size: FullSize | None = None
    prompt_files: PromptFiles | None = None
