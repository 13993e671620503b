"""The process behind `Planner`: `python -m muybridge.jobs.planner_process DEVICE`; a line in, a line out."""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from dataclasses import asdict
from typing import Any

from muybridge.errors import MuybridgeError
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.failures import failure_of
from muybridge.jobs.files import FileStore
from muybridge.jobs.line_process import answers
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.jobs.resolving import resolved
from muybridge.types import SettingsDict, SettingsView

_log = logging.getLogger(__name__)


def answer(document: SettingsView, catalog: Catalog, files: FileStore, engine: Any) -> SettingsDict:
    """The cost of a request, or `error` with why it cannot be carried out."""
    names = {}
    try:
        found = resolved(document, catalog, files)
        names = found.names
        return asdict(engine.cost(found.request, found.open()))
    except MuybridgeError as error:
        return {"error": failure_of(error, names).message}
    except Exception as error:  # the next question is another one
        _log.exception("The cost of a request could not be told")
        return {"error": failure_of(error, names).message}


def main() -> None:
    """Answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to all of a terminal; the server ends this one
    from muybridge.service.engine import Engine

    logging.basicConfig(level=logging.WARNING)
    warnings.simplefilter("ignore")
    settings = ServiceSettings.from_line(sys.stdin.readline())
    catalog, files = settings.open_catalog(), settings.open_files()
    engine = Engine(sys.argv[1] or None)
    stream = answers()
    for line in sys.stdin:
        stream.write(json.dumps(answer(json.loads(line), catalog, files, engine)) + "\n")
        stream.flush()


if __name__ == "__main__":
    main()
