"""The engine behind every face: models that stay warm, and requests carried out with them one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from muybridge.pipelines import VideoPipeline
from muybridge.request import GenerateRequest, Inputs, ModelChoice
from muybridge.runtime.peak import peak_memory, start_measuring
from muybridge.runtime.placement import describe
from muybridge.service.asked import (
    check_idle_segments,
    open_inputs,
    pick_device,
    warn_of_idle_embeddings,
    wish_of,
)
from muybridge.service.checking import check_scheduler
from muybridge.service.costing import Cost, cost_of
from muybridge.service.describing import describe_model
from muybridge.service.long_generation import Redo, Written, check_redo, continue_to_file, is_long
from muybridge.service.preview import Preview, Previewer, PreviewMaps
from muybridge.service.public_record import PublicNames
from muybridge.service.reporting import Report, Reporter
from muybridge.service.warm_models import WarmModels
from muybridge.types import SettingsDict, SettingsView
from muybridge.vae.codec import frames_per_latent
from muybridge.video import Video, check_writable

__all__ = ["Cost", "Engine", "GenerationResult", "Preview", "Report"]


@dataclass(frozen=True)
class GenerationResult:
    """What was made.

    Attributes:
        path: the file or folder written.
        settings: the full request, as it is in the file.
        seconds: from the call to the written file, loading included.
        peak_memory_bytes: of the process, or of the GPU where one was used.
        placement: how the model was fitted into memory, in one line; None where nothing was to be fitted.
        phase_seconds: of "load", "encode", "denoise", "decode" and "write"; encoding is everything before the first
            step. A long video has them summed over its segments.
        num_frames: of the video.
        width: likewise.
        height: likewise.
        fps: frames per second.
        seed: that it was made with.
    """

    path: Path
    settings: SettingsDict
    seconds: float
    peak_memory_bytes: int
    placement: str | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Order:
    """What `Engine.run` was asked for."""

    request: GenerateRequest
    output: Path
    inputs: Inputs
    names: PublicNames | None
    embed_request: bool
    redo: Redo


class Engine:
    """Carries requests out, one at a time; a model that is loaded stays for the next request."""

    def __init__(
        self,
        device: str | None = None,
        memory: int | None = None,
        *,
        shows_progress: bool = False,
        learns_previews: bool = True,
        preview_folder: Path | None = None,
    ) -> None:
        """Without a model.

        Args:
            device: where to run requests that name none; by default the best there is.
            memory: bytes that the weights of all warm models may take together; see `WarmModels`.
            shows_progress: whether steps are counted on a terminal.
            learns_previews: whether finished videos teach how to preview models that come without a map for it.
            preview_folder: where what they teach is kept; by default it is forgotten with the engine.

        Raises:
            ConfigError: no such device here.
        """
        self._device = pick_device(device)
        self._models = WarmModels(memory)
        self._previews = PreviewMaps(learns_previews, preview_folder)
        self._shows_progress = shows_progress

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are warm, from the one used last."""
        return self._models.names

    def unload(self) -> None:
        """Let go of all models."""
        self._models.unload()

    def open(self, request: GenerateRequest) -> Inputs:
        """The files of a request, opened: for `cost` and `run`, which open them themselves where they get none.

        Raises:
            MuybridgeError: one of them cannot be read.
        """
        return open_inputs(request)

    def cost(self, request: GenerateRequest, inputs: Inputs | None = None) -> Cost:
        """What a request takes; no weight is read.

        Raises:
            MuybridgeError: it cannot be carried out for another reason.
        """
        return cost_of(request, self._device_of(request), open_inputs(request) if inputs is None else inputs)

    def describe(self, model: str | ModelChoice) -> SettingsDict:
        """What a model is and can be asked for; see `describe_model`.

        Raises:
            MuybridgeError: it cannot be told.
        """
        return describe_model(model)

    def run(
        self,
        request: GenerateRequest,
        output: Path,
        *,
        inputs: Inputs | None = None,
        public: SettingsView | None = None,
        embed_request: bool = True,
        report: Callable[[Report], None] | None = None,
        redo: Collection[int] = (),
        redo_following: bool = False,
    ) -> GenerationResult:
        """Carry a request out; what can be checked is checked before any weight is read.

        Args:
            request: what to make.
            output: the file.
            inputs: files of the request, where they have been opened already.
            public: what the file says it was made from: the same request with other names in place of paths.
            embed_request: whether the request travels in the file.
            report: told when a phase begins and after each step and piece. What it raises, such as `Cancelled`, ends
                the call before the next step; no file is left behind, but for the finished segments of a long video.
            redo: segments of a long video to make anew.
            redo_following: whether those behind them are made anew too.

        Raises:
            MuybridgeError: anything the user can mend; no file is left behind then.
        """
        started = time.perf_counter()
        check_writable(output)
        check_scheduler(request)
        device = self._device_of(request)
        inputs = open_inputs(request) if inputs is None else inputs
        names = None if public is None else PublicNames(request, public)
        order = _Order(request, output, inputs, names, embed_request, Redo(redo, redo_following))
        reporter = Reporter(report)
        reporter.enter("load")
        start_measuring(device)
        try:
            with self._models.model(request.model, wish_of(request, device, inputs)) as pipeline:
                written = self._carry_out(order, pipeline, reporter)
                said = None if pipeline.placement is None else describe(pipeline.placement)
        except torch.OutOfMemoryError:
            self.unload()
            raise
        frames, height, width = written.size
        return GenerationResult(
            path=written.path,
            settings=written.settings,
            seconds=time.perf_counter() - started,
            peak_memory_bytes=peak_memory(device),
            placement=said,
            phase_seconds=reporter.finish(),
            num_frames=frames,
            width=width,
            height=height,
            fps=written.fps,
            seed=written.settings["sampling"]["seed"],
        )

    def _device_of(self, request: GenerateRequest) -> torch.device:
        return self._device if request.model.device is None else pick_device(request.model.device)

    def _carry_out(self, order: _Order, pipeline: VideoPipeline, reporter: Reporter) -> Written:
        request = order.request
        check_redo(request, pipeline, order.redo.segments, order.redo.following)
        warn_of_idle_embeddings(pipeline, request)
        pipeline.set_progress_bar_config(disable=not (self._shows_progress and sys.stderr.isatty()), leave=False)
        preview_map = self._previews.of(request.model)
        if preview_map is not None:
            reporter.show(Previewer(preview_map, request.shape.fps or pipeline.frames_per_second))
        try:
            if is_long(request, pipeline.can.is_continued, pipeline.frames_at_once):
                return continue_to_file(
                    pipeline,
                    request,
                    order.output,
                    order.inputs,
                    order.embed_request,
                    redo=order.redo,
                    names=order.names,
                    listener=reporter,
                )
            return self._at_once(order, pipeline, reporter)
        except BaseException:
            pipeline.maybe_free_model_hooks()
            raise

    def _at_once(self, order: _Order, pipeline: VideoPipeline, reporter: Reporter) -> Written:
        request, names = order.request, order.names
        check_idle_segments(request, pipeline)
        whole = request.model_copy(update={"segments": None})
        video: Video = pipeline.make(whole, inputs=order.inputs, on_progress=reporter.on_progress)
        if reporter.latents is not None and self._previews.is_wanted(request.model):
            per_latent = frames_per_latent(pipeline.codec)
            self._previews.learn(request.model, reporter.latents[0], video.frames, per_latent)
        reporter.enter("write")
        record = video.request or {}
        settings = dict(record) if names is None else names.in_record(record)
        path = replace(video, request=settings).save(order.output, embed_request=order.embed_request)
        return Written(path, settings, (len(video), video.height, video.width), float(video.fps))
