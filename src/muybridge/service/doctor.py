"""What this machine is and has, as far as it decides how videos are made here."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import socket
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from muybridge.processor import fast_half, multiplies
from muybridge.types import SettingsDict
from muybridge.version import __version__

_HUB_SECONDS = 4.0
_NO_ADDRESS = "HF_ENDPOINT is no address of the web"
_CODECS = {"H.264": "h264", "H.265": "hevc", "VP9": "vp9", "AV1": "av1", "ProRes": "prores"}
_LITTLE_SPACE = 20 * 10**9
"""Less than a published model of the larger kind takes."""
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        facts: by subject, plain values for machines.
        advice: what this machine should use, by name of the setting.
        problems: what stands in the way of something, each with what to do.
    """

    facts: SettingsDict
    advice: dict[str, str]
    problems: list[str]


def examine(ask_hub: bool = True) -> Examination:
    """Look at this machine; takes a second or two, or a few more where the hub does not answer.

    Args:
        ask_hub: whether to see if the Hugging Face hub answers; nothing is sent there but the question.
    """
    facts = {
        "system": _system(),
        "processor": _processor(),
        "torch": _torch(),
        "cards": _cards(),
        "video": _video(),
        "space": _space(),
        "hub": _hub(ask_hub),
        "versions": _versions(),
    }
    return Examination(facts, _advice(facts), _problems(facts))


def _system() -> SettingsDict:
    return {
        "muybridge": __version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
    }


def _processor() -> SettingsDict:
    memory = psutil.virtual_memory()
    return {
        "name": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "multiplies": ["float32", *(name for name, dtype in _HALVES.items() if multiplies(dtype))],
        "memory_bytes": memory.total,
        "free_memory_bytes": memory.available,
    }


def _processor_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _torch() -> SettingsDict:
    cuda, hip = torch.version.cuda, torch.version.hip
    return {
        "version": torch.__version__,
        "build": f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "CPU only",
        "onednn": torch.backends.mkldnn.is_available(),
        "compiles": _compiler() is not None,
        "torchao": importlib.util.find_spec("torchao") is not None,
    }


def _compiler() -> str | None:
    if torch.cuda.is_available():
        return "triton" if importlib.util.find_spec("triton") is not None else None
    return shutil.which("g++") or shutil.which("clang++")


def _cards() -> list[SettingsDict]:
    if torch.cuda.is_available():
        return [_card(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [{"name": "Apple GPU", "device": "mps", "multiplies": ["float32", "float16"]}]
    return []


def _card(index: int) -> SettingsDict:
    properties = torch.cuda.get_device_properties(index)
    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info()
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    capability = (properties.major, properties.minor)
    return {
        "name": properties.name,
        "device": f"cuda:{index}",
        "capability": ".".join(map(str, capability)),
        "memory_bytes": total,
        "free_memory_bytes": free,
        "multiplies": [
            "float32",
            "float16",
            *(["bfloat16"] if is_native else []),
            *(["float8"] if torch.version.cuda and capability >= (8, 9) else []),
        ],
    }


def _video() -> SettingsDict:
    import av

    known = av.codecs_available
    return {
        "pyav": av.__version__,
        "writes": [*(["mp4"] if "libx264" in known else []), "gif", "webp", "png"],
        "reads": [name for name, codec in _CODECS.items() if codec in known],
    }


def _space() -> SettingsDict:
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"cache": HF_HUB_CACHE, "free_bytes": shutil.disk_usage(_existing(Path(HF_HUB_CACHE))).free}


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())


def _hub(ask: bool) -> SettingsDict:
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    if is_offline_mode():
        return {"address": ENDPOINT, "state": "offline", "reason": "HF_HUB_OFFLINE is set"}
    if not ask:
        return {"address": ENDPOINT, "state": "not asked", "reason": None}
    if not ENDPOINT.startswith(("https://", "http://")):
        return {"address": ENDPOINT, "state": "not reachable", "reason": _NO_ADDRESS}
    try:
        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=_HUB_SECONDS):  # checked above
            return {"address": ENDPOINT, "state": "reachable", "reason": None}
    except HTTPError as error:  # it answers, if only to say no
        return {"address": ENDPOINT, "state": "reachable", "reason": f"status {error.code}"}
    except (OSError, HTTPException, ValueError) as error:
        return {"address": ENDPOINT, "state": "not reachable", "reason": _reason(getattr(error, "reason", error))}


def _reason(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known here"
    if isinstance(error, TimeoutError):
        return f"no answer within {_HUB_SECONDS:g} seconds"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(error, (str, InvalidURL, ValueError)):  # found before anything is sent, as "no host given"
        return _NO_ADDRESS
    if isinstance(error, HTTPException) and not isinstance(error, OSError):
        return "its answer is not one of the web"
    return type(error).__name__


def _versions() -> SettingsDict:
    """Of everything this package itself asks for: what is installed, and what was tested."""
    tested = tested_versions()
    found = {}
    for name in sorted(_asked_for()):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        found[name] = {"installed": installed, "tested": tested.get(name)}
    return found


def tested_versions() -> dict[str, str]:
    """The versions this package is tested with, by name in lower case."""
    lines = (files("muybridge") / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {name.strip().lower(): version.strip() for name, version in pinned}


def _asked_for() -> set[str]:
    asked = [Requirement(text) for text in metadata.requires("muybridge") or []]
    return {each.name.lower() for each in asked if each.marker is None or "extra" not in str(each.marker)}


def _advice(facts: SettingsDict) -> dict[str, str]:
    cards = facts["cards"]
    device = torch.device(cards[0]["device"] if cards else "cpu")
    half = fast_half(device)
    precision = "float32" if half is None else str(half).removeprefix("torch.")
    if device.type != "cpu" and half is None:
        precision = "float16"
    if device.type == "cpu":
        precision = "float32 (exact)" if half is None else f"float32 (exact) or {precision} (faster, half the memory)"
    return {
        "device": str(device),
        "precision": precision,
        "mixed_precision in training": "no" if half is None else "bf16",
    }


def _problems(facts: SettingsDict) -> list[str]:
    problems = []
    if facts["torch"]["build"] == "CPU only" and shutil.which("nvidia-smi"):
        problems.append(
            "There seems to be an NVIDIA card, but this torch is built without CUDA: install one from pytorch.org."
        )
    elif facts["torch"]["build"] != "CPU only" and not facts["cards"]:
        problems.append("This torch is built for cards, but finds none: check the driver with nvidia-smi or rocminfo.")
    if "mp4" not in facts["video"]["writes"]:
        problems.append("PyAV has no H.264 encoder here: save as .webp, .gif or .png, or install av from PyPI.")
    if (free := facts["space"]["free_bytes"]) < _LITTLE_SPACE:
        problems.append(
            f"Only {free / 1e9:.1f} GB are free for downloads; a published model takes up to 20. Make room, or set "
            "HF_HOME to another disk."
        )
    if facts["hub"]["state"] == "not reachable":
        problems.append("The hub does not answer: models must lie here, or be in its cache. Check the connection.")
    for name, each in facts["versions"].items():
        if each["installed"] is None:
            problems.append(f"{name} is missing: pip install --force-reinstall muybridge.")
        elif each["tested"] and _release(each["installed"]) < _release(each["tested"]):
            problems.append(
                f"{name} {each['installed']} is older than {each['tested']}, with which this version is tested: if "
                f"something fails, pip install -U {name}."
            )
    return problems


def _release(version: str) -> tuple[int, ...]:
    return Version(version).release
