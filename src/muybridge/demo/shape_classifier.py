"""Reads silhouettes from opacity maps: where the object is, which shape it has, how it turns, which cue surrounds it.

Nothing here is a network and nothing is stored: two linear discriminants, and how much each shape varies, are fitted
on a few hundred renders the first time they are needed; on clean and spoilt copies alike, so that they bear with
generated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muybridge.demo import render
from muybridge.demo.bilinear import sample_bilinear
from muybridge.demo.render import Floats
from muybridge.demo.shape_examples import make_examples
from muybridge.demo.world import ROTATION_SYMMETRIC, SHAPES

Flags = NDArray[np.bool_]

CUES = ("none", "trail", "halo", "arcs", "sparks")
_CUE_OF_MOTION = {"still": "none", "shrinking": "halo", "spinning": "arcs", "growing": "sparks"}

_CORE = 0.75  # half-way between the strongest trail (0.55) and opaque, above the sparks (0.65)
_RAMP = (0.6, 0.9)  # opacities between which a pixel passes from outside to inside: sub-pixel edges around _CORE
_LEAST_SHARE = 0.008  # of the frame; the smallest shape of the world covers 0.03

_LOWEST_VOTE = -30.0  # a single spoilt frame must not outvote the others

_ANGLES = 48
_SHAPE_RADII = np.linspace(0.1, 2.1, 12, dtype=np.float32)  # in radii of gyration
_SHAPE_HARMONICS = 9
_CUE_RADII = np.linspace(0.4, 2.6, 14, dtype=np.float32)  # in radii of the shape
_CUE_HARMONICS = 10

_TURN_GRID = np.arange(-40.0, 40.5, 0.5)
_LEAST_AGREEMENT = 0.5

_LEAST_VARIANCE = 0.02  # of the features' mean one, added to each: what never varies must not be infinitely telling


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """The opaque object of n pictures; where none is found, `found` is False and the numbers are without meaning."""

    weight: Floats
    """[n, h, w], 1 inside, 0 outside, between on the edge."""
    near: Flags
    """[n, h, w], the object and the pixels that touch it."""
    found: Flags
    """[n]"""
    area: Floats
    """[n], square pixels."""
    centre: Floats
    """[n, 2], x and y of the centroid in pixels from the top left corner."""


def find_silhouettes(opacity: Floats) -> Silhouettes:
    """Take the largest connected opaque region of each picture `[n, h, w]`; trails, halos and sparks stay outside."""
    core = _largest_components(opacity > _CORE)
    near = _grown(core)
    low, high = _RAMP
    weight = np.clip((opacity - low) / (high - low), 0.0, 1.0) * near
    found = core.mean(axis=(1, 2)) >= _LEAST_SHARE
    area = weight.sum(axis=(1, 2))
    mass = np.maximum(area, 1e-6)
    x = weight.sum(axis=1) @ (np.arange(opacity.shape[2], dtype=np.float32) + 0.5) / mass
    y = weight.sum(axis=2) @ (np.arange(opacity.shape[1], dtype=np.float32) + 0.5) / mass
    return Silhouettes(weight, near, found, area, np.stack([x, y], axis=1))


def shape_spectra(silhouettes: Silhouettes) -> NDArray[np.complex64]:
    """Angular harmonics `[n, radii, harmonics]` of silhouettes about their centroids, free of position and size."""
    polar = _polar(silhouettes.weight, silhouettes.centre, _gyration(silhouettes), _SHAPE_RADII)
    return _spectra(polar, _SHAPE_HARMONICS)


def read_shape(spectra: NDArray[np.complex64]) -> tuple[str, float]:
    """The shape that n silhouettes of one object are likest, and how unlike they are.

    Unlikeness 1 is the 99th percentile of the shape's own renders, spoilt ones included; a pentagon, an ellipse or a
    ring whose hole is badly off its middle has 2.5 and more. Turns change only phases, which are not looked at.
    """
    readers = _readers()
    magnitudes = _magnitudes(spectra)
    votes = np.maximum(readers.shape.log_probabilities(magnitudes), _LOWEST_VOTE).mean(axis=0)
    shape = SHAPES[int(np.argmax(votes))]
    return shape, float(np.median(readers.variation[shape].unlikeness(magnitudes)))


def shape_radius(silhouettes: Silhouettes, shape: str) -> Floats:
    """Radius in pixels, as the renderer means it, `[n]`, of silhouettes known to have a shape."""
    return np.sqrt(silhouettes.area / _readers().unit_area[shape])


def turn_rate(spectra: NDArray[np.complex64]) -> float:
    """Degrees of clockwise turn per picture, from the turn that best maps each silhouette onto the next.

    0 where no turn does it. Turns beyond 40 degrees cannot be told from a square's symmetry.
    """
    score, energy = _turn_scores(spectra)
    total = score.sum(axis=0)
    if total.max() < _LEAST_AGREEMENT * energy.sum():
        return 0.0
    return float(_TURN_GRID[np.argmax(total)])


def turns(spectra: NDArray[np.complex64]) -> Floats:
    """Clockwise turn of each silhouette since the first, in degrees, `[n]`."""
    score, _ = _turn_scores(spectra)
    return np.concatenate([[0.0], np.cumsum(_TURN_GRID[np.argmax(score, axis=1)])]).astype(np.float32)


def read_cue(opacity: Floats, silhouettes: Silhouettes, radius: Floats, shape: str) -> tuple[list[str], Floats]:
    """What surrounds each object of a known shape.

    Returns:
        one of `CUES` for each picture, and `[n, 2]`: the direction (x, y) of the surroundings' weight.
    """
    spectra = _cue_spectra(opacity, silhouettes, radius)
    votes = _readers().cue.log_probabilities(_magnitudes(spectra))
    if shape in ROTATION_SYMMETRIC:
        votes[:, CUES.index("arcs")] = -np.inf
    cues = votes.argmax(axis=1)
    dipole = (spectra[:, :, 1] * _CUE_RADII).sum(axis=1)
    return [CUES[i] for i in cues], np.stack([dipole.real, -dipole.imag], axis=1)


def _gyration(silhouettes: Silhouettes) -> Floats:
    height, width = silhouettes.weight.shape[1:]
    x = np.arange(width, dtype=np.float32) + 0.5 - silhouettes.centre[:, :1]
    y = np.arange(height, dtype=np.float32) + 0.5 - silhouettes.centre[:, 1:]
    moment = (silhouettes.weight.sum(axis=1) * x**2).sum(axis=1) + (silhouettes.weight.sum(axis=2) * y**2).sum(axis=1)
    return np.sqrt(np.maximum(moment / np.maximum(silhouettes.area, 1e-6), 1e-6))


def _turn_scores(spectra: NDArray[np.complex64]) -> tuple[Floats, Floats]:
    """Correlation of each silhouette with the next, turned by every angle of the grid, and what equality would give."""
    detail = spectra[:, :, 1:] * np.sqrt(_SHAPE_RADII)[:, None]
    pairs = (detail[1:] * detail[:-1].conj()).sum(axis=1)
    harmonics = np.arange(1, spectra.shape[2])
    score = (pairs @ np.exp(1j * np.deg2rad(_TURN_GRID) * harmonics[:, None])).real
    power = (np.abs(detail) ** 2).sum(axis=(1, 2))
    return score, np.sqrt(power[1:] * power[:-1])


def _cue_spectra(opacity: Floats, silhouettes: Silhouettes, radius: Floats) -> NDArray[np.complex64]:
    around = np.clip(opacity, 0.0, 1.0) * ~silhouettes.near
    return _spectra(_polar(around, silhouettes.centre, radius, _CUE_RADII, outside="edge"), _CUE_HARMONICS)


def _polar(
    pictures: Floats, centre: Floats, scale: Floats, radii: Floats, outside: Literal["constant", "edge"] = "constant"
) -> Floats:
    """Sample `[n, h, w]` bilinearly on circles about a centre, `[n, radii, angles]`; outside the picture is 0."""
    height, width = pictures.shape[1:]
    angle = np.arange(_ANGLES, dtype=np.float32) * np.float32(2 * np.pi / _ANGLES)
    reach = (scale[:, None] * radii)[:, :, None]
    x = np.clip(centre[:, :1, None] + reach * np.cos(angle) + 0.5, 0.0, width + 0.999)
    y = np.clip(centre[:, 1:, None] + reach * np.sin(angle) + 0.5, 0.0, height + 0.999)
    return sample_bilinear(np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode=outside), y, x)


def _spectra(polar: Floats, harmonics: int) -> NDArray[np.complex64]:
    return (np.fft.rfft(polar, axis=2)[:, :, :harmonics] / _ANGLES).astype(np.complex64)


def _magnitudes(spectra: NDArray[np.complex64]) -> Floats:
    return np.abs(spectra).reshape(len(spectra), -1)


def _grown(mask: Flags) -> Flags:
    """Add the eight neighbours of every pixel of `[n, h, w]`."""
    wide = mask.copy()
    wide[:, :, 1:] |= mask[:, :, :-1]
    wide[:, :, :-1] |= mask[:, :, 1:]
    tall = wide.copy()
    tall[:, 1:] |= wide[:, :-1]
    tall[:, :-1] |= wide[:, 1:]
    return tall


def _largest_components(mask: Flags) -> Flags:
    """Keep the largest region, connected through sides, of each of `[n, h, w]`."""
    if not mask.any():
        return mask
    runs, count = _row_runs(mask)
    touching = mask[:, 1:] & mask[:, :-1]
    pairs = np.unique(runs[:, :-1][touching] * count + runs[:, 1:][touching])
    label = _joined(count, pairs // count, pairs % count)
    region = label[runs[mask]]
    size = np.bincount(region, minlength=count)
    rank = np.zeros(mask.shape, np.int64)
    rank[mask] = size[region] * count + region + 1  # the region's number breaks ties
    return mask & (rank == rank.max(axis=(1, 2), keepdims=True))


def _row_runs(mask: Flags) -> tuple[NDArray[np.int64], int]:
    """Number the unbroken stretches of all rows; pixels outside the mask carry numbers without meaning."""
    begins = mask.copy()
    begins[:, :, 1:] &= ~mask[:, :, :-1]
    numbers = np.cumsum(begins).reshape(mask.shape)
    return np.maximum(numbers - 1, 0), int(numbers[-1, -1, -1])


def _joined(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lowest number reachable from each of `count` nodes over edges first-second."""
    label = np.arange(count)
    while True:
        lowest = np.minimum(label[first], label[second])
        lowered = label.copy()
        np.minimum.at(lowered, first, lowest)
        np.minimum.at(lowered, second, lowest)
        lowered = lowered[lowered]
        if np.array_equal(lowered, label):
            return label
        label = lowered


@dataclass(frozen=True, eq=False)
class _LinearReader:
    """Gaussian classes that share one covariance."""

    weight: Floats
    bias: Floats

    def log_probabilities(self, features: Floats) -> Floats:
        score = features @ self.weight + self.bias
        score = score - score.max(axis=1, keepdims=True)
        return score - np.log(np.exp(score).sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class _Variation:
    """How the examples of one shape differ from their mean; holes vary in rings only, so each shape has its own."""

    mean: Floats
    precision: Floats
    usual_distance: float = 1.0

    def unlikeness(self, features: Floats) -> Floats:
        """Mahalanobis distance from the mean, `[n]`; 1 is the usual one."""
        offset = features - self.mean
        return np.sqrt(np.maximum(((offset @ self.precision) * offset).sum(axis=1), 0.0)) / self.usual_distance


@dataclass(frozen=True, eq=False)
class _Readers:
    shape: _LinearReader
    cue: _LinearReader
    unit_area: dict[str, float]
    variation: dict[str, _Variation]


def _fitted(features: Floats, labels: NDArray[np.int64], classes: int) -> _LinearReader:
    means = np.stack([features[labels == c].mean(axis=0) for c in range(classes)]).astype(np.float64)
    weight = _precision(features - means[labels]) @ means.T
    return _LinearReader(weight, -0.5 * (means.T * weight).sum(axis=0))


def _varied(features: Floats) -> _Variation:
    mean = features.mean(axis=0).astype(np.float64)
    variation = _Variation(mean, _precision(features - mean))
    return replace(variation, usual_distance=float(np.quantile(variation.unlikeness(features), 0.99)))


def _precision(spread: Floats) -> Floats:
    covariance = spread.T.astype(np.float64) @ spread / len(spread)
    covariance += _LEAST_VARIANCE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.inv(covariance)


@lru_cache(maxsize=1)
def _readers() -> _Readers:
    scenes, opacity = make_examples()
    silhouettes = find_silhouettes(opacity)
    copies = len(opacity) // len(scenes)
    shapes = np.array([SHAPES.index(scene.shape) for scene in scenes] * copies)
    cues = np.array([CUES.index(_CUE_OF_MOTION.get(scene.motion, "trail")) for scene in scenes] * copies)
    radius = np.array([render.RADIUS[scene.size] for scene in scenes] * copies) * opacity.shape[2]
    constant = np.array([scene.motion not in ("growing", "shrinking") for scene in scenes] * copies)
    unit_area = {
        shape: float(np.mean((silhouettes.area / radius**2)[(shapes == i) & constant]))
        for i, shape in enumerate(SHAPES)
    }
    magnitudes = _magnitudes(shape_spectra(silhouettes))
    shape_reader = _fitted(magnitudes, shapes, len(SHAPES))
    variation = {shape: _varied(magnitudes[shapes == i]) for i, shape in enumerate(SHAPES)}
    measured_radius = np.sqrt(silhouettes.area / np.array([unit_area[shape] for shape in SHAPES])[shapes])
    cue_spectra = _cue_spectra(opacity, silhouettes, measured_radius.astype(np.float32))
    return _Readers(shape_reader, _fitted(_magnitudes(cue_spectra), cues, len(CUES)), unit_area, variation)
