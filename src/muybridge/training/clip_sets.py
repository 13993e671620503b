"""People's own clips and pictures as training data, for whatever stage asks for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from muybridge.data.crop import id_with_crop
from muybridge.data.dataset import OnFile, caption, open_dataset, read_source
from muybridge.data.record import Record
from muybridge.data.report import DatasetReport, write_report
from muybridge.data.settings import DataSettings, PriorSettings, SourceSettings
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import output_error
from muybridge.training.clip_data import BatchSettings, DatasetBatches
from muybridge.training.damaged_files import DamagedFiles
from muybridge.training.data import Batch, BatchSource, ClipsWanted
from muybridge.training.latent_cache import CachedClips
from muybridge.types import SettingsDict

_EVERY_SECOND = 0.7
"""How often a stretch has every second frame, where there is room for it."""


@dataclass(frozen=True)
class Looks:
    """Batches without dropped captions, to measure on.

    Attributes:
        trained: of clips that are trained on.
        held_out: of others; None where there are none.
    """

    trained: DatasetBatches | None
    held_out: DatasetBatches | None


class ClipSets:
    """Training data of the `data` block of a run file.

    Files are looked through when batches are first asked for, as what is wanted of them depends on the model.
    """

    def __init__(self, settings: DataSettings, prior: Path | None = None) -> None:
        """Of these sets, and of a set that shows what the model can do already."""
        self.settings = settings
        self.prior = prior
        self.on_file: OnFile | None = None
        """Called with (files looked through, files in all) while sets are opened."""
        self.report: DatasetReport | None = None
        """Of the batches that were asked for last."""
        self.found_damaged = DamagedFiles()
        """What is told of files that cannot be read while batches are made."""
        self._opened: list[DatasetBatches] = []
        self.looks: Looks | None = None
        """Batches to measure on, of those that were asked for last."""

    def close(self) -> None:
        """Stop decoding ahead."""
        for each in self._opened:
            each.close()
        self._opened.clear()

    def check_sources(self) -> None:
        """Raises ConfigError where a set is not there at all."""
        missing = [each.path for each in self.settings.sources if not Path(each.path).expanduser().exists()]
        if missing:
            raise ConfigError(f"There is no {', no '.join(missing)} to train on. Give a folder of clips, or a list.")

    def clips(self, wanted: ClipsWanted) -> BatchSource:
        """Stretches of clips: neighbouring frames, or every second one, and where they stand; or whole clips."""
        whole = self._encoded(wanted)
        if wanted.num_frames is None:
            return whole
        return _Stretches(whole, wanted.num_frames, wanted.whole_clip_share, wanted.seed)

    def whole_clips(self, wanted: ClipsWanted) -> BatchSource:
        """Whole clips, of which nothing is known."""
        return self._encoded(replace(wanted, num_frames=None))

    def keyframe_clips(self, wanted: ClipsWanted) -> BatchSource:
        """As `clips`, with the first frame, both ends, or up to half of the frames anywhere known."""
        from muybridge.training.methods.sparse_control import KnownFrames  # slow to import

        return KnownFrames(self.clips(replace(wanted, encoder=None)), wanted.seed)

    def taught_clips(self, wanted: ClipsWanted, taught: str | None) -> BatchSource:
        """As `clips`."""
        self.check_taught(taught)
        return self.clips(wanted)

    def check_taught(self, taught: str | None) -> None:
        """Raises ConfigError for anything: what these clips have in common, nobody has to say."""
        if taught is not None:
            raise ConfigError("taught is about the toy world; clips of your own teach what they show. Leave it out.")

    def _encoded(self, wanted: ClipsWanted) -> BatchSource:
        """Batches with latents from the cache, where there is one that the stage can use."""
        batches = self._batches(wanted)
        if self.settings.cache is None:
            return batches
        if wanted.encoder is None:
            raise ConfigError("This stage encodes its clips anew in every step; leave data.cache out.")
        return CachedClips(batches, wanted.encoder, Path(self.settings.cache).expanduser(), wanted.text)

    def _batches(self, wanted: ClipsWanted) -> DatasetBatches:
        settings = self.settings
        if (usual := wanted.usual) is not None:
            settings = settings.for_model(usual.shape, usual.fps, usual.multiple)
        try:
            dataset = open_dataset(settings, self.on_file, self._prior())
        except InputFileError as error:
            raise ConfigError(f"The clips to train on cannot be read: {error}") from error
        trained, held_out = dataset.split(settings.held_out)
        batches = DatasetBatches(
            trained,
            wanted.tokenizer,
            BatchSettings(wanted.batch_size, wanted.seed, wanted.caption_dropout),
            self.found_damaged,
        )
        self._opened.append(batches)
        self.report = DatasetReport(trained, batches.order, 1)
        whole = BatchSettings(wanted.batch_size, wanted.seed, caption_dropout=0.0, workers=0)
        self.looks = Looks(
            *(
                None if each is None else DatasetBatches(each, wanted.tokenizer, whole, self.found_damaged)
                for each in (trained.without_prior(), held_out)
            )
        )
        return batches

    def _prior(self) -> SourceSettings | None:
        return None if self.prior is None else SourceSettings(path=str(self.prior))

    def digest(self) -> str | None:
        """Of the clips and captions that batches are made of, once they have been asked for."""
        if self.report is None:
            return None
        found = hashlib.sha256(json.dumps(_recipe(self.settings), sort_keys=True).encode())
        for clip in sorted(self.report.dataset.plan.clips, key=lambda clip: clip.record.id):
            found.update(
                f"{_shown_by(clip.record)} {clip.shape} {clip.record.text}\n".encode("utf-8", "surrogateescape")
            )
        return found.hexdigest()


def content_of(data: str | DataSettings, on_file: OnFile | None = None) -> str:
    """The name of a set, or a digest of settings, files and captions of people's own, before any is looked into.

    Args:
        data: of a run file.
        on_file: called with (files read, files in all), for each source.

    Raises:
        ConfigError: a set that cannot be read.
    """
    if isinstance(data, str):
        return data
    recipe = _recipe(data)
    sources = data.sources
    if (prior := data.prior) is not None:
        recipe["prior_made_of"] = _made_of(prior)
        if prior.path is not None:
            sources = (*sources, SourceSettings(path=prior.path))
    found = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for source in sources:
        try:
            records = read_source(source, on_file).records
        except InputFileError as error:
            raise ConfigError(f"The clips to train on cannot be read: {error}") from error
        for record in sorted(records, key=lambda record: record.id):
            found.update(f"{_shown_by(record)} {caption(record, source)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _made_of(prior: PriorSettings) -> SettingsDict | None:
    """What the clips of a prior follow from; None where they are a set that is there."""
    if prior.path is not None:
        return None
    prompts = prior.prompts
    if isinstance(prompts, str) and (file := Path(prompts).expanduser()).is_file():
        prompts = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"prompts": prompts, "clips": prior.clips, "seed": prior.seed}


def _shown_by(record: Record) -> str:
    return id_with_crop(record.id, record.extra)


def _recipe(data: DataSettings) -> SettingsDict:
    """What batches depend on besides the clips."""
    # Clips count by their content, wherever they lie; with a cache each has one draw, whatever folder that is.
    settings = data.model_dump(mode="json", exclude={"sources", "cache", "max_damaged", "every_frame", "prior"})
    settings["weights"] = [source.weight for source in data.sources]
    settings["is_cached"] = data.cache is not None
    if (prior := data.prior) is not None:
        settings["prior"] = [prior.share, prior.weight, prior.target]
    return settings


def report_on_data(report: DatasetReport, steps: int, folder: Path) -> DatasetReport:
    """Write what is known of the clips to `data.txt`, `data.json` and `data.png` in the folder of a run.

    Args:
        report: of the batches.
        steps: that they are for.
        folder: of the run; made if it is not there.

    Raises:
        OutputError: it cannot be written.
    """
    whole = DatasetReport(report.dataset, report.order, steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    write_report(whole, folder)
    return whole


@dataclass(frozen=True)
class _Stretches:
    """Fewer frames of each clip than it has, so that a step takes less, and where they stand in it."""

    clips: BatchSource
    num_frames: int
    whole_clip_share: float
    seed: int

    def __call__(self, index: int) -> Batch:
        batch = self.clips(index)
        rng = np.random.default_rng((self.seed, index, 2))
        length = batch["pixels"].shape[1]
        if rng.random() < self.whole_clip_share:
            count = max(1, len(batch["pixels"]) * self.num_frames // length)
            return {name: value if name == "frame_positions" else value[:count] for name, value in batch.items()}
        if length <= self.num_frames:
            return batch
        stride = 2 if self.num_frames * 2 <= length and rng.random() < _EVERY_SECOND else 1
        start = int(rng.integers(length - (self.num_frames - 1) * stride))
        chosen = torch.arange(start, start + self.num_frames * stride, stride)[: self.num_frames]
        if "latents" in batch:
            batch = {**batch, "latents": batch["latents"][:, :, chosen]}
        return {
            **batch,
            "pixels": batch["pixels"][:, chosen],
            "unknown": batch["unknown"][:, chosen],
            "frame_positions": batch["frame_positions"][chosen],
        }
