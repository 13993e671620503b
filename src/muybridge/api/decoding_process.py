"""The process behind `DecodingProcess`: `python -m muybridge.api.decoding_process`; a line in, a line out."""

from __future__ import annotations

import logging
import signal
import sys

from muybridge.api.decoding import DecoderHere, answer
from muybridge.jobs.line_process import answers

_FILES = 50
"""After which it ends, and another is started: what decoders do not give back of memory goes with it."""


def main() -> None:
    """Answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to all of a terminal; the server ends this one
    logging.basicConfig(level=logging.WARNING)
    decoder, stream = DecoderHere(), answers()
    for count, line in enumerate(sys.stdin, 1):
        stream.write(answer(line, decoder) + "\n")
        stream.flush()
        if count == _FILES:
            return


if __name__ == "__main__":
    main()
