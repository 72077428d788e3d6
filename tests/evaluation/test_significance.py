"""Tests and intervals agree with statsmodels and SciPy, and keep their promises when they are simulated."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from budwood.evaluation.differences import paired_difference_interval
from budwood.evaluation.intervals import Values, mean_proportion_interval, proportion_interval
from budwood.evaluation.label_task import SingleLabel
from budwood.evaluation.metrics import ResampledMetric, define_metric
from budwood.evaluation.significance import (
    ALPHA,
    compare_resampled,
    correct_holm,
    mcnemar_test,
    paired_permutation_test,
    permutation_intervals,
    smallest_difference,
)


def _resample(name: str, labels: np.ndarray, answers: list[np.ndarray]) -> tuple[Values, Values]:
    metric = define_metric(name)
    assert isinstance(metric, ResampledMetric)
    return metric.resample(SingleLabel(3), labels, answers)


def _right(n: int, rows: int, seed: int = 0) -> Values:
    """Whether each of some unequal rows is right on each image: 0 or 1."""
    random = np.random.default_rng(seed)
    return (random.random((n, rows)) < np.linspace(0.7, 0.9, rows)).astype(np.float64)


def test_mcnemar_is_that_of_statsmodels_for_every_pair() -> None:
    right = _right(150, 6)
    right[:, 5] = right[:, 4]
    p = mcnemar_test(right)
    for one, other in combinations(range(6), 2):
        table = [[np.sum((right[:, one] == a) & (right[:, other] == b)) for b in (1, 0)] for a in (1, 0)]
        expected = reference_mcnemar(table, exact=True).pvalue
        assert p[one, other] == pytest.approx(min(1, expected), rel=1e-9)
        assert p[other, one] == p[one, other]
    assert p[4, 5] == 1, "rows that never differ are equal"


def test_sign_flips_are_scipys_permutation_test() -> None:
    values = np.random.default_rng(3).random((9, 4)).round(2)
    values[:, 3] += 0.4
    p = paired_permutation_test(values)
    for one, other in combinations(range(4), 2):
        exact = stats.permutation_test(
            (values[:, one] - values[:, other],),
            lambda difference, axis: difference.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
        ).pvalue
        assert p[one, other] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 2e-4)


def test_sign_flips_of_right_and_wrong_are_mcnemars_test() -> None:
    right = _right(200, 4)
    assert np.allclose(paired_permutation_test(right), mcnemar_test(right), atol=0.015)


def test_sign_flips_know_ties_and_are_deterministic() -> None:
    thirds = np.random.default_rng(1).integers(0, 4, (300, 3)) / 3
    thirds[:, 2] = thirds[:, 1]
    p = paired_permutation_test(thirds)
    assert p[1, 2] == 1
    assert np.array_equal(p, paired_permutation_test(thirds))
    turned = paired_permutation_test(thirds[:, ::-1])[::-1, ::-1]
    assert np.allclose(p, turned, atol=1e-9), "the order of the rows does not matter"
    far = np.zeros((300, 2))
    far[:, 1] = 1
    assert 0 < paired_permutation_test(far)[0, 1] < 1e-60, "less than a vector can show is bounded, not counted"
    far[11:] = 0
    assert 1 / 10_001 <= paired_permutation_test(far)[0, 1] <= 20 / 10_001, "the observed signs count as one vector"


def test_a_table_of_many_pairs_can_still_tell_rows_apart() -> None:
    random = np.random.default_rng(0)
    values = (random.random((300, 40)) < 0.6).astype(np.float64)
    values[:, 0] = 1
    one, other = np.triu_indices(40, 1)
    corrected = correct_holm(paired_permutation_test(values)[one, other])
    assert all(corrected[(one == 0)] < ALPHA)


def test_holm_is_that_of_statsmodels() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        p = random.random(count) ** 3
        p[: count // 2] = p[0]  # ties
        assert np.allclose(correct_holm(p), multipletests(p, method="holm")[1])
    assert len(correct_holm(np.empty(0))) == 0
    assert correct_holm(np.array([0.02, np.nan, 0.5]))[0] == pytest.approx(0.04)


def test_a_bootstrap_p_value_measures_by_the_standard_error() -> None:
    random = np.random.default_rng(0)
    values = random.normal([0, 0.15], 1, (200, 2))
    drawn = np.stack([values[random.integers(0, 200, 200)].mean(axis=0) for _ in range(4000)])
    p = compare_resampled(values.mean(axis=0), drawn)[0][0, 1]
    difference = values[:, 0] - values[:, 1]
    assert stats.norm.isf(p / 2) == pytest.approx(abs(difference.mean()) / (difference.std() / 200**0.5), rel=0.05)
    equal, _, _ = compare_resampled(np.array([0.5, 0.5]), np.stack([drawn[:, 0], drawn[:, 0]], axis=1))
    assert equal[0, 1] == 1


def test_one_answer_an_image_has_clopper_and_pearsons_interval() -> None:
    for right in (0, 7, 40, 60):
        values = np.repeat([1.0, 0.0], [right, 60 - right])
        found = mean_proportion_interval(values, 1)
        low, high = proportion_confint(right, 60, method="beta")
        ends = [low if right else 0.0, high if right < 60 else 1.0]
        assert [found["low"], found["high"]] == pytest.approx(ends)
        assert found == pytest.approx(proportion_interval(right, 60))
    assert mean_proportion_interval(np.empty(0), 3)["value"] is None


def test_seeds_that_agree_tell_no_more_than_one() -> None:
    right = (np.random.default_rng(0).random(200) < 0.8).astype(np.float64)
    assert mean_proportion_interval(right, 3) == mean_proportion_interval(right, 1)
    independent = np.random.default_rng(0).binomial(3, 0.8, 200) / 3
    narrow, wide = mean_proportion_interval(independent, 3), mean_proportion_interval(right, 1)
    assert narrow["high"] - narrow["low"] < 0.7 * (wide["high"] - wide["low"])


def test_more_pairs_need_a_larger_difference() -> None:
    assert smallest_difference(0.02) == pytest.approx(0.02)
    assert smallest_difference(0.02, 10) == pytest.approx(0.02 * stats.norm.isf(0.0025) / stats.norm.isf(0.025))


def test_resampled_metrics_are_scikit_learns_and_paired() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 150)
    targets = labels[:, None] == np.arange(3)
    logits = [(random.normal(0, 1, (150, 3)) + shift * targets).astype(np.float32) for shift in (1, 2)]
    for name, reference in (
        ("balanced_accuracy", balanced_accuracy_score),
        ("macro_f1", lambda t, p: f1_score(t, p, average="macro")),
    ):
        values, spread = _resample(name, labels, [*logits, logits[0]])
        assert values[0] == pytest.approx(reference(labels, logits[0].argmax(axis=1)))
        drawn = np.random.default_rng(0).integers(0, 150, (50, 150))[7]
        expected = reference(labels[drawn], logits[1][drawn].argmax(axis=1))
        assert spread[7, 1] == pytest.approx(expected), "a resample is one of the images, the same for all"
        assert np.array_equal(spread[:, 0], spread[:, 2])


# Promises over many tables: rates are those of fixed seeds, bounds leave three standard errors for chance.


def _equal_rows(random: np.random.Generator, n: int, rows: int, seeds: int) -> Values:
    """Rows of one and the same accuracy on images that are easy or hard for all: share of seeds that are right."""
    easy = random.beta(4, 0.7, (n, 1, 1))
    return np.asarray((random.random((n, rows, seeds)) < easy).mean(axis=2))


def _told_apart(values: Values, p: Values) -> bool:
    """Whether a row is told from the one that looks best, after Holm's correction over all pairs."""
    rows = len(p)
    one, other = np.triu_indices(rows, 1)
    corrected = correct_holm(p[one, other])
    best = int(values.mean(axis=0).argmax())
    return bool(np.any(corrected[(one == best) | (other == best)] <= ALPHA))


def test_equal_rows_are_told_from_the_best_in_few_tables() -> None:
    random = np.random.default_rng(11)
    single = [_equal_rows(random, 150, 8, 1) for _ in range(600)]
    assert np.mean([_told_apart(values, mcnemar_test(values)) for values in single]) <= 0.05
    seeds = [_equal_rows(random, 60, 5, 3) for _ in range(150)]
    assert (
        np.mean([_told_apart(values, paired_permutation_test(values, seed)) for seed, values in enumerate(seeds)])
        <= 0.05
    )


def test_equal_rows_are_told_apart_by_macro_f1_in_few_tables() -> None:
    random = np.random.default_rng(5)
    labels = np.repeat(np.arange(3), 60)
    false = []
    for _ in range(120):
        right = _equal_rows(random, 180, 5, 1) > 0
        called = np.where(right, labels[:, None], (labels[:, None] + random.integers(1, 3, right.shape)) % 3)
        logits = [(called[:, row, None] == np.arange(3)).astype(np.float32) for row in range(5)]
        values, spread = _resample("macro_f1", labels, logits)
        one, other = np.triu_indices(5, 1)
        false.append(np.any(correct_holm(compare_resampled(values, spread)[0][one, other]) <= ALPHA))
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def _difference_intervals(values: Values, seeds: int) -> tuple[Values, Values]:
    if seeds > 1:
        return permutation_intervals(values, paired_permutation_test(values), 1.0)
    wins = values.T @ (1 - values)
    return paired_difference_interval(wins, wins.T, len(values))


@pytest.mark.parametrize(("n", "seeds"), [(80, 1), (80, 3), (400, 1)])
def test_intervals_of_differences_cover_at_their_rate(n: int, seeds: int) -> None:
    random = np.random.default_rng(n + seeds)
    covered, rounds = [], 300 if seeds == 1 else 120
    for _ in range(rounds):
        easy = random.beta(4, 0.7, (n, 1))
        worse = np.where(random.random((n, 1)) < 0.1, 0.0, easy)
        both = [(random.random((n, seeds)) < chance).mean(axis=1) for chance in (easy, worse)]
        low, high = _difference_intervals(np.stack(both, axis=1), seeds)
        covered.append(low[0, 1] <= 0.1 * 4 / 4.7 <= high[0, 1])
    assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / rounds) <= np.mean(covered)


def test_rows_that_never_differ_have_an_interval_around_zero() -> None:
    right = _right(100, 1)
    low, high = _difference_intervals(np.concatenate([right, right], axis=1), 1)
    assert low[0, 1] < 0 < high[0, 1]
    assert high[0, 1] < 0.04


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_rows_cover_at_their_rate(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    covered = []
    for _ in range(1500):
        easy = random.beta(4, 0.7, (120, 1))
        found = mean_proportion_interval((random.random((120, seeds)) < easy).mean(axis=1), seeds)
        covered.append((found["low"] or 0) <= 4 / 4.7 <= (found["high"] or 0))
    assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / 1500) <= np.mean(covered) <= 0.98


def test_intervals_of_differences_are_antisymmetric() -> None:
    spread = np.random.default_rng(0).normal(0, 1, (500, 3))
    _, low, high = compare_resampled(spread.mean(axis=0), spread)
    assert np.allclose(low, -high.T)
    differences = spread[:, 0] - spread[:, 2]
    half = 1.959964 * differences.std(ddof=1)
    assert (low[0, 2], high[0, 2]) == (
        pytest.approx(differences.mean() - half),
        pytest.approx(differences.mean() + half),
    )
