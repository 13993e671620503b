"""Cuts by FFmpeg's filter `scdet`, which comes with PyAV: how much a frame differs, beyond what motion does."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from muybridge.data.preparation.cuts import Thumbnail, thumbnail_distance

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

_NEW_SCENE = "lavfi.scd.time"
_JUMP, _TIMES, _AROUND = 0.9, 2.0, 6
"""A cut, too, is where thumbnails differ by so much of the threshold, and so many times as much as those within a few
frames of it: detail that moves hides cuts between scenes of like brightness from the filter, and is not seen in
thumbnails. A few frames, as animation holds its pictures for two to four and then jumps, again and again."""


class Scdet:
    """Exact to the frame for hard cuts; blind to dissolves. Takes some bytes a frame."""

    def __init__(self, threshold: float) -> None:
        """With a threshold from 0 to 100."""
        self._threshold = threshold
        self._graph: Graph | None = None
        self._kind: tuple[int, int, str] | None = None
        self._given = 0
        self._cuts: list[int] = []
        self._last: Thumbnail | None = None
        self._jumps: list[float] = []

    def take(self, frame: VideoFrame, thumbnail: Thumbnail) -> None:
        """The next frame."""
        kind = (frame.width, frame.height, frame.format.name)
        if self._graph is None or kind != self._kind:
            if self._graph is not None:
                self._end()
                self._cuts.append(self._given)  # whatever changes its size in the middle was put together
            self._graph, self._kind = self._new_graph(frame), kind
        self._graph.push(frame)
        self._pull()
        self._jumps.append(0.0 if self._last is None else thumbnail_distance(self._last, thumbnail))
        self._last = thumbnail

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin something new."""
        self._end()
        return sorted({*self._cuts, *(index for index in range(1, len(self._jumps)) if self._is_jump(index))} - {0})

    def _is_jump(self, index: int) -> bool:
        if self._jumps[index] < _JUMP * self._threshold:
            return False
        before, after = self._jumps[max(1, index - _AROUND) : index], self._jumps[index + 1 : index + 1 + _AROUND]
        return self._jumps[index] >= _TIMES * max(0.0, *before, *after)

    def _new_graph(self, frame: VideoFrame) -> Graph:
        from av.filter import Graph

        graph = Graph()
        first = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        )
        scdet, sink = graph.add("scdet", f"threshold={self._threshold}"), graph.add("buffersink")
        first.link_to(scdet)
        scdet.link_to(sink)
        graph.configure()
        return graph

    def _end(self) -> None:
        if self._graph is not None:
            self._graph.push(None)
            self._pull()

    def _pull(self) -> None:
        import av

        while self._graph is not None:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, av.EOFError):
                return
            if _NEW_SCENE in frame.metadata:
                self._cuts.append(self._given)
            self._given += 1
