"""Prompt files of the original programs, run on a device of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from muybridge.pipelines.family import PromptFiles
from muybridge.service.generation import pick_device
from muybridge.service.output_names import name_after, words_of


def run_prompt_file(
    files: PromptFiles,
    path: Path,
    base: str,
    output: Path,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sequence[Path]:
    """Make every video of a prompt file, and return them.

    Args:
        files: of its family.
        path: the prompt file.
        base: the model that its jobs are based on.
        output: a new folder, or one that is written into.
        device: where to run; by default the best there is.
        progress: told how many of all videos are done.

    Raises:
        MuybridgeError: anything the user can mend.
    """
    return files.run(path, base, output, pick_device(device), _named, progress)


def _named(prompt: str, count: int) -> str:
    return name_after(" ".join(words_of(prompt)[:count]))
