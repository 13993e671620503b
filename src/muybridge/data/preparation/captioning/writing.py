"""What stages have in common that ask a model to write: who is asked, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.crop import id_with_crop
from muybridge.data.preparation.captioning.answers import Answers, Slots
from muybridge.data.preparation.captioning.conversation import Answer, Turn, Writer
from muybridge.data.preparation.captioning.endpoint import Endpoint, EndpointAddress, checked_key, checked_url
from muybridge.data.preparation.captioning.local import LocalWriter
from muybridge.data.preparation.captioning.model_folder import check_model_folder, check_writer_folder, folder_digest
from muybridge.data.preparation.captioning.prompts import prompt_hash, read_prompt
from muybridge.data.preparation.stage import Refused, Stage, StageSettings
from muybridge.data.record import Record
from muybridge.errors import ConfigError, NoAnswerError, PreparationError

CAPTION_FAILED = "caption-failed"
_ANSWERS, _SLOTS = "answers", "slots"


class WritingSettings(StageSettings):
    """Who writes."""

    model: str | None = None
    """The folder of a model as transformers saves it; with `endpoint` its name there; None for no captions."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server, as http://localhost:8000/v1."""
    key_env: str | None = None
    """The variable of the environment that holds the server's key, where it needs one."""
    prompt: str | None = None
    """A file with what is asked; the shipped prompt if not given."""
    most_tokens: int = Field(default=256, ge=1)
    """Of an answer."""
    device: str | None = None
    """To run a model of a folder on; a GPU where there is one, if not given."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Most questions to the server at once, from all processes of this machine."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Of a question to the server."""
    tries: int = Field(default=5, ge=1, le=20)
    """Until a question that the server cannot answer is given up, with longer pauses each time."""


class WritingStage(Stage):
    """Base of stages that ask; what was answered is kept by clip, model and prompt, and not asked for again."""

    version = 2
    Settings = WritingSettings
    settings: WritingSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(
        ("endpoint", "key_env", "device", "parallel", "timeout_s", "tries")
    )
    """How a model is reached does not change what it says."""
    of_kept = True
    takes_pictures: ClassVar[bool]
    questions: ClassVar[int] = 1
    """That a record may take."""
    prompt_name: ClassVar[str]

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings, of which folders, addresses, keys and prompts are looked at."""
        super().__init__(settings)
        self.prompt = read_prompt(self.settings.prompt, self.prompt_name)
        self._writer: Writer | None = None
        self._slots: Slots | None = None
        if self.settings.endpoint is not None:
            checked_url(self.settings.endpoint)
            if not self.settings.model:
                raise ConfigError(f"{self.name}.model must be the model's name at {self.settings.endpoint}.")
            checked_key(self.settings.key_env)
        elif self.settings.model is not None:
            check_writer_folder(self.settings.model, f"{self.name}.model", self.takes_pictures)

    def idle_reason(self) -> str | None:
        """No model."""
        if self.settings.model is not None:
            return None
        return f"no model is named ({self.name}.model=FOLDER, or {self.name}.endpoint=URL with {self.name}.model=NAME)"

    def begin(self) -> None:
        """Ask the server something, before others have worked for what it will not answer.

        Raises:
            ConfigError: it does not accept the key, or knows no such model.
        """
        if self.settings.endpoint is not None and self.settings.model is not None:
            self._endpoint(self.settings.endpoint, self.settings.model).greet()

    def load(self) -> None:
        """Load the model, or find out whether the server lets us in.

        Raises:
            CheckpointError: the folder holds no such model.
            ConfigError: there is no key, or the server does not accept it.
        """
        settings = self.settings
        if settings.model is None:
            raise ConfigError(f"{self.name}: {self.idle_reason()}.")
        if settings.endpoint is None:
            folder = check_model_folder(settings.model, f"{self.name}.model")
            self._writer = LocalWriter(folder, self.takes_pictures, settings.most_tokens, settings.device)
            return
        endpoint = self._endpoint(settings.endpoint, settings.model)
        endpoint.greet()
        self._writer = endpoint

    def digest(self) -> str:
        """Of the prompt, and of the model's files where it is a folder."""
        return f"{prompt_hash(self.prompt)} {self._of_model}"

    @cached_property
    def _of_model(self) -> str:
        if self.settings.model is None or self.settings.endpoint is not None:
            return ""
        return folder_digest(check_model_folder(self.settings.model, f"{self.name}.model"))

    @property
    def seconds_more(self) -> float:
        """For all questions, their tries and the pauses between them, which may be twice as long while others ask."""
        return 2 * self.questions * self.settings.tries * (self.settings.timeout_s + 60)

    def ask(self, turns: Sequence[Turn], work: Path) -> Answer:
        """An answer of the model, which is loaded.

        Raises:
            Refused: there is none.
            PreparationError: there will never be one.
        """
        self._slots = Slots(work / _SLOTS, self.settings.parallel)
        if self._writer is None:
            raise ConfigError(f"{self.name} was not loaded.")
        try:
            return self._writer.answer(turns)
        except NoAnswerError as error:
            raise Refused(CAPTION_FAILED, str(error), "caption-failed") from error
        except ConfigError as error:
            raise PreparationError(str(error)) from error

    def kept(self, record: Record, work: Path, *more: str) -> tuple[Answers, tuple[str, ...]]:
        """Where answers about a record are kept, and under which key."""
        model = str(self.settings.model)
        return Answers(work / _ANSWERS), (
            id_with_crop(record.id, record.extra) if self.takes_pictures else record.id,
            self.name,
            model,
            self.digest(),
            str(self.settings.most_tokens),
            *more,
        )

    def credit(self) -> dict[str, str]:
        """Who wrote it and what was asked, for `extra`."""
        return {"by": Path(str(self.settings.model)).name, "prompt": prompt_hash(self.prompt)}

    def _endpoint(self, url: str, model: str) -> Endpoint:
        settings = self.settings
        address = EndpointAddress(url, model, settings.key_env, settings.most_tokens)
        return Endpoint(address.patient(settings.timeout_s, settings.tries), self._slot)

    def _slot(self) -> AbstractContextManager[None]:
        if self._slots is None:
            raise ConfigError(f"{self.name} was not asked by a record.")
        return self._slots()
