"""`muybridge data`: from raw videos to a set for training, and looks at such sets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import Json, errors, output, print_json
from muybridge.cli.flags import Flag, plain_flags, with_flags
from muybridge.errors import ConfigError
from muybridge.types import SettingsView

if TYPE_CHECKING:
    from muybridge.data.preparation.account import Account
    from muybridge.data.preparation.inputs import Part
    from muybridge.data.preparation.prepare import PrepareSettings
    from muybridge.data.preparation.report.contents import Wanted
    from muybridge.data.preparation.status import Outcome

app = typer.Typer(no_args_is_help=True, help="Make a set for training out of raw videos, and look at such sets.")

_RUNNING = "How it is run"
_WORKERS = Flag("workers", "workers", int, "Processes; one for each processor if not given.", None, _RUNNING, least=1)
_FORMAT = Flag(
    "format",
    "read_as",
    str,
    "The format of the set, if it is taken for another; a wrong name shows all.",
    "NAME",
)
_PREPARE_FLAGS = (
    Flag(
        "recipe",
        "recipe",
        str,
        "What is done: quick (the default), another one of `muybridge data stages`, or a YAML file.",
        "NAME|FILE",
    ),
    Flag("set", "changes", list[str], "Change a setting, or leave a stage out.", "STAGE.OPTION=VALUE|STAGE=off"),
    Flag(
        "write-clips",
        "write_clips",
        bool,
        "Write what is kept as files, if it can be without loss: --set write.clips=copy.",
    ),
    Flag("encode", "encode", bool, "Write them encoded anew, to the frame: --set write.clips=encode."),
    _FORMAT,
    _WORKERS,
    Flag("shard", "shard", str, "Only this part, as on one of four machines.", "1/4", _RUNNING),
    Flag("engine", "engine", str, "pool (the default), serial, or ray.", "pool|serial|ray", _RUNNING),
    Flag("ray-address", "ray_address", str, "Of a cluster, with --engine ray.", None, _RUNNING),
    Flag("retry", "retry", bool, "Try again what crashed or took too long before.", None, _RUNNING),
    Flag("timeout", "timeout", float, "Seconds of a stage for a clip, and 4 for each that it lasts.", None, _RUNNING),
    Flag("worker-memory", "worker_memory", float, "GB that a process may have.", None, _RUNNING),
)

Prepared = Annotated[Path, typer.Argument(help="A folder that a set was prepared into.")]


@app.command()
@with_flags(_PREPARE_FLAGS)
def prepare(
    raw: Annotated[Path, typer.Argument(help="A folder of videos, or a set in any format that can be read.")],
    out: Annotated[Path, typer.Argument(help="A folder for the set; that of before, to go on or to change settings.")],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Split, filter and describe videos, and list what is kept; the same command goes on after an interruption.

    Exit code 2 where nothing is kept.
    """
    from muybridge.cli.data_progress import PreparationProgress
    from muybridge.data.preparation import prepare as preparing
    from muybridge.data.preparation.recipe import Recipe
    from muybridge.data.record import shown

    asked = plain_flags(given)
    recipe = Recipe.load(asked.get("recipe", "quick"), (*_writing(asked), *asked.get("changes", ())))
    for stage, reason in recipe.idle.items():
        errors.print(f"without {stage}: {reason}")
    settings = _settings(asked)
    if settings.ray_address is not None and settings.engine == "ray":
        errors.print(f"connecting to the cluster {settings.ray_address} ...")
    progress = PreparationProgress(errors)
    watching = preparing.Watching(progress.on_file, progress.on_advance)
    try:
        account = preparing.prepare(raw, out, recipe, settings, watching, asked.get("read_as"))
    except KeyboardInterrupt:
        progress.close()
        errors.print("what is done is kept; the same command goes on from here")
        raise
    finally:
        progress.close()
    if account is None:
        said = f"part {asked['shard']} is done; when all are, the same command without --shard puts them together"
        print_json({"part": asked["shard"]}) if as_json else output.print(said)
        return
    _write_report(account, None)
    _show_account(account, as_json)
    if not account.kept:
        errors.print(f"nothing is kept of {shown(str(raw))}: dropped.jsonl and report.html beside the list say why")
        raise typer.Exit(2)


def _writing(asked: SettingsView) -> list[str]:
    """What is changed of the recipe by the flags that say how clips are written."""
    ways = {"write_clips": "copy", "encode": "encode"}
    given = [way for name, way in ways.items() if asked.get(name)]
    if len(given) > 1:
        raise ConfigError("--write-clips copies what --encode encodes anew; give one of them.")
    return [f"write.clips={way}" for way in given]


def _settings(asked: SettingsView) -> PrepareSettings:
    from muybridge.data.preparation.engine.job import Limits
    from muybridge.data.preparation.prepare import ENGINES, PrepareSettings

    engine = asked.get("engine", "pool")
    if engine not in ENGINES:
        raise ConfigError(f"--engine is one of {', '.join(ENGINES)}; given {engine!r}.")
    for name in ("timeout", "worker_memory"):
        if name in asked and not 0 < asked[name] < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')} must be a number above 0; given {asked[name]:g}.")
    if engine == "serial" and (
        given := [f"--{n.replace('_', '-')}" for n in ("timeout", "worker_memory") if n in asked]
    ):
        raise ConfigError(f"{' and '.join(given)} is for processes that are watched; leave it out, or --engine serial.")
    memory = asked.get("worker_memory")
    return PrepareSettings(
        engine=engine,
        workers=asked.get("workers"),
        part=_part(asked["shard"]) if "shard" in asked else None,
        retry=asked.get("retry", False),
        limits=Limits(asked["timeout"]) if "timeout" in asked else Limits(),
        memory_bytes=None if memory is None else int(memory * 1e9),
        ray_address=asked.get("ray_address"),
    )


def _part(text: str) -> Part:
    from muybridge.data.preparation.inputs import Part

    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--shard is which part of how many, as in 1/4; given {text!r}.")
    return Part(int(found[1]), int(found[2]))


def _show_account(account: Account, as_json: bool) -> None:
    if as_json:
        print_json(account.to_json())
        return
    output.print(f"{account}")
    output.print(f"{account.folder / 'manifest.jsonl'}")


@app.command()
@with_flags((_FORMAT, _WORKERS))
def probe(
    path: Annotated[Path, typer.Argument(help="A video, a folder of them, or a set.")],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Show what files hold, and which cannot be used; exit code 2 if none can."""
    from muybridge.data.preparation.prepare import PrepareSettings, probe_set

    outcomes = probe_set(path, PrepareSettings(workers=given["workers"]), given["read_as"])
    if as_json:
        print_json({"files": [outcome.to_json() for outcome in outcomes]})
    else:
        for outcome in outcomes:
            output.print(_probed(outcome))
    if not any(outcome.status == "ok" for outcome in outcomes):
        raise typer.Exit(2)


def _probed(outcome: Outcome) -> str:
    from muybridge.data.preparation.account import shown_name
    from muybridge.data.record import Record, shown

    name = shown_name(outcome)
    if outcome.status != "ok":
        return f"{name}: {outcome.rule}: {shown(outcome.reason or '')}"
    record = Record.from_json(outcome.record_json)
    parts = [f"{record.width}x{record.height}"]
    if record.kind == "video":
        parts += [f"{record.duration_s:.2f} s", f"{record.frames} frames", f"{record.fps:g} fps"]
    noted = [f"{key} {value}" for key, value in record.extra.items() if key not in ("duration", "packed")]
    return f"{name}: {', '.join((*parts, *noted))}"


@app.command()
def report(
    out: Prepared,
    model: Annotated[
        str | None,
        typer.Option("--for", metavar="MODEL|WxHxF", help="Whose sizes the clips are sorted by: a model, or a size."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what became of a set that was prepared, and write report.html and report.json with pictures and figures."""
    from muybridge.data.preparation.account import Account

    account = Account.read(out)
    _write_report(account, None if model is None else _wanted_of(model))
    _show_account(account, as_json)


def _wanted_of(model: str) -> Wanted:
    from muybridge.data.preparation.report.contents import Wanted
    from muybridge.types import VideoShape

    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", model)
    if found is not None:
        width, height, frames = map(int, found.groups())
        if min(width, height, frames) < 1:
            raise ConfigError(f"--for takes WIDTHxHEIGHTxFRAMES from 1 on, or a model; given {model!r}.")
        return Wanted(VideoShape(frames, height, width))
    from muybridge.pipelines.wishes import wishes_of

    wishes = wishes_of(model)
    planning = wishes.family.planning
    shape = planning.skeleton(wishes).shape
    if planning.facts is None:
        return Wanted(shape)
    usual = planning.facts(wishes).usual
    return Wanted(shape, usual.fps, usual.multiple)


def _write_report(account: Account, wanted: Wanted | None) -> None:
    from muybridge.data.preparation.report.report import write_report

    errors.print(f"report: {write_report(account, account.folder, wanted)}")


@app.command()
def show(
    out: Prepared,
    record_id: Annotated[str, typer.Argument(metavar="ID", help="Of a clip, or how it begins.")],
    as_json: Json = False,
) -> None:
    """Show all that is known of a clip, kept or not."""
    import yaml

    from muybridge.data.preparation.account import Account, shown_name
    from muybridge.data.record import shown

    found = Account.read(out).of_id(record_id) if record_id else []
    if not found:
        raise ConfigError(f"{out} has no clip whose id begins with {record_id!r}. They stand in its lists.")
    if as_json:
        print_json({"clips": [outcome.to_json() for outcome in found]})
        return
    for outcome in found:
        why = f": {outcome.rule}: {shown(outcome.reason or '')}" if outcome.rule else ""
        output.print(f"{shown_name(outcome)}\n  {outcome.status}{why}")
        for verdict in outcome.verdicts[1:]:
            output.print(f"  also {verdict.rule}: {shown(verdict.reason)}")
        text = yaml.safe_dump(outcome.record_json, sort_keys=False, allow_unicode=False)
        output.print("".join(f"  {line}\n" for line in text.splitlines()), end="")


@app.command()
def stages(as_json: Json = False) -> None:
    """Show the recipes, and every stage with its settings, what they are, and their defaults."""
    from muybridge.data.preparation.recipe import Recipe, recipe_names
    from muybridge.data.preparation.stage import stage_kinds

    recipes = {name: Recipe.load(name) for name in recipe_names()}
    kinds = stage_kinds()
    if as_json:
        settings = {name: kind.Settings.model_json_schema()["properties"] for name, kind in kinds.items()}
        print_json({"recipes": {name: each.settings() for name, each in recipes.items()}, "stages": settings})
        return
    for name, each in recipes.items():
        output.print(f"{name}: {', '.join((*(stage.name for stage in each.stages), *each.idle))}")
    for name, kind in sorted(kinds.items()):
        output.print(f"\n{name}: {_first_paragraph(kind.__doc__)}")
        for setting, field in kind.Settings.model_fields.items():
            default = "" if field.default is None else f" = {_yaml(field.default)}"
            output.print(f"  {name}.{setting}{default}\n    {' '.join((field.description or '').split())}")


def _first_paragraph(text: str | None) -> str:
    """Up to the first empty line of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@app.command()
@with_flags((_FORMAT,))
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A set in any format that can be read.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A list or folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            help="videofolder (metadata.jsonl and the files), webdataset (tar files), manifest (this program's list), "
            "or the list of another program by its name."
        ),
    ],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write a set in another format; files that are left out are named."""
    from muybridge.data.readers import read_dataset
    from muybridge.data.writers import WRITERS

    if to not in WRITERS:
        raise ConfigError(f"--to is one of {', '.join(WRITERS)}; given {to!r}.")
    found = read_dataset(source, given["read_as"])
    if not found.records:
        raise ConfigError(f"There is no record in {source} that could be written.")
    try:
        WRITERS[to](found.records, target)
    except ConfigError as error:
        raise ConfigError(f"{error} Preparing the set with --write-clips writes clips.") from error
    if as_json:
        refusals = [vars(refusal) for refusal in found.refusals]
        print_json({"path": str(target), "from": found.format, "records": len(found.records), "refusals": refusals})
        return
    for refusal in found.refusals:
        errors.print(f"left out: {refusal}")
    output.print(f"{target}: {len(found.records)} records of {found.format}")
