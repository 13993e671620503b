"""AnimateDiff's own prompt files (`scripts/animate.py --config job.yaml`), run as they are.

They are lists of jobs; the first ones were jobs by name, with several motion modules each. Source: guoyww/AnimateDiff,
`scripts/animate.py` and `configs/prompts/`, today's and those of its first release.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.conditioning.sparse_control import read_sparse_control
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import check_folder_above, new_file, output_error
from muybridge.files.validation import YAML_ERRORS, describe_validation, yaml_problem
from muybridge.pipelines.animatediff.pipeline import AnimateDiffPipeline
from muybridge.pipelines.load import load_pipeline
from muybridge.request.pictures import open_picture
from muybridge.types import SettingsDict
from muybridge.video import Video, check_writable

_SEEDS = 2**63
_OF_OTHERS = {
    "prompt_map": "is animatediff-cli's: prompts by frame; give them to muybridge generate as --travel FRAME=TEXT",
    "head_prompt": "is animatediff-cli's: write it in front of each prompt",
    "tail_prompt": "is animatediff-cli's: write it behind each prompt",
    "lora_map": "is animatediff-cli's: give lora_model_path and lora_alpha",
    "motion_lora_map": "is animatediff-cli's: give motion_module_lora_configs, a list of path and alpha",
    "scheduler": "is animatediff-cli's: jobs run with DDIM; muybridge generate has --scheduler",
    "vae_path": "is animatediff-cli's: jobs run with the model's own VAE; muybridge generate has --vae",
    "init_image": "is of a fork: give controlnet_path and controlnet_images",
}
"""Entries of other programs' files, and what to write instead."""
_GRID_COLUMNS = 4
_WORDS_OF_NAME = 10
_FPS = 8.0


class MotionLora(BaseModel):
    """An entry of `motion_module_lora_configs`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    alpha: float = 1.0


class AnimateDiffJob(BaseModel):
    """One entry of a prompt file; the names are the original's, defaults too.

    `inference_config` and `controlnet_config` are read and not used: what they say is detected from the files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    motion_module: str = Field(min_length=1)
    prompt: list[str] = Field(min_length=1)
    n_prompt: list[str] = [""]
    seed: list[int] = [-1]
    dreambooth_path: str = ""
    lora_model_path: str = ""
    lora_alpha: float = 0.8
    adapter_lora_path: str = ""
    adapter_lora_scale: float = 1.0
    motion_module_lora_configs: list[MotionLora] = []
    inference_config: str = ""
    controlnet_config: str = ""
    controlnet_path: str = ""
    controlnet_images: list[str] = []
    controlnet_image_indexs: list[int] = [0]
    normalize_condition_images: bool = False
    H: int = Field(default=512, ge=1)
    W: int = Field(default=512, ge=1)
    L: int = Field(default=16, ge=1)
    steps: int = Field(default=25, ge=1)
    guidance_scale: float = Field(default=7.5, ge=0, lt=1000)

    @field_validator("prompt", "n_prompt", "seed", "controlnet_images", "controlnet_image_indexs", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any, info: Any) -> Any:
        """A single value stands for a list of one, and nothing in a list of texts for an empty one."""
        values = value if isinstance(value, list) else [value]
        return ["" if each is None else each for each in values] if info.field_name.endswith("prompt") else values

    def negatives(self) -> list[str]:
        """One for each prompt; a single one is for all."""
        return self._for_each_prompt("n_prompt", self.n_prompt)

    def seeds(self) -> list[int]:
        """One for each prompt; -1 is drawn. The original's go beyond the largest here, and come round again."""
        seeds = self._for_each_prompt("seed", self.seed)
        return [secrets.randbelow(2**31) if seed == -1 else seed % _SEEDS for seed in seeds]

    def _for_each_prompt(self, name: str, values: list[Any]) -> list[Any]:
        if len(values) == 1:
            return values * len(self.prompt)
        if len(values) != len(self.prompt):
            raise ConfigError(f"{name} must be one, or {len(self.prompt)} like prompt; given {len(values)}.")
        return values


def read_jobs(path: Path) -> list[AnimateDiffJob]:
    """Read a prompt file: a list of jobs, or as at first jobs by name. A job is read for each of its motion modules.

    Raises:
        InputFileError: missing, or no YAML.
        ConfigError: not a list of jobs, or one with a wrong or an unknown entry; names job and entry.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputFileError(f"There is no file {path}.") from error
    except YAML_ERRORS as error:
        raise InputFileError(f"{path} is not a YAML file: {yaml_problem(error)}.") from error
    return [job for name, entry in _named_entries(path, values) for job in _read_entry(f"{path}, job {name}", entry)]


def _named_entries(path: Path, values: Any) -> list[tuple[str, Any]]:
    if isinstance(values, dict) and values and all(isinstance(entry, dict) for entry in values.values()):
        return [(str(name), entry) for name, entry in values.items()]
    if isinstance(values, list) and values:
        return [(str(index), entry) for index, entry in enumerate(values)]
    raise ConfigError(f"{path} must be a list of jobs, as '- motion_module: ...', or jobs by name.")


def _read_entry(where: str, entry: Any) -> list[AnimateDiffJob]:
    # What has nothing behind its name is absent.
    values = {name: value for name, value in entry.items() if value is not None} if isinstance(entry, dict) else entry
    if isinstance(values, dict):
        for name, instead in _OF_OTHERS.items():
            if name in values:
                raise ConfigError(f"{where}: {name} {instead}.")
        values = _with_todays_names(where, values)
    modules = values.get("motion_module") if isinstance(values, dict) else None
    several = [{**values, "motion_module": each} for each in modules] if isinstance(modules, list) else [values]
    if not several:
        raise ConfigError(f"{where}: motion_module must not be empty.")
    jobs = []
    for each in several:
        try:
            job = AnimateDiffJob.model_validate(each)
        except ValidationError as error:
            raise ConfigError(f"{where}: {describe_validation(error, AnimateDiffJob)}") from error
        try:
            job.negatives()
            job.seeds()
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if len(job.controlnet_image_indexs) < len(job.controlnet_images):
            raise ConfigError(f"{where}: controlnet_image_indexs needs one index for each image.")
        jobs.append(job)
    return jobs


def _with_todays_names(where: str, values: dict[Any, Any]) -> dict[Any, Any]:
    """Entries with `path` and `base` under today's names: a whole model, or a LoRA and the model that it is for."""
    if not values.keys() & {"path", "base"}:
        return values
    renamed = {name: value for name, value in values.items() if name not in ("path", "base")}
    path, base = values.get("path") or "", values.get("base") or ""
    if clash := sorted(renamed.keys() & {"dreambooth_path", "lora_model_path"}):
        raise ConfigError(
            f"{where}: path and base are what dreambooth_path and lora_model_path are today; leave out "
            f"{', '.join(clash)}, or those."
        )
    if isinstance(path, str) and path and _is_lora(Path(path)):
        return {**renamed, "lora_model_path": path, "dreambooth_path": base}
    if base and not path:
        raise ConfigError(
            f"{where}: base is the model that the LoRA in path is for, and path is empty. For a whole "
            "model give path, which today is dreambooth_path."
        )
    return {**renamed, "dreambooth_path": path}


def _is_lora(path: Path) -> bool:
    """As the original tells it; it knew LoRAs as safetensors only. What cannot be read is found when it is loaded."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        return all("lora" in key for key in file.keys())  # noqa: SIM118  # no dictionary
    return False


def run_jobs(
    path: Path,
    base: str,
    output: Path,
    device: torch.device,
    named: Callable[[str, int], str],
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make every video of a prompt file: `sample/N-words.gif`, all side by side in `sample.gif`, and `config.yaml`.

    As in the original a job without `L`, `H` and `W` makes 16 frames of 512x512 at 8 frames per second. The seeds used
    are in `config.yaml`; the same seed does not give the original's noise, which came from a GPU.

    Args:
        path: the prompt file; paths in it are relative to the current folder, as in the original.
        base: Stable Diffusion 1.5, as a folder or hub id; what `dreambooth_path` lacks is taken from it.
        output: a new folder, or one that is written into.
        device: where to run.
        named: the name of a file after the first words of a prompt, and how many of them.
        progress: told how many of all videos are done.

    Returns:
        The videos, one for each prompt of each job, in order.

    Raises:
        MuybridgeError: anything the user can mend.
    """
    jobs = read_jobs(path)
    _make_folders(output)
    videos: list[Video] = []
    written: list[Path] = []
    record: list[SettingsDict] = []
    total = sum(len(job.prompt) for job in jobs)
    for job in jobs:
        pictures = _control_pictures(job)
        pipeline = _load(job, base)
        pipeline.to(device)
        argument = _give_control(pipeline, job, pictures)
        seeds = job.seeds()
        for prompt, negative, seed in zip(job.prompt, job.negatives(), seeds, strict=True):
            video = pipeline(
                prompt,
                negative or None,
                plain_prompt=True,  # as the original reads them
                num_frames=job.L,
                height=job.H,
                width=job.W,
                num_inference_steps=job.steps,
                guidance_scale=job.guidance_scale,
                seed=seed,
                fps=_FPS,
                **argument,
            )
            name = named(prompt, _WORDS_OF_NAME)
            written.append(video.save(output / "sample" / f"{len(videos)}-{name}.gif"))
            videos.append(video)
            if progress is not None:
                progress(len(videos), total)
        record.append({**job.model_dump(), "seed": seeds})
    _grid(videos).save(output / "sample.gif")
    with new_file(output / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False))
    return written


def _make_folders(output: Path) -> None:
    check_folder_above(output)
    try:
        (output / "sample").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(output, error) from error
    check_writable(output / "sample.gif")


def _load(job: AnimateDiffJob, base: str) -> AnimateDiffPipeline:
    # As paths: what a prompt file names is on this machine or nowhere, and never a repository of the same name.
    motion_module = Path(job.motion_module)
    with quiet_loading():
        if job.dreambooth_path:
            pipeline = load_pipeline(Path(job.dreambooth_path), motion_adapter=motion_module, parts_from=base)
        else:
            pipeline = load_pipeline(base, motion_adapter=motion_module)
        if not isinstance(pipeline, AnimateDiffPipeline):
            raise ConfigError(f"{base} is no Stable Diffusion model.")
        # The original passes the alphas of a file over, and merges in this order.
        loras = [
            (job.lora_model_path, job.lora_alpha),
            (job.adapter_lora_path, job.adapter_lora_scale),
            *((lora.path, lora.alpha) for lora in job.motion_module_lora_configs),
        ]
        for path, weight in loras:
            if path:
                pipeline.load_lora_weights(Path(path), weight=weight, lora_alpha_mode="official")
    return pipeline


def _give_control(
    pipeline: AnimateDiffPipeline, job: AnimateDiffJob, pictures: Mapping[int, Image.Image]
) -> SettingsDict:
    if not job.controlnet_path:
        return {}
    model = read_sparse_control(Path(job.controlnet_path), pipeline.unet.dtype)
    pipeline.set_sparse_control(model)
    return {"keyframes" if model.kind == "rgb" else "sketches": pictures}


def _control_pictures(job: AnimateDiffJob) -> dict[int, Image.Image]:
    if not job.controlnet_path:
        return {}
    if not job.controlnet_images:
        raise ConfigError("controlnet_path needs controlnet_images, which it is shown.")
    indexes = job.controlnet_image_indexs[: len(job.controlnet_images)]
    pictures = {}
    for index, file in zip(indexes, job.controlnet_images, strict=True):
        picture = _cropped(open_picture(file, f"The image of frame {index}"), job.W / job.H)
        pictures[index] = _normalized(picture) if job.normalize_condition_images else picture
    return pictures


def _cropped(picture: Image.Image, ratio: float) -> Image.Image:
    """The middle of a picture, as large as can be, `ratio` times as wide as high."""
    width = min(picture.width, round(picture.height * ratio))
    height = min(picture.height, round(picture.width / ratio))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _normalized(picture: Image.Image) -> Image.Image:
    """The mean of the colours, stretched over the whole range."""
    grey = np.asarray(picture, np.float32).mean(axis=2)
    grey -= grey.min()
    grey *= 255 / max(float(grey.max()), 1e-6)
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _grid(videos: list[Video]) -> Video:
    """All side by side, four in a row; shorter and smaller ones on black."""
    frames = max(len(video) for video in videos)
    height, width = max(video.height for video in videos), max(video.width for video in videos)
    columns = min(_GRID_COLUMNS, len(videos))
    rows = -(-len(videos) // columns)
    canvas = np.zeros((frames, rows * height, columns * width, 3), np.uint8)
    for index, video in enumerate(videos):
        row, column = divmod(index, columns)
        top, left = row * height, column * width
        canvas[: len(video), top : top + video.height, left : left + video.width] = video.frames
    return Video(canvas, fps=_FPS)
