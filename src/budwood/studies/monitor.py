"""Who is told how a study goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from budwood.progress import Progress, Silent


@dataclass(frozen=True)
class RowLine:
    """One line of a study's table.

    Attributes:
        label: The row's label.
        state: waiting, training, done, failed, refused or pruned.
        text: Some words, such as the metric or a problem.
    """

    label: str
    state: str
    text: str


class StudyMonitor(Progress, Protocol):
    """The interface of what shows the progress of a study."""

    def show(self, lines: Sequence[RowLine], left: float | None) -> None:
        """Show the table, which has changed.

        Args:
            lines: One line a row, in the order of the study.
            left: Estimated seconds left; None where they are not known yet.
        """

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Show the table while the block runs.

        Args:
            title: The title of the table.
        """
        yield


class SilentMonitor(Silent):
    """A monitor that shows nothing, the default of the Python interface."""

    def show(self, lines: Sequence[RowLine], left: float | None) -> None:
        """Ignore the table.

        Args:
            lines: One line a row.
            left: Estimated seconds left.
        """

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Show nothing while the block runs.

        Args:
            title: The title of the table.
        """
        yield
