"""Clips of what a model can do already, made by itself before it is trained, so that it stays able to.

They lie in a folder that is named after all that they follow from, one video and one text file each. A run that is
interrupted goes on with those that are missing, and another run on the same model finds all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muybridge.data.settings import DataSettings, PriorSettings
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file, output_error
from muybridge.files.folder_lock import locked_folder
from muybridge.training.base_place import place_of_base
from muybridge.training.everyday import EVERYDAY_PROMPTS
from muybridge.training.origin import digest_of_models
from muybridge.training.stages.base_model import load_base
from muybridge.training.stages.registry import captions_of, data_names

if TYPE_CHECKING:
    from muybridge.training.stages.stage import BaseChoice, Stage
    from muybridge.video import Video

PriorProgress = Callable[[int, int], None]
"""Called with (clips there are, clips in all)."""
_FORMAT = 1
_TOLD_EVERY = 5


@dataclass(frozen=True)
class Prior:
    """Clips that a model makes of what it can do.

    Attributes:
        folder: where they are kept.
        prompts: of each.
        seed: of the noise of the first one; each further one has the next.
        model: that makes them.
    """

    folder: Path
    prompts: tuple[str, ...]
    seed: int
    model: BaseChoice

    @property
    def missing(self) -> list[int]:
        """Numbers of the clips that have not been made."""
        return [number for number in range(len(self.prompts)) if not self._caption(number).is_file()]

    def make(self, progress: PriorProgress | None = None) -> None:
        """Make those that are missing.

        Raises:
            ConfigError: the model makes no videos.
            CheckpointError: it cannot be loaded.
            OutputError: the folder cannot be written, or another program makes them there.
        """
        if not self.missing:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.folder, error) from error
        with locked_folder(self.folder, "makes clips"):
            missing = self.missing
            clip = self._maker()
            for place, number in enumerate(missing):
                clip(self.prompts[number], self.seed + number).save(self._video(number))
                # Last, as what has a caption is there.
                with new_file(self._caption(number)) as temporary:
                    temporary.write_text(self.prompts[number] + "\n", encoding="utf-8")
                done = len(self.prompts) - len(missing) + place + 1
                if progress is not None and (done % _TOLD_EVERY == 0 or done == len(self.prompts)):
                    progress(done, len(self.prompts))

    def _maker(self) -> Callable[[str, int], Video]:
        import torch

        base, _ = load_base(self.model.base, self.model.motion_adapter)
        pipeline: Any = base
        if torch.cuda.is_available():
            pipeline.to("cuda")
        pipeline.set_progress_bar_config(disable=True)
        return lambda prompt, seed: pipeline(prompt, seed=seed, plain_prompt=True)

    def _video(self, number: int) -> Path:
        return self.folder / f"{number:04d}.mp4"

    def _caption(self, number: int) -> Path:
        return self.folder / f"{number:04d}.txt"


def prior_of(settings: PriorSettings, stage: Stage) -> Prior | None:
    """The clips that are to be made for a stage; None where they are a set that is there.

    Raises:
        ConfigError: a stage that no prior is for, or prompts that cannot be read.
        CheckpointError: there is no such model.
    """
    model = stage.model_before()
    if settings.target == "model" and not stage.knows_what_was:
        raise ConfigError(
            f"data.prior.target: model is for a LoRA, without which the model is what it was; {stage.method!r} changes "
            "the model itself. Say clips, or leave it out."
        )
    if settings.path is not None:
        if not Path(settings.path).expanduser().exists():
            raise ConfigError(f"There is no {settings.path} for data.prior. Give a folder of clips, or a list.")
        return None
    prompts = prompts_of(settings)
    places = [place_of_base(model.base), *([] if model.motion_adapter is None else [Path(model.motion_adapter)])]
    made_of = {
        "format": _FORMAT,
        "model": digest_of_models(places),
        "prompts": prompts,
        "seed": settings.seed,
        "clips": settings.clips,
    }
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    chosen = tuple(prompts[number % len(prompts)] for number in range(settings.clips))
    return Prior(Path(settings.folder).expanduser() / name, chosen, settings.seed, model)


def folder_of_prior(data: str | DataSettings, stage: Stage) -> Path | None:
    """Where the clips lie that show what the model of a stage can do; None where none are asked for.

    Raises:
        ConfigError: as `prior_of`.
        CheckpointError: likewise.
    """
    if isinstance(data, str) or data.prior is None:
        return None
    made = prior_of(data.prior, stage)
    return Path(str(data.prior.path)).expanduser() if made is None else made.folder


def prompts_of(settings: PriorSettings) -> list[str]:
    """All prompts that there are to choose from.

    Raises:
        ConfigError: neither a file of prompts nor a set that has captions, or no prompt.
    """
    given = settings.prompts
    if given is None:
        return list(EVERYDAY_PROMPTS)
    if not isinstance(given, str):
        return list(given)
    if given in data_names():
        return captions_of(given, settings.clips, settings.seed)
    try:
        lines = Path(given).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"data.prior.prompts: {given} cannot be read ({error}). Give a text file with a prompt a line, or one of "
            f"{', '.join(data_names())}."
        ) from error
    if prompts := [line.strip() for line in lines if line.strip()]:
        return prompts
    raise ConfigError(f"data.prior.prompts: there is no prompt in {given}; write one a line.")
