"""What the file of a LoRA says of itself, in the words of kohya's scripts and of the model spec; all values are text.

Programs show some of it (A1111 and Forge), guess the kind of model from `ss_base_model_version`, and find files again
by the hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from muybridge.errors import ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.training.settings import Settings

if TYPE_CHECKING:
    from muybridge.pipelines import VideoPipeline
    from muybridge.training.methods.lora import LoraShape
    from muybridge.training.optimizers import OptimizerSettings
    from muybridge.training.stages.denoising import DenoisingStage
    from muybridge.training.stages.stage import RunSettings
    from muybridge.types import SettingsDict

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
_LEGACY_FROM, _LEGACY_BYTES = 0x100000, 0x10000
"""The part of a file that A1111's first hash was of."""
_LENGTH_BYTES = 8
"""Of a safetensors file, which say how long its header is."""


class AboutSettings(Settings):
    """What a LoRA's file says of itself that only its maker knows."""

    title: str | None = None
    """The name of the run if not given."""
    author: str | None = None
    description: str | None = None
    license: str | None = None
    tags: str | None = None
    trigger_phrase: str | None = None
    usage_hint: str | None = None


def network_metadata(shape: LoraShape, base: VideoPipeline, model: str, layers: str) -> dict[str, str]:
    """What is known of a LoRA where it is trained: its shape, and the model that it is for."""
    from muybridge.training.stages.base_model import usual_clip

    targets = base.family.lora
    size = usual_clip(base).shape
    prediction = base.scheduler.config["prediction_type"]
    kind = "dora" if shape.dora else "lora"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(shape.rank),
        "ss_network_alpha": str(shape.scaled_by),
        "ss_network_args": json.dumps({"layers": layers, "dropout": shape.dropout, "dora": shape.dora}),
        "ss_base_model_version": targets.version or "",
        "ss_sd_model_name": Path(model).name,
        **_resolution(size.width, size.height),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{targets.architecture}/{kind}",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": _PREDICTIONS.get(prediction, str(prediction)),
    }


def run_metadata(stage: DenoisingStage, about: AboutSettings, run: RunSettings, output: Path) -> dict[str, str]:
    """What is known of it once it is trained: how, on what, and when.

    Raises:
        ConfigError: the stage's record of its clips is damaged.
    """
    folder = output / stage.method
    started, finished = _started(folder), (folder / "exported").stat().st_mtime
    known = {
        "ss_output_name": run.name,
        "ss_learning_rate": str(stage.learning_rate),
        "ss_steps": str(stage.steps),
        "ss_max_train_steps": str(stage.steps),
        "ss_optimizer": _with_arguments(stage.optimizer),
        "ss_lr_scheduler": stage.schedule.name,
        "ss_lr_warmup_steps": str(stage.schedule.warmup_steps),
        "ss_gradient_accumulation_steps": str(stage.accumulate),
        "ss_total_batch_size": str(stage.batch_size * stage.batches_a_step),
        "ss_seed": str(stage.seed),
        "ss_caption_dropout_rate": str(stage.caption_dropout),
        "ss_mixed_precision": stage.mixed_precision,
        "ss_max_grad_norm": str(stage.max_gradient_norm),
        "ss_training_started_at": f"{started:.1f}",
        "ss_training_finished_at": f"{finished:.1f}",
        "ss_session_id": str(int(started)),
        "ss_datasets": json.dumps([{"data": _plain(getattr(run, "data", None))}]),
        **_clips(folder / "data.json"),
        "modelspec.date": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
        "modelspec.title": about.title or run.name,
    }
    said = about.model_dump(exclude={"title"}, exclude_none=True)
    known |= {f"modelspec.{name}": text for name, text in said.items()}
    if (comment := about.description) is not None:
        known["ss_training_comment"] = comment
    return known


def _started(folder: Path) -> float:
    """When the stage was first begun; runs that went on have written their settings again since."""
    first = folder / "trained-on.txt"
    return (first if first.is_file() else folder / "settings.json").stat().st_mtime


def _with_arguments(optimizer: OptimizerSettings) -> str:
    given = optimizer.model_dump(exclude={"name"}, exclude_none=True)
    return f"{optimizer.name}({','.join(f'{name}={value}' for name, value in given.items())})"


def _resolution(width: int | str, height: int | str) -> dict[str, str]:
    return {"ss_resolution": f"({width}, {height})", "modelspec.resolution": f"{width}x{height}"}


def _clips(report: Path) -> dict[str, str]:
    """Of people's own clips, as the stage's report on them has it; nothing of a set that never ends."""
    if not report.is_file():
        return {}
    advice = "Delete it to do without what it says."
    told = read_json_object(report, "a report on clips", ConfigError, advice)
    try:
        return _told(told)
    except (KeyError, TypeError, ValueError):  # as earlier versions left it
        return {}


def _told(report: SettingsDict) -> dict[str, str]:
    own = [source for source in report["sources"] if not source["is_prior"]]
    count = sum(source["clips"] for source in own)
    width, height, _ = max(report["buckets"], key=lambda bucket: bucket["clips"])["bucket"].split("x")
    return {
        "ss_num_train_items": str(count),
        "ss_num_train_images": str(count),  # which front ends show; clips count as one each
        "ss_num_reg_images": str(sum(source["clips"] for source in report["sources"]) - count),
        "ss_num_epochs": str(max(1, math.ceil(report["epochs"]))),
        "ss_tag_frequency": json.dumps({Path(source["path"]).name: source["tags"] for source in own}),
        **_resolution(width, height),
    }


def hashes_of_base(model: str) -> dict[str, str]:
    """Of a single file those that A1111 and its kin know it by; of a folder one of their form.

    Raises:
        CheckpointError: the model is not there.
    """
    from muybridge.training.base_place import place_of_base
    from muybridge.training.origin import digest_of_models

    place = place_of_base(model)
    if place.is_dir():
        return {"ss_sd_model_hash": str(digest_of_models([place]))[:8]}
    with place.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(_LEGACY_FROM)
        part = hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()
    return {"ss_sd_model_hash": part[:8], "ss_new_sd_model_hash": whole}


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else value


def publish_lora(source: Path, target: Path, metadata: Mapping[str, str]) -> Path:
    """Copy the file of a LoRA and add to what it says of itself; a file that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import load_file, save_file

    from muybridge.files.atomic import new_file
    from muybridge.weights.files import read_metadata

    tensors = load_file(source)
    header = {**read_metadata(source), **metadata}
    header |= _hashes(tensors, header)
    with new_file(target) as temporary:
        save_file(tensors, temporary, header)
    return target


def _hashes(tensors: Mapping, header: Mapping[str, str]) -> dict[str, str]:
    from safetensors.torch import save

    content = save(dict(tensors), {key: text for key, text in header.items() if key.startswith("ss_")})
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    of_tensors = hashlib.sha256(content[start:]).hexdigest()
    part = content[_LEGACY_FROM : _LEGACY_FROM + _LEGACY_BYTES]
    return {
        "sshs_model_hash": of_tensors,
        "sshs_legacy_hash": hashlib.sha256(part).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{of_tensors}",
    }
