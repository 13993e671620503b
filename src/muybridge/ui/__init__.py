"""The web page: static files that use the public HTTP API and nothing else."""

from __future__ import annotations

from pathlib import Path


def page_folder() -> Path:
    """The folder of the page's files, to be served at the root of the API; links inside it are relative."""
    return Path(__file__).with_name("page")
