"""A comparison in words: the cells of its table, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from budwood.comparison.document import Comparison
from budwood.comparison.published_text import Cell, format_clock, format_published, list_machines
from budwood.comparison.recipe_diff import describe_options, drop_defaults
from budwood.comparison.rows import ComparisonRow
from budwood.config.metric_registry import describe_metric, is_loss
from budwood.evaluation.intervals import Metric
from budwood.evaluation.resampling import FEWEST
from budwood.networks.network_plan import ParameterCount
from budwood.text import (
    LEAST_TOLD,
    SPLITS,
    TOO_FEW,
    Unit,
    fit_table,
    format_difference,
    format_seconds,
    shorten,
    show_unprintable,
    wrap_text,
)

Order = Literal["given", "metric"]  # of rows: as they were given, or the best first

NONE: Final[Cell] = ("–", "")
LABEL: Final = 36  # columns of a row's name in a terminal
MARK: Final = "*"
_UNTRAINED: Final = {"failed": "Failed", "refused": "Refused"}


@dataclass(frozen=True)
class Cells:
    """One row of a comparison's table as text.

    A cell is a pair: its text, and an addition in small print, empty where there is none.

    Attributes:
        number: Place in the table, from 1.
        row: The row itself.
        differs: Options in which it differs, and its number of training images where other rows have more.
        value: Metric, with its interval.
        from_best: Difference from the best row, with its interval.
        p: P-value against the best row, with that of the pair alone where it was corrected.
        seeds: Number of runs, with their range and standard deviation.
        train: Metric on training images, with its interval.
        test: Metric on the test split, with its interval and look; or that it is sealed.
        published: Published figures by split, each with our difference from it.
        epochs: Selected epoch, or the range of them.
        parameters: Number of parameters, with how many are trained.
        macs: Multiply-adds for one image.
        time: Duration of training, with that of the whole command.
        published_time: Published duration of training; empty where it is not told.
        published_size: Published number of parameters; empty where it is not told.
    """

    number: int
    row: ComparisonRow
    differs: str
    value: Cell
    from_best: Cell
    p: Cell
    seeds: Cell
    train: Cell
    test: Cell
    published: Mapping[str, tuple[Cell, ...]]
    epochs: Cell
    parameters: Cell
    macs: Cell
    time: Cell
    published_time: str
    published_size: str

    @property
    def name(self) -> str:
        """The name of the row in figures: its place and its label."""
        return f"{self.number}  {self.row.label}"


@dataclass(frozen=True)
class PresentColumns:
    """Which columns of a table have something to show.

    Attributes:
        differs: Options in which a row differs that its label does not say.
        seeds: Rows of several runs.
        train: Figures on training images, ours or published.
        test: Figures on test splits, opened or published, beside those on validation.
        published: The splits of which figures were published.
        epochs: Selected epochs.
        groups: Rows were scored on different images.
        sealed: A published test figure has no counterpart, as our test split is sealed.
        scale: A published loss is on another scale than ours.
        stand_in: Rows that cannot be run as published.
        machines: The machines of published durations.
    """

    differs: bool
    seeds: bool
    train: bool
    test: bool
    published: tuple[str, ...]
    epochs: bool
    groups: bool
    sealed: bool
    scale: bool
    stand_in: bool
    machines: tuple[str, ...]


def format_rows(made: Comparison, order: Order = "metric") -> list[Cells]:
    """Format the rows of a comparison.

    Args:
        made: The comparison.
        order: `given`, or `metric`: by group, the best first, those without a value last.

    Returns:
        The rows as text.
    """
    unit = Unit(is_loss(made.metric))

    def place(row: ComparisonRow) -> tuple[bool, int, float]:
        value = row.value.value if row.value else None
        return value is None, row.group, 0.0 if value is None else value if unit.loss else -value

    rows = sorted(made.rows, key=place) if order == "metric" else made.rows
    fewer = _count_fewer(made.rows)
    return [_format_row(number, row, unit, fewer.get(row.label)) for number, row in enumerate(rows, 1)]


def _count_fewer(rows: Sequence[ComparisonRow]) -> dict[str, int]:
    """The number of training images of each row that has fewer than another row on the same held-out images."""
    counts = {row.label: row.train.n or 0 for row in rows if row.train}
    most: dict[int, int] = {}
    for row in rows:
        most[row.group] = max(most.get(row.group, 0), counts.get(row.label, 0))
    return {row.label: counts[row.label] for row in rows if 0 < counts.get(row.label, 0) < most[row.group]}


def find_present_columns(made: Comparison) -> PresentColumns:
    """Find which columns of a table have something to show.

    Args:
        made: The comparison.

    Returns:
        Whether each optional column has content.
    """
    rows = made.rows
    published = [row.published for row in rows if row.published]
    told = {figure.split for one in published for figure in one.figures}
    missing = {figure.missing for one in published for figure in one.figures}
    return PresentColumns(
        differs=bool(_count_fewer(rows))
        or any(describe_options(drop_defaults(row.differs), short=True) not in ("", row.label) for row in rows),
        seeds=any(row.spread for row in rows),
        train=any(row.train for row in rows) or "train" in told,
        test=made.split == "val" and (any(row.test for row in rows) or "test" in told),
        published=tuple(split for split in SPLITS if split in told),
        epochs=any(row.epochs for row in rows),
        groups=len({row.group for row in rows if row.group}) > 1,
        sealed="sealed" in missing,
        scale="other scale" in missing,
        stand_in=any(row.stand_in for row in rows),
        machines=tuple(list_machines(published)),
    )


def format_comparison(made: Comparison, order: Order = "metric", width: int | None = None) -> str:
    """Format a comparison for a terminal: its table, failures, and what its signs mean.

    Args:
        made: The comparison.
        order: Of the rows: `given`, or `metric`: the best first.
        width: Columns of the terminal; None: as many as it takes.

    Returns:
        Lines of text, without a line break at the end.
    """
    rows, has = format_rows(made, order), find_present_columns(made)
    chosen = {
        "row": [_format_name(cells) for cells in rows],
        "differs in": [shorten(cells.differs, LABEL) for cells in rows] if has.differs else None,
        f"{SPLITS[made.split]} {describe_metric(made.metric)}": [join_cell(cells.value) for cells in rows],
        "from best": [join_cell(cells.from_best) for cells in rows],
        "p": [join_cell(cells.p) for cells in rows],
        "runs": [join_cell(cells.seeds) for cells in rows] if has.seeds else None,
        "training": [cells.train[0] for cells in rows] if has.train else None,
        "test": [join_cell(cells.test) for cells in rows] if has.test else None,
        **{f"published {SPLITS[split]}": [_join_first(cells, split) for cells in rows] for split in has.published},
        "stand-in": [shorten(show_unprintable(c.row.stand_in), LABEL) for c in rows] if has.stand_in else None,
        "epoch": [cells.epochs[0] for cells in rows] if has.epochs else None,
        "parameters": [join_cell(cells.parameters) for cells in rows],
        "mult-adds": [cells.macs[0] for cells in rows],
        "time": [join_cell((cells.time[0], _say_published(cells.published_time))) for cells in rows],
    }
    columns = {name: cells for name, cells in chosen.items() if cells is not None}
    table = list(zip(*([name, *cells] for name, cells in columns.items()), strict=True))
    value = list(columns).index(f"{SPLITS[made.split]} {describe_metric(made.metric)}")
    notes = [*_format_failures(rows), *_format_legend(made, rows, has)]
    wrapped = [line for note in notes for line in wrap_text(note, width)]
    return "\n".join([fit_table(table, range(1, len(columns)), width, (0, value)), *wrapped])


def _join_first(cells: Cells, split: str) -> str:
    """The first published figure of a split, which is a score where one is told."""
    return join_cell(cells.published[split][0]) if split in cells.published else NONE[0]


def _say_published(text: str) -> str:
    return f"published {text}" if text else ""


def _format_name(cells: Cells) -> str:
    mark = MARK if cells.row.tied else " "
    return f"{mark} {shorten(show_unprintable(cells.row.label), LABEL)}"


def join_cell(cell: Cell) -> str:
    """Write a cell in one line.

    Args:
        cell: Text and addition.

    Returns:
        The text, with the addition in brackets where there is one.
    """
    return f"{cell[0]} ({cell[1]})" if cell[1] else cell[0]


def _format_failures(rows: Sequence[Cells]) -> list[str]:
    return [
        f"{_UNTRAINED.get(cells.row.state, 'Not trained')}: "
        f"{show_unprintable(cells.row.label)}: {show_unprintable(cells.row.problem)}"
        for cells in rows
        if cells.row.problem
    ]


def _format_legend(made: Comparison, rows: Sequence[Cells], has: PresentColumns) -> list[str]:
    known = [row.value for row in made.rows if row.value]
    if not known:
        return []
    tests = ", ".join(sorted({pair.test for pair in made.pairs})) or "no test"
    shown = "95 % confidence intervals, n = " + ", ".join(dict.fromkeys(f"{value.n:,}" for value in known)) + " images"
    seeds = "; for several runs: lowest to highest score, standard deviation (sd)" if has.seeds else ""
    told = [
        f"{MARK} not distinguishable from the best (statistical tie). In brackets: {shown}{seeds}.",
        f"p: {tests} against the best row{_format_correction(made)}.{_format_alone(made)} "
        f"Training time on {'; '.join(made.hardware)}."
        + (f" Published times on {'; '.join(has.machines)}." if has.machines else ""),
    ]
    if has.published:
        told.append("Published: ours is the difference of our figure of the same split, in points for scores.")
        if any(len(figures) > 1 for cells in rows for figures in cells.published.values()):
            told.append("Published losses beside scores: on the page, in table.csv and with --json.")
    if has.sealed:
        told.append("A published test score is not compared while our test split is sealed (--test opens it).")
    if has.scale:
        told.append("Other scale: a loss too low for its accuracy to be a mean over images; it is not compared.")
    if has.groups:
        told.append("Rows were evaluated on different images; only rows with the same images are compared.")
    return told


def _format_correction(made: Comparison) -> str:
    count = len(made.pairs)
    return f", Holm correction for all {count:,} pairs" if count > 1 else ""


def _format_alone(made: Comparison) -> str:
    """What the p-value in brackets is, and that the interval agrees with it."""
    if len(made.pairs) < 2:
        return ""
    return " Alone: p of this one difference, whose interval leaves out 0 where that p is below 0.05."


def _format_row(number: int, row: ComparisonRow, unit: Unit, fewer: int | None) -> Cells:
    """A row; `fewer` is the number of its training images where other rows have more."""
    gap, given, options = row.difference, row.published, describe_options(drop_defaults(row.differs))
    return Cells(
        number=number,
        row=row,
        differs=", ".join(filter(None, (f"{fewer:,} training images" if fewer else "", options))),
        value=format_figure(row.value, unit),
        from_best=("best", "") if row.best else format_gap(gap, unit),
        p=format_p_values(row.p, row.p_alone),
        seeds=_format_seeds(row, unit),
        train=format_figure(row.train, unit),
        test=_format_test(row, unit),
        published=format_published(row.published),
        epochs=_format_epochs(row.epochs),
        parameters=_format_parameters(row.parameters),
        macs=(format_count(row.macs), ""),
        time=_format_time(row),
        published_time=format_clock(given.seconds) if given and given.seconds else "",
        published_size=format_count(given.parameters) if given and given.parameters else "",
    )


def format_figure(metric: Metric | None, unit: Unit) -> Cell:
    """Format a metric and its interval.

    Args:
        metric: The metric; None where unknown.
        unit: How the metric is written.

    Returns:
        Value, and interval as the addition; a dash where the value is unknown; that the images are too few to tell
        where they are fewer than 5.
    """
    if metric is None or metric.value is None:
        return NONE
    if 0 < metric.n < LEAST_TOLD:
        return "too few to tell", f"n = {metric.n}"
    if metric.low is None or metric.high is None:
        return unit.text(metric.value), TOO_FEW if 0 < metric.n < FEWEST else ""
    return unit.text(metric.value), _format_range(metric.low, metric.high, unit)


def format_gap(gap: Metric | None, unit: Unit) -> Cell:
    """Format a difference and its interval.

    Args:
        gap: The difference; None where unknown.
        unit: How the metric is written.

    Returns:
        Difference, and interval as the addition, or that the images are too few for one; a dash where the difference is
        unknown.
    """
    if gap is None or gap.value is None:
        return NONE
    if gap.n < LEAST_TOLD:
        return "too few to tell", f"n = {gap.n}"
    if gap.low is None or gap.high is None:
        return format_difference(gap.value, unit), TOO_FEW
    value, low, high = (format_difference(end, unit) for end in (gap.value, gap.low, gap.high))
    return value, f"{low} to {high}"


def format_p_value(p: float | None) -> str:
    """Format a p-value with as many digits as matter.

    Args:
        p: P-value, 0 to 1; None where there is none.

    Returns:
        `< 0.001`, or three decimals below 0.1, else two; a dash for None.
    """
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def format_count(count: int | None) -> str:
    """Format a number with three significant digits, and k, M or G after it.

    Args:
        count: Number, 0 or more; None where unknown.

    Returns:
        The text; numbers below 10,000 are written in full, None as a dash.
    """
    if count is None:
        return "–"
    for least, size, letter in ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**4, 10**3, "k")):
        if count >= least:
            digits = max(0, 3 - len(str(count // size)))
            return f"{count / size:.{digits}f} {letter}"
    return f"{count:,}"


def format_duration(seconds: float) -> str:
    """Format a measured duration, a short one with two significant digits so that quick rows can be told apart.

    Args:
        seconds: Duration in seconds, 0 or more.

    Returns:
        The number with its unit: s below 100 seconds, min below 100 minutes, else h.
    """
    return f"{seconds:.2g} s" if seconds < 10 else format_seconds(seconds)


def format_p_values(corrected: float | None, alone: float | None) -> Cell:
    """Format a corrected p-value, and the one to which the interval belongs.

    Args:
        corrected: The p-value after correction; None for none.
        alone: That of the one test; None for none.

    Returns:
        The corrected one, with the other as the addition where it reads differently.
    """
    text, other = format_p_value(corrected), format_p_value(alone)
    return text, "" if alone is None or other == text else f"alone {other}"


def format_looks(looks: Sequence[int]) -> str:
    """Format at which looks test splits were opened.

    Args:
        looks: The look of each run.

    Returns:
        Each look once, in order.
    """
    return ", ".join(map(str, sorted(set(looks))))


def _format_range(low: float, high: float, unit: Unit) -> str:
    return "–".join(unit.text(end).removesuffix(" %") for end in (low, high))


def _format_seeds(row: ComparisonRow, unit: Unit) -> Cell:
    spread = row.spread
    if spread is None:
        return (str(row.seeds), "") if row.seeds else NONE
    sd = f"{spread.sd:.3f}" if unit.loss else f"{100 * spread.sd:.1f}"
    return str(row.seeds), f"{_format_range(spread.low, spread.high, unit)}, sd {sd}"


def _format_test(row: ComparisonRow, unit: Unit) -> Cell:
    if row.test is None:
        return ("sealed", "") if row.seeds else NONE
    value, interval = format_figure(row.test, unit)
    return value, f"{interval}; look {format_looks(row.looks)}"


def _format_epochs(epochs: Sequence[int]) -> Cell:
    if not epochs:
        return NONE
    return (str(epochs[0]) if len(set(epochs)) == 1 else f"{min(epochs)}–{max(epochs)}"), ""


def _format_parameters(counts: ParameterCount | None) -> Cell:
    if counts is None:
        return NONE
    return format_count(counts.total), f"{format_count(counts.trainable)} trained"


def _format_time(row: ComparisonRow) -> Cell:
    if row.training_seconds is None or row.seconds is None:
        return NONE
    return format_duration(row.training_seconds), f"{format_duration(row.seconds)} in total"
