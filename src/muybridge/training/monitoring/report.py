"""A run as one page: curves, sheets of samples, settings, and what is wrong; it needs no network and no script."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from muybridge.errors import ConfigError, OutputError
from muybridge.files.atomic import new_file
from muybridge.training.monitoring.charts import Chart, charts_of
from muybridge.training.monitoring.comparison import flat_settings
from muybridge.training.monitoring.curves import short
from muybridge.training.monitoring.findings import findings
from muybridge.training.monitoring.observing import ObservedTrainer, checked_interval
from muybridge.training.monitoring.page import PAGE
from muybridge.training.monitoring.record import LOG_FILE, REPORT_FILE, Sheet, StageRecord, read_run
from muybridge.training.monitoring.svg import draw_chart, legend
from muybridge.training.monitoring.terminal import lasted

logger = logging.getLogger(__name__)

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_SHEETS = 10
_MOST_BYTES = 16 * 2**20
"""Of pictures in a page; those that find no room are named."""


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into the folder of a run, or of one of its stages, of what lies there now.

    Raises:
        ConfigError: there is no run.
        OutputError: it cannot be written.
    """
    text = report_page(run_folder.resolve().name, read_run(run_folder))
    path = run_folder / REPORT_FILE
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    return path


class ReportFile:
    """An observer that keeps the report of a run up to date; one that cannot be written stops nothing.

    What other observers find at the same step is in the log only afterwards, and so in the next report.
    """

    def __init__(self, run_folder: Path, every: int) -> None:
        """Write it every so many steps.

        Raises:
            ConfigError: `every` is below 1.
        """
        self.every = checked_interval(every)
        self._folder = run_folder

    def observe(self, trainer: ObservedTrainer, step: int) -> dict[str, float]:
        """Write the report of what is there now; it has no values of its own."""
        try:
            if (trainer.folder / LOG_FILE).is_file():
                write_report(self._folder)
        except (ConfigError, OutputError) as error:
            logger.warning("step %d: no report: %s", step, error)
        return {}


def report_page(name: str, records: Sequence[StageRecord]) -> str:
    """The page of a run by the name of `name`."""
    links = "".join(f'<a href="#stage-{n}">{escape(record.name)}</a> ' for n, record in enumerate(records))
    nav = f"<nav>{links}</nav>" if len(records) > 1 else ""
    stages = "".join(_stage(number, record) for number, record in enumerate(records))
    return PAGE.format(title=escape(name), nav=nav, stages=stages)


def _stage(number: int, record: StageRecord) -> str:
    parts = [
        f'<section id="stage-{number}"><h2>{escape(record.name)}</h2>',
        f'<p class="state">{escape(_state(record))}</p>',
        _findings(record),
        '<div class="charts">',
        *(_chart(f"{number}-{place}", chart) for place, chart in enumerate(charts_of(record))),
        "</div>",
        _table_of_losses(record),
        *_sheets(record),
        _settings(record),
        _data_report(record),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _state(record: StageRecord) -> str:
    words = [f"step {record.step}" + (f" of {record.steps}" if record.steps is not None else "")]
    if record.seconds:
        words.append(f"{lasted(record.seconds)} of training")
    if rate := record.steps_a_second:
        words.append(f"{short(rate)} steps a second" if rate >= 1 else f"{short(1 / rate)} seconds a step")
    written = datetime.fromtimestamp((record.folder / LOG_FILE).stat().st_mtime, UTC)
    return ", ".join(words) + f"; last logged {written:%Y-%m-%d %H:%M} UTC"


def _findings(record: StageRecord) -> str:
    found = findings(record)
    if not found:
        return ""
    return f'<ul class="findings">{"".join(f"<li>{escape(each.text)}</li>" for each in found)}</ul>'


def _chart(key: str, chart: Chart) -> str:
    plain = draw_chart(chart.title, chart.lines, False, chart.band)
    if not plain:
        return ""
    shown = f'<div class="linear">{plain}</div>'
    if chart.has_log:
        first, second = ("", " checked") if chart.by_log else (" checked", "")
        shown = (
            f'<input type="radio" name="scale-{key}" id="linear-{key}"{first}><label for="linear-{key}">linear</label>'
            f'<input type="radio" name="scale-{key}" id="log-{key}"{second}><label for="log-{key}">log</label>'
            f'{shown}<div class="log">{draw_chart(chart.title, chart.lines, True, chart.band)}</div>'
        )
    more = f'<p class="note">{chart.left_out} more in {LOG_FILE}.</p>' if chart.left_out else ""
    said = f'<p class="note">{escape(chart.explanation)}</p>' if chart.explanation else ""
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{shown}{legend(chart.lines)}{more}{said}</figure>"


def _table_of_losses(record: StageRecord) -> str:
    """At fixed noise: of held-out clips beside the training clips, or of these alone."""
    held_out, training, gap = (record.group(name) for name in ("held_out_loss", "training_loss", "gap"))
    title, losses, columns = "Held-out loss", held_out, ("training", "gap")
    if not held_out:
        title, losses, columns, training = "Loss of the training clips", training, (), {}
    if not losses:
        return ""
    rows = []
    for name, curve in losses.items():
        first, last = curve.values[0], curve.last
        change = f"{last / first - 1:+.1%}" if first else ""
        cells = [name, short(first), short(last), change]
        if columns:
            cells.append(short(training[name].last) if name in training else "")
            cells.append(f"{gap[name].last:+.1%}" if name in gap else "")
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{each}</th>" for each in ("noise level", "at first", "now", "change", *columns))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h3>{title}</h3><div class="wide">{table}</div>'


def _sheets(record: StageRecord) -> Iterator[str]:
    if not record.sheets:
        return
    yield "<h3>Samples</h3>"
    room, unshown = _MOST_BYTES, []
    newest, *older = reversed(_some(record.sheets))
    for place, sheet in enumerate((newest, *older)):
        picture = _picture(sheet, room)
        if picture is None:
            unshown.append(sheet.path.name)
            continue
        room -= len(picture)
        state = " open" if place == 0 else ""
        yield (
            f"<details{state}><summary>step {sheet.step}</summary>"
            f'<div class="wide"><img alt="{escape(sheet.description, quote=True)}" '
            f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"></div></details>'
        )
    if unshown:
        names = escape(", ".join(unshown))
        yield f'<p class="note">Not shown, for want of room or because they are damaged: {names}.</p>'
    if left := len(record.sheets) - len(older) - 1:
        yield f'<p class="note">{left} more in {escape(record.sheets[0].path.parent.name)}.</p>'


def _some(sheets: Sequence[Sheet]) -> list[Sheet]:
    """The first, the last, and some between them."""
    if len(sheets) <= _MOST_SHEETS:
        return list(sheets)
    places = {round(number * (len(sheets) - 1) / (_MOST_SHEETS - 1)) for number in range(_MOST_SHEETS)}
    return [sheets[place] for place in sorted(places)]


def _picture(sheet: Sheet, room: int) -> bytes | None:
    try:
        content = sheet.path.read_bytes()
    except OSError:  # it may have gone since it was listed
        return None
    return content if content.startswith(_PNG) and len(content) <= room else None


def _settings(record: StageRecord) -> str:
    if not record.settings:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in flat_settings(record.settings).items()
    )
    shown = f'<div class="wide"><table class="settings"><tbody>{rows}</tbody></table></div>'
    return f"<details><summary><h3>Settings</h3></summary>{shown}</details>"


def _data_report(record: StageRecord) -> str:
    return f'<h3>Data</h3><pre class="wide">{escape(record.data_report)}</pre>' if record.data_report else ""
