"""95 % intervals, each written once: of proportions, means, differences, and of what only resampling tells.

Wilson (1927) for a proportion, the normal interval for a mean, Newcombe (1998) for the difference of two proportions,
percentiles of 1,000 bootstrap resamples of the images (Efron 1979) for the rest. An undefined value is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Z_95: Final = 1.959963984540054  # of the normal distribution, 95 % within
RESAMPLES: Final = 1000
CHUNK: Final = 50  # resamples that are weighed at a time
Values = NDArray[np.float64]


class ReadByName(Mapping[str, Any]):
    """A frozen dataclass whose fields can also be read by their names, as those of a dict.

    A field that may be left out is there only where it has a value.
    """

    def __getitem__(self, name: str) -> Any:
        if name not in self._present():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def _present(self) -> list[str]:
        known = fields(self)  # type: ignore[arg-type]
        return [field.name for field in known if field.default is MISSING or getattr(self, field.name) is not None]


@dataclass(frozen=True, eq=False)
class Metric(ReadByName):
    """One figure over `n` images with its 95 % interval; None where it is undefined. `metric["low"]` works too."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __hash__(self) -> int:
        return hash((self.value, self.low, self.high, self.n))


def proportion_interval(count: int, n: int) -> Metric:
    """Compute a proportion of images with Wilson's 95 % confidence interval.

    Args:
        count: Number of images that count.
        n: Number of all images.

    Returns:
        `value`, `low` and `high` (each from 0 to 1, None where there is no image) and `n`.
    """
    if n == 0:
        return Metric(None, None, None, 0)
    low, high = _wilson(count / n, n)
    return Metric(count / n, low, high, n)


def mean_proportion_interval(values: Values, repeats: int) -> Metric:
    """Compute the mean of each image's proportion of several answers, with its 95 % confidence interval.

    The interval is Wilson's at the effective number of answers, which follows from the spread over the images (Korn
    and Graubard 1998). It lies between n, where the answers agree on every image, and n times the number of
    answers. With one answer an image, the interval equals Wilson's.

    Args:
        values: Proportion of each image, float64 [n], from 0 to 1.
        repeats: Number of answers to each image.

    Returns:
        `value`, `low` and `high` (each from 0 to 1, None where there is no image) and `n`, the number of images.
    """
    n = len(values)
    if n == 0:
        return proportion_interval(0, 0)
    p, variance = float(values.mean()), float(values.var())
    effective = n * float(np.clip(p * (1 - p) / variance, 1, repeats)) if variance > 0 else float(n)
    low, high = _wilson(p, effective)
    return Metric(p, low, high, n)


def mean_interval(values: Values) -> Metric:
    """Compute the mean of values with its 95 % normal confidence interval.

    Args:
        values: Value of each image, float64 [n].

    Returns:
        `value` (None where there is no image), `low` and `high` (None for fewer than two images) and `n`.
    """
    n = len(values)
    if n == 0:
        return Metric(None, None, None, 0)
    value = float(values.mean())
    half = Z_95 * float(values.std(ddof=1)) / float(np.sqrt(n)) if n > 1 else None
    return Metric(value, None, None, n) if half is None else Metric(value, value - half, value + half, n)


def percentile_interval(value: float | np.floating | Values, resampled: Values, n: int) -> Metric:
    """Return a metric of n images with the 95 % percentile interval of its bootstrap resamples.

    Args:
        value: Metric of all images.
        resampled: Metric of each resample, float64 [resamples]; NaN where it is undefined.
        n: Number of images.

    Returns:
        `value`, `low` and `high` (None where the metric is undefined) and `n`. The interval always includes the
        value.
    """
    known = resampled[~np.isnan(resampled)]
    if n == 0 or np.isnan(value) or not len(known):
        return Metric(None, None, None, n)
    low, high = np.percentile(known, [2.5, 97.5])
    return Metric(float(value), float(min(low, value)), float(max(high, value)), n)


def newcombe_interval(one: Metric, other: Metric) -> tuple[float, float, float]:
    """Compute the difference of two proportions of different images, with its 95 % confidence interval.

    The interval is that of Newcombe 1998, method 10.

    Args:
        one: Proportion with its interval, as from `proportion_interval`; its value must not be None.
        other: Proportion that is subtracted, likewise.

    Returns:
        The difference, its lower end and its upper end; the difference three times if a proportion has no interval.
    """
    p, q = one.value or 0.0, other.value or 0.0
    difference = p - q
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return difference, difference, difference
    down, up = np.hypot(p - one.low, other.high - q), np.hypot(one.high - p, q - other.low)
    return difference, float(difference - down), float(difference + up)


def iterate_bootstrap_weights(n: int) -> Iterator[NDArray[np.int64]]:
    """Draw RESAMPLES bootstrap samples of the images, in parts, always the same ones.

    Args:
        n: Number of images.

    Yields:
        How often each image is in each sample of a part, int64 [CHUNK or fewer, n].
    """
    random = np.random.default_rng(0)
    for start in range(0, RESAMPLES, CHUNK):
        count = min(CHUNK, RESAMPLES - start)
        drawn = random.integers(0, n, (count, n)) if n else np.empty((count, 0), np.int64)
        yield np.stack([np.bincount(row, minlength=n) for row in drawn])


def _wilson(p: float, n: float) -> tuple[float, float]:
    """The ends of Wilson's interval of a proportion of n answers, which hold the proportion itself."""
    z2 = Z_95 * Z_95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))
