"""Text that can be written."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8; what JSON escapes as half of a letter cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
