"""A study while it runs, as a live table on a terminal, or as one line a row in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from budwood.studies.monitor import RowLine
from budwood.text import format_seconds

if TYPE_CHECKING:
    from rich.table import Table

SHOWN: Final = 24  # lines of the live table; the rows around the one that is being trained
COLOURS: Final = {"done": "green", "failed": "red", "refused": "yellow", "pruned": "yellow", "training": "cyan"}


class LiveTable:
    """A live table of a study on stderr; where that is not a terminal, each row is logged once when it ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._title = ""
        self._doing = ""
        self._lines: Sequence[RowLine] = ()
        self._left: float | None = None
        self._logged: set[tuple[str, str]] = set()

    def note(self, sentence: str) -> None:
        """Print one sentence above the table.

        Args:
            sentence: The sentence.
        """
        self._console.print(sentence, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show below the table what is being done for the current row.

        Args:
            label: A word or two for the work.
            total: Number of steps.

        Yields:
            A function that takes the number of further steps that are done.
        """
        done = 0

        def step(steps: int) -> None:
            nonlocal done
            done += steps
            self._doing = f"{label}: {done:,} of {total:,}"
            self._draw()

        yield step
        self._doing = ""

    def show(self, lines: Sequence[RowLine], left: float | None) -> None:
        """Show the table.

        Args:
            lines: One line a row, in the order of the study.
            left: Estimated seconds left; None where they are not known yet.
        """
        self._lines, self._left = lines, left
        for line in lines:
            if line.state not in ("waiting", "training") and (line.label, line.state) not in self._logged:
                self._logged.add((line.label, line.state))
                if not self._console.is_terminal:
                    self.note(f"{line.state:>8}  {line.label}  {line.text}")
        self._draw()

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Show the table while the block runs.

        Args:
            title: The title of the table.
        """
        self._title = title
        if not self._console.is_terminal:
            yield
            return
        with self._live:
            yield

    def _draw(self) -> None:
        if self._console.is_terminal:
            self._live.update(self._table())

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        ended = sum(line.state not in ("waiting", "training") for line in self._lines)
        left = f", about {format_seconds(self._left)} left" if self._left is not None else ""
        table = Table(title=f"{self._title}: {ended} of {len(self._lines)}{left}", caption=self._doing or None)
        for name in ("row", "state", ""):
            table.add_column(name)
        for line in choose_visible_lines(self._lines):
            table.add_row(Text(line.label), Text(line.state, COLOURS.get(line.state, "")), Text(line.text))
        return table


def choose_visible_lines(lines: Sequence[RowLine]) -> Sequence[RowLine]:
    """Choose the lines of a long table to show: those around the last one that has started.

    Args:
        lines: All lines.

    Returns:
        At most 24 neighbouring lines.
    """
    if len(lines) <= SHOWN:
        return lines
    begun = max((place for place, line in enumerate(lines) if line.state != "waiting"), default=0)
    start = min(max(begun - SHOWN * 2 // 3, 0), len(lines) - SHOWN)
    return lines[start : start + SHOWN]
