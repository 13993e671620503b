"""What is asked for: a request, its conditions and the model, as plain values that need no torch."""

from muybridge.request.capabilities import Capabilities
from muybridge.request.condition import Call, Condition, condition_kinds, register_condition
from muybridge.request.generate_request import GenerateRequest
from muybridge.request.inputs import Inputs, SourceVideo
from muybridge.request.model_choice import ModelChoice
from muybridge.request.pictures import Picture, open_picture
from muybridge.request.request import Motion, Request, Sampling, Segments, Shape
from muybridge.request.sampling import FreeInit, Positions, WindowSettings

__all__ = [
    "Call",
    "Capabilities",
    "Condition",
    "FreeInit",
    "GenerateRequest",
    "Inputs",
    "ModelChoice",
    "Motion",
    "Picture",
    "Positions",
    "Request",
    "Sampling",
    "Segments",
    "Shape",
    "SourceVideo",
    "WindowSettings",
    "condition_kinds",
    "open_picture",
    "register_condition",
]
