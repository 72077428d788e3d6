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
    """Return a proportion with Wilson's interval.

    Args:
        count: Images that count.
        n: All images.

    Returns:
        Its value and ends (each from 0 to 1, None where there is no image).
    """
    if n == 0:
        return Metric(None, None, None, 0)
    low, high = _wilson(count / n, n)
    return Metric(count / n, low, high, n)


def mean_proportion_interval(values: Values, repeats: int) -> Metric:
    """Return the mean over images of proportions, each of several answers to one image, with its interval.

    Wilson's interval at the effective number of answers, which the spread over the images tells (Korn and Graubard
    1998): between n, where the repeats agree on every image, and n times their number. With one answer an image it is
    Wilson's.

    Args:
        values: The proportion of each image, float64 [n], from 0 to 1.
        repeats: Answers to each image.

    Returns:
        The mean and its ends, of so many images.
    """
    n = len(values)
    if n == 0:
        return proportion_interval(0, 0)
    p, variance = float(values.mean()), float(values.var())
    effective = n * float(np.clip(p * (1 - p) / variance, 1, repeats)) if variance > 0 else float(n)
    low, high = _wilson(p, effective)
    return Metric(p, low, high, n)


def mean_interval(values: Values) -> Metric:
    """Return the mean of values, float64 [n], with its normal interval; one value has none."""
    n = len(values)
    if n == 0:
        return Metric(None, None, None, 0)
    value = float(values.mean())
    half = Z_95 * float(values.std(ddof=1)) / float(np.sqrt(n)) if n > 1 else None
    return Metric(value, None, None, n) if half is None else Metric(value, value - half, value + half, n)


def percentile_interval(value: float | np.floating | Values, resampled: Values, n: int) -> Metric:
    """Return a figure of n images with the percentile interval of its bootstrap resamples.

    Args:
        value: The figure of all images.
        resampled: The same of every resample, float64 [resamples]; NaN where it is undefined.
        n: How many images there are.

    Returns:
        The figure and its ends (None where it is undefined).
    """
    known = resampled[~np.isnan(resampled)]
    if n == 0 or np.isnan(value) or not len(known):
        return Metric(None, None, None, n)
    low, high = np.percentile(known, [2.5, 97.5])
    return Metric(float(value), float(min(low, value)), float(max(high, value)), n)


def newcombe_interval(one: Metric, other: Metric) -> tuple[float, float, float]:
    """Return how much larger one proportion is than another of other images, and the ends of the interval of that.

    Newcombe 1998, method 10. Proportions without an interval give the difference alone, three times.

    Args:
        one: A proportion with its interval, as `proportion_interval` gives it.
        other: Another.

    Returns:
        The difference, its lower and its upper end.
    """
    p, q = one.value or 0.0, other.value or 0.0
    difference = p - q
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return difference, difference, difference
    down, up = np.hypot(p - one.low, other.high - q), np.hypot(one.high - p, q - other.low)
    return difference, float(difference - down), float(difference + up)


def iterate_bootstrap_weights(n: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each of n images is in each of RESAMPLES bootstrap samples, always the same: int64 [.., n]."""
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
