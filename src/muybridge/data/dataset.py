"""All sets of a run, read, probed and put into buckets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from muybridge.data.buckets import BucketPlan, Clip, plan_buckets
from muybridge.data.clips import draw_clip, read_clip
from muybridge.data.order import BatchOrder, Slot
from muybridge.data.probe import probe
from muybridge.data.readers import ReadDataset, read_dataset
from muybridge.data.readers.row import Row, to_record
from muybridge.data.record import Record, Refusal
from muybridge.data.remembered_ids import RememberedIds
from muybridge.data.settings import DataSettings, SourceSettings
from muybridge.errors import TrainingError
from muybridge.video.encoding import Frames

DAMAGE_RULES = frozenset({"unreadable", "no-video", "broken-tail", "damaged", "no-times", "unusable"})
"""Refusals for what is wrong with a file itself."""
OnFile = Callable[[int, int], None]
_NAMED = 5
_THREADS = 8
"""Files that are read or looked through at once: much of it is waiting for the disk."""


@dataclass(frozen=True)
class Source:
    """A set of a run.

    Attributes:
        path: of it.
        format: as it was read.
        found: entries there were, refused ones among them.
    """

    path: str
    format: str
    found: int


@dataclass(frozen=True)
class Dataset:
    """What there is to train on.

    Attributes:
        settings: of it.
        sources: its sets.
        plan: its clips by bucket.
        refusals: everything else that was found, for whatever reason.
        prior: number of the set that shows what the model can do already; None where there is none.
    """

    settings: DataSettings
    sources: tuple[Source, ...]
    plan: BucketPlan
    refusals: tuple[Refusal, ...]
    prior: int | None = None

    def split(self, share: float) -> tuple[Dataset, Dataset | None]:
        """Without a share of the clips, one at least, and these; by their content, so that names do not matter.

        There is no second one for a share of 0. Of what the model can do already none is held out.

        Raises:
            TrainingError: fewer than two clips.
        """
        if share == 0:
            return self, None
        own = self.without_prior()
        clips = sorted(own.plan.clips, key=lambda clip: clip.record.id)
        if len(clips) < 2:
            raise TrainingError("Of one clip none can be held out; leave data.held_out out, or add clips.")
        held = {clip.record.id for clip in clips[: max(1, round(len(clips) * share))]}
        return self._with(lambda clip: clip.record.id not in held), own._with(lambda clip: clip.record.id in held)

    def without_prior(self) -> Dataset:
        """Only what is to be learned."""
        if self.prior is None:
            return self
        return replace(self._with(lambda clip: clip.source != self.prior), prior=None)

    def _with(self, keep: Callable[[Clip], bool]) -> Dataset:
        chosen = {shape: tuple(filter(keep, clips)) for shape, clips in self.plan.buckets.items()}
        buckets = {shape: clips for shape, clips in chosen.items() if clips}
        return replace(self, plan=replace(self.plan, buckets=buckets))

    def order(self, batch_size: int, seed: int) -> BatchOrder:
        """Which clips make up which batch.

        Raises:
            ConfigError: there is no clip, or nothing to mix.
        """
        return BatchOrder(self.plan, batch_size, seed, self._weights(), self.settings.share_images)

    def _weights(self) -> list[float]:
        weights = [source.weight for source in self.settings.sources]
        if self.prior is None or self.settings.prior is None:
            return weights
        counts = Counter(clip.source for clip in self.plan.clips)
        own = sum(counts[number] * weight for number, weight in enumerate(weights))
        share = self.settings.prior.share
        return [*weights, own * share / (1 - share) / counts[self.prior]]

    def frames(self, slot: Slot, seed: int) -> Frames:
        """Frames of a clip of a batch, `uint8 [f, h, w, 3]`.

        Raises:
            InputFileError: its file cannot be read.
        """
        clip, settings = slot.clip, self.settings
        key = (seed, slot.turn, slot.again)
        draw = draw_clip(clip.record.id, key, settings.crop == "random", settings.flip)
        return read_clip(clip.record, clip.shape, clip.spacing_s, draw)

    def check_usable(self) -> None:
        """Whether a run can begin.

        Raises:
            TrainingError: no clip is left, or more files are damaged than `max_damaged` allows; the message names some.
        """
        own = self.without_prior()
        count = len(self.plan.clips)
        if self.prior is not None and len(own.plan.clips) == count:
            raise TrainingError(
                f"No clip of the prior {self.sources[self.prior].path} can be used: {self._named()} Make them anew at "
                "the size that is trained on, or leave data.prior out."
            )
        if not own.plan.clips:
            found = "nothing was found" if not self.refusals else f"all that was found was refused: {self._named()}"
            raise TrainingError(f"There is no clip to train on in {self._places()}; {found}")
        check_damage([str(r) for r in self.refusals if r.rule in DAMAGE_RULES], count, self.settings.max_damaged)

    def _places(self) -> str:
        return ", ".join(source.path for source in self.sources)

    def _named(self) -> str:
        return named([str(refusal) for refusal in self.refusals])


def open_dataset(settings: DataSettings, on_file: OnFile | None = None, prior: SourceSettings | None = None) -> Dataset:
    """Read the sets of a run and look all their files through.

    Args:
        settings: the `data` block of a run file.
        on_file: called with (files looked through, files in all of this set).
        prior: the set that shows what the model can do already.

    Raises:
        InputFileError: a set is not there, or its list cannot be read.
        ConfigError: a set's format is unknown.
    """
    sources: list[Source] = []
    kept: list[list[Record]] = []
    refusals: list[Refusal] = []
    for source in (*settings.sources, *([] if prior is None else [prior])):
        found = read_source(source)
        sources.append(Source(source.path, found.format, len(found.records) + len(found.refusals)))
        refusals += found.refusals
        probed: list[Record] = []
        with ThreadPoolExecutor(_THREADS, "probe") as pool:
            results = pool.map(partial(probe, settings=settings.probing), found.records)
            for number, result in enumerate(results, 1):
                if isinstance(result, Refusal):
                    refusals.append(result)
                else:
                    probed.append(replace(result, text=caption(result, source)))
                if on_file is not None:
                    on_file(number, len(found.records))
        kept.append(probed)
    plan = _without_unwanted(plan_buckets(kept, settings.buckets), settings.share_images)
    number = None if prior is None else len(settings.sources)
    return Dataset(settings, tuple(sources), plan, (*refusals, *plan.refusals), number)


def read_source(source: SourceSettings, on_file: OnFile | None = None) -> ReadDataset:
    """What is in a set, as it says it; files are read for their content's digest, where that is not known.

    Args:
        source: the set.
        on_file: called with (files read, files in all).

    Raises:
        InputFileError: it is not there, or its list cannot be read.
        ConfigError: its format is unknown.
    """
    ids = RememberedIds()

    def at_once(rows: Sequence[Row], root: Path) -> Iterator[Record | Refusal]:
        with ThreadPoolExecutor(_THREADS, "ids") as pool:
            for number, found in enumerate(pool.map(lambda row: to_record(row, root, ids), rows), 1):
                if on_file is not None:
                    on_file(number, len(rows))
                yield found

    return read_dataset(Path(source.path).expanduser(), source.format, source.root, at_once)


def caption(record: Record, source: SourceSettings) -> str:
    """The caption that a record is trained with."""
    text = record.text or source.caption or ""
    return ", ".join(filter(None, (source.trigger, text)))


def check_damage(damaged: list[str], sound: int, most: float) -> None:
    """Raises TrainingError, with names, where too large a share of all files is damaged."""
    share = len(damaged) / max(len(damaged) + sound, 1)
    if share > most:
        raise TrainingError(
            f"{len(damaged)} of {len(damaged) + sound} files are damaged, {share:.0%}; {most:.0%} are allowed "
            f"(data.max_damaged): {named(damaged)} Take them out, or copy them again."
        )


def named(lines: list[str]) -> str:
    """The first few of them."""
    more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(line.removesuffix(".") for line in lines[:_NAMED]) + f"{more}."


def _without_unwanted(plan: BucketPlan, share_images: float | None) -> BucketPlan:
    """What a share of pictures leaves nothing of is refused, and not left out in silence."""
    if share_images not in (0, 1):
        return plan
    kept: dict[bool, dict] = {True: {}, False: {}}
    for shape, clips in plan.buckets.items():
        kept[(shape.num_frames == 1) == (share_images == 1)][shape] = clips
    reason = f"share_images is {share_images:g}"
    unwanted: list[Clip] = [clip for clips in kept[False].values() for clip in clips]
    refused = [Refusal(clip.record.name, reason, "share-images") for clip in unwanted]
    return replace(plan, buckets=kept[True], refusals=(*plan.refusals, *refused))
