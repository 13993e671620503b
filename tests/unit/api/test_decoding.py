"""Files are read in a process of their own, as they are here, and what goes wrong there ends nothing here."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muybridge.api import decoding_process
from muybridge.api.decoding import DecoderHere, DecodingProcess, answer
from muybridge.api.errors import ApiError
from muybridge.api.settings import Limits
from muybridge.errors import OutputError
from muybridge.jobs.line_process import LineProcess
from muybridge.video import Video, read_request, read_video

LIMITS = Limits()


@pytest.fixture(scope="module")
def process() -> Iterator[DecodingProcess]:
    started = DecodingProcess()
    yield started
    started.close()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3), np.uint8)
    return Video(frames, 8.0, {"prompt": "a"}).save(tmp_path / "a.mp4")


def test_the_process_says_what_is_said_here(process: DecodingProcess, video: Path, tmp_path: Path) -> None:
    here, picture = DecoderHere(), tmp_path / "b.png"
    Image.new("RGB", (24, 16)).save(picture)
    for path in (video, picture):
        assert process.examine(path, "file", LIMITS) == here.examine(path, "file", LIMITS)
    assert process.settings_in(video) == here.settings_in(video) == {"prompt": "a"}
    process.animate(video, tmp_path / "a.gif")
    assert len(read_video(tmp_path / "a.gif")) == 5
    assert read_request(tmp_path / "a.gif") == {"prompt": "a"}
    for name, each in (("here.png", here), ("there.png", process)):
        each.first_frame(video, tmp_path / name)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_refusals_come_through_whole(process: DecodingProcess, video: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(b"\x89PNG\r\n\x1a\ngarbage")
    for path, limits in ((garbage, LIMITS), (video, Limits(video_pixels=100)), (tmp_path / "garbage.txt", LIMITS)):
        path.touch()
        with pytest.raises(ApiError) as told:
            process.examine(path, "init_video", limits)
        with pytest.raises(ApiError) as said:
            DecoderHere().examine(path, "init_video", limits)
        found = [(str(e), e.status, e.code, e.param) for e in (told.value, said.value)]
        assert found[0] == found[1]
    with pytest.raises(OutputError, match="cannot be written"):
        process.animate(video, tmp_path / "none" / "a.gif")


def test_a_file_that_ends_the_process_costs_itself(process: DecodingProcess, video: Path) -> None:
    process.examine(video, "file", LIMITS)
    running = process._asked.process
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)  # as one that never comes to an end
    killer = threading.Timer(0.2, running.kill)
    killer.start()
    with pytest.raises(ApiError, match="could not be read"):
        process.examine(video, "file", LIMITS)
    killer.join()
    assert process.examine(video, "file", LIMITS).num_frames == 5


def test_a_process_that_is_done_is_followed_by_another(process: DecodingProcess, video: Path) -> None:
    seen = set()
    for _ in range(2 * decoding_process._FILES + 1):
        process.settings_in(video)
        assert process._asked.process is not None
        seen.add(process._asked.process.pid)
    assert 2 <= len(seen) <= 4


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (MemoryError(), "refused", "more memory than there is"),
        (KeyError("x"), "refused", "it is damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), "full", "No space left"),
    ],
)
def test_whatever_goes_wrong_with_a_file_ends_nothing(error: Exception, kind: str, says: str, video: Path) -> None:
    class Failing(DecoderHere):
        def first_frame(self, source: Path, target: Path) -> None:
            raise error

    found = json.loads(answer(json.dumps(["first_frame", str(video), "frame.png"]), Failing()))
    assert says in str(found[kind])


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    program = tmp_path / "chatty.py"
    program.write_text(
        "import sys\nfrom muybridge.jobs.line_process import answers\nstream = answers()\n"
        "for line in sys.stdin:\n    print('something', flush=True)\n    stream.write(line)\n    stream.flush()\n"
    )
    process = LineProcess(("chatty",), "", 60.0, 60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
        assert [process.ask(each) for each in "ab"] == ["a\n", "b\n"]
    process.stop()
    process.end()
