"""Ctrl-C while there is nothing to clean up: the process is gone at once, with status 130 and nothing said.

Loading the libraries takes a second, and an interrupt in the midst of it would show their insides.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C ends the process; where it was ignored or has another meaning, it keeps that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def was_interrupted(ended: BaseException | None) -> bool:
    """True if Ctrl-C stands behind it: whoever asks for a password makes an ordinary failure of it."""
    while ended is not None and not isinstance(ended, KeyboardInterrupt):
        ended = ended.__context__
    return ended is not None


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
