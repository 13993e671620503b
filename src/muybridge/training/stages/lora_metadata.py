"""What the file of a LoRA says of itself, in the words of kohya's scripts and of the model spec; all values are text.

Programs show some of it (A1111 and Forge), guess the kind of model from `ss_base_model_version`, and find files again
by the hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from muybridge.training.settings import Settings

if TYPE_CHECKING:
    from muybridge.pipelines import VideoPipeline
    from muybridge.training.methods.lora import LoraShape
    from muybridge.training.stages.denoising import DenoisingStage
    from muybridge.training.stages.stage import RunSettings

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
    targets = base.family.lora
    prediction = base.scheduler.config["prediction_type"]
    kind = "dora" if shape.dora else "lora"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(shape.rank),
        "ss_network_alpha": str(shape.scaled_by),
        "ss_network_args": json.dumps({"layers": layers, "dropout": shape.dropout, "dora": shape.dora}),
        "ss_base_model_version": targets.version or "",
        "ss_sd_model_name": Path(model).name,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{targets.architecture}/{kind}",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": _PREDICTIONS.get(prediction, str(prediction)),
    }


def run_metadata(stage: DenoisingStage, about: AboutSettings, run: RunSettings, output: Path) -> dict[str, str]:
    """What is known of it once it is trained: how, on what, and when."""
    folder = output / stage.method
    started, finished = ((folder / name).stat().st_mtime for name in ("settings.json", "exported"))
    known = {
        "ss_output_name": run.name,
        "ss_learning_rate": str(stage.learning_rate),
        "ss_steps": str(stage.steps),
        "ss_max_train_steps": str(stage.steps),
        "ss_total_batch_size": str(stage.batch_size * stage.processes),
        "ss_seed": str(stage.seed),
        "ss_caption_dropout_rate": str(stage.caption_dropout),
        "ss_mixed_precision": stage.mixed_precision,
        "ss_max_grad_norm": str(stage.max_gradient_norm),
        "ss_training_started_at": f"{started:.1f}",
        "ss_training_finished_at": f"{finished:.1f}",
        "ss_session_id": str(int(started)),
        "ss_datasets": json.dumps([{"data": _plain(getattr(run, "data", None))}]),
        "modelspec.date": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
        "modelspec.title": about.title or run.name,
    }
    said = about.model_dump(exclude={"title"}, exclude_none=True)
    known |= {f"modelspec.{name}": text for name, text in said.items()}
    if (comment := about.description) is not None:
        known["ss_training_comment"] = comment
    return known


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
