"""How much each option of a table or a search matters for its metric: plain records in, shares of variance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from budwood.comparison.recipe_diff import Options

Record = tuple[Options, float]  # the options of a trial and its metric

LEVELS: Final = 6  # different numbers of an option that are levels of their own; more are put into quarters
QUARTERS: Final = 4
LEAST: Final = 6  # records that shares of variance can be told from


@dataclass(frozen=True)
class Importance:
    """How much one option matters for a metric.

    Attributes:
        option: Name of the option.
        share: Share of the metric's variance that its levels explain, 0 to 1.
        levels: Number of its levels.
    """

    option: str
    share: float
    levels: int


def rank_options(records: Sequence[Record]) -> list[Importance]:
    """Compute the share of a metric's variance that each option alone explains.

    The share is the variance between the option's levels over the whole, less what as many random levels would
    explain (epsilon squared, Kelley 1935). Numbers with more than 6 values are binned into quarters of equal size;
    records without an option form a level of their own. Shares of options that interact, or that a search varied
    together, overlap, so they need not add up to one. Options with one level, or a level for each record, are left
    out.

    Args:
        records: Options and metric of each trial.

    Returns:
        The options, largest share first; empty for fewer than 6 records.
    """
    if len(records) < LEAST:
        return []
    scores = np.array([score for _, score in records], np.float64)
    names = dict.fromkeys(name for options, _ in records for name in options)
    levels = {name: _bin_values([options.get(name, _Unused) for options, _ in records]) for name in names}
    found = [
        Importance(name, _explain_variance(codes, scores), int(codes.max()) + 1)
        for name, codes in levels.items()
        if 1 < int(codes.max()) + 1 < len(records)
    ]
    return sorted(found, key=lambda one: -one.share)


class _Unused:
    """Stands for an option that a record does not have."""


def _bin_values(values: Sequence[object]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The number of each value's level."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) > LEVELS:
        bounds = np.quantile(numbers, np.arange(1, QUARTERS) / QUARTERS)
        named = [str(np.searchsorted(bounds, v)) if isinstance(v, int | float) else repr(v) for v in values]
    else:
        named = [repr(value) for value in values]
    return np.unique(named, return_inverse=True)[1]


def _explain_variance(
    codes: np.ndarray[Any, np.dtype[np.intp]], scores: np.ndarray[Any, np.dtype[np.float64]]
) -> float:
    whole = float(((scores - scores.mean()) ** 2).sum())
    if whole <= 0:
        return 0.0
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=scores) / counts
    within = float(((scores - means[codes]) ** 2).sum())
    mean_square = within / (len(scores) - len(counts))
    return max(0.0, (whole - within - (len(counts) - 1) * mean_square) / whole)
