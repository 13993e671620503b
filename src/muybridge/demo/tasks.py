"""The tasks on which a model of the toy world is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.evaluate_continuation import check_continuation, evaluate_continuation
from muybridge.demo.evaluate_keyframes import evaluate_ends, evaluate_image, evaluate_keyframes
from muybridge.demo.evaluate_text import evaluate_text
from muybridge.demo.task_report import Progress, TaskReport
from muybridge.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        run: (maker, number of prompts, seed, progress) -> its report.
        default_count: of prompts.
        check: raises ConfigError for a model that cannot do it, in about a second.
    """

    run: Callable[[ClipMaker, int, int, Progress | None], TaskReport]
    default_count: int
    check: Callable[[ClipMaker], None]


def _check_nothing(_: ClipMaker) -> None:
    """Every model takes text."""


def _check_first(maker: ClipMaker) -> None:
    maker.require_keyframes((0,))


def _check_both(maker: ClipMaker) -> None:
    maker.require_keyframes((0, -1))


TASKS = {
    "text": Task(evaluate_text, 200, _check_nothing),
    "image": Task(evaluate_image, 100, _check_first),
    "ends": Task(evaluate_ends, 100, _check_both),
    "keyframes": Task(evaluate_keyframes, 100, _check_both),
    "continuation": Task(evaluate_continuation, 20, check_continuation),
}
ALL = "all"


def tasks_named(name: str) -> list[str]:
    """One task, or those that `all` stands for: `keyframes` is `ends` by another name and is left out.

    Raises:
        ConfigError: no such task.
    """
    if name == ALL:
        return [task for task in TASKS if task != "keyframes"]
    if name not in TASKS:
        raise ConfigError(f"There is no task {name!r}. Known: {', '.join(TASKS)}, {ALL}.")
    return [name]
