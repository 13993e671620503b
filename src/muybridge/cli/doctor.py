"""`muybridge doctor`: what this machine has, on one screen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json


def doctor(
    ask_hub: Annotated[bool, typer.Option("--hub/--no-hub", help="See whether the Hugging Face hub answers.")] = True,
    as_json: Json = False,
) -> None:
    """Show what this machine has and what it should use; the first thing to paste into a bug report."""
    from muybridge.service.doctor import examine

    found = examine(ask_hub)
    if as_json:
        print_json({**found.facts, "advice": found.advice, "problems": found.problems})
        return
    for name, line in _lines(found.facts):
        output.print(f"{name:<11}{line}")
    output.print(f"{'use':<11}" + ", ".join(f"{name} {value}" for name, value in found.advice.items()))
    for problem in found.problems:
        output.print(f"{'!':<11}{problem}")


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    system, processor, torch = facts["system"], facts["processor"], facts["torch"]
    cards = [
        (card["device"], f"{card['name']}, {_memory(card)}multiplies {', '.join(card['multiplies'])}")
        for card in facts["cards"]
    ]
    extras = [name for name, there in (("oneDNN", torch["onednn"]), ("torchao", torch["torchao"])) if there]
    hub = facts["hub"]
    return [
        ("muybridge", f"{system['muybridge']}, Python {system['python']}, {system['system']}"),
        ("processor", f"{processor['name']}, {processor['cores']} cores, {processor['instructions']}"),
        ("", f"{_memory(processor)}multiplies {', '.join(processor['multiplies'])} itself"),
        *(cards or [("card", "none")]),
        (
            "torch",
            ", ".join([torch["version"], torch["build"], f"{processor['threads']} threads", *extras])
            + ("; can compile" if torch["compiles"] else "; cannot compile"),
        ),
        ("video", f"writes {', '.join(facts['video']['writes'])}; reads {', '.join(facts['video']['reads'])}"),
        ("cache", f"{facts['space']['cache']}, {facts['space']['free_bytes'] / 1e9:.0f} GB free"),
        ("hub", f"{hub['address']} {hub['state']}" + (f" ({hub['reason']})" if hub["reason"] else "")),
        ("versions", _versions(facts["versions"])),
    ]


def _memory(place: dict[str, Any]) -> str:
    if "memory_bytes" not in place:
        return ""
    return f"{place['free_memory_bytes'] / 1e9:.1f} of {place['memory_bytes'] / 1e9:.1f} GB free, "


def _versions(versions: dict[str, dict[str, Any]]) -> str:
    differing = [
        f"{name} {each['installed'] or 'missing'} (tested: {each['tested']})"
        for name, each in versions.items()
        if each["tested"] and (each["installed"] or "").partition("+")[0] != each["tested"]
    ]
    if not differing:
        return "all as tested"
    return f"{', '.join(differing)}; the other {len(versions) - len(differing)} as tested"
