"""How far training is, on a terminal and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from muybridge.cli.training_progress import TrainingProgress


def shown(is_terminal: bool, *reports: tuple[str, int, int, dict[str, float]]) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, color_system=None, width=120, soft_wrap=True)
    progress = TrainingProgress(console)
    for report in reports:
        progress(*report)
    progress.close()
    return text.getvalue()


def test_elsewhere_each_report_is_a_line():
    text = shown(False, ("vae", 5, 10, {"loss": 0.5, "psnr": 20.0}), ("vae", 10, 10, {"loss": 0.25}))

    assert text == "vae 5/10  loss 0.5000  psnr 20.0000\nvae 10/10  loss 0.2500\n"


def test_on_a_terminal_there_is_one_live_line_a_stage():
    text = shown(True, ("vae", 5, 10, {"loss": 0.5}), ("vae", 10, 10, {"loss": 0.25}), ("text", 1, 4, {"loss": 3.0}))

    finished = [line.rsplit("\r", 1)[-1] for line in text.split("\n")]
    assert sum("10/10" in line and "loss 0.2500" in line for line in finished) == 1
    assert any("1/4" in line and "loss 3.0000" in line for line in finished)
    assert not any("5/10" in line for line in finished)


def test_a_resumed_stage_begins_where_it_was():
    assert "700/1000" in shown(True, ("image", 700, 1000, {"loss": 0.5}))


def test_closing_twice_or_unused_is_harmless():
    progress = TrainingProgress(Console(file=io.StringIO()))

    progress.close()
    progress.close()
