"""The tables `[[ensembles]]` of a study file: rows that are made of the runs of other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from budwood.config.file_checks import FileModel, Mistake, suggest
from budwood.text import counted, listed

ALL: Final = "all"


def _read_members(value: object) -> object:
    """`all`, or labels of rows."""
    if value == ALL:
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(label, str) for label in value):
        raise ValueError(f"expected 'all' or a list of labels of rows, found {value!r}")
    return tuple(value)


class EnsembleTable(FileModel):
    """One of the tables `[[ensembles]]`.

    Attributes:
        label: The row's label; empty: made from what it is of.
        of: Labels of the rows whose runs are its members, or `all`: every row, and every trial of a search.
        weights: How the members are weighted: `equal`, or by greedy selection on `validation`.
    """

    label: Annotated[str, Field(description="text")] = ""
    of: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_read_members)] = ALL
    weights: Annotated[Literal["equal", "validation"], Field(description="'equal' or 'validation'")] = "equal"


@dataclass(frozen=True)
class EnsembleRow:
    """A row of a study that is an ensemble of others.

    Attributes:
        label: The row's label.
        of: Labels of the rows whose runs are its members; empty for all rows.
        rule: How the members are weighted.
    """

    label: str
    of: tuple[str, ...]
    rule: Literal["equal", "validation"]

    def describe(self) -> str:
        """Return what the row is made of, in words."""
        what = listed([repr(label) for label in self.of], 4) if self.of else "all rows"
        chosen = "weights selected on validation" if self.rule == "validation" else "equal weights"
        return f"ensemble of {what}, {chosen}: made of copies of finished runs, nothing is trained"


def expand_ensembles(tables: Sequence[EnsembleTable]) -> tuple[EnsembleRow, ...]:
    """Make the rows of the tables.

    Args:
        tables: The tables `[[ensembles]]`.

    Returns:
        The rows, each with a label.
    """
    return tuple(
        EnsembleRow(
            table.label or f"ensemble of {_describe_members(table)}", () if table.of == ALL else table.of, table.weights
        )
        for table in tables
    )


def _describe_members(table: EnsembleTable) -> str:
    return ALL if isinstance(table.of, str) else counted(len(table.of), "row")


def check_ensembles(
    rows: Sequence[EnsembleRow], refused: Mapping[str, bool], seeds: int, folds: int | None, searched: bool
) -> Iterator[Mistake]:
    """Find what is wrong with ensembles beside the other rows of their study.

    Args:
        rows: The ensembles, in the order of their tables.
        refused: Whether each of the other rows is refused, by label.
        seeds: Number of seeds of the study.
        folds: Number of folds of the study; None: no folds.
        searched: Whether the study has a search, whose trials are rows, too.

    Yields:
        The mistakes.
    """
    able = frozenset(label for label, is_refused in refused.items() if not is_refused)
    every = able | {ALL} if searched and folds is None else able  # with the trials, whose labels are not known yet
    first: dict[tuple[str, frozenset[str]], str] = {}
    labels = Counter([*refused, *(row.label for row in rows)])
    for number, row in enumerate(rows):
        place = ("ensembles", number)
        if labels[row.label] > 1:
            yield Mistake(place, f"has the label of another row, {row.label!r}, so give it a `label` of its own")
        if row.rule == "validation" and folds is not None:
            message = "folds cannot be weighted by validation, as they have no validation images in common"
            yield Mistake((*place, "weights"), message)
        for label, count in Counter(row.of).items():
            if label not in refused:
                yield Mistake((*place, "of"), f"there is no row {label!r}. {suggest(label, refused)}")
            elif refused[label]:
                yield Mistake((*place, "of"), f"the row {label!r} is refused, so it has no runs")
            elif count > 1:
                yield Mistake((*place, "of"), f"names the row {label!r} twice")
        members = frozenset(row.of) or every
        if members <= able and len(row.of or members) * (folds or seeds) < 2:
            message = "an ensemble needs two or more runs, and this would be of one: name more rows, or give more seeds"
            yield Mistake((*place, "of"), message)
        same = first.setdefault((row.rule, members), row.label)
        if same != row.label:
            yield Mistake(place, f"is the same ensemble as {same!r}")
