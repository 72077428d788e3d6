"""What a search for the best network prints: its plan, and what it has found, as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.text import format_table, shorten, show_unprintable

if TYPE_CHECKING:
    from budwood.runs.ladder_record import Figure, LadderRecord, PlannedRow, RungRecord
    from budwood.runs.run import Run

COLUMNS: Final = 100  # of a terminal that all lines fit into
CANDIDATES: Final = 7  # rows of the table at most, unless there are more rungs
NAMES: Final = 34  # columns of a candidate's name
WHAT: Final = 40  # columns of what a row of the plan tries
GAIN: Final = 26  # columns of a typical gain
Row = tuple[str, ...]


def show_ladder(run: Run) -> None:
    """Print how a run was found: what was tried on each rung, what each gave, and what more time would likely give.

    Args:
        run: The run; nothing is printed where its recipe was given.
    """
    from budwood.reporting.commands import write_longer_command
    from budwood.reporting.ladder_text import count_candidates, describe_time

    ladder = run.record.ladder
    if ladder is None:
        return
    rows, left = _list_rows(ladder)
    print(format_table([("rung", "tried", "held-out accuracy", "n", "time", "result"), *rows], right=(3, 4)))
    more = f"; {left} more in the report" if left else ""
    ended = " until it was interrupted" if ladder.interrupted else ""
    _print_wrapped(f"The search {describe_time(ladder)}{ended}: {count_candidates(ladder)}{more}.")
    for rung in ladder.rungs:
        if told := _describe_outcome(rung):
            _print_wrapped(told)
    if ladder.best != run.record.id:
        _print_wrapped(f"This run is not the one that was chosen: that is {ladder.best}.")
    if ladder.advice:
        _print_wrapped(ladder.advice)
    if command := write_longer_command(run.record, None if run.path.parent == Path("runs") else run.path.parent):
        print(f"  {command}")


def show_ladder_plan(rows: Sequence[PlannedRow], budget: float, notes: Sequence[str]) -> None:
    """Print what a search would try, without training anything.

    Args:
        rows: What it would try, in order.
        budget: Seconds that the whole command is given.
        notes: Sentences that follow, such as what the times were measured on.
    """
    from budwood.comparison.published_text import format_clock

    table = [
        (
            row.rung,
            shorten(show_unprintable(row.what), WHAT),
            format_clock(row.seconds),
            shorten(row.gain, GAIN),
            "yes" if row.fits else "no",
        )
        for row in rows
    ]
    print(format_table([("rung", "what", "about", "typical gain", "fits"), *table], right=(2,)))
    for note in notes:
        _print_wrapped(note)
    print(f"The time for all of it is {format_clock(budget)}. Nothing was trained.")


def _list_rows(ladder: LadderRecord) -> tuple[list[Row], int]:
    """The rows of all rungs, and how many candidates were left out to keep the table short."""
    from budwood.reporting.ladder_text import describe_rung_state

    most = max(CANDIDATES - sum(max(1, len(rung.candidates)) for rung in ladder.rungs[1:]), 3)
    rows: list[Row] = []
    left = 0
    for number, rung in enumerate(ladder.rungs):
        listed = _list_once(ladder.rungs, number)
        shown = _pick_candidates(rung, listed, most)
        left += len(listed) - len(shown)
        cells = [line for place in shown for line in _format_rows(ladder, rung, place)]
        cells = cells or [("–", "–", "", "", describe_rung_state(ladder, rung))]
        rows += [("" if row else rung.name, *line) for row, line in enumerate(cells)]
    return rows, left


def _list_once(rungs: Sequence[RungRecord], number: int) -> list[int]:
    """The numbers of the candidates of a rung, without those that a later rung of that name has as well."""
    rung = rungs[number]
    later = {one.name for other in rungs[number + 1 :] if other.name == rung.name for one in other.candidates}
    return [place for place, one in enumerate(rung.candidates) if place == rung.chosen or one.name not in later]


def _pick_candidates(rung: RungRecord, listed: Sequence[int], most: int) -> list[int]:
    """The numbers of the candidates to show: the chosen one and the most accurate others, in their order."""

    def rank(place: int) -> tuple[bool, bool, float]:
        one = rung.candidates[place]
        return place != rung.chosen, one.accuracy is None, -(one.accuracy.value if one.accuracy else 0.0)

    return sorted(sorted(listed, key=rank)[:most])


def _format_rows(ladder: LadderRecord, rung: RungRecord, place: int) -> list[Row]:
    """A candidate in one row, or in two where its name is long: candidates often differ in their last words only."""
    from budwood.comparison.published_text import format_clock
    from budwood.reporting.ladder_text import describe_rung_state

    one = rung.candidates[place]
    chosen = place == rung.chosen
    accuracy = one.accuracy or (rung.accuracy if chosen else None)
    name, *rest = textwrap.wrap(show_unprintable(one.name), NAMES, subsequent_indent="  ", break_on_hyphens=False)
    cells = (
        _format_accuracy(accuracy),
        f"{accuracy.n:,}" if accuracy else "",
        format_clock(one.seconds) if one.seconds else "",
        describe_rung_state(ladder, rung) if chosen else one.state,
    )
    more = [(shorten(" ".join(rest).replace("   ", " "), NAMES), "", "", "", "")] if rest else []
    return [(shorten(name, NAMES), *cells), *more]


def _format_accuracy(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:.1f} %"
    return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _describe_outcome(rung: RungRecord) -> str:
    """What a rung has gained and why it was kept or not; empty where there is nothing to say."""
    from budwood.reporting.ladder_text import describe_gain

    gain = describe_gain(rung)
    told = " ".join([*([f"{gain}."] if gain else []), *([rung.note] if rung.note else [])])
    return f"{rung.name}: {told}" if told else ""


def _print_wrapped(text: str) -> None:
    for line in textwrap.wrap(show_unprintable(text), COLUMNS, subsequent_indent="  ", break_on_hyphens=False):
        print(line)
