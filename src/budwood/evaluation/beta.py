"""Quantiles of beta distributions; few of them without SciPy, which takes a quarter of a second to import.

The chance below x is the continued fraction of the incomplete beta function, every second step at once (DiDonato and
Morris 1992, TOMS 708, `bfrac`), evaluated by the method of Lentz. Its factor is in Loader's form of the binomial chance
(2000): of large parameters, differences of logarithms of gamma functions would keep few digits. With the logit of x,
the logarithm of the chance is concave, so that Newton's method finds the quantile from anywhere.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

FEW: Final = 32  # quantiles that are found sooner than SciPy is imported
LEAST: Final = 0.01  # parameters of which they are found here
MOST: Final = 1e8
CHANGE: Final = 1e-15  # relative change that ends a continued fraction
CLOSE: Final = 1e-8  # distance from which one step of Newton's method is exact, as its error is squared
LARGE: Final = 16.0  # from here on Stirling's series is exact
STIRLING: Final = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
Numbers = NDArray[np.float64] | np.float64


def beta_quantile(share: float | Numbers, a: Numbers, b: Numbers) -> NDArray[np.float64]:
    """Compute quantiles of beta distributions, with the limits 0 where a is 0 and 1 where b is.

    Args:
        share: Probability below the quantile, between 0 and 1.
        a: First parameter, 0 or more, float64.
        b: Second parameter, 0 or more, float64.

    Returns:
        The quantiles, float64, of the shape to which all broadcast.
    """
    shares, firsts, seconds = np.broadcast_arrays(share, np.maximum(a, 0.0), np.maximum(b, 0.0))
    inside = ~((firsts <= 0) | (seconds <= 0))
    share, a, b = shares[inside], firsts[inside], seconds[inside]
    found = np.where(firsts <= 0, 0.0, 1.0)
    if len(a) <= FEW and np.all((np.minimum(a, b) >= LEAST) & (np.maximum(a, b) <= MOST)):
        rows = zip(share.tolist(), a.tolist(), b.tolist(), strict=True)
        found[inside] = [find_beta_quantile(*row) for row in rows]
    else:
        from scipy.special import betaincinv

        found[inside] = betaincinv(a, b, share)
    return found


def find_beta_quantile(share: float, a: float, b: float) -> float:
    """Find a quantile of a beta distribution.

    Args:
        share: Probability below the quantile, between 0 and 1.
        a: First parameter, LEAST to MOST.
        b: Second parameter, LEAST to MOST.

    Returns:
        The quantile, from 0 to 1, with a relative error below 1e-12 while the parameters are below 1e7.
    """
    mirrored = share > 0.5  # the smaller tail has more digits
    if mirrored:
        share, a, b = 1 - share, b, a
    logit = log(a / b) + NormalDist().inv_cdf(share) * sqrt(1 / a + 1 / b)
    distance = 1.0
    while abs(distance) > CLOSE:
        log_chance, log_density = _log_chance_below(logit, a, b)
        distance = log_chance - log(share)
        logit -= distance * exp(log_chance - log_density)
    return _from_logit(-logit if mirrored else logit)


def _from_logit(logit: float) -> float:
    small = exp(-abs(logit))
    return (1.0 if logit > 0 else small) / (1 + small)


def _log_chance_below(logit: float, a: float, b: float) -> tuple[float, float]:
    """The logarithms of the chance below and of its derivative by the logit."""
    x, y, rest = _from_logit(logit), _from_logit(-logit), log1p(exp(-abs(logit)))
    log_x, log_y = min(logit, 0.0) - rest, min(-logit, 0.0) - rest
    total = a + b
    log_density = (
        a * (log_x + log1p(b / a))
        + b * (log_y + log1p(a / b))
        + (log(a) - log1p(a / b) - log(2 * pi)) / 2
        + _stirling_error(total)
        - _stirling_error(a)
        - _stirling_error(b)
    )
    excess = a - total * x if x < y else total * y - b
    if excess >= 0:
        return log_density + log(_fraction(a, b, x, y, excess)), log_density
    above = exp(log_density) * _fraction(b, a, y, x, -excess)
    return log1p(-min(above, 1 - CHANGE)), log_density


def _stirling_error(z: float) -> float:
    """The logarithm of the gamma function less Stirling's formula for it."""
    if z < LARGE:
        return lgamma(z) - (z - 0.5) * log(z) + z - log(2 * pi) / 2
    return sum(term / z ** (2 * power + 1) for power, term in enumerate(STIRLING))


def _fraction(a: float, b: float, x: float, y: float, excess: float) -> float:
    """The chance below x divided by its derivative by the logit; y is 1 - x, with digits of its own.

    The fraction is 1 / (beta_0 + alpha_1 / (beta_1 + alpha_2 / (beta_2 + ...))).
    """
    beta = a * (1 + excess) / (a + 1)
    value, front, back, change, n = beta, beta, 0.0, 0.0, 0
    while abs(change - 1) > CHANGE:
        n += 1
        between = a + 2 * n - 1
        part = n * (b - n) * x
        alpha = (a + n - 1) * (a + b + n - 1) * part * x / (between * between)
        beta = n + part / between + (a + n) * (1 + excess + n * (1 + y)) / (between + 2)
        front = beta + alpha / front
        back = 1 / (beta + alpha * back)
        change = front * back
        value *= change
    return 1 / value
