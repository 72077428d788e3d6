"""Rows that differ in one number alone: what it does to the metric, with everything else left as it is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from budwood.comparison.recipe_diff import Options
from budwood.comparison.rows import ComparisonRow

FEWEST: Final = 3  # values of an option that make a sweep


@dataclass(frozen=True)
class Sweep:
    """Rows that differ in the value of one option alone.

    Attributes:
        option: The option.
        rows: The rows, by rising value.
        shared: The other options that vary in the table, with the values that these rows share.
    """

    option: str
    rows: tuple[ComparisonRow, ...]
    shared: Options

    @property
    def values(self) -> tuple[float, ...]:
        """The values of the option, rising."""
        return tuple(_read_number(row.options[self.option]) or 0.0 for row in self.rows)


def find_sweeps(rows: Sequence[ComparisonRow]) -> list[Sweep]:
    """Find the rows of a table that differ in one numeric option alone, on the same images.

    Args:
        rows: The rows of the table.

    Returns:
        The sweeps of three values or more, the longest first; those of one length in the order of the table.
    """
    found: dict[tuple[str, str], list[ComparisonRow]] = defaultdict(list)
    for row in rows:
        trained_on = row.train.n if row.train else 0
        for option, value in row.options.items():
            if row.runs and _read_number(value) is not None:
                others = {name: other for name, other in row.options.items() if name != option}
                found[option, json.dumps([row.group, trained_on, sorted(others.items())])].append(row)
    sweeps = [_make_sweep(option, same) for (option, _), same in found.items() if len(same) >= FEWEST]
    distinct = [sweep for sweep in sweeps if len(set(sweep.values)) == len(sweep.rows)]
    return sorted(distinct, key=lambda sweep: -len(sweep.rows))


def _make_sweep(option: str, rows: Sequence[ComparisonRow]) -> Sweep:
    ordered = sorted(rows, key=lambda row: _read_number(row.options[option]) or 0.0)
    return Sweep(option, tuple(ordered), {name: value for name, value in rows[0].options.items() if name != option})


def _read_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
