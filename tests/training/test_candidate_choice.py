"""The cheapest candidate that is not clearly worse than the best is chosen, by paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score

from budwood.training.candidate_choice import choose_candidate
from budwood.training.head_selection import CandidateScore

RANDOM = np.random.default_rng(3)
BASE = RANDOM.exponential(0.5, 400)


def _score(losses: NDArray[np.float64], correct: NDArray[np.float64] | None = None) -> CandidateScore:
    right = np.ones(len(losses)) if correct is None else correct
    return CandidateScore(losses, right, 0.1, np.zeros((len(losses), 2), np.float32))


def test_a_cheap_candidate_within_one_standard_error_of_the_best_is_chosen() -> None:
    noise = RANDOM.normal(0, 1, 400)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 20
    near, far = (_score(BASE + noise + factor * error) for factor in (0.9, 1.1))
    assert choose_candidate([_score(BASE), near], [2, 1]).chosen == 1
    assert choose_candidate([_score(BASE), far], [2, 1]).chosen == 0
    assert choose_candidate([_score(BASE), near], [1, 2]).chosen == 0
    assert choose_candidate([_score(BASE), near], [2, 1]).best == 0


def test_pairs_count_not_spreads() -> None:
    """A loss that is a little higher on every image is surely worse, however much losses spread."""
    assert choose_candidate([_score(BASE), _score(BASE + 0.01)], [2, 1]).chosen == 0


def test_equal_candidates_go_to_the_cheapest_and_equal_costs_to_the_better() -> None:
    assert choose_candidate([_score(BASE), _score(BASE)], [2, 1]).chosen == 1
    noisy = BASE + RANDOM.normal(0.001, 1, 400)
    assert choose_candidate([_score(noisy), _score(BASE)], [1, 1]).chosen == int(BASE.mean() < noisy.mean())


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    other = BASE + RANDOM.normal(0.2, 0.5, 400)
    found = choose_candidate([_score(BASE), _score(other)], [1, 1]).differences
    expected = stats.ttest_rel(other, BASE).confidence_interval(0.95)
    assert (found[1].low, found[1].high) == pytest.approx((expected.low, expected.high))
    assert found[1].error == pytest.approx(stats.sem(other - BASE))
    assert (found[0].value, found[0].error) == (0, 0)


def test_near_copies_count_as_one_image() -> None:
    other = BASE + RANDOM.normal(0.2, 0.5, 400)
    twice = [np.repeat(values, 2) for values in (BASE, other)]
    single = choose_candidate([_score(BASE), _score(other)], [1, 1]).differences[1].error
    copies = choose_candidate([_score(values) for values in twice], [1, 1], groups=np.arange(800) // 2)
    assert copies.differences[1].error == pytest.approx(single)
    assert choose_candidate([_score(values) for values in twice], [1, 1]).differences[1].error < single


def test_accuracy_prefers_more() -> None:
    right, wrong = np.ones(400), (np.arange(400) % 10 > 0).astype(float)
    choice = choose_candidate([_score(BASE, wrong), _score(BASE, right)], [1, 2], "accuracy")
    assert (choice.chosen, choice.figures) == (1, (0.9, 1.0))
    assert choice.differences[0].high < 0


def test_another_metric_has_the_standard_error_of_the_bootstrap() -> None:
    labels = (np.arange(400) % 5 == 0).astype(np.int32)
    right = np.eye(2, dtype=np.float32)[labels]
    some, many = right.copy(), right.copy()
    some[:40:5] = some[:40:5, ::-1]
    many[::10] = many[::10, ::-1]
    scores = [CandidateScore(BASE, BASE, 0.1, logits) for logits in (some, many)]
    choice = choose_candidate(scores, [2, 1], "macro_f1", labels)
    expected = [f1_score(labels, logits.argmax(axis=1), average="macro") for logits in (some, many)]
    assert choice.figures == pytest.approx(expected)
    assert (choice.chosen, choice.best) == (0, 0)
    samples = [np.random.default_rng(seed).integers(0, 400, 400) for seed in range(300)]
    spread = [
        f1_score(labels[rows], many[rows].argmax(axis=1), average="macro")
        - f1_score(labels[rows], some[rows].argmax(axis=1), average="macro")
        for rows in samples
    ]
    assert choice.differences[1].error == pytest.approx(np.std(spread), rel=0.25)
    assert choose_candidate(scores, [2, 1], "macro_f1", labels) == choice


def test_images_that_were_not_scored_do_not_count() -> None:
    part = BASE.copy()
    part[:100] = np.nan
    assert choose_candidate([_score(part)], [1]).figures == (BASE[100:].mean(),)


def test_other_images_or_no_labels_are_refused() -> None:
    part = BASE.copy()
    part[0] = np.nan
    with pytest.raises(ValueError, match="scored on the same images, found others or none"):
        choose_candidate([_score(BASE), _score(part)], [1, 1])
    with pytest.raises(ValueError, match="Expected the labels of the images, by which macro_f1 is computed"):
        choose_candidate([_score(BASE)], [1], "macro_f1")
