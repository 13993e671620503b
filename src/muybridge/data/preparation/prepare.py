"""From a folder of raw videos, or any other set, to a set for training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from muybridge.data.preparation.account import Account, bounds_of, input_statuses, ordered
from muybridge.data.preparation.engine.job import Engine, Limits
from muybridge.data.preparation.engine.journal import Journal
from muybridge.data.preparation.engine.pool import PoolEngine
from muybridge.data.preparation.engine.serial import SerialEngine
from muybridge.data.preparation.inputs import Input, KnownIds, Part, read_inputs, read_names
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.schedule import Advance, Branch, Schedule
from muybridge.data.preparation.stage import Stage
from muybridge.data.preparation.status import Outcome
from muybridge.data.readers.folders import linked_below
from muybridge.data.readers.reading import recognised
from muybridge.data.record import Record, Refusal
from muybridge.errors import ConfigError, OutputError
from muybridge.files.atomic import output_error
from muybridge.files.folder_lock import locked_folder
from muybridge.version import __version__

EngineName = Literal["pool", "serial", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
_JOURNAL, _CLIPS, _PARTS = "journal", "clips", "parts"
_DOING = "prepares clips"
_LOOKS, _LOOK_S = 4, 0.05
_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True)
class PrepareSettings:
    """How a set is prepared; nothing of it changes what comes out.

    Attributes:
        engine: pool, processes that are watched; serial, this process; ray, a cluster.
        workers: processes; by default one for each processor that there is.
        part: of the set, for several machines; None for all of it.
        retry: whether what crashed or took too long before is tried again.
        limits: what a record may take.
        memory_bytes: that a process may have; by default 4 GB, or all there is if a stage has a model.
        ray_address: of a cluster; one is started on this machine without.
    """

    engine: EngineName = "pool"
    workers: int | None = None
    part: Part | None = None
    retry: bool = False
    limits: Limits = field(default_factory=Limits)
    memory_bytes: int | None = None
    ray_address: str | None = None

    @property
    def num_workers(self) -> int:
        """How many processes."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Watching:
    """Who is told how far it is.

    Attributes:
        on_file: called with (files looked for, files in all) as they are read for their ids.
        on_advance: called as entries are done.
    """

    on_file: Callable[[int, int], None] | None = None
    on_advance: Callable[[Advance], None] | None = None


def prepare(
    raw: Path,
    out: Path,
    recipe: Recipe,
    settings: PrepareSettings | None = None,
    watching: Watching | None = None,
    read_as: str | None = None,
) -> Account | None:
    """Prepare a set; what was done before into the same folder is not done again.

    `out` gets `manifest.jsonl` with what is kept, `dropped.jsonl` with everything else and why, `prepared.json` with
    the recipe, and what is needed to go on in `journal`. Clips that a stage writes lie in `clips`.

    Args:
        raw: a folder of videos and pictures, or a set in any format that can be read.
        out: a folder, which is made if it is not there.
        recipe: what is done.
        settings: how it is done.
        watching: who is told how far it is.
        read_as: name of the format of `raw`; by default it is recognised by what is there.

    Returns:
        what became of all entries; None where only a part of them was prepared.

    Raises:
        InputFileError: there is nothing to prepare.
        ConfigError: it is no set; or `out` lies in it.
        OutputError: `out` cannot be written, or another program prepares into it.
        PreparationError: a stage cannot begin.
    """
    settings, watching = settings or PrepareSettings(), watching or Watching()
    _check_apart(raw, out)
    recognised(raw, read_as)  # or there would be a folder for nothing
    folder = out.absolute()
    journal_folder, work = folder / _JOURNAL, folder / _CLIPS
    try:
        for each in (journal_folder, work):
            each.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    with _held(folder, journal_folder, settings.part):
        name = "results" if settings.part is None else f"results-{settings.part.name}"
        ids = KnownIds(journal_folder, settings.part)
        try:
            inputs = read_inputs(raw, ids, settings.part, settings.num_workers * 2, watching.on_file, read_as)
        finally:
            ids.close()
        with (
            Journal(journal_folder, name, settings.retry) as journal,
            make_engine(settings, recipe.stages, work) as engine,
        ):
            limits, is_part = settings.limits, settings.part is not None
            schedule = Schedule(recipe.stages, journal, engine, work, limits, is_part, watching.on_advance)
            endings = run_inputs(inputs, schedule)
        if is_part:
            return None
        account = replace(_account(raw, folder, recipe, endings), read_as=read_as)
        account.write()
        return account


def probe_set(path: Path, settings: PrepareSettings | None = None, read_as: str | None = None) -> list[Outcome]:
    """What the files of a set hold, as they stand there; nothing is written, and nothing is too small or short.

    Args:
        path: of a video or picture, or of a set.
        settings: how it is done.
        read_as: name of the set's format; by default it is recognised by what is there.

    Raises:
        InputFileError: there is nothing.
        ConfigError: it is no set.
        PreparationError: no process can be started.
    """
    settings = settings or PrepareSettings()
    recipe = Recipe.of({"stages": [{"probe": {"min_side": 0, "min_seconds": 0}}]})
    inputs = read_names(path, read_as)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        with Journal(work) as journal, make_engine(settings, recipe.stages, work) as engine:
            endings = run_inputs(inputs, Schedule(recipe.stages, journal, engine, work, settings.limits))
    return [outcome for outcomes in endings for outcome in outcomes]


def run_inputs(inputs: Sequence[Input], schedule: Schedule) -> list[list[Outcome]]:
    """What comes of each entry."""
    endings: list[list[Outcome]] = [[] for _ in inputs]
    branches: list[Branch] = []
    first: dict[tuple[str, str], Record] = {}
    for number, entry in enumerate(inputs):
        if isinstance(entry.found, Refusal):
            endings[number].append(_refused(entry.found))
        elif (same := first.setdefault((entry.found.id, entry.found.text), entry.found)) is not entry.found:
            reason = f"it is the same file as {same.name}"
            endings[number].append(Outcome(entry.found.to_json(), "dropped", "same-file", reason))
        else:
            branches.append(Branch(number, entry.found, stamp=entry.stamp))
    for branch in schedule.run(branches):
        if branch.outcome is not None:
            endings[branch.root].append(branch.outcome)
    return endings


def make_engine(settings: PrepareSettings, stages: Sequence[Stage], work: Path) -> Engine:
    """What runs the stages.

    Raises:
        ConfigError: settings that do not go together, or Ray is not there.
    """
    if settings.ray_address is not None and settings.engine != "ray":
        raise ConfigError(f"The address of a cluster goes with the engine ray; this one is {settings.engine}.")
    has_model = any(stage.has_model for stage in stages)
    memory = settings.memory_bytes or (None if has_model else _MEMORY_BYTES)
    if settings.engine == "serial":
        if settings.workers not in (None, 1):
            raise ConfigError("The engine serial has one worker; take the engine pool for several.")
        return SerialEngine(stages, work)
    if settings.engine == "ray":
        from muybridge.data.preparation.engine.ray_engine import RayEngine

        return RayEngine(stages, work, settings.workers, memory, settings.ray_address)
    return PoolEngine(stages, work, settings.num_workers, memory)


def _account(raw: Path, folder: Path, recipe: Recipe, endings: Sequence[Sequence[Outcome]]) -> Account:
    return Account(
        folder=folder,
        recipe=recipe.name,
        settings=tuple(recipe.settings()),
        idle=recipe.idle,
        bounds=bounds_of(recipe.stages),
        source=str(raw),
        version=__version__,
        inputs=input_statuses(endings),
        outcomes=ordered(outcome for outcomes in endings for outcome in outcomes),
    )


def _refused(refusal: Refusal) -> Outcome:
    status = "failed" if refusal.rule == "changed" else "unreadable"
    return Outcome({"media": refusal.where}, status, refusal.rule, refusal.reason)


def _check_apart(raw: Path, out: Path) -> None:
    inner, outer = os.path.realpath(out), os.path.realpath(raw)
    for folder in (outer, *linked_below(raw)):
        if inner == folder or inner.startswith(folder + os.sep):
            where = f"{raw}" if folder == outer else f"{raw}, by a link to {folder}"
            raise ConfigError(f"{out} lies in {where}, and would be read as part of it. Choose a folder elsewhere.")


@contextmanager
def _held(folder: Path, journal: Path, part: Part | None) -> Iterator[None]:
    """Hold the folder; parts of a set are prepared side by side, but not beside the whole."""
    if part is not None:
        own = journal / _PARTS / part.name
        own.mkdir(parents=True, exist_ok=True)
        with locked_folder(own, _DOING):
            _check_free(folder)
            yield
        return
    with locked_folder(folder, _DOING):
        for other in sorted((journal / _PARTS).glob("*")):
            _check_free(other)
        for left in (folder / _CLIPS).glob(".muybridge-*.part"):  # of a program that was killed
            with suppress(OSError):
                left.unlink()
        yield


def _check_free(folder: Path) -> None:
    """Raises OutputError where another program holds a folder, for longer than one that only looks, as this does."""
    for _ in range(_LOOKS):
        with suppress(OutputError), locked_folder(folder, _DOING):
            return
        time.sleep(_LOOK_S)
    with locked_folder(folder, _DOING):
        return
