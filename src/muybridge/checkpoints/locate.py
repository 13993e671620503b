"""From what a user calls a model to the folder it lies in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath

from muybridge.errors import CheckpointError
from muybridge.weights.files import WEIGHT_SUFFIXES

SHIPPED_MODELS: dict[str, str] = {"demo/animatediff": "demo/animatediff", "demo/easyanimate": "demo/easyanimate"}
"""Models inside the package: the name to ask for, and the folder below the package."""
SHIPPED_LORAS: dict[str, str] = {
    f"{name}-4-steps": f"demo/loras/{name.removeprefix('demo/')}-4-steps.safetensors" for name in SHIPPED_MODELS
}
"""LoRAs inside the package, likewise: with one, its model needs 4 steps of `ddim` and no guidance."""

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
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_PLACE = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(\w[\w./ -]*))?")
"""A repository, and a file or folder in it; what begins with a dot, a tilde or a slash is a path of this machine."""
_WEIGHT_NAMES = ("diffusion_pytorch_model", "pytorch_lora_weights", "adapter_model", "learned_embeds")
_PART_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
_SHARD = "-?????-of-?????"
_PRECISIONS = tuple(
    (f"{suffix}.index{half}.json", *(f"{end}{suffix}" for end in ends))
    for suffix in (".safetensors", ".bin")
    for half, ends in (("", ("", _SHARD)), (".fp16", (".fp16", f"{_SHARD}.fp16", f".fp16{_SHARD}")))
)
"""How names of weight files go on, the best kind first: safetensors before pickles, full precision before half."""
_LONGEST_REASON = 60
_SETTINGS = ("config.json", "adapter_config.json", "preprocessor_config.json")
_PART_SETTINGS = ("*config.json", "*tokens*.json", "tokenizer.json", "vocab.json", "*.txt", "*.model")
"""All but indexes of shards, which go with their weights."""


def locate_model(name: str | os.PathLike[str], parts: Sequence[str] = _PARTS) -> Path:
    """Find a model folder.

    Args:
        name: a shipped model, a folder, or, as a string, the id of a repository on the Hugging Face hub (downloaded to
            its cache); a `Path` is a folder and nothing else.
        parts: what to download of a repository; by default all that a pipeline has.

    Raises:
        CheckpointError: none of the three; the message lists the shipped models.
    """
    if str(name) in SHIPPED_MODELS:
        return _shipped(str(name), f"{SHIPPED_MODELS[str(name)]}/model_index.json").parent
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; a model is a folder with a model_index.json.")
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        if not _is_local(path):
            return fetch_model(name, parts)
        raise CheckpointError(
            f"There is no model {name!r}: the folder {path.parts[0]} is here and has no {path.name}, so it is not "
            f"looked for on the hub; nor is it one of the shipped models ({', '.join(SHIPPED_MODELS)})."
        )
    raise CheckpointError(
        f"There is no model {str(name)!r}: neither a folder, nor a hub id, nor one of the shipped models "
        f"({', '.join(SHIPPED_MODELS)})."
    )


def _shipped(name: str, file: str) -> Path:
    path = Path(str(files("muybridge"))) / file
    if not path.is_file():
        raise CheckpointError(f"What is shipped as {name!r} is missing from this installation; install it again.")
    return path


def _is_local(path: Path) -> bool:
    """Whether a name that could be a place on the hub is about this machine all the same."""
    return ".." in path.parts or Path(path.parts[0]).is_dir()


def locate_weights(name: str | os.PathLike[str], beside: str | None = None) -> Path:
    """Find a file or folder of weights: a motion adapter, a LoRA, a SparseCtrl, an image prompt adapter.

    Names of `SHIPPED_LORAS` go first. Else what exists here is never looked for elsewhere, nor is what would lie in a
    folder that exists here, nor a `Path`. Other strings are taken for places on the Hugging Face hub where they can be:
    `organisation/repository`, whose root is then the folder, or with a file or folder of the repository behind it, as
    in `organisation/repository/folder/file.safetensors`. What is fetched stays in the hub's cache.

    Args:
        name: a path, or such a place, as a string.
        beside: the name of a folder to fetch too if it lies beside the file on the hub.

    Returns:
        The path here; `name` itself if it exists, or is nothing on the hub.

    Raises:
        CheckpointError: neither here nor on the hub, or the hub cannot be reached and its cache does not have it.
    """
    if str(name) in SHIPPED_LORAS:
        return _shipped(str(name), SHIPPED_LORAS[str(name)])
    path = Path(name)
    match = _HUB_PLACE.fullmatch(name) if isinstance(name, str) else None
    if match is None or path.exists() or _is_local(path):
        return path
    repository, inside = match.groups()
    if inside is None and repository.lower().endswith(WEIGHT_SUFFIXES):
        return path  # a file in a folder of this machine
    if inside is not None and inside.lower().endswith(WEIGHT_SUFFIXES):
        return _hub_file(repository, inside, beside)
    return _hub_folder(repository, inside)


def _hub_file(repository: str, file: str, beside: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # slow to import, and only needed here

    found = Path(_fetched(_not_here(f"{repository}/{file}"), lambda: hf_hub_download(repository, file)))
    if beside is not None:
        folder = (PurePosixPath(file).parent / beside).as_posix()
        settings = [f"{folder}/{each}" for each in _PART_SETTINGS]
        weights = {folder: [f"{folder}/{each}" for each in _PART_NAMES]}
        _fetch_best(partial(_fetch_folder, repository), settings, weights, _is_network)
    return found


def _hub_folder(repository: str, folder: str | None) -> Path:
    """A folder with what a network is loaded from; where it is in several precisions, in the best."""
    name, below = (repository, "") if folder is None else (f"{repository}/{folder}", f"{folder}/")
    names = [f"{below}{weight}" for weight in (*_WEIGHT_NAMES, *(_PART_NAMES if folder else ()))]
    settings = [f"{below}{each}" for each in _SETTINGS]
    root, lacking = _fetch_best(partial(_fetch_folder, repository), settings, {below: names})
    if lacking:
        raise CheckpointError(
            f"{name} on the hub is no folder of one network, or the cache does not have its weights. Name a file of "
            f"it, as in {name}/weights.safetensors."
        )
    return root / below


def _fetch_best(
    fetch: Callable[[Sequence[str]], Path],
    settings: Sequence[str],
    weights: Mapping[str, Sequence[str]],
    needs_weights: Callable[[Path], bool] = lambda _: True,
) -> tuple[Path, list[str]]:
    """Fetch folders, each with its weights in the best kind that there is, and in no other.

    What there is shows only when it has come, which is so with the hub's cache too.

    Args:
        fetch: from patterns of names to the folder here.
        settings: patterns of what is not weights.
        weights: by folder, how the names of its weight files begin.
        needs_weights: whether a folder that has come lacks something if it has no weights.

    Returns:
        The folder here, and which of `weights` have none.
    """
    kinds = dict.fromkeys(weights, 0)
    while True:
        patterns = {
            each: [f"{name}{end}" for name in weights[each] for end in _PRECISIONS[kinds[each]]] for each in kinds
        }
        root = fetch([*settings, *(pattern for each in patterns.values() for pattern in each)])
        lacking = [
            folder
            for folder, wanted in patterns.items()
            if needs_weights(root / folder) and not any(each.is_file() for name in wanted for each in root.glob(name))
        ]
        worse = [folder for folder in lacking if kinds[folder] + 1 < len(_PRECISIONS)]
        if not worse:
            return root, lacking
        kinds.update({folder: kinds[folder] + 1 for folder in worse})


def _is_network(folder: Path) -> bool:
    """Whether a part of a pipeline has weights; a tokenizer or a scheduler has no config.json."""
    return (folder / "config.json").is_file()


def _fetch_folder(repository: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    fetch = partial(snapshot_download, repository, allow_patterns=list(patterns))
    return Path(_fetched(_not_here(repository), fetch))


def _not_here(name: str) -> str:
    return f"There is no {name} here, nor in the cache of the Hugging Face hub"


def _fetched(missing: str, fetch: Callable[[], str]) -> str:
    try:
        return fetch()
    except Exception as error:  # also what the library under the library raises for a lost connection or a proxy
        raise CheckpointError(
            f"{missing}, and the hub did not give it ({_hub_reason(error)}). Check the name, or download it first and "
            "give its path."
        ) from error


def _hub_reason(error: Exception) -> str:
    """What was wrong, where it has a name; the library's own words for it are long and about its keyword arguments."""
    from huggingface_hub import errors
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return "it may not be asked, HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return "its licence must be accepted there first, and a token be here: `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it has no such repository, or shows it to its owner only"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository has no such file"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "it cannot be reached"
    said = " ".join(str(error).split())
    return said if len(said) <= _LONGEST_REASON else type(error).__name__  # short ones are facts, as a status is


def fetch_model(hub_id: str, parts: Sequence[str] = _PARTS) -> Path:
    """The folder of a model on the hub, in its cache; `parts` as of `locate_model`.

    Raises:
        CheckpointError: the hub does not give it, and the cache does not have it.
    """
    from huggingface_hub import snapshot_download  # slow to import, and only needed here

    # Repositories of Stable Diffusion also hold the whole model as single files, and each part in several precisions.
    settings = ["model_index.json", *(f"{part}/{each}" for part in parts for each in _PART_SETTINGS)]
    shipped = ", ".join(SHIPPED_MODELS)
    missing = f"There is no model {hub_id!r}: no such folder, not one of the shipped models ({shipped})"

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(_fetched(missing, lambda: snapshot_download(hub_id, allow_patterns=list(patterns))))

    weights = {part: [f"{part}/{name}" for name in _PART_NAMES] for part in parts}
    root, _ = _fetch_best(fetch, settings, weights, _is_network)
    return root
