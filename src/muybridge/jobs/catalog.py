"""Models and what goes into them, by the names under which a service offers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from muybridge.errors import ConfigError, NotFoundError
from muybridge.files.names import nearest_name

KINDS = ("models", "motion_adapters", "loras", "vaes", "controls", "embeddings", "image_prompts")
"""Folders of a folder of models, and what lies in them."""
_TITLES = {
    "models": "model",
    "motion_adapters": "motion adapter",
    "loras": "LoRA",
    "vaes": "VAE",
    "controls": "control network",
    "embeddings": "embedding",
    "image_prompts": "image prompt adapter",
}
_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".gguf")
_MARKS = ("model_index.json", "config.json", "adapter_config.json")
"""A folder with one of these is one thing, not a folder of things."""
_DEEPEST = 3
SAMPLING_OF_SHIPPED_LORAS: Mapping[str, str | float] = {
    "num_inference_steps": 4,
    "guidance_scale": 1.0,
    "scheduler": "ddim",
}
"""What the shipped LoRAs were trained for."""


@dataclass(frozen=True)
class Catalog:
    """What a service offers.

    Attributes:
        places: for each of `KINDS`, from a name to a path or a place on the hub.
    """

    places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def scan(cls, folder: Path | None, extra: Mapping[str, Mapping[str, str]] | None = None) -> Catalog:
        """Look through a folder of models; the shipped models are always there.

        Args:
            folder: with folders named as `KINDS`; what lies in them is offered under its name without the ending, as in
                `loras/paint/ink.safetensors`, which is the LoRA `paint/ink`. None for none.
            extra: more names and their places, by kind.

        Raises:
            ConfigError: there is no such folder.
        """
        places: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        places["models"].update({name: name for name in _shipped()})
        places["loras"].update({name: name for name in shipped_loras()})
        if folder is not None:
            folder = folder.expanduser().resolve()  # places must be absolute: requests tell paths from names by it
            if not folder.is_dir():
                raise ConfigError(f"There is no folder of models {folder}. Make it, or name another.")
            for kind in KINDS:
                places[kind].update(_named(folder / kind))
        for kind, named in (extra or {}).items():
            if kind not in places:
                raise ConfigError(f"There is no kind of networks {kind!r}. Known: {', '.join(KINDS)}.")
            places[kind].update(named)
        return cls(places)

    def names(self, kind: str) -> list[str]:
        """What is offered of a kind."""
        return sorted(self.places.get(kind, {}))

    def place(self, kind: str, name: str) -> str:
        """Where it lies.

        Raises:
            NotFoundError: nothing of that kind has that name; names what is near.
        """
        known = self.places.get(kind, {})
        if name in known:
            return known[name]
        offered = ", ".join(self.names(kind)[:20]) or "none"
        raise NotFoundError(
            f"There is no {_TITLES[kind]} {name!r:.80} here{nearest_name(name, known)} Known: {offered}."
        )


def _shipped() -> list[str]:
    above = Path(str(files("muybridge"))) / "demo"
    return [f"demo/{each.name}" for each in sorted(above.iterdir()) if (each / "model_index.json").is_file()]


def shipped_loras() -> list[str]:
    """Names of the LoRAs inside the package."""
    above = Path(str(files("muybridge"))) / "demo" / "loras"
    return [f"demo/{each.stem}" for each in sorted(above.glob("*.safetensors"))]


def _named(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _things(folder, 0):
        relative = path.relative_to(folder)
        bare = (relative.with_suffix("") if path.is_file() else relative).as_posix()
        # Two that differ in their endings only keep them.
        found[relative.as_posix() if bare in found else bare] = str(path)
    return found


def _things(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if any((path / mark).is_file() for mark in _MARKS):
                yield path
            elif depth < _DEEPEST:
                yield from _things(path, depth + 1)
        elif path.suffix.lower() in _WEIGHTS:
            yield path
