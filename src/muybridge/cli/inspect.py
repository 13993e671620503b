"""`muybridge inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json


def inspect(
    path: Annotated[Path, typer.Argument(help="A video, a folder of pictures, a weight file or a model folder.")],
    as_json: Json = False,
) -> None:
    """Show what a file is: a video and the request inside it, or weights, what they fit and how they are run."""
    from muybridge.service.inspection import inspect_path

    found = inspect_path(path)
    if as_json:
        print_json(found)
    elif found["kind"] == "video":
        _show_video(found)
    else:
        _show_weights(found)


def _show_video(found: dict[str, Any]) -> None:
    size = f"{found['width']}x{found['height']}"
    output.print(f"{found['path']}: {found['num_frames']} frames, {size}, {found['fps']:g} fps")
    if traits := _traits(found["in_file"]):
        output.print(f"  in the file: {', '.join(traits)}")
    if found["request"] is None:
        output.print("  no request inside")
        return
    import yaml

    # As `generate --request` reads it.
    shown = yaml.safe_dump(found["request"], sort_keys=False, allow_unicode=True, width=100)
    output.print(shown.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _traits(found: dict[str, Any]) -> list[str]:
    said = {
        "frames stay for different times": found["is_variable_rate"],
        f"turned by {found['rotation']} degrees": found["rotation"],
        "mirrored": found["is_mirrored"],
        f"pixels {found['pixel_aspect']:.4g} times as wide as high": found["pixel_aspect"] != 1,
        "with a channel for transparency": found["has_alpha"],
        "interlaced": found["is_interlaced"],
        f"high dynamic range ({found['high_range']})": found["high_range"],
    }
    return [text for text, holds in said.items() if holds]


def _show_weights(found: dict[str, Any]) -> None:
    output.print(f"{found['path']}: {found['variant']} ({found['kind']})")
    if len(found.get("candidates", [])) > 1:
        others = ", ".join(found["candidates"][1:])
        by = {"guess": "the likeliest", "file name": "by its file name"}.get(found["decided_by"], found["decided_by"])
        output.print(f"  {by}; keys and shapes would also fit {others}")
    if "layout" in found:
        output.print(f"  names of {found['layout']}")
    if prediction := found.get("prediction"):
        start = " from pure noise on" if prediction["zero_snr"] else ""
        output.print(f"  predicts {prediction['type']}{start} (said by {prediction['said_by']})")
    for note in found["notes"]:
        output.print(f"  {note}")
    for name, part in found.get("parts", {}).items():
        said = [str(value) for key, value in part.items() if value is not None and key != "settings"]
        said += [f"{key} {value}" for key, value in part.get("settings", {}).items()]
        output.print(f"  {name}: " + ", ".join(said))
    if found.get("settings"):
        output.print("  run with " + ", ".join(f"{name} {value}" for name, value in found["settings"].items()))
    if "num_tensors" in found:
        dtypes = ", ".join(f"{count} {name}" for name, count in found["dtypes"].items())
        output.print(f"  {found['num_tensors']} tensors ({dtypes}), {found['num_parameters'] / 1e6:.1f} M numbers")
    output.print(f"  {found['size_bytes'] / 2**20:.1f} MiB")
    if broken := found.get("non_finite"):
        output.print(f"  DAMAGED: {len(broken)} tensors hold NaN or infinite values, first {', '.join(broken[:3])}")
