"""The time limit of a whole study: what stops the training that is under way when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from budwood.progress import Progress

STOPPED: Final = "stopped by the time limit; the same command goes on with it"


class TimeIsOver(Exception):  # noqa: N818 - it is no error
    """The end of a training for which no time was left."""


class TimedProgress:
    """Progress that ends the work with the first step after a time limit.

    Reading images, computing features and every training step move a bar, so that all of them end in time.
    """

    def __init__(self, progress: Progress, seconds: float) -> None:
        """Start the time.

        Args:
            progress: Receives notes and steps.
            seconds: Seconds from now after which the next step raises `TimeIsOver`.
        """
        self._progress, self._end = progress, time.monotonic() + seconds

    def note(self, sentence: str) -> None:
        """Hand a sentence on.

        Args:
            sentence: The text.
        """
        self._progress.note(sentence)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Hand a bar on.

        Args:
            label: What is being done.
            total: Number of steps of the whole job.

        Yields:
            A function to call with the number of steps completed since its last call; it raises `TimeIsOver`.
        """
        with self._progress.bar(label, total) as step:

            def advance(steps: int) -> None:
                step(steps)
                if time.monotonic() >= self._end:
                    raise TimeIsOver(STOPPED)

            yield advance
