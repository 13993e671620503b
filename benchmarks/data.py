"""Preparing clips: how fast `quick` is, what the watched processes cost, and ten thousand hostile files.

    python benchmarks/data.py [quick] [split] [pool] [hostile] [--write]

Without names all are measured. Where other work runs on the machine, trust CPU seconds and ratios; the load is noted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from muybridge.data.preparation.engine.job import Limits
from muybridge.data.preparation.engine.journal import Journal
from muybridge.data.preparation.inputs import Input
from muybridge.data.preparation.prepare import PrepareSettings, Watching, make_engine, prepare, run_inputs
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.schedule import Schedule
from muybridge.data.preparation.stage import Stage, StageSettings, noted
from muybridge.data.record import Record

SECONDS, RATE, SIZE = 30, 24, (1280, 720)
SCENE_S = 4
RECORDS, BUSY_RECORDS = 2000, 100
HOSTILE = 10_000


class Nothing(Stage):
    """Does nothing, so that what is measured is everything else."""

    name = "nothing"
    Settings = StageSettings

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with a word more."""
        return [noted(record, done=True)]


class BusySettings(StageSettings):
    """How much it does."""

    seconds: float = 0.02


class Busy(Stage):
    """Keeps a processor busy for some CPU time, whatever else runs."""

    name = "busy"
    Settings = BusySettings
    settings: BusySettings

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with a word more."""
        end = time.process_time() + self.settings.seconds
        while time.process_time() < end:
            pass
        return [noted(record, done=True)]


def main() -> None:
    """Measure what is asked for."""
    cases: dict[str, Callable[[Path], dict[str, Any]]] = {
        "quick": quick,
        "split": split,
        "pool": pool,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", choices=[*cases, "hostile"], default=[], help="all by default")
    parser.add_argument("--files", type=int, default=HOSTILE, help="of hostile")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results")
    asked = parser.parse_args()
    cases["hostile"] = lambda folder: hostile(folder, asked.files)
    for name in asked.cases or cases:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            found = {"load_before": round(load, 1), **cases[name](Path(folder))}
        print(name, json.dumps(found, indent=1))
        if asked.write:
            path = Path(__file__).resolve().parent / "results" / f"data-{name}.json"
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def quick(folder: Path) -> dict[str, Any]:
    """Minutes of 720p video that `quick` does in a minute of CPU time, decoding alone beside it."""
    (folder / "raw").mkdir()
    video = write_scenes(folder / "raw" / "scenes.mp4")
    with cpu_seconds() as decoding:
        decode(video)
    with cpu_seconds() as preparing:
        account = prepare(folder / "raw", folder / "out", Recipe.load("quick"), PrepareSettings(engine="serial"))
    if account is None:
        raise SystemExit("nothing was prepared")
    return {
        "video_seconds": SECONDS,
        "decoding_cpu_seconds": decoding[0],
        "quick_cpu_seconds": preparing[0],
        "minutes_per_cpu_minute": round(SECONDS / preparing[0], 2),
        "minutes_per_cpu_minute_of_decoding": round(SECONDS / decoding[0], 2),
        "stages": [name for values in account.settings for name in values],
        "clips": account.statuses,
    }


def split(folder: Path) -> dict[str, Any]:
    """The stage split beside scenedetect's ContentDetector on the same file in one process, taking turns."""
    from scenedetect import ContentDetector, SceneManager, open_video  # pyright: ignore[reportMissingImports]

    video = write_scenes(folder / "scenes.mp4")
    recipe = Recipe.of({"stages": ["probe", "split"]})
    stages = {stage.name: stage for stage in recipe.stages}
    record = stages["probe"].run(Record("a" * 16, str(video), "video"), folder)[0]
    stages["split"].load()
    ours, theirs = [], []
    pieces, scenes = [], []
    for _ in range(3):
        with cpu_seconds() as taken:
            pieces = stages["split"].run(record, folder)
        ours.append(taken[0])
        with cpu_seconds() as taken:
            manager = SceneManager()
            manager.add_detector(ContentDetector())
            manager.detect_scenes(open_video(str(video), backend="pyav", threading_mode="NONE"))
            scenes = manager.get_scene_list(start_in_scene=True)
        theirs.append(taken[0])
    return {
        "video_seconds": SECONDS,
        "true_scenes": len(range(0, SECONDS, SCENE_S)),
        "split_cpu_seconds": min(ours),
        "split_pieces": len(pieces),
        "content_detector_cpu_seconds": min(theirs),
        "content_detector_scenes": len(scenes),
        "ratio": round(min(theirs) / min(ours), 2),
    }


def pool(folder: Path) -> dict[str, Any]:
    """What a record costs beside its stages, in one process and in watched ones; and what a second one gains."""
    found: dict[str, Any] = {"records": RECORDS, "busy_records": BUSY_RECORDS, "busy_cpu_ms": 20}
    for name, settings in (
        ("serial", PrepareSettings(engine="serial")),
        ("pool_1", PrepareSettings(workers=1)),
        ("pool_2", PrepareSettings(workers=2)),
    ):
        _, base = run_stage(folder / f"{name}-start", Nothing(), 1, settings)
        wall, cpu = run_stage(folder / name, Nothing(), RECORDS, settings)
        found[f"{name}_ms_a_record"] = round(wall / RECORDS * 1000, 3)
        found[f"{name}_cpu_ms_a_record"] = round((cpu - base) / RECORDS * 1000, 3)
    for unit in ("ms", "cpu_ms"):
        overhead = found[f"pool_1_{unit}_a_record"] - found[f"serial_{unit}_a_record"]
        found[f"overhead_{unit}_a_record"] = round(overhead, 3)
    walls = {n: run_stage(folder / f"busy-{n}", Busy(), BUSY_RECORDS, PrepareSettings(workers=n))[0] for n in (1, 2)}
    found["busy_wall_seconds"] = {str(n): round(wall, 3) for n, wall in walls.items()}
    found["scaling_on_two"] = round(walls[1] / walls[2], 2)
    return found


def run_stage(folder: Path, stage: Stage, count: int, settings: PrepareSettings) -> tuple[float, float]:
    """Wall seconds for some records, from when the processes are there; and CPU seconds of all processes in all."""
    folder.mkdir()
    inputs = [Input(Record(f"{number:016x}", f"/nowhere/{number}.mp4", "video")) for number in range(count)]
    first = [Input(Record(f"{number:016x}", "/nowhere/first.mp4", "video")) for number in range(count, count + 8)]
    before = _cpu_of_all()
    with Journal(folder) as journal, make_engine(settings, [stage], folder) as engine:
        schedule = Schedule([stage], journal, engine, folder, Limits())
        run_inputs(first, schedule)
        wall = time.perf_counter()
        run_inputs(inputs, schedule)
        wall = time.perf_counter() - wall
    return wall, _cpu_of_all() - before


def _cpu_of_all() -> float:
    """Of this process, and of those that it had and that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def hostile(folder: Path, count: int) -> dict[str, Any]:
    """Thousands of small files that are damaged in many ways: each ends as something, and memory stays flat."""
    raw = folder / "raw"
    write_hostile(raw, count)
    peaks: list[int] = []

    def note(_: object) -> None:
        peaks.append(resident_kb())

    wall = time.perf_counter()
    account = prepare(raw, folder / "out", Recipe.load("quick"), None, Watching(on_advance=note))
    wall = time.perf_counter() - wall
    if account is None or sum(account.inputs.values()) != count:
        raise SystemExit("the statuses do not add up to the files")
    fifth = len(peaks) // 5
    return {
        "files": count,
        "wall_seconds": round(wall, 1),
        "inputs": account.inputs,
        "rules": {f"{step.stage}: {step.rule}": step.clips for step in account.steps()},
        "sum": sum(account.inputs.values()),
        "resident_mb_after_a_fifth": round(peaks[fifth] / 1024, 1),
        "resident_mb_at_the_end": round(peaks[-1] / 1024, 1),
        "largest_of_a_worker_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }


def write_scenes(path: Path) -> Path:
    """A video of moving textures, another one every few seconds."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    scene = np.zeros((1, 1, 3), np.uint8)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(SECONDS * RATE):
            if index % (SCENE_S * RATE) == 0:
                small = rng.integers(0, 255, (24, 40, 3), dtype=np.uint8)
                scene = np.kron(small, np.ones((40, 40, 1), np.uint8))
            pixels = np.ascontiguousarray(np.roll(scene, 3 * index, 1)[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_hostile(folder: Path, count: int) -> None:
    """Files with the names of videos: empty, text, cut short, with bytes changed, of another kind, and sound ones."""
    folder.mkdir()
    rng = random.Random(0)
    sound = {suffix: _tiny(folder / f"sound{suffix}") for suffix in (".mp4", ".mkv", ".avi")}
    for path in folder.iterdir():
        path.unlink()
    for number in range(count):
        suffix = rng.choice(list(sound))
        content = bytearray(sound[suffix])
        kind = number % 8
        if kind == 0:
            content = bytearray(f"no video {number}".encode())
        elif kind in (1, 2):
            del content[rng.randrange(len(content)) :]
        elif kind in (3, 4, 5):
            for _ in range(rng.choice((1, 10, 200))):
                content[rng.randrange(len(content))] = rng.randrange(256)
        elif kind == 6:
            content[: rng.randrange(1, 64)] = rng.randbytes(32)
        # So that no two are the same file.
        (folder / f"{number:05}{suffix}").write_bytes(bytes(content) + number.to_bytes(4, "big"))


def _tiny(path: Path) -> bytes:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 8)
        for index in range(16):
            pixels = np.full((48, 64, 3), 10 * index, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path.read_bytes()


def decode(path: Path) -> None:
    """All frames, on one thread."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type = "NONE"
        for _ in file.decode(stream):
            pass


@contextmanager
def cpu_seconds() -> Iterator[list[float]]:
    """CPU seconds of this process in the block, in a list when it ends."""
    found: list[float] = []
    start = time.process_time()
    yield found
    found.append(round(time.process_time() - start, 3))


def resident_kb() -> int:
    """Memory of this process now."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
