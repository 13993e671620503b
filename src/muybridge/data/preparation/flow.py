"""How a picture moves between two moments, found out with numpy alone, or with OpenCV where that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from muybridge.data.preparation.looks import Grays
from muybridge.errors import ConfigError

FlowMethod = Literal["blocks", "dis"]
Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int_]
Corners = tuple[Whole, Whole]
"""y and x of the upper left pixels of blocks."""

_BLOCK = 32
_PLAIN = 2.0  # of 255: standard deviation of a block in which nothing can be followed
_STILL = 3.0  # of 255: mean difference that coding makes
_NOWHERE = 0.6  # of a block's standard deviation: mean difference between what are two things
_STEPS = 2
_OUTLIER = 1.5  # pixels from what the camera does


@dataclass(frozen=True, eq=False)
class Flow:
    """Where places of a picture have gone.

    Attributes:
        places: `[n, 2]`, x and y in pixels from the middle.
        moves: `[n, 2]`, pixels to the right and down.
    """

    places: Floats
    moves: Floats

    def camera(self) -> Floats:
        """`[n, 2]`: what of the moves is the camera's: a pan, a zoom and a roll that most places agree with."""
        centre = np.median(self.moves, 0)
        if len(self.places) < 6:
            return np.broadcast_to(centre, self.moves.shape)
        x, y = self.places.T
        one, none = np.ones_like(x), np.zeros_like(x)
        rows = np.concatenate([np.stack([one, none, x, -y], 1), np.stack([none, one, y, x], 1)])
        values = self.moves.T.reshape(-1)
        found = np.array([*centre, 0, 0], np.float32)
        for _ in range(6):
            off = np.hypot(*(values - rows @ found).reshape(2, -1))
            weights = np.tile(1 / np.maximum(off, _OUTLIER / 4), 2)
            found = np.linalg.lstsq(rows * weights[:, None] ** 0.5, values * weights**0.5, rcond=None)[0]
        return (rows @ found).reshape(2, -1).T


def flow(before: Grays, after: Grays, method: FlowMethod) -> Flow:
    """Where each place of a picture, `[h, w]`, has gone in a later one of the same size.

    `blocks` compares squares of 32 pixels by phase correlation, after the move that the whole picture has made; squares
    without detail are left out. `dis` is OpenCV's dense inverse search.
    """
    return _dis(before, after) if method == "dis" else _blocks(before.astype(np.float32), after.astype(np.float32))


def check_method(method: FlowMethod) -> None:
    """Raises ConfigError where it needs what is not installed."""
    if method == "dis":
        try:
            import cv2  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError(
                "The method dis needs OpenCV. pip install opencv-python-headless, or use blocks."
            ) from error


def _dis(before: Grays, after: Grays) -> Flow:
    import cv2  # pyright: ignore[reportMissingImports]

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    found = search.calc(before, after, None)  # pyright: ignore[reportArgumentType, reportCallIssue]
    step = max(1, min(before.shape) // 32)
    moves = np.ascontiguousarray(found[step // 2 :: step, step // 2 :: step].reshape(-1, 2), np.float32)
    height, width = before.shape
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    return Flow(np.stack([x - width / 2, y - height / 2], 1).astype(np.float32), moves)


def _blocks(before: Floats, after: Floats) -> Flow:
    height, width = before.shape
    size = min(_BLOCK, height, width)
    y, x = (grid.reshape(-1) for grid in np.meshgrid(_starts(height, size), _starts(width, size), indexing="ij"))
    places = np.stack([x + (size - width) / 2, y + (size - height) / 2], 1).astype(np.float32)
    pieces = _cut(before, y, x, size)
    detail = pieces.std((1, 2))
    if (detail < _PLAIN).all():
        return Flow(places, np.zeros_like(places))
    best = np.zeros((len(y), 2), np.int_)
    cost = np.abs(pieces - _cut(after, y, x, size)).mean((1, 2))
    for guess in dict.fromkeys([_whole_move(before, after), (0, 0)]):
        moves, costs = _matched(pieces, after, (y, x), guess)
        is_better = costs < cost
        best[is_better], cost[is_better] = moves[is_better], costs[is_better]
    fine, cost = _refined(pieces, after, (y, x), best)
    # What has left the picture, or came into view, is nowhere to be found.
    known = (detail >= _PLAIN) & (cost <= np.maximum(_NOWHERE * detail, _STILL))
    return Flow(places[known], fine[known]) if known.any() else Flow(places, fine)


def _matched(pieces: Floats, after: Floats, corners: Corners, guess: tuple[int, int]) -> tuple[Whole, Floats]:
    """Moves of blocks in whole pixels near a guess (x, y), and how much they then differ."""
    y, x = _within(corners[0] + guess[1], corners[1] + guess[0], pieces, after)
    peaks = _peaks(_correlation(pieces, _cut(after, y, x, pieces.shape[1])))
    new_y, new_x = _within(y + peaks[:, 1], x + peaks[:, 0], pieces, after)
    costs = np.abs(pieces - _cut(after, new_y, new_x, pieces.shape[1])).mean((1, 2))
    return np.stack([new_x - corners[1], new_y - corners[0]], 1), costs


def _refined(pieces: Floats, after: Floats, corners: Corners, moves: Whole) -> tuple[Floats, Floats]:
    """Moves to parts of a pixel, by how brightness changes from pixel to pixel, and how much blocks then differ."""
    slopes_y, slopes_x = np.gradient(pieces, axis=(1, 2))
    yy, xx, xy = ((one * other).sum((1, 2)) for one, other in ((slopes_y,) * 2, (slopes_x,) * 2, (slopes_x, slopes_y)))
    scale = np.maximum(xx * yy - xy * xy, 1e-3 * (xx + yy) ** 2 + 1e-6)
    fine = moves.astype(np.float32)
    for _ in range(_STEPS):
        off = pieces - _between(after, corners, fine, pieces.shape[1])
        by_x, by_y = (slopes_x * off).sum((1, 2)), (slopes_y * off).sum((1, 2))
        step = np.stack([yy * by_x - xy * by_y, xx * by_y - xy * by_x], 1) / scale[:, None]
        fine = np.clip(fine + np.clip(step, -1, 1), moves - 1.5, moves + 1.5).astype(np.float32)
    return fine, np.abs(pieces - _between(after, corners, fine, pieces.shape[1])).mean((1, 2))


def _between(picture: Floats, corners: Corners, moves: Floats, size: int) -> Floats:
    """Blocks of a picture that begin between its pixels."""
    y = np.clip(corners[0] + moves[:, 1], 0, picture.shape[0] - size)
    x = np.clip(corners[1] + moves[:, 0], 0, picture.shape[1] - size)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    padded = np.pad(picture, ((0, 1), (0, 1)), mode="edge")
    wide = _cut(padded, top, left, size + 1)
    down, across = (y - top)[:, None, None].astype(np.float32), (x - left)[:, None, None].astype(np.float32)
    rows = wide[:, :-1] * (1 - down) + wide[:, 1:] * down
    return (rows[:, :, :-1] * (1 - across) + rows[:, :, 1:] * across).astype(np.float32)


def _within(y: Whole, x: Whole, pieces: Floats, picture: Floats) -> Corners:
    size = pieces.shape[1]
    return np.clip(y, 0, picture.shape[0] - size), np.clip(x, 0, picture.shape[1] - size)


def _whole_move(before: Floats, after: Floats) -> tuple[int, int]:
    """(x, y) of the whole picture, to two pixels."""
    (peak,) = _peaks(_correlation(before[None, ::2, ::2], after[None, ::2, ::2]))
    return 2 * int(peak[0]), 2 * int(peak[1])


def _correlation(one: Floats, other: Floats) -> Floats:
    """Of pictures `[n, h, w]`: how well they agree at each shift, which wraps around."""
    height, width = one.shape[1:]
    window = _window(height, width)
    spectra = [np.fft.rfft2((each - each.mean((1, 2), keepdims=True)) * window) for each in (one, other)]
    cross = spectra[1] * spectra[0].conj()
    # Between plain correlation, which textures mislead, and pure phase, in which noise counts as much as shapes.
    return np.fft.irfft2(cross / (np.sqrt(np.abs(cross)) + 1e-6), s=(height, width)).astype(np.float32)


@lru_cache(maxsize=4)
def _window(height: int, width: int) -> Floats:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


def _peaks(maps: Floats) -> Whole:
    """(x, y) of the highest place of each map, as shifts around 0."""
    count, height, width = maps.shape
    places = maps.reshape(count, -1).argmax(1)
    size = np.array((width, height))
    return (np.stack([places % width, places // width], 1) + size // 2) % size - size // 2


def _starts(length: int, size: int) -> npt.NDArray[np.int_]:
    """Evenly spread so that all is covered."""
    count = max(1, -(-length // size))
    return np.rint(np.linspace(0, length - size, count)).astype(int)


def _cut(picture: Floats, y: npt.NDArray[np.int_], x: npt.NDArray[np.int_], size: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(picture, (size, size))[y, x]
