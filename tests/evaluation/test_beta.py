"""Quantiles of beta distributions found without SciPy are SciPy's, and exact where SciPy's lose digits."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.special import betaincinv

from budwood.evaluation.beta import FEW, beta_quantile, find_beta_quantile

SHARES = (0.0005, 0.005, 0.025, 0.25, 0.5, 0.75, 0.95, 0.975, 0.9995)


def _counts(n: int) -> set[float]:
    """The ends, near them, shares of n, and what is not whole."""
    ends = [count for near in (0, 1, 2, 5) for count in (near, n - near)]
    return {count for count in [*ends, n // 3, n // 2, n * 0.001, n * 0.1, n * 0.7712, n * 0.99] if 0 <= count <= n}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 30, 100, 1000, 10_000])
def test_they_are_scipys(n: int) -> None:
    for count in _counts(n):
        for a, b in ((count, n - count + 1), (count + 1, n - count)):
            if a >= 0.01 and b >= 0.01:
                found = [find_beta_quantile(share, a, b) for share in SHARES]
                np.testing.assert_allclose(found, betaincinv(a, b, SHARES), rtol=1e-12, atol=1e-300, err_msg=f"{a} {b}")


def test_so_are_those_of_any_small_parameters() -> None:
    for a, b in 10 ** np.random.default_rng(0).uniform(-2, 2, (200, 2)):
        found = [find_beta_quantile(share, a, b) for share in SHARES]
        np.testing.assert_allclose(found, betaincinv(a, b, SHARES), rtol=1e-11, atol=1e-300)


def _binomial_chance(fewer_than: int, n: int, p: Decimal) -> tuple[Decimal, Decimal]:
    """The chance of fewer of n, and of exactly so many."""
    chance, total = (1 - p) ** n, Decimal(0)
    for count in range(fewer_than):
        total += chance
        chance *= (n - count) * p / ((count + 1) * (1 - p))
    return total, chance


@pytest.mark.parametrize("n", [100_000, 1_000_000, 10_000_000])
def test_of_many_images_the_chance_below_is_what_was_asked(n: int) -> None:
    """SciPy's quantiles are off by 4e-8 of one in a thousand of a million."""
    for a, b in ((1, n), (4, n - 3), (1001, n - 1000), (n - 3, 4)):
        for share in (0.025, 0.975):
            found = find_beta_quantile(share, a, b)
            with localcontext(prec=40):
                few, p, less = (a, Decimal(found), 1 - Decimal(share)) if a < b else (b, 1 - Decimal(found), share)
                below, exactly = _binomial_chance(few, n, p)
                assert abs(below - Decimal(less)) < Decimal(1e-12 * found) * few * exactly / p, (a, b, share)


def test_many_are_those_of_few_and_so_are_the_limits() -> None:
    n = 2.0 * FEW
    counts = np.arange(n + 1)
    many = beta_quantile(0.025, counts, n - counts)
    few = [float(beta_quantile(0.025, np.float64(count), np.float64(n - count))) for count in counts]
    np.testing.assert_allclose(few, many, rtol=1e-12)
    assert few[0] == 0.0
    assert few[-1] == 1.0
    assert beta_quantile(np.array([[0.1], [0.9]]), np.ones(3), np.ones(1)) == pytest.approx(
        np.array([[0.1] * 3, [0.9] * 3])
    )


def test_few_need_no_scipy() -> None:
    code = (
        "import sys; from budwood.evaluation.intervals import proportion_interval as of; "
        "of(3, 9); sys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
