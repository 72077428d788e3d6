"""How the error falls with the number of training images, and how far that can be forecast.

The curve is error(n) = a + b * n^-c with a >= 0 and b >= 0 (Hestness et al. 2017). A forecast's interval has three
sources: the validation images, the training images that happened to be drawn, and the form of the curve, as the end of
a curve is also fitted without a floor (a = 0) and with c = 1, where most of what can be learned has been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import TAIL, Z_95, Metric
from budwood.evaluation.significance import correct_holm

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
FRACTIONS: Final = (0.1, 0.16, 0.25, 0.4, 0.63, 1.0)  # of the training images, evenly apart on a logarithmic axis
EXPONENTS: Final = np.geomspace(0.02, 3.0, 120)
FAR: Final = 4.0  # times the images that there are: beyond, nothing is forecast
REPLICATES: Final = 500
LEAST_SIZES: Final = 4  # that a curve of three parameters needs
_FORMS: Final = ((EXPONENTS, False), (EXPONENTS, True), (np.ones(1), False))  # exponents, and whether a = 0


@dataclass(frozen=True)
class PowerLaws:
    """Fitted curves error(n) = a + b * n^-c, each of float64 [fits]."""

    a: Floats
    b: Floats
    c: Floats

    def predict(self, n: float) -> Floats:
        """Return the error at n images, float64 [fits]."""
        return np.asarray(self.a + self.b * n**-self.c)


def draw_nested_subsets(
    labels: NDArray[np.int32], sizes: Sequence[int], random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw stratified subsets, each of which contains the smaller ones.

    Args:
        labels: Class of each image, int32 [n].
        sizes: Number of images of each subset, rising, at most n.
        random: Where they are drawn from.

    Returns:
        Rows of each subset, int64, in ascending order; a class with images has one of its images in each subset.
    """
    place = np.empty(len(labels))
    first = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        place[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
        first[rows[0]] = True
    order = np.lexsort((place, ~first))
    return [np.sort(order[: min(size, len(labels))]) for size in sizes]


def fit_power_laws(sizes: Floats, errors: Floats, exponents: Floats = EXPONENTS, no_floor: bool = False) -> PowerLaws:
    """Fit error(n) = a + b * n^-c by least squares of relative deviations, with a >= 0 and b >= 0.

    For each exponent the best a and b are known in closed form; the best of the exponents is taken. Deviations are
    divided by the mean error of their size, as errors scatter the more the larger they are.

    Args:
        sizes: Numbers of images, float64 [k].
        errors: Errors at each of them, float64 [fits, k].
        exponents: Values of c that are tried, all above 0.
        no_floor: Whether a is 0.

    Returns:
        The curves.
    """
    weight = 1 / np.maximum(errors.mean(axis=0), 1e-4) ** 2
    weight = weight / weight.sum()
    scale = float(sizes.max())
    basis = (sizes / scale) ** -exponents[:, None]
    mean_x, mean_y = basis @ weight, errors @ weight
    centred = basis - (0.0 if no_floor else 1.0) * mean_x[:, None]
    spread = (centred**2 * weight).sum(axis=1)
    slope = np.maximum((errors * weight) @ centred.T / np.maximum(spread, 1e-300), 0.0)
    floor = np.zeros_like(slope) if no_floor else mean_y[:, None] - slope * mean_x
    alone = (errors * weight) @ basis.T / (basis**2 * weight).sum(axis=1)
    slope, floor = np.where(floor < 0, alone, slope), np.maximum(floor, 0.0)
    misfit = (
        ((errors**2) @ weight)[:, None]
        - 2 * floor * mean_y[:, None]
        - 2 * slope * ((errors * weight) @ basis.T)
        + floor**2
        + 2 * floor * slope * mean_x
        + slope**2 * (basis**2 * weight).sum(axis=1)
    )
    best = misfit.argmin(axis=1)
    row, c = np.arange(len(errors)), exponents[best]
    return PowerLaws(floor[row, best], slope[row, best] * scale**c, c)


@dataclass(frozen=True)
class LearningCurve:
    """Errors on the validation images by number of training images, and what is forecast of them.

    Attributes:
        sizes: Numbers of training images, rising, float64 [k].
        wrong: Of each size, which validation images each head calls wrongly, bool [draws, images] each.
    """

    sizes: Floats
    wrong: Sequence[Flags]

    @property
    def errors(self) -> Floats:
        """Return the mean error at each size, 0 to 1, float64 [k]."""
        return np.array([part.mean() for part in self.wrong])

    def fit(self) -> PowerLaws:
        """Return the curve through the mean errors, one fit."""
        return fit_power_laws(self.sizes, self.errors[None])

    def resample(self, seed: int = 0) -> list[PowerLaws]:
        """Return REPLICATES curves of each form, for images and draws that were drawn again."""
        random = np.random.default_rng(seed)
        m = self.wrong[0].shape[1]
        counts = random.multinomial(m, np.full(m, 1 / m), REPLICATES) / m
        columns = []
        for part in self.wrong:
            each = counts @ part.T.astype(np.float64)
            drawn = random.integers(0, len(part), (REPLICATES, len(part)))
            columns.append(np.take_along_axis(each, drawn, axis=1).mean(axis=1))
        errors = np.stack(columns, axis=1)
        return [fit_power_laws(self.sizes, errors, exponents, no_floor) for exponents, no_floor in _FORMS]

    def forecast(self, n: float, seed: int = 0) -> Metric:
        """Forecast the error of one training on n images, with its 95 % interval.

        Args:
            n: Number of training images, at most FAR times the largest size.
            seed: Seed of the bootstrap.

        Returns:
            The error, 0 to 1, with `n` validation images.
        """
        random = np.random.default_rng(seed + 1)
        shift = self._deviations()
        spread = np.concatenate([law.predict(n) for law in self.resample(seed)])
        spread = np.clip(spread + random.choice(shift, len(spread)), 0, 1)
        value = float(self.fit().predict(n)[0])
        low, high = np.quantile(spread, (TAIL, 1 - TAIL))
        return Metric(value, min(value, float(low)), max(value, float(high)), self.wrong[0].shape[1])

    def forecast_gain(self, n: float, seed: int = 0) -> Metric:
        """Forecast by how much the error falls from the largest size to n images, with its 95 % interval."""
        here, laws, own = float(self.sizes[-1]), self.resample(seed), self.fit()
        spread = np.concatenate([law.predict(here) - law.predict(n) for law in laws])
        value = float((own.predict(here) - own.predict(n))[0])
        low, high = np.quantile(spread, (TAIL, 1 - TAIL))
        return Metric(value, min(value, float(low)), max(value, float(high)), self.wrong[0].shape[1])

    def count_needed(self, error: float, seed: int = 0) -> tuple[float, float, float]:
        """Count the training images that an error needs: by the curve, and the ends of its 95 % interval.

        Args:
            error: The error that is wished, 0 to 1.
            seed: Seed of the bootstrap.

        Returns:
            Numbers of images; infinite where they are more than FAR times the largest size, or no number is enough.
        """
        spread = np.concatenate([_invert(law, error) for law in self.resample(seed)])
        ends = (float(_invert(self.fit(), error)[0]), *np.quantile(spread, (TAIL, 1 - TAIL), method="nearest"))
        most = FAR * self.sizes[-1]
        value, low, high = (float(end) if end <= most else np.inf for end in ends)
        return value, min(low, value), max(high, value)

    def _deviations(self) -> Floats:
        """By how much single trainings differ from the mean of their size: of the largest size drawn more than once."""
        several = [part.mean(axis=1) for part in self.wrong if len(part) > 1]
        if not several:
            return np.zeros(1)
        last = several[-1]
        return np.asarray((last - last.mean()) * np.sqrt(len(last) / (len(last) - 1)))


def _invert(law: PowerLaws, error: float) -> Floats:
    """Number of images at which each curve has an error."""
    room = error - law.a
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        n = np.where((room > 0) & (law.b > 0), (law.b / np.maximum(room, 1e-300)) ** (1 / law.c), np.inf)
    return np.asarray(np.where((law.b == 0) & (room >= 0), 1.0, n))


@dataclass(frozen=True)
class ClassGain:
    """What half of the training images of one class are worth.

    Attributes:
        name: The class.
        images: Its training images.
        loss: By how much the mean probability of the true class falls without half of them, -1 to 1.
        low: Lower end of the 95 % interval of that.
        high: Its upper end.
        p: p-value of no difference, corrected for the number of classes (Holm).
        n: Validation images.
    """

    name: str
    images: int
    loss: float
    low: float
    high: float
    p: float
    n: int


def measure_class_gains(names: Sequence[str], images: Sequence[int], losses: Floats) -> tuple[ClassGain, ...]:
    """Test which classes lose by having half of their training images.

    Args:
        names: The classes.
        images: Training images of each.
        losses: Change of the probability of the true class of each validation image, float64 [classes, n].

    Returns:
        The classes, the largest loss first. Tests and intervals are paired, by the normal approximation.
    """
    from scipy.special import ndtr

    if not len(names):
        return ()
    n = losses.shape[1]
    mean, error = losses.mean(axis=1), losses.std(axis=1, ddof=1) / np.sqrt(n)
    p = correct_holm(np.where(error > 0, 2 * ndtr(-np.abs(mean) / np.maximum(error, 1e-300)), 1.0))
    gains = [
        ClassGain(name, count, float(m), float(m - Z_95 * e), float(m + Z_95 * e), float(one), n)
        for name, count, m, e, one in zip(names, images, mean, error, p, strict=True)
    ]
    return tuple(sorted(gains, key=lambda one: -one.loss))
