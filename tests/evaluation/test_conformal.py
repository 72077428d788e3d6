"""Prediction sets hold the true class as often as promised; limits against MAPIE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin

from budwood.evaluation.conformal import find_limit, find_limits
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.label_task import MultiLabel, SingleLabel

SPLITS = 2000


class _Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose probabilities are its inputs."""

    def fit(self, x: NDArray[Any], y: NDArray[Any]) -> _Given:
        self.classes_ = np.arange(x.shape[1])
        self.n_features_in_ = x.shape[1]
        return self

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.asarray(x.argmax(axis=1))


def _draw(random: np.random.Generator, n: int, classes: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    logits = random.normal(0, 1, (n, classes))
    labels = random.integers(0, classes, n).astype(np.int32)
    logits[np.arange(n), labels] += 1.5 + labels / classes
    chances = np.exp(logits)
    return labels, chances / chances.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "coverage"), [(29, 0.9), (30, 0.9), (57, 0.8), (300, 0.95), (300, 0.5)])
def test_sets_are_those_of_mapie(n: int, coverage: float) -> None:
    random = np.random.default_rng(n)
    labels, chances = _draw(random, n, 4)
    _, new = _draw(random, 200, 4)
    reference = SplitConformalClassifier(
        _Given().fit(chances, labels), confidence_level=coverage, prefit=True, conformity_score="lac"
    )
    reference.conformalize(chances, labels)
    expected = reference.predict_set(new)[1][:, :, 0]
    limit = find_limit(chances[np.arange(n), labels], coverage)
    np.testing.assert_array_equal(new >= limit - 1e-12, expected)


def test_too_few_images_hold_every_class() -> None:
    assert find_limit(np.array([0.9] * 8), 0.9) == 0
    assert find_limit(np.array([0.9] * 9), 0.9) == 0.9
    assert find_limit(np.zeros(0), 0.9) == 0
    found = find_limits(np.eye(3, dtype=bool), np.full((3, 3), 1 / 3), 0.9)
    assert found.limits.tolist() == [0, 0, 0]
    assert DecisionRule(SingleLabel(3), set_limits=found.limits).list_candidates(np.array([[1.0, 0, 0]])).all()


@pytest.mark.parametrize(
    ("counts", "coverage", "own"),
    [
        ((30, 30, 60), 0.9, (True, True, True)),
        ((30, 29, 60), 0.9, (False, False, True)),  # the rarest needs another beside it
        ((15, 15, 60), 0.9, (False, False, True)),
        ((60, 0, 60), 0.9, (False, False, True)),
        ((60, 98, 99), 0.99, (False, False, True)),  # fewer than 99 images cannot tell 99 %
        ((9, 9, 9), 0.9, (False, False, False)),
    ],
)
def test_classes_with_enough_images_have_limits_of_their_own(
    counts: tuple[int, ...], coverage: float, own: tuple[bool, ...]
) -> None:
    labels = np.repeat([0, 1, 2], counts)
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], len(labels))
    found = find_limits(labels[:, None] == np.arange(3), chances, coverage)
    assert tuple(found.per_class.tolist()) == own
    true = chances[np.arange(len(labels)), labels]
    shared = find_limit(true[~np.array(own)[labels]], coverage)
    for k in range(3):
        assert found.limits[k] == (find_limit(true[labels == k], coverage) if own[k] else shared)


def _check_rate(held: Sequence[bool] | NDArray[np.bool_], promised: float, most: float) -> None:
    """The share that holds lies within the binomial bounds (99.9 %) of what is promised and of its upper end."""
    n, count = len(held), int(np.sum(held))
    assert binom.ppf(0.001, n, promised) <= count <= binom.ppf(0.999, n, most)


def test_sets_cover_at_their_rate() -> None:
    """One new image for each of 2,000 calibration sets: covered at 90 %, and at most 1 / (n + 1) more often."""
    random, n = np.random.default_rng(1), 99
    held = []
    for _ in range(SPLITS):
        labels, chances = _draw(random, n + 1, 5)
        limit = find_limit(chances[np.arange(n), labels[:n]], 0.9)
        held.append(chances[n, labels[n]] >= limit)
    _check_rate(held, 0.9, 0.9 + 1 / (n + 1))


def test_sets_cover_each_class_at_its_rate() -> None:
    random = np.random.default_rng(2)
    held: dict[int, list[bool]] = {0: [], 1: [], 2: []}
    for _ in range(SPLITS):
        labels, chances = _draw(random, 150, 3)
        found = find_limits(labels[:, None] == np.arange(3), chances, 0.9)
        new, likely = _draw(random, 1, 3)
        if found.per_class[new[0]]:
            held[int(new[0])].append(bool(likely[0, new[0]] >= found.limits[new[0]]))
    for rates in held.values():
        assert len(rates) > 500
        _check_rate(rates, 0.9, 0.9 + 1 / 31)


def test_rare_hard_classes_do_not_break_the_promise() -> None:
    random, shares = np.random.default_rng(4), [0.4, 0.4] + [0.025] * 8
    held, rare = list[bool](), list[bool]()
    for _ in range(SPLITS):
        labels = random.choice(10, 201, p=shares)
        logits = random.normal(0, 1, (201, 10))
        logits[np.arange(201), labels] += np.where(labels < 2, 4.0, 0.5)
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        found = find_limits(labels[:200, None] == np.arange(10), chances[:200], 0.9)
        held.append(bool(chances[200, labels[200]] >= found.limits[labels[200]]))
        if labels[200] > 1:
            rare.append(held[-1])
    _check_rate(held, 0.9, 0.9 + 1 / 31)
    _check_rate(rare, 0.9, 0.9 + 1 / 31)


def test_sets_of_several_labels_hold_each_true_label_at_its_rate() -> None:
    random, held = np.random.default_rng(3), list[bool]()
    task = MultiLabel(3)
    for _ in range(SPLITS):
        logits = random.normal(0, 2, (201, 3))
        chances = 1 / (1 + np.exp(-logits))
        targets = random.random((201, 3)) < chances
        found = find_limits(targets[:200], chances[:200], 0.8)
        candidates = DecisionRule(task, set_limits=found.limits).list_candidates(chances[200:])
        held += candidates[0][targets[200]].tolist()
    _check_rate(held, 0.8, 0.8 + 1 / 80)


def test_the_likeliest_class_is_always_in_the_set() -> None:
    rule = DecisionRule(SingleLabel(2), set_limits=np.array([0.9, 0.9]))
    assert rule.list_candidates(np.array([[0.4, 0.6], [0.95, 0.05]])).tolist() == [[False, True], [True, False]]
    none = DecisionRule(MultiLabel(2), set_limits=np.array([0.9, 0.9]))
    assert none.list_candidates(np.array([[0.4, 0.6]])).tolist() == [[False, False]]
