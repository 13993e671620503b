"""From what a user calls a model to the folder it lies in."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from muybridge.errors import CheckpointError

SHIPPED_MODELS: dict[str, str] = {"demo/animatediff": "demo/animatediff", "demo/easyanimate": "demo/easyanimate"}
"""Models inside the package: the name to ask for, and the folder below the package."""

_PARTS = (
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "unet",
    "transformer",
    "scheduler",
    "motion_adapter",
    "keyframe_control",
    "sketch_control",
    "image_encoder",
    "image_processor",
)
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def locate_model(name: str | os.PathLike[str], parts: Sequence[str] = _PARTS) -> Path:
    """Find a model folder.

    Args:
        name: a shipped model, a folder, or the id of a repository on the Hugging Face hub (downloaded to its cache).
        parts: what to download of a repository; by default all that a pipeline has.

    Raises:
        CheckpointError: none of the three; the message lists the shipped models.
    """
    if str(name) in SHIPPED_MODELS:
        folder = Path(str(files("muybridge"))) / SHIPPED_MODELS[str(name)]
        if not (folder / "model_index.json").is_file():
            raise CheckpointError(f"The shipped model {name!r} is missing from this installation; install it again.")
        return folder
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; a model is a folder with a model_index.json.")
    if _HUB_ID.match(str(name)):
        return _download(str(name), parts)
    raise CheckpointError(
        f"There is no model {str(name)!r}: neither a folder, nor a hub id, nor one of the shipped models "
        f"({', '.join(SHIPPED_MODELS)})."
    )


def _download(hub_id: str, parts: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and only needed here
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    # Repositories of Stable Diffusion also hold the whole model as single files, and each part in several precisions.
    wanted = [
        "model_index.json",
        *(f"{part}/*{suffix}" for part in parts for suffix in (".json", ".txt", ".model", ".safetensors")),
    ]
    try:
        unwanted = ["*.fp16.safetensors", "*.non_ema.*"]
        return Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=unwanted))
    except (HfHubHTTPError, RepositoryNotFoundError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"There is no model {hub_id!r}: no such folder, not one of the shipped models "
            f"({', '.join(SHIPPED_MODELS)}), and the hub did not give it ({reason})."
        ) from error
