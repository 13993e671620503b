"""From a folder of clips to a run file: what is chosen for somebody who says nothing but where the clips are."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from muybridge.checkpoints.locate import SHIPPED_MODELS
from muybridge.data.readers import read_dataset
from muybridge.data.record import Record, shown
from muybridge.data.settings import PriorSettings
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import new_file, output_error
from muybridge.training.everyday import EVERYDAY_PROMPTS
from muybridge.training.monitoring.record import RUN_FILE
from muybridge.types import SettingsDict

ClipMethod = Literal["lora", "motion", "motion-lora"]
CLIP_METHODS: tuple[ClipMethod, ...] = get_args(ClipMethod)
MODEL = "model"
"""As a prior: what the model can do."""
_SIGNATURE = "# Written by muybridge, digest {}.\n"
_LOOKS = 2
_SAMPLES = 2
_ENOUGH, _HELD_OUT = 10, 0.1
_STEPS = (100, 3000)
"""Fewest and most steps that are chosen."""


@dataclass(frozen=True)
class ClipsRun:
    """What is asked for.

    Attributes:
        clips: a folder of clips, with captions in text files beside them or without; or a list of any known format.
        base: the model to train on.
        method: what learns: a LoRA of the attentions, the motion modules themselves, or a LoRA of these alone.
        caption: of clips that have none.
        trigger: a word that stands before every caption, and later in prompts.
        steps: optimizer steps; by default by the number of clips.
        prior: what is to stay as it is: `model` for what the model can do, a text file of prompts, a folder of clips,
            or `off`; by default the first for a LoRA of a shipped model, whose clips are soon made, and else the last.
    """

    clips: Path
    base: str = "demo/animatediff"
    method: ClipMethod = "lora"
    caption: str | None = None
    trigger: str | None = None
    steps: int | None = None
    prior: str | None = None


@dataclass(frozen=True)
class _Scale:
    """What a model asks for, by its size.

    Attributes:
        rank: of a LoRA.
        batch_size: clips a step.
        times_seen: how often each clip comes, in all steps.
        settings: further settings of the stage.
        prior: what a LoRA is to leave as it is, as far as it depends on the model.
        takes: how long it takes to make, in words.
        usual_prior: of a LoRA, what is to stay where nobody says.
    """

    rank: int
    batch_size: int
    times_seen: int
    settings: SettingsDict
    prior: SettingsDict
    takes: str
    usual_prior: str


_SHIPPED_SCALE = _Scale(
    16,
    2,
    32,
    {
        "learning_rate": 5.0e-3,
        "other_learning_rate": 1.0e-3,
        "warmup_steps": 10,
        "ema_decay": 0.95,
        "log_every": 5,
        "timestep_shift": 6.0,
    },
    {"prompts": "demo-world", "clips": 48, "weight": 3.0},
    "about a minute and a half on two cores, once",
    MODEL,
)
_PUBLISHED_SCALE = _Scale(
    16,
    1,
    60,
    {
        "optimizer": "adamw",
        "learning_rate": 1.0e-4,
        "schedule": {"name": "cosine", "warmup_steps": 50},
        "objective": {"timesteps": "uniform"},
        "ema_decay": 0.99,
        "log_every": 10,
    },
    {},
    "as long as so many videos take, once",
    "off",
)


def run_document(asked: ClipsRun) -> tuple[SettingsDict, list[str]]:
    """The values of a run file, and what was chosen in words.

    The list of clips is read; no file of theirs is opened.

    Raises:
        ConfigError: nothing to train on, clips without captions where no word says what they show, or an unknown
            method.
    """
    if asked.method not in CLIP_METHODS:
        raise ConfigError(f"--method is one of {', '.join(CLIP_METHODS)}; given {asked.method!r}.")
    records = _records(asked.clips)
    _check_captions(asked, records)
    scale = _SHIPPED_SCALE if asked.base in SHIPPED_MODELS else _PUBLISHED_SCALE
    steps = asked.steps or _steps(len(records), scale)
    source = {"path": str(asked.clips), "caption": asked.caption, "trigger": asked.trigger}
    stage = {**_stage(asked.method, scale.rank), "base": asked.base, "steps": steps, "batch_size": scale.batch_size}
    stage |= {**scale.settings, "evaluation": _evaluation(steps, asked, records)}
    held_out = {"held_out": _HELD_OUT} if len(records) >= _ENOUGH else {}
    prior, kept = _prior(asked, scale, records)
    if prior is not None:
        # As many of its own clips a step as without, and as many of the others.
        stage["batch_size"] = 2 * scale.batch_size
    mixed = {} if prior is None else {"prior": prior}
    document = {
        "name": _name(asked.clips),
        "data": {"sources": [{key: value for key, value in source.items() if value is not None}], **held_out, **mixed},
        "stages": [stage],
    }
    batch_size = stage["batch_size"]
    seen = steps * scale.batch_size / len(records)
    picked = [
        f"{len(records)} clips and pictures for {asked.base}",
        _WORDS[asked.method].format(rank=scale.rank),
        f"{steps} steps of {batch_size}: each clip is seen about {seen:.0f} times",
    ]
    if held_out:
        picked.append(f"{max(1, round(_HELD_OUT * len(records)))} clips are held out, to measure what is learned")
    picked += kept
    if asked.trigger is not None:
        picked.append(f"prompts call it by {asked.trigger!r}")
    return document, picked


def write_run_file(asked: ClipsRun, folder: Path) -> tuple[Path, list[str]]:
    """Write the run file that does what was asked for, and say what was chosen. It does so from any working directory.

    Clips and models are looked for first, so that nothing is written of what cannot be trained. A file that this
    program wrote, nobody has changed and nothing was trained by yet is replaced.

    Args:
        asked: what to train.
        folder: of the run, where the file goes as `run.yaml`.

    Returns:
        The file, and what was chosen in words.

    Raises:
        ConfigError: as of `run_document`, or there is another run file, which is not replaced.
        CheckpointError: there is no such model.
        OutputError: it cannot be written.
    """
    from muybridge.training.run import check_run, has_begun
    from muybridge.training.run_file import TrainingRun

    document, picked = run_document(asked)
    document = _placed(document)
    check_run(TrainingRun.model_validate(document))
    path = folder / RUN_FILE
    again = shlex.join(["muybridge", "train", str(path.absolute()), "--output", str(folder.absolute())])
    if path.exists():
        found = path.read_text(encoding="utf-8", errors="replace")
        if _says(found) == document:
            return path, picked
        if has_begun(folder) or not _is_as_written(found):
            raise ConfigError(
                f"{path} is there and says something else. Go on with it: {shown(again)}; or choose another folder "
                "with --output."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    with new_file(path) as temporary:
        temporary.write_text(_signed(picked, again, document), encoding="utf-8")
    return path, picked


def _placed(document: SettingsDict) -> SettingsDict:
    """With paths that mean the same in every working directory."""
    data = dict(document["data"])
    data["sources"] = [{**source, "path": _absolute(source["path"])} for source in data["sources"]]
    if "prior" in data:
        named = {name: data["prior"][name] for name in ("path", "prompts") if name in data["prior"]}
        data["prior"] = {**data["prior"], **{name: _absolute_if_there(value) for name, value in named.items()}}
    stages = [{**stage, "base": _absolute_if_there(stage["base"])} for stage in document["stages"]]
    return {**document, "data": data, "stages": stages}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_if_there(value: object) -> object:
    """A path; what is none, as the name of a model or of a set, stays as it is."""
    return _absolute(value) if isinstance(value, str) and Path(value).expanduser().exists() else value


def _says(text: str) -> SettingsDict | None:
    """What a run file says, with its paths as `_placed` has them; None where it is no such file."""
    import yaml

    from muybridge.files.validation import YAML_ERRORS

    try:
        return _placed(yaml.safe_load(text))
    except (*YAML_ERRORS, TypeError, KeyError):
        return None


def _signed(picked: Sequence[str], again: str, document: SettingsDict) -> str:
    """The text of a run file, with a digest by which it is known again."""
    import yaml

    said = "".join(f"# {shown(line)}.\n" for line in picked) + f"# The same again: {shown(again)}\n"
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return f"{said}{_SIGNATURE.format(_digest(said + body))}{body}"


def _is_as_written(text: str) -> bool:
    found = re.search(_SIGNATURE.format("([0-9a-f]+)"), text)
    return found is not None and found[1] == _digest(text.replace(found[0], "", 1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def default_folder(clips: Path) -> Path:
    """Where a run on these clips goes if nobody says."""
    return Path("work") / _name(clips)


_WORDS: dict[ClipMethod, str] = {
    "lora": "a LoRA of rank {rank} of all attentions",
    "motion": "the model's own motion modules, further trained",
    "motion-lora": "a LoRA of rank {rank} of the motion modules' attentions",
}


def _stage(method: ClipMethod, rank: int) -> SettingsDict:
    if method == "lora":
        return {"method": "lora", "layers": "attention", "rank": rank}
    if method == "motion-lora":
        return {"method": "motion-lora", "rank": rank}
    return {"method": "motion-adapter", "start": "own"}


def _records(clips: Path) -> tuple[Record, ...]:
    place = clips.expanduser()
    if place.is_dir() and not any(each.is_file() for each in place.rglob("*")):
        raise ConfigError(f"There is nothing to train on in {clips}: the folder is empty.")
    try:
        found = read_dataset(place)
    except InputFileError as error:
        raise ConfigError(f"{clips} cannot be read: {error}") from error
    if not found.records:
        first = "; ".join(str(refusal) for refusal in found.refusals[:3])
        raise ConfigError(f"There is nothing to train on in {clips}{f': {first}' if first else ''}.")
    return tuple(found.records)


def _check_captions(asked: ClipsRun, records: tuple[Record, ...]) -> None:
    if asked.caption is not None or asked.trigger is not None:
        return
    if without := [record.name for record in records if not record.text]:
        raise ConfigError(
            f"{len(without)} of {len(records)} clips have no caption, {without[0]} for one. Write what a clip shows "
            "into a text file of its name, give one caption for all with --caption, or a word to call them by with "
            "--trigger."
        )


def _prior(asked: ClipsRun, scale: _Scale, records: tuple[Record, ...]) -> tuple[SettingsDict | None, list[str]]:
    """What the model is to keep, and that in words."""
    wanted = asked.prior or (scale.usual_prior if asked.method == "lora" else "off")
    if wanted == "off":
        return None, ["other prompts may come out changed; --prior model holds them, and learns more slowly"]
    if wanted != MODEL and Path(wanted).expanduser().is_dir():
        return {"path": wanted}, [f"half of the clips are of {wanted}, which the model is to keep"]
    prior = _said(wanted, asked.trigger, scale, records)
    if asked.method == "motion":  # what learns them as clips, as many as its own
        prior.pop("weight", None)
    clips = prior.get("clips", PriorSettings().clips)
    return prior, [
        f"{clips} clips of what the model can do are made first ({scale.takes}) and mixed in, so that other prompts "
        "stay as they are (--prior off for none)"
    ]


def _said(wanted: str, trigger: str | None, scale: _Scale, records: tuple[Record, ...]) -> SettingsDict:
    """The prior of clips that are made: with a trigger also of what its captions say without it."""
    if wanted != MODEL:
        return {**scale.prior, "prompts": wanted}
    captions = list(dict.fromkeys(record.text for record in records if record.text)) if trigger else []
    if not captions or "prompts" in scale.prior:
        return dict(scale.prior)
    clips = PriorSettings().clips
    own = captions[: clips // 2]
    return {"prompts": [*own, *EVERYDAY_PROMPTS[: clips - len(own)]], "clips": clips}


def _evaluation(steps: int, asked: ClipsRun, records: tuple[Record, ...]) -> SettingsDict:
    """Few and small looks, so that they take a small part of the time."""
    return {
        "every": max(1, steps // _LOOKS),
        "prompts": _prompts(asked, records),
        "batches": 1,
        "noises": 1,
    }


def _prompts(asked: ClipsRun, records: tuple[Record, ...]) -> list[str]:
    """Of the samples that show how far it is: the first captions that differ."""
    captions = (", ".join(filter(None, (asked.trigger, each.text or asked.caption))) for each in records)
    return list(dict.fromkeys(captions))[:_SAMPLES]


def _steps(clips: int, scale: _Scale) -> int:
    least, most = _STEPS
    return min(most, max(least, round(clips * scale.times_seen / scale.batch_size)))


def _name(clips: Path) -> str:
    name = re.sub(r"[^\w-]+", "-", clips.expanduser().resolve().stem).strip("-")
    return name or "clips"
