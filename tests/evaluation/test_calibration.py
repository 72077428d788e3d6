"""Temperature scaling and the calibration error, against SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, logsumexp

from budwood.evaluation.calibration import (
    expect_calibration_error,
    fit_label_temperatures,
    fit_temperature,
    measure_calibration_error,
)
from budwood.evaluation.logits import probabilities
from budwood.evaluation.selective import trace_accuracy


def _draw(n: int, classes: int, scale: float, seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels that follow the softmax of some logits, and these logits times `scale`."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, classes))
    chances = probabilities(logits.astype(np.float32))
    labels = (chances.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return labels.astype(np.int32), (scale * logits).astype(np.float32)


@pytest.mark.parametrize(("n", "classes", "scale"), [(50, 2, 1.0), (400, 5, 3.0), (400, 5, 0.3), (2000, 30, 1.7)])
def test_the_temperature_has_the_least_cross_entropy(n: int, classes: int, scale: float) -> None:
    labels, logits = _draw(n, classes, scale)
    share = 1 / (n + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        minus = scaled - logsumexp(scaled, axis=1, keepdims=True)
        target = np.full_like(minus, share / (classes - 1))
        target[np.arange(n), labels] = 1 - share
        return float(-(target * minus).sum())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(labels, logits) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_the_temperature_undoes_a_scale() -> None:
    labels, logits = _draw(20_000, 6, 2.5)
    assert fit_temperature(labels, logits) == pytest.approx(2.5, rel=0.05)


def test_a_network_that_is_always_right_is_not_made_sure_of_everything() -> None:
    labels = np.arange(40, dtype=np.int32) % 4
    logits = (2 * np.eye(4)[labels]).astype(np.float32)
    temperature = fit_temperature(labels, logits)
    assert 0.3 < temperature < 1, "as sure as 40 images allow, but one in 42 is thought to be wrong"


@pytest.mark.parametrize("n", [0, 1, 19])
def test_too_few_images_have_no_temperature(n: int) -> None:
    labels, logits = _draw(n, 3, 4.0)
    assert fit_temperature(labels, logits) == 1
    targets = labels[:, None] == np.arange(3)
    assert fit_label_temperatures(targets, logits).tolist() == [1, 1, 1]


def test_one_class_or_equal_logits_have_no_temperature() -> None:
    assert fit_temperature(np.zeros(30, np.int32), np.ones((30, 1), np.float32)) == 1
    assert fit_temperature(np.zeros(30, np.int32), np.ones((30, 4), np.float32)) == 1


def test_each_label_has_its_own_temperature() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (600, 3))
    targets = random.random((600, 3)) < 1 / (1 + np.exp(-logits))
    targets[:, 2] = False
    targets[:4, 2] = True  # too few for a temperature of its own
    given = (logits * [3.0, 0.5, 1.0]).astype(np.float32)
    found = fit_label_temperatures(targets, given)
    for k, expected in ((0, 3.0), (1, 0.5)):
        truth, values = targets[:, k], given[:, k].astype(np.float64)
        yes, no = truth.sum(), (~truth).sum()
        wanted = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))

        def loss(log_t: float, values: NDArray[np.float64] = values, wanted: NDArray[np.float64] = wanted) -> float:
            scaled = values / np.exp(log_t)
            return float(-(wanted * log_expit(scaled) + (1 - wanted) * log_expit(-scaled)).sum())

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
        assert found[k] == pytest.approx(np.exp(best.x), rel=1e-3)
        assert found[k] == pytest.approx(expected, rel=0.3)
    alone = fit_label_temperatures(targets[:, :2], given[:, :2])
    assert found[:2].tolist() == alone.tolist()
    assert found[2] not in alone.tolist()


def test_the_calibration_error_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(500)
    correct = random.random(500) < confidence**2
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    found = measure_calibration_error(confidence, correct)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.n == 500


def test_the_interval_of_the_calibration_error_covers() -> None:
    """Of confident networks that are right less often than they say, the interval holds the true error."""
    random, held = np.random.default_rng(3), 0
    for _ in range(200):
        confidence = random.choice([0.65, 0.75, 0.85, 0.95], 400)
        correct = random.random(400) < confidence - 0.1
        found = measure_calibration_error(confidence, correct)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert held >= 180


def test_the_interval_of_a_calibrated_network_reaches_zero() -> None:
    random = np.random.default_rng(4)
    confidence = 0.5 + random.random(300) / 2
    reached = [measure_calibration_error(confidence, random.random(300) < confidence).low for _ in range(100)]
    assert sum(low == 0 for low in reached) >= 94


def test_labels_that_go_together_count_once() -> None:
    """Three labels that are always alike tell no more than one of them: the interval is as wide."""
    random = np.random.default_rng(6)
    confidence = random.random(400)
    correct = random.random(400) < confidence**1.5
    once = measure_calibration_error(confidence, correct)
    thrice = measure_calibration_error(np.repeat(confidence, 3), np.repeat(correct, 3), together=3)
    apart = measure_calibration_error(np.repeat(confidence, 3), np.repeat(correct, 3))
    assert thrice.value == pytest.approx(once.value)
    widths = [
        found.high - found.low for found in (once, thrice, apart) if found.high is not None and found.low is not None
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < 0.7 * widths[0]


def test_the_interval_over_labels_covers() -> None:
    random, held = np.random.default_rng(7), 0
    for _ in range(200):
        confidence = np.repeat(random.choice([0.15, 0.35, 0.65, 0.85], 1000), 2)
        correct = np.repeat(random.random(1000), 2) < confidence - 0.1
        found = measure_calibration_error(confidence, correct, together=2)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert held >= 180


def test_the_error_by_chance_is_that_of_simulated_answers() -> None:
    random = np.random.default_rng(5)
    confidence = 0.5 + random.random(400) / 2
    drawn = [measure_calibration_error(confidence, random.random(400) < confidence).value for _ in range(300)]
    assert expect_calibration_error(confidence) == pytest.approx(np.mean(np.array(drawn, float)), rel=0.05)


def test_no_answers_have_no_error() -> None:
    none = measure_calibration_error(np.zeros(0), np.zeros(0, bool))
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 0)
    assert expect_calibration_error(np.zeros(0)) == 0
    assert trace_accuracy(np.zeros(0), np.zeros(0, bool)) == []


def test_accuracy_against_coverage_takes_the_surest_first() -> None:
    confidence = np.linspace(0, 1, 100)
    correct = confidence > 0.295
    points = trace_accuracy(confidence, correct)
    assert [round(point.share, 2) for point in points] == [1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert [point.accuracy.value for point in points][:1] == [0.7]
    assert points[4].accuracy.value == 1
    assert points[4].threshold == pytest.approx(30 / 99)
    assert all(point.accuracy.n == round(100 * point.share) for point in points)
    assert [point.accuracy.n for point in trace_accuracy(confidence[:12], correct[:12])] == [12, 11, 10], "10 at least"
