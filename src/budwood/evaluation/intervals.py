"""95 % intervals, each written once: of proportions, of means of bounded values, and of what only resampling tells.

All follow one idea: for each end, one image more is thought of, as bad (or as good) as an image can be, and all images
are weighed at random. For a proportion that is the exact interval of Clopper and Pearson (1934), which covers for every
n; for the mean of any bounded values it is the bound of Gaffke (2005; Learned-Miller and Thomas 2019). `differences`
has the same for two networks, where it is the inversion of McNemar's and of Fisher's exact test, and `class_means` the
means over classes. An undefined value is None, and so are the ends where the images are too few for any interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.beta import beta_quantile

Z_95: Final = 1.959963984540054  # of the normal distribution, 95 % within
TAIL: Final = 0.025  # beyond each end
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
    """One figure over `n` images with its 95 % interval; `metric["low"]` works too.

    A figure that is undefined is None; so are the ends of its interval where the images are too few for one.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __hash__(self) -> int:
        return hash((self.value, self.low, self.high, self.n))


def describe_share_of(share: Metric) -> str:
    """Write a proportion of images in words, never without its interval and number of images.

    Args:
        share: The proportion, 0 to 1.

    Returns:
        For example "93.1 % (90.0 to 95.3 %, n = 410)".
    """
    value = "undefined" if share.value is None else f"{100 * share.value:.1f} %"
    if share.low is None or share.high is None:
        return f"{value} (n = {share.n:,})"
    return f"{value} ({100 * share.low:.1f} to {100 * share.high:.1f} %, n = {share.n:,})"


def proportion_interval(count: int, n: int) -> Metric:
    """Compute a proportion of images with the exact 95 % confidence interval of Clopper and Pearson.

    Args:
        count: Number of images that count.
        n: Number of all images.

    Returns:
        `value`, `low` and `high` (each from 0 to 1, None where there is no image) and `n`.
    """
    if n == 0:
        return Metric(None, None, None, 0)
    low, high = clopper_pearson(np.float64(count), np.float64(n))
    return Metric(count / n, float(low), float(high), n)


def clopper_pearson(count: Values | np.float64, n: Values | np.float64) -> tuple[Values, Values]:
    """Compute the ends of the exact 95 % interval of proportions (Clopper and Pearson 1934).

    Args:
        count: How many of n count, float64 of any shape; not necessarily whole.
        n: Number of all, float64 of the same shape; an interval of none is from 0 to 1.

    Returns:
        Lower and upper ends, float64.
    """
    return beta_quantile(TAIL, count, n - count + 1), beta_quantile(1 - TAIL, count + 1, n - count)


def mean_proportion_interval(values: Values, repeats: int) -> Metric:
    """Compute the mean of each image's proportion of several answers, with its 95 % confidence interval.

    The interval is Clopper and Pearson's at the effective number of answers, which follows from the spread over the
    images (Korn and Graubard 1998). It lies between n, where the answers agree on every image, and n times the number
    of answers. With one answer an image, the interval is that of `proportion_interval`.

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
    low, high = clopper_pearson(np.float64(p * effective), np.float64(effective))
    return Metric(p, min(p, float(low)), max(p, float(high)), n)


def bounded_mean_interval(values: Values, least: float, most: float) -> Metric:
    """Compute the mean of bounded values with its 95 % confidence interval, which lies within the bounds.

    One value more is thought of, `least` for the lower end and `most` for the upper, and the mean with all values
    weighed at random (a flat Dirichlet distribution) has its quantile as the end (Gaffke 2005). The distribution of
    that mean is taken to be the beta distribution of the same mean and variance. Of 0s and 1s it is exactly
    that, and the interval is Clopper and Pearson's.

    Args:
        values: Value of each image, float64 [n], from `least` to `most`.
        least: The lowest value that an image can have.
        most: The highest value that an image can have.

    Returns:
        `value`, `low` and `high` (None where there is no image) and `n`.
    """
    n = len(values)
    if n == 0:
        return Metric(None, None, None, 0)
    low, high = bounded_mean_ends(values.sum(keepdims=True), np.square(values).sum(keepdims=True), n, least, most)
    value = float(values.mean())
    return Metric(value, min(value, float(low[0])), max(value, float(high[0])), n)


def bounded_mean_ends(sums: Values, squares: Values, n: int, least: float, most: float) -> tuple[Values, Values]:
    """Compute the ends of `bounded_mean_interval` of many means at once.

    Args:
        sums: Sum of the values of each mean, float64.
        squares: Sum of their squares, float64 of the same shape.
        n: Number of values of each mean.
        least: The lowest value that there can be.
        most: The highest value that there can be.

    Returns:
        Lower and upper ends, float64.
    """
    width = max(most - least, 1e-12)
    ends = []
    for added, share in ((least, TAIL), (most, 1 - TAIL)):
        mean = (sums + added) / (n + 1)
        variance = np.maximum((squares + added * added) / (n + 1) - mean * mean, 0.0) / (n + 2)
        part = np.clip((mean - least) / width, 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.maximum(part * (1 - part) * width * width / variance - 1, 0.0)
            quantile = least + width * beta_quantile(share, part * size, (1 - part) * size)
        ends.append(np.asarray(np.where(variance <= 1e-15 * width * width, mean, quantile)))
    return ends[0], ends[1]


def percentile_interval(value: float, resampled: Sequence[Values], n: int) -> Metric:
    """Return a metric of n images with the 95 % percentile interval of its resamples.

    Args:
        value: Metric of all images.
        resampled: Metric of each resample, float64 [resamples], NaN where it is undefined, in several kinds: the
            interval reaches from the lowest lower percentile to the highest upper one.
        n: Number of images.

    Returns:
        `value`, `low` and `high` (None where the metric is undefined) and `n`. The interval always includes the
        value.
    """
    known = [kind for part in resampled if len(kind := part[~np.isnan(part)])]
    if n == 0 or np.isnan(value) or not known:
        return Metric(None, None, None, n)
    low = min(float(np.quantile(kind, TAIL)) for kind in known)
    high = max(float(np.quantile(kind, 1 - TAIL)) for kind in known)
    return Metric(value, min(low, value), max(high, value), n)


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
