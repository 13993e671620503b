"""Every error a user can cause or meet. Messages say what was given, what is allowed, and what to do next."""


class MuybridgeError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(MuybridgeError):
    """A setting that is unknown, out of range, or has no effect."""


class ShapeError(ConfigError):
    """Sizes or frame counts that a model cannot take; the message names the nearest it can."""


class CheckpointError(MuybridgeError):
    """A weight file or model folder that is missing, damaged, unsafe, or made for something else."""


class OutputError(MuybridgeError):
    """A result that cannot be written where it was asked for."""


class InputFileError(MuybridgeError):
    """A picture, video or settings file that cannot be read.

    Attributes:
        fault: what is wrong with it in a word that programs can go by, as `broken-tail`.
    """

    def __init__(self, message: str, fault: str = "unreadable") -> None:
        """A message for people, and `fault`."""
        super().__init__(message)
        self.fault = fault


class NoAnswerError(MuybridgeError):
    """A model that writes captions gives no usable answer to this question; it may to others."""


class PreparationError(MuybridgeError):
    """Preparing clips cannot go on: a stage cannot begin, or no process for it can be started."""


class NonFiniteError(MuybridgeError):
    """NaN, infinite or all-zero values appeared while sampling; names the step and the first layer."""


class InterruptedRunError(MuybridgeError):
    """A run of several parts was interrupted; what is finished stays, and the same call goes on from there."""


class TrainingError(MuybridgeError):
    """Training cannot go on."""
