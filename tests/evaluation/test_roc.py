"""The area under the ROC curve, its interval, and the share of strangers that pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_ood.metrics import FPRAtTPR
from sklearn.metrics import roc_auc_score

from budwood.evaluation.intervals import Metric
from budwood.evaluation.roc import auroc_interval, compare_scores, mean_auroc_interval, pass_rate, rank_by_area


def draw(seed: int, known: int, strange: int, shift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.normal(size=known), random.normal(shift, 1, strange)


class TestArea:
    @pytest.mark.parametrize("digits", [0, 1, 6])  # ties, too
    def test_is_that_of_scikit_learn(self, digits: int) -> None:
        known, strange = (scores.round(digits) for scores in draw(0, 300, 200, 1.0))
        truth = np.repeat([0, 1], [300, 200])
        assert compare_scores(known, strange).area == pytest.approx(roc_auc_score(truth, np.append(known, strange)))
        assert auroc_interval(known, strange).value == pytest.approx(roc_auc_score(truth, np.append(known, strange)))

    def test_scores_may_be_infinite(self) -> None:
        assert auroc_interval(np.array([0.0, 1.0]), np.array([np.inf, np.inf])).value == 1.0

    @pytest.mark.parametrize(
        ("known", "strange", "shift"), [(40, 15, 1.0), (150, 60, 2.5), (30, 30, 4.0), (20, 300, 0.5)]
    )
    def test_the_interval_covers(self, known: int, strange: int, shift: float) -> None:
        from scipy.stats import norm

        true, hits = norm.cdf(shift / np.sqrt(2)), 0
        for seed in range(400):
            found = auroc_interval(*draw(seed, known, strange, shift))
            assert found.low is not None
            assert found.high is not None
            hits += found.low <= true <= found.high
        assert hits / 400 >= 0.93

    def test_few_images_without_a_mistake_are_no_proof(self) -> None:
        found = auroc_interval(np.zeros(300), np.ones(3))
        assert found.value == 1.0
        assert found.n == 3
        assert found.low is not None
        assert found.low < 0.35


class TestMeanArea:
    def test_is_the_mean_over_comparisons_that_have_both(self) -> None:
        scores = np.array([[0.0, 0.0, 5.0], [1.0, 3.0, 5.0], [2.0, 2.0, 5.0]])
        strange = np.array([[False, False, False], [False, True, False], [True, False, False]])
        found = mean_auroc_interval(scores, strange, ~strange)
        assert found.value == 1.0
        assert found.n == 2

    def test_nothing_to_compare_is_undefined(self) -> None:
        none = np.zeros((3, 2), bool)
        assert mean_auroc_interval(np.zeros((3, 2)), none, ~none) == Metric(None, None, None, 0)

    def test_the_interval_covers_where_comparisons_share_images(self) -> None:
        random, hits, labels = np.random.default_rng(0), 0, np.arange(80) % 4
        strange = labels[:, None] == np.arange(4)
        true = 0.8413447  # of a shift by the square root of 2
        for _ in range(300):
            shared = random.normal(size=(80, 1))
            found = mean_auroc_interval(shared + strange * np.sqrt(2), strange, ~strange)
            assert found.low is not None
            assert found.high is not None
            hits += found.low <= true <= found.high
        assert hits / 300 >= 0.93


class TestPassRate:
    def test_is_that_of_pytorch_ood(self) -> None:
        known, strange = draw(1, 400, 300, 2.0)
        theirs = FPRAtTPR(tpr=0.95)  # positive there is what has a label below 0: here those that are to pass
        theirs.update(-torch.tensor(np.append(strange, known)), torch.tensor(np.repeat([0, -1], [300, 400])))
        assert pass_rate(known, strange).value == pytest.approx(float(theirs.compute()["FPR95TPR"]), abs=1 / 300)

    def test_one_that_ties_with_the_threshold_passes(self) -> None:
        assert pass_rate(np.zeros(10), np.zeros(4)).value == 1.0


def test_names_are_ranked_by_area_and_ties_stay_in_order() -> None:
    areas = [("a", Metric(0.9001, 0.8, 1.0, 9)), ("b", Metric(0.9003, 0.8, 1.0, 9)), ("c", Metric(0.95, 0.9, 1.0, 9))]
    assert rank_by_area(areas) == ["c", "a", "b"]
