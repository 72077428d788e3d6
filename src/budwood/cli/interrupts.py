"""Ctrl-C ends a command once, with one message, however often it is pressed."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final

PATIENCE: Final = 5.0  # seconds in which a command that was interrupted may tidy up


def heed_interrupts(patience: float = PATIENCE) -> None:
    """Let Ctrl-C interrupt this process; what follows at once is ignored, so that it does not stop the tidying up.

    Nothing is changed where the process ignores Ctrl-C, as one that a shell has put into the background does.

    Args:
        patience: Seconds after an interruption until the next is heeded.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    heeded = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal heeded
        if time.monotonic() - heeded > patience:
            heeded = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C from here on: while Python ends, it would end the process at once, with another exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
