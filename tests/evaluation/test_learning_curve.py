"""Learning curves: what is fitted, what is forecast, and that intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from budwood.evaluation.learning_curve import (
    FRACTIONS,
    Floats,
    LearningCurve,
    draw_nested_subsets,
    fit_power_laws,
    measure_class_gains,
)

SIZES = np.array([100.0, 160, 250, 400, 630, 1000])


def _law(n: Floats, a: float, b: float, c: float) -> Floats:
    return np.asarray(a + b * n**-c)


def _curve(seed: int, a: float = 0.02, images: int = 400, draws: int = 4) -> LearningCurve:
    """Errors of one validation set whose images are of different difficulty."""
    random = np.random.default_rng(seed)
    hard = random.random(images)
    wrong = []
    for size in SIZES:
        each = [hard < np.clip(_law(size, a, 2.0, 0.6) + random.normal(0, 0.004), 0, 1) for _ in range(draws)]
        wrong.append(np.stack(each if size < 1000 else each[:1]))
    return LearningCurve(SIZES, wrong)


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 2.0, 0.6), (0.0, 1.5, 0.4), (0.1, 8.0, 1.0)])
def test_the_fit_is_that_of_scipy(a: float, b: float, c: float) -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, len(SIZES))
    errors = _law(SIZES, a, b, c) * noise
    fitted, _ = curve_fit(
        _law, SIZES, errors, p0=(a + 0.01, b, c), sigma=errors, bounds=([0, 0, 0.02], [1, 1000, 3]), maxfev=20_000
    )
    own = fit_power_laws(SIZES, errors[None])
    for n in (100.0, 500.0, 2000.0, 4000.0):
        assert own.predict(n)[0] == pytest.approx(_law(np.array(n), *fitted), abs=0.002)


def test_floor_and_slope_are_never_negative() -> None:
    random = np.random.default_rng(0)
    errors = random.random((50, len(SIZES))) * 0.3
    laws = fit_power_laws(SIZES, errors)
    assert (laws.a >= 0).all()
    assert (laws.b >= 0).all()
    assert (fit_power_laws(SIZES, errors, no_floor=True).a == 0).all()


def test_parts_are_nested_and_have_every_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int32)
    parts = draw_nested_subsets(labels, [10, 40, 100], np.random.default_rng(0))
    assert [len(part) for part in parts] == [10, 40, 100]
    assert set(parts[0].tolist()) < set(parts[1].tolist()) < set(parts[2].tolist())
    assert np.bincount(labels[parts[1]]) == pytest.approx([24, 12, 4], abs=1.5)
    assert np.bincount(labels[parts[0]]).min() >= 1


def test_intervals_of_forecasts_hold_the_truth() -> None:
    held = 0
    for seed in range(40):
        told = _curve(seed).forecast(2000, seed)
        assert told.value is not None
        assert told.low is not None
        assert told.high is not None
        assert told.low <= told.value <= told.high
        held += int(told.low <= float(_law(np.array(2000.0), 0.02, 2.0, 0.6)) <= told.high)
    assert held >= 36


def test_intervals_are_wider_the_farther_they_reach() -> None:
    curve = _curve(0)
    near, far = curve.forecast_gain(1500), curve.forecast_gain(4000)
    assert near.low is not None
    assert near.high is not None
    assert far.low is not None
    assert far.high is not None
    assert near.low >= 0
    assert far.high - far.low > near.high - near.low


def test_images_are_counted_only_where_the_curve_can_tell() -> None:
    curve = _curve(0, images=2000)
    here = float(curve.fit().predict(1000)[0])
    value, low, high = curve.count_needed(here - 0.005)
    assert 1000 < value < 4000
    assert low <= value <= high
    assert curve.count_needed(0.0001) == (np.inf, np.inf, np.inf)


def test_a_curve_of_one_draw_and_no_mistake_is_flat() -> None:
    curve = LearningCurve(SIZES, [np.zeros((1, 50), bool)] * len(FRACTIONS))
    told = curve.forecast(2000)
    assert (told.value, told.low) == (0.0, 0.0)


def test_the_class_that_matters_is_told_from_the_others() -> None:
    random = np.random.default_rng(0)
    losses = random.normal(0, 0.05, (4, 300))
    losses[2] += 0.03
    gains = measure_class_gains(["a", "b", "c", "d"], [10, 20, 30, 40], losses)
    assert (gains[0].name, gains[0].images) == ("c", 30)
    assert gains[0].p < 0.001
    assert gains[0].loss == pytest.approx(losses[2].mean())
    assert gains[0].low < gains[0].loss < gains[0].high
    assert all(one.p > 0.05 for one in gains[1:])
    assert measure_class_gains([], [], np.zeros((0, 5))) == ()
    assert measure_class_gains(["a"], [3], np.zeros((1, 5)))[0].p == 1
