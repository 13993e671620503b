"""From an error of any kind to what a client is told."""

from __future__ import annotations

from collections.abc import Mapping

from muybridge.errors import (
    Cancelled,
    ConfigError,
    InputFileError,
    MuybridgeError,
    NonFiniteError,
    NotFoundError,
    OutputError,
)
from muybridge.jobs.record import Failure
from muybridge.jobs.resolving import public_message

_CODES: tuple[tuple[type[MuybridgeError], str], ...] = (
    (Cancelled, "cancelled"),
    (NotFoundError, "not_found"),
    (InputFileError, "input_unreadable"),
    (NonFiniteError, "non_finite"),
    (OutputError, "internal"),
    (ConfigError, "invalid_value"),
)
_OUT_OF_MEMORY = (
    "The device has too little memory for this video. Ask for fewer frames or a smaller size, or let fewer frames be "
    "made at once."
)


def failure_of(error: BaseException, names: Mapping[str, str]) -> Failure:
    """Code and message for an error; `names` are what the client calls files, by path."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure("out_of_memory", _OUT_OF_MEMORY)
    if isinstance(error, MuybridgeError):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "internal")
        return Failure(code, public_message(str(error), names) or "The job was cancelled.")
    return Failure("internal", f"The service failed ({type(error).__name__}); its log says more.")


def spoils_the_process(error: BaseException) -> bool:
    """Whether the process had better begin anew: what a device is left in after such errors is not known."""
    name = type(error).__name__
    return name in ("OutOfMemoryError", "AcceleratorError") or isinstance(error, MemoryError) or "CUDA" in str(error)
