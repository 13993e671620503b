"""What a training run leaves in its folder, read again: log, settings, sheets of samples, the report on its data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.training.damaged_files import damaged_files
from muybridge.training.monitoring.curves import Curve
from muybridge.types import SettingsDict

LOG_FILE = "log.jsonl"
SETTINGS_FILE = "settings.json"
RUN_FILE = "run.yaml"
"""In the folder of a run on a folder of clips: what does the same."""
DATA_REPORT_FILE = "data.txt"
SHEETS_FOLDER = "sheets"
NEWEST_FILE = "newest.safetensors"
"""In the folder of sheets: latents of the first sample of the newest."""
REPORT_FILE = "report.html"
_SHEET = re.compile(r"step-(\d+)\.png")
_NUMBERED = re.compile(r"t(\d+)")


@dataclass(frozen=True)
class Sheet:
    """Samples of one evaluation.

    Attributes:
        step: of the evaluation.
        path: of the picture.
        description: what it shows, in words.
    """

    step: int
    path: Path
    description: str


@dataclass(frozen=True)
class StageRecord:
    """What there is of a stage.

    Attributes:
        name: of its folder.
        folder: itself.
        curves: by name in the log, in the order in which they appeared.
        settings: as recorded; empty where they are not.
        sheets: of samples, in the order of their steps.
        data_report: the text of the report on its data; None where there is none.
        unread_lines: of the log, damaged ones.
        damaged: files that could not be read while training, with the reason.
    """

    name: str
    folder: Path
    curves: Mapping[str, Curve]
    settings: SettingsDict = field(default_factory=dict)
    sheets: tuple[Sheet, ...] = ()
    data_report: str | None = None
    unread_lines: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The newest step that the log has."""
        return max((curve.steps[-1] for curve in self.curves.values()), default=0)

    @property
    def steps(self) -> int | None:
        """In all, as the settings have it."""
        steps = self.settings.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def seconds(self) -> float:
        """Of training up to the newest step."""
        return self.curves["seconds"].last if "seconds" in self.curves else 0.0

    @property
    def steps_a_second(self) -> float | None:
        """Lately; None where the log does not tell."""
        if "seconds" not in self.curves:
            return None
        steps, seconds = self.curves["seconds"].steps[-20:], self.curves["seconds"].values[-20:]
        took = seconds[-1] - seconds[0]
        return (steps[-1] - steps[0]) / took if took > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the present speed; None where that is not known."""
        rate = self.steps_a_second
        return (self.steps - self.step) / rate if rate and self.steps is not None else None

    def group(self, name: str) -> dict[str, Curve]:
        """Curves that the log calls `name/...`, by what stands after it; timesteps in their order."""
        start = f"{name}/"
        return in_order({key.removeprefix(start): c for key, c in self.curves.items() if key.startswith(start)})


def in_order(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Curves of noise levels (`t50`, `t150`) in the order of these, others as they are."""

    def level(item: tuple[str, Curve]) -> int:
        number = _NUMBERED.fullmatch(item[0])
        return int(number[1]) if number else 0

    return dict(sorted(curves.items(), key=level))


def read_run(folder: Path) -> list[StageRecord]:
    """All stages of a run that have a log, in the order in which they were trained; or the one whose folder it is.

    Raises:
        ConfigError: there is none.
    """
    if (folder / LOG_FILE).is_file():
        return [read_stage(folder)]
    logs = [path for path in folder.glob(f"*/{LOG_FILE}") if path.is_file()] if folder.is_dir() else []
    if not logs:
        raise ConfigError(
            f"There is no training run in {folder}: neither it nor a folder in it has a {LOG_FILE}. Give the folder "
            "that the run was told with --output."
        )
    return [read_stage(path.parent) for path in sorted(logs, key=lambda path: (path.stat().st_mtime, path))]


def is_starting(folder: Path) -> bool:
    """Whether a run was made ready in a folder, and neither it nor a folder in it has a log yet."""
    if not folder.is_dir() or (folder / LOG_FILE).is_file() or any(folder.glob(f"*/{LOG_FILE}")):
        return False
    ready = (folder / RUN_FILE, folder / SETTINGS_FILE, *folder.glob(f"*/{SETTINGS_FILE}"))
    return any(path.is_file() for path in ready)


def read_stage(folder: Path) -> StageRecord:
    """What there is in the folder of a stage, which may be training just now.

    Raises:
        ConfigError: the log or the settings cannot be read.
    """
    curves, unread = _read_log(folder / LOG_FILE)
    settings: SettingsDict = {}
    if (folder / SETTINGS_FILE).is_file():
        settings = read_json_object(folder / SETTINGS_FILE, "the settings of a stage", ConfigError, "Delete it.")
    return StageRecord(
        name=folder.resolve().name,
        folder=folder,
        curves=curves,
        settings=settings,
        sheets=tuple(_sheets(folder / SHEETS_FOLDER)),
        data_report=_data_report(folder),
        unread_lines=unread,
        damaged=damaged_files(folder),
    )


def _read_log(path: Path) -> tuple[dict[str, Curve], int]:
    try:
        # What is being written just now has no end of line yet.
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    points: dict[str, dict[int, float]] = {}
    newest, unread = 0, 0
    for line in lines:
        values = _parsed(line)
        if values is None:
            unread += bool(line.strip())
            continue
        step = int(values.pop("step"))
        if step < newest:  # a run that went on from a state older than its log
            points = {name: {s: v for s, v in known.items() if s < step} for name, known in points.items()}
        newest = step
        for name, value in values.items():
            points.setdefault(name, {})[step] = value
    return {name: Curve(tuple(known), tuple(known.values())) for name, known in points.items() if known}, unread


def _parsed(line: str) -> dict[str, float] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        return None
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _sheets(folder: Path) -> list[Sheet]:
    found = []
    for path in folder.glob("*.png") if folder.is_dir() else ():
        if name := _SHEET.fullmatch(path.name):
            words = path.with_suffix(".txt")
            text = words.read_text(encoding="utf-8", errors="replace") if words.is_file() else ""
            found.append(Sheet(int(name[1]), path, text.strip() or f"samples at step {int(name[1])}"))
    return sorted(found, key=lambda sheet: sheet.step)


def _data_report(folder: Path) -> str | None:
    # One set of clips serves all stages of a run.
    for path in (folder / DATA_REPORT_FILE, folder.parent / DATA_REPORT_FILE):
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace").rstrip()
    return None
