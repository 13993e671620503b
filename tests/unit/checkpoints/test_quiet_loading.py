"""What the libraries say while models are read."""

from __future__ import annotations

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from muybridge.checkpoints.quiet_loading import quiet_loading


def test_libraries_are_silent_only_while_loading():
    before = [
        (each.get_verbosity(), each.is_progress_bar_enabled()) for each in (diffusers_logging, transformers_logging)
    ]

    with quiet_loading():
        for each in (diffusers_logging, transformers_logging):
            assert not each.is_progress_bar_enabled()
            assert each.get_verbosity() == each.ERROR

    after = [
        (each.get_verbosity(), each.is_progress_bar_enabled()) for each in (diffusers_logging, transformers_logging)
    ]
    assert after == before
