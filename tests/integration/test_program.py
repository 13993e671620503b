"""The program in a process of its own: what a terminal sees, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

# Where the tests run in the background of a shell, SIGINT comes to them, and so to the program, ignored.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = [sys.executable, "-c", f"{HEARING}; from muybridge.cli.main import main; main()"]
STARTED = " 1/900"
"""How the progress bar shows that the first step is done."""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}


def read_until(terminal: int, text: str, seconds: float) -> str:
    """What appears on a terminal until it shows `text`, the program ends, or time is up."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # how a terminal says that nobody writes to it any more
                break
    return shown


def on_a_terminal(arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # a new one has no columns, and a bar no room
    program = subprocess.Popen(
        [*PROGRAM, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    return program, ours


def test_ctrl_c_while_sampling_leaves_nothing(shipped_model, tmp_path):
    output = str(tmp_path / "out.mp4")
    program, terminal = on_a_terminal(
        ["generate", "a red circle", "--steps", "900", "--model", shipped_model, "-o", output]
    )
    try:
        before = read_until(terminal, STARTED, seconds=120)
        program.send_signal(signal.SIGINT)
        code = program.wait(timeout=120)
        after = read_until(terminal, "interrupted", seconds=10)
    finally:
        program.kill()
        program.wait()
        os.close(terminal)

    assert STARTED in before
    assert "Loading" not in before
    assert code == 130
    assert "interrupted" in after
    assert "Traceback" not in after
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_foreign_words_are_noted(shipped_model, tmp_path):
    request = ["generate", "a fuchsia circle", "--frames", "1", "--steps", "1", "--model", shipped_model]

    shown = subprocess.run(
        [*PROGRAM, *request, "-o", str(tmp_path / "out.mp4")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.startswith("note: ")
    assert "'fuchsia'" in shown.stderr
    assert shown.stderr.count("\n") == 1
