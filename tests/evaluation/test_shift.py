"""Whether two samples are alike: tests that hold their level, find what changed, and say how much."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel

from budwood.evaluation.shift import (
    Flags,
    Floats,
    Numbers,
    auroc_within,
    compare_features,
    compare_mix,
    compare_scores,
    compute_mmd,
    measure_kernel,
    permutation_p,
    permute_within,
    weigh_alike,
)


def _sample(seed: int, n: int, classes: int = 2, shift: float = 0.0) -> tuple[Floats, Numbers]:
    random = np.random.default_rng(seed)
    strata = random.integers(0, classes, n)
    return random.normal(0, 1, (n, 8)) + 4 * strata[:, None] + shift, strata


def _joined(old: tuple[Floats, Numbers], new: tuple[Floats, Numbers]) -> tuple[Floats, Flags, Numbers]:
    values, strata = (np.concatenate(parts) for parts in zip(old, new, strict=True))
    return values, np.arange(len(values)) >= len(old[0]), strata


def test_the_discrepancy_is_that_of_a_double_loop_and_the_kernel_that_of_scikit_learn() -> None:
    values, is_new, _ = _joined(_sample(0, 12), _sample(1, 9, shift=1))
    distances = sorted(((values[i] - values[j]) ** 2).sum() for i, j in product(range(21), repeat=2) if i < j)
    median = float(np.median(distances))
    kernel = measure_kernel(values)
    assert kernel == pytest.approx(rbf_kernel(values, gamma=1 / median))
    total = 0.0
    for i, j in product(range(21), repeat=2):
        sign = 1 if is_new[i] == is_new[j] else -1
        total += (
            sign
            * math.exp(-((values[i] - values[j]) ** 2).sum() / median)
            / ((9 if is_new[i] else 12) * (9 if is_new[j] else 12))
        )
    weights = weigh_alike(is_new, np.zeros(21, np.int64))
    assert compute_mmd(kernel, weights) == pytest.approx(total)


def test_p_values_are_uniform_where_nothing_changed() -> None:
    found = []
    for seed in range(60):
        values, is_new, strata = _joined(_sample(2 * seed, 30), _sample(2 * seed + 1, 25))
        found.append(compare_features(values, is_new, strata, seed).p)
    assert kstest(found, "uniform").pvalue > 0.01
    assert 0 < min(found) <= max(found) <= 1


def test_the_tests_of_scores_and_of_classes_hold_their_level() -> None:
    random = np.random.default_rng(0)
    scores, mixes = [], []
    for seed in range(60):
        is_new, strata = np.arange(70) >= 40, random.integers(0, 3, 70)
        scores.append(compare_scores(random.random(70), is_new, strata, seed).p)
        mixes.append(compare_mix(is_new, strata, seed).p)
    assert kstest(scores, "uniform").pvalue > 0.01
    assert np.mean(np.array(mixes) < 0.05) <= 0.15


def test_another_kind_of_images_is_found_and_is_large() -> None:
    values, is_new, strata = _joined(_sample(0, 80), _sample(1, 60, shift=1.5))
    found = compare_features(values, is_new, strata)
    assert found.p == 1 / 2000
    assert 0.8 < found.low <= found.size <= found.high <= 1


def test_another_mix_of_classes_is_not_another_kind_of_images() -> None:
    old = _sample(0, 120)
    values, strata = _sample(1, 200)
    one = (values[strata == 0], strata[strata == 0])
    values, is_new, strata = _joined(old, one)
    assert compare_features(values, is_new, strata).p > 0.05
    mix = compare_mix(is_new, strata)
    assert mix.p == 1 / 2000
    assert mix.size == pytest.approx(np.mean(old[1] == 1))


def test_a_change_of_confidence_is_found_in_either_direction() -> None:
    random = np.random.default_rng(0)
    is_new, strata = np.arange(150) >= 90, random.integers(0, 3, 150)
    plain = random.random(150)
    for shift in (-0.5, 0.5):
        found = compare_scores(plain + shift * is_new, is_new, strata)
        assert found.p < 0.01
        assert found.size > 0.5


def test_the_auroc_is_that_of_scikit_learn_and_ties_count_half() -> None:
    random = np.random.default_rng(0)
    scores, is_new = random.integers(0, 6, 40).astype(float), random.random(40) < 0.4
    once = np.ones((1, 40))
    assert auroc_within(scores, is_new, np.zeros(40, np.int64), once)[0] == pytest.approx(roc_auc_score(is_new, scores))
    counts = random.multinomial(40, np.full(40, 1 / 40), 3).astype(float)
    for row, count in zip(auroc_within(scores, is_new, np.zeros(40, np.int64), counts), counts, strict=True):
        assert row == pytest.approx(roc_auc_score(is_new, scores, sample_weight=count))


def test_permutations_keep_the_counts_of_every_stratum() -> None:
    strata = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    is_new = np.array([1, 0, 0, 1, 1, 0, 0, 1], bool)
    drawn = permute_within(is_new, strata, 50, np.random.default_rng(0))
    for stratum, count in ((0, 1), (1, 2), (2, 1)):
        assert (drawn[:, strata == stratum].sum(axis=1) == count).all()
    assert len({tuple(row) for row in drawn.tolist()}) > 10


def test_a_p_value_counts_ties_and_is_never_zero() -> None:
    assert permutation_p(3.0, np.array([1.0, 3.0, 4.0, 2.0])) == 3 / 5
    assert permutation_p(9.0, np.zeros(99)) == 1 / 100


def test_samples_without_a_class_in_common_cannot_be_compared() -> None:
    values, is_new = np.random.default_rng(0).random((30, 4)), np.arange(30) >= 15
    strata = is_new.astype(np.int64)
    assert math.isnan(compare_features(values, is_new, strata).p)
    assert math.isnan(compare_scores(values[:, 0], is_new, strata).p)
    assert compare_mix(is_new, strata).size == 1
