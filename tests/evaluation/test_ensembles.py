"""The mean of probabilities and the greedy selection, held against cases by hand and against all choices there are."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax

from budwood.evaluation.ensembles import average_sigmoid, average_softmax, select_greedily, spread_weights
from budwood.evaluation.label_task import MultiLabel, SingleLabel


def _logits(*probabilities: list[float]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = np.log(np.array(probabilities)).astype(np.float32)
    return logits


class TestMean:
    def test_by_hand(self) -> None:
        mean = average_softmax([_logits([0.9, 0.1]), _logits([0.3, 0.7])], np.array([1.0, 3.0]))
        assert np.exp(mean) == pytest.approx(np.array([[0.45, 0.55]]), abs=1e-6)
        odds = average_sigmoid([np.log([[9.0, 1.0]]), np.log([[1.0, 1 / 3]])], np.array([0.5, 0.5]))
        assert expit(odds) == pytest.approx(np.array([[0.7, 0.375]]), abs=1e-6)

    def test_of_random_logits(self) -> None:
        random = np.random.default_rng(0)
        logits = [random.normal(0, 5, (40, 4)).astype(np.float32) for _ in range(3)]
        weights = np.array([0.2, 0.5, 0.3])
        mean = sum(weight * softmax(one, axis=1) for weight, one in zip(weights, logits, strict=True))
        assert softmax(average_softmax(logits, weights), axis=1) == pytest.approx(mean, abs=1e-6)
        each = sum(weight * expit(one) for weight, one in zip(weights, logits, strict=True))
        assert expit(average_sigmoid(logits, weights)) == pytest.approx(each, abs=1e-6)

    def test_probabilities_that_round_to_0_stay_finite(self) -> None:
        far = np.array([[1000.0, -1000.0]], np.float32)
        for average in (average_softmax, average_sigmoid):
            mean = average([far, far], np.array([0.5, 0.5]))
            assert np.isfinite(mean).all()
            assert mean[0, 0] > mean[0, 1]

    def test_of_one_member_are_its_own_logits_without_rounding_that_a_test_could_take_for_a_difference(self) -> None:
        logits = np.random.default_rng(1).normal(0, 3, (9, 3)).astype(np.float32)
        for task in (SingleLabel(3), MultiLabel(3)):
            mean = task.average_logits([logits], np.ones(1))
            assert np.array_equal(mean, logits)


class TestProbabilityOfWhatIsTrue:
    def test_its_logarithm_is_the_loss(self) -> None:
        random = np.random.default_rng(2)
        logits = random.normal(0, 3, (20, 3)).astype(np.float32)
        single, several = random.integers(0, 3, 20).astype(np.int32), random.random((20, 3)) < 0.5
        one, many = SingleLabel(3), MultiLabel(3)
        assert -np.log(one.true_probabilities(single, logits)) == pytest.approx(one.losses(single, logits))
        assert -np.log(many.true_probabilities(several, logits)).mean(axis=1) == pytest.approx(
            many.losses(several, logits)
        )


class TestGreedySelection:
    def test_by_hand(self) -> None:
        good, other, bad = (np.array(values) for values in ([0.9, 0.9, 0.2], [0.2, 0.2, 0.9], [0.1, 0.1, 0.1]))
        found = select_greedily([bad, other, good], most=3)
        assert found.picks.tolist() == [0, 1, 2], "good, other, good: the mean of two good and one other"
        assert found.loss == pytest.approx(-np.log([2 / 3, 2 / 3, 1.3 / 3]).mean())
        assert found.weights == pytest.approx([0, 1 / 3, 2 / 3])

    @pytest.mark.parametrize("seed", range(6))
    def test_every_pick_is_the_best_of_all_and_the_end_is_near_the_best_mixture(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        true = random.beta(2, 1, (4, 60))
        found = select_greedily(list(true), most=5)
        picked: list[int] = []
        for loss in found.losses:
            tried = [-np.log(true[[*picked, one]].mean(axis=0)).mean() for one in range(4)]
            picked.append(int(np.argmin(tried)))
            assert loss == pytest.approx(min(tried))
        best = min(
            -np.log(true[list(chosen)].mean(axis=0)).mean()
            for count in range(1, 6)
            for chosen in combinations_with_replacement(range(4), count)
        )
        assert best <= found.loss <= best + 0.01
        assert found.loss <= min(-np.log(one).mean() for one in true), "never worse than the best alone"

    def test_a_candidate_that_helps_nobody_is_never_picked_and_the_fewest_picks_are_kept(self) -> None:
        good = np.array([0.9, 0.8])
        found = select_greedily([good - 0.3, good, good], most=10)
        assert found.picks.tolist() == [0, 1, 0], "of equal ones the first, and once says it all"
        assert len(found.losses) == 10

    def test_a_probability_of_0_is_a_large_loss_not_an_error(self) -> None:
        found = select_greedily([np.array([0.0, 1.0]), np.array([1.0, 0.0])], most=4)
        assert found.weights == pytest.approx([0.5, 0.5])
        assert found.loss == pytest.approx(np.log(2))


def test_weights_of_a_mean_of_means() -> None:
    inner = [[("a", 0.25), ("b", 0.75)], [("c", 1.0)], [("a", 1.0)], [("d", 1.0)]]
    assert spread_weights(inner, [2, 1, 1, 0]) == pytest.approx({"a": 0.375, "b": 0.375, "c": 0.25})
