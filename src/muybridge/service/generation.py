"""From a request to a file, once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from muybridge.request import GenerateRequest, Inputs
from muybridge.service.asked import open_inputs, pick_device
from muybridge.service.engine import Engine, GenerationResult

__all__ = ["GenerationResult", "generate_file", "open_inputs", "pick_device"]


def generate_file(
    request: GenerateRequest,
    output: Path,
    inputs: Inputs | None = None,
    embed_request: bool = True,
    show_progress: bool = True,
    redo: Collection[int] = (),
    redo_following: bool = False,
) -> GenerationResult:
    """Generate one video and write it; what can be checked is checked before any weight is read.

    Progress is shown on a terminal only. `redo` names segments of a long video to make anew, and `redo_following` adds
    those behind them. `inputs` are the files of the request, where they have been opened already. For several videos,
    an `Engine` keeps what is loaded.

    Raises:
        MuybridgeError: anything the user can mend; no file is left behind then.
    """
    return Engine(shows_progress=show_progress, learns_previews=False).run(
        request, output, inputs=inputs, embed_request=embed_request, redo=redo, redo_following=redo_following
    )
