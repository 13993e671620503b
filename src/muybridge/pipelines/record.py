"""What a video says about how it was made: a request that gives it again, and what was special about the run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from muybridge.request.condition import plain_value
from muybridge.types import SettingsDict
from muybridge.version import __version__

if TYPE_CHECKING:
    from muybridge.pipelines.base import PipelineBase
    from muybridge.pipelines.plan import Plan


def recorded(pipeline: PipelineBase, plan: Plan) -> SettingsDict:
    """A request as `Request.plain` has it, with the model beside it, and under `made` what only holds for this run."""
    request = plan.request
    said = request.sampling.model_dump(warnings=False).items()
    sampling = {name: value for name, value in said if value is not None and value is not False}
    record: SettingsDict = {
        "prompt": None,
        **request.plain(),
        "model": _model(pipeline, plan),
        "shape": {name: value for name, value in request.shape.model_dump(warnings=False).items() if value is not None},
        "sampling": plain_value(sampling),
    }
    shown = [plain for each in request.conditions if (plain := _condition(each, plan)) is not None]
    record["conditions"] = shown
    in_memory = [name for each in request.conditions if each.plain() is None for name in each.names()]
    if plan.callback is not None:
        in_memory.append("callback_on_step_end")
    if pipeline.has_unrecorded_lora:
        in_memory.append("how its LoRAs were read")
    record["made"] = {**made_with(pipeline), "unrecorded": [*in_memory, *pipeline._changed_parts()]}
    if plan.task.inputs.digests:
        record["inputs"] = dict(plan.task.inputs.digests)
    return record


def made_with(pipeline: PipelineBase) -> SettingsDict:
    """What only holds for the run that made a video."""
    made = {
        "dtype": precision_of(pipeline),
        "versions": {"muybridge": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "interrupted": pipeline._interrupt,
        "unrecorded": [],
    }
    if pipeline.placement is not None:
        made["placement"] = plain_value(asdict(pipeline.placement))
    return made


def precision_of(pipeline: PipelineBase) -> str:
    """Of the backbone, as "float32"."""
    backbone: Any = pipeline.backbone
    return str(backbone.dtype).removeprefix("torch.")


def _model(pipeline: PipelineBase, plan: Plan) -> SettingsDict:
    kinds = {each.kind for each in plan.request.conditions}
    networks = {role: path for role, path in pipeline._network_files.items() if _is_used(role, kinds)}
    found = {
        "model": pipeline.model_name,
        **pipeline._loaded_with,
        "loras": pipeline.lora_settings,
        "embeddings": plan.texts.embeddings,
        "networks": networks,
        **_placed(pipeline),
    }
    return {name: value for name, value in found.items() if value or name == "model"}


def _placed(pipeline: PipelineBase) -> SettingsDict:
    """What decides over numbers of how it was loaded: precision, and optimizations by name."""
    dtype = precision_of(pipeline)
    speed = [] if pipeline.placement is None else list(pipeline.placement.speed)
    return {"dtype": dtype, "speed": speed}


def _is_used(role: str, kinds: set[str]) -> bool:
    return role.replace("_", "-") in kinds or (role == "image_encoder" and "image-prompt" in kinds)


def _condition(condition: Any, plan: Plan) -> SettingsDict | None:
    plain = condition.plain()
    if plain is not None and condition.kind == "source" and plain.get("strength") is None:
        plain["strength"] = plan.share
    return plain
