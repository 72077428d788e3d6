"""Shares of variance: of an option that decides everything, of one that decides nothing, of several kinds of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from budwood.comparison.importance import rank_options


def _shares(records: list[tuple[dict[str, Any], float]]) -> dict[str, float]:
    return {one.option: one.share for one in rank_options(records)}


def test_what_decides_everything_has_all_of_the_variance() -> None:
    random = np.random.default_rng(0)
    records = [
        ({"optimizer": name, "noise": int(random.integers(0, 3))}, score)
        for name, score in (("adam", 0.9), ("sgd", 0.6), ("lbfgs", 0.8))
        for _ in range(20)
    ]
    shares = _shares(records)
    assert list(shares) == ["optimizer", "noise"], "the largest first"
    assert shares["optimizer"] == pytest.approx(1)
    assert shares["noise"] < 0.1


def test_shares_are_those_of_an_analysis_of_variance() -> None:
    random = np.random.default_rng(1)
    groups = [random.normal(mean, 1, 12) for mean in (0, 0.5, 1.5)]
    records = [({"a": number, "b": 0}, score) for number, group in enumerate(groups) for score in group.tolist()]
    from scipy.stats import f_oneway

    f = f_oneway(*groups).statistic
    expected = (f - 1) * 2 / (f * 2 + 33)  # epsilon squared from F, with 2 and 33 degrees of freedom
    assert _shares(records) == {"a": pytest.approx(expected)}


def test_many_random_levels_explain_nothing() -> None:
    random = np.random.default_rng(2)
    records = [
        ({"lr": float(x), "level": number % 10}, float(random.normal())) for number, x in enumerate(random.random(60))
    ]
    assert all(share < 0.15 for share in _shares(records).values())


def test_numbers_of_a_search_are_put_into_quarters() -> None:
    random = np.random.default_rng(3)
    rates = 10 ** random.uniform(-5, 0, 80)
    records = [({"lr": float(rate)}, -abs(np.log10(rate) + 2.5)) for rate in rates]
    found = rank_options(records)[0]
    assert found.levels == 4
    assert found.share > 0.5, "a peak in the middle is seen, though it is no trend"


def test_an_option_that_only_some_use_has_a_level_for_the_others() -> None:
    records = [({"optimizer": "sgd", "momentum": 0.9 if n % 2 else 0.5}, 0.5 + 0.1 * (n % 2)) for n in range(10)]
    records += [({"optimizer": "adam"}, 0.9) for _ in range(10)]
    assert {one.option: one.levels for one in rank_options(records)} == {"momentum": 3, "optimizer": 2}


def test_too_little_to_tell() -> None:
    assert rank_options([({"a": n}, float(n)) for n in range(5)]) == []
    assert _shares([({"a": n % 2}, 0.5) for n in range(8)]) == {"a": 0}
    assert _shares([({"a": f"only {n}"}, float(n)) for n in range(8)]) == {}, "a level for each row explains nothing"
