"""The time that a training has taken and may take."""

from __future__ import annotations

import time
from typing import Final

SAVING_SECONDS: Final = 3.0  # kept back from a limited time for writing the run and its report
WRITING: Final = 1e8  # bytes a second that a disk writes at least, where it was not measured


class Clock:
    """The seconds of a training, those before an interruption included, and its time budget.

    Attributes:
        budget: Seconds that training may take in all; None: as many as it takes.
    """

    def __init__(self, spent: float, budget: float | None) -> None:
        """Start the clock.

        Args:
            spent: Seconds of training before an interruption.
            budget: Seconds that training may take in all; None: as many as it takes.
        """
        self._spent, self.budget, self._started = spent, budget, time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds spent so far."""
        return self._spent + time.monotonic() - self._started

    def is_over(self, reserve: float) -> bool:
        """Return whether no more than some seconds are left.

        Args:
            reserve: Seconds that must stay free, for the evaluation.

        Returns:
            Whether the time is over; never without a budget.
        """
        return self.budget is not None and self.seconds + reserve >= self.budget

    def epochs(self, done: float, wanted: float, reserve: float) -> float:
        """Estimate how many epochs there will be.

        Args:
            done: Epochs that are done, fractional.
            wanted: Epochs that the recipe asks for; may be infinite.
            reserve: Seconds that must stay free, for the evaluation.

        Returns:
            As many as wanted, or fewer where the budget will not do for them at the speed so far.
        """
        if self.budget is None or not done:
            return wanted
        return min(wanted, done * max((self.budget - reserve) / self.seconds, 1.0))
