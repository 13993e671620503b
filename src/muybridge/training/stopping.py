"""Ctrl-C and SIGTERM as a wish that a loop looks at between two steps, so that neither cuts a step in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether a signal has asked to stop."""

    requested = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM do nothing but set `requested`; afterwards they do what they did before.

    A signal that is ignored stays so, as SIGINT is in the background jobs of a shell. Only the main thread can catch
    signals; in any other nothing changes.
    """
    request = StopRequest()

    def note(*_: object) -> None:
        request.requested = True

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
