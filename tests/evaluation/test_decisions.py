"""From probabilities to answers: thresholds against scikit-learn, costs, names."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

import budwood as bw
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.label_task import MultiLabel, SingleLabel
from budwood.evaluation.thresholds import ThresholdRule, choose_thresholds, parse_rule


def _draw(n: int = 400) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    random = np.random.default_rng(0)
    logits = random.normal(-1, 2, (n, 3))
    chances = np.round(1 / (1 + np.exp(-logits)), 2)  # with equal ones among them
    return random.random((n, 3)) < chances, chances


def test_the_best_f1_is_that_of_every_threshold() -> None:
    targets, chances = _draw()
    found, failed = choose_thresholds(ThresholdRule("f1"), targets, chances)
    assert not failed
    for k in range(3):
        precision, recall, _ = precision_recall_curve(targets[:, k], chances[:, k])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert f1_score(targets[:, k], chances[:, k] > found[k]) == pytest.approx(best)


@pytest.mark.parametrize("wanted", [0.6, 0.8, 0.9])
def test_a_wanted_precision_is_reached_with_the_most_recall(wanted: float) -> None:
    targets, chances = _draw()
    found, failed = choose_thresholds(ThresholdRule("precision", wanted), targets, chances)
    for k in range(3):
        precision, recall, _ = precision_recall_curve(targets[:, k], chances[:, k])
        called = chances[:, k] > found[k]
        if k in failed:
            assert precision[:-1].max() < wanted
            continue
        assert precision_score(targets[:, k], called) >= wanted
        assert recall_score(targets[:, k], called) == pytest.approx(recall[:-1][precision[:-1] >= wanted].max())


@pytest.mark.parametrize("wanted", [0.6, 0.8, 0.95])
def test_a_wanted_recall_is_reached_with_the_most_precision(wanted: float) -> None:
    targets, chances = _draw()
    found, failed = choose_thresholds(ThresholdRule("recall", wanted), targets, chances)
    assert not failed
    for k in range(3):
        precision, recall, _ = precision_recall_curve(targets[:, k], chances[:, k])
        called = chances[:, k] > found[k]
        assert recall_score(targets[:, k], called) >= wanted
        assert precision_score(targets[:, k], called) == pytest.approx(precision[:-1][recall[:-1] >= wanted].max())


def test_what_cannot_be_reached_is_told() -> None:
    targets = np.array([[True, True, False], [False, True, False]])
    chances = np.array([[0.2, 0.5, 0.5], [0.8, 0.5, 0.5]])
    found, failed = choose_thresholds(ThresholdRule("precision", 0.9), targets, chances)
    assert failed == [0, 1, 2], "the surest is wrong; all have the label; none has it"
    assert found.tolist() == [0.1, 0.5, 0.5]
    assert choose_thresholds(ThresholdRule("fixed", 0.3), targets, chances)[0].tolist() == [0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("0.5", ThresholdRule("fixed", 0.5)),
        (" F1 ", ThresholdRule("f1")),
        ("precision=0.9", ThresholdRule("precision", 0.9)),
        ("recall = .95", ThresholdRule("recall", 0.95)),
        ("0.00001", ThresholdRule("fixed", 1e-5)),
        ("precision=0.9999999", ThresholdRule("precision", 0.9999999)),
    ],
)
def test_rules_are_read(text: str, rule: ThresholdRule) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "f2", "0", "1", "1.5", "precision", "precision=2", "recall=0.9.1", "nan", "-0.1"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(bw.RecipeError, match=r"threshold: expected 0\.5 .* between 0 and 1; found"):
        parse_rule(text)


def test_costs_choose_the_least_expected_cost() -> None:
    costs = np.array([[0.0, 1.0], [20.0, 0.0]])  # what is of class 1 must not be called class 0
    chances = np.array([[0.97, 0.03], [0.9, 0.1], [0.2, 0.8]])
    rule = DecisionRule(SingleLabel(2), costs=costs)
    assert rule.decide(chances).argmax(axis=1).tolist() == [0, 1, 1]
    assert DecisionRule(SingleLabel(2)).decide(chances).argmax(axis=1).tolist() == [0, 0, 1]


def test_thresholds_choose_labels_and_names_say_so() -> None:
    rule = DecisionRule(MultiLabel(2), thresholds=np.array([0.2, 0.9]))
    called = rule.decide(np.array([[0.3, 0.8], [0.1, 0.95], [0.1, 0.1]]))
    assert [rule.name_answer(row, ("cat", "dog")) for row in called] == ["cat", "dog", "none of them"]
    half = DecisionRule(MultiLabel(2)).decide(np.array([[0.5, 0.51]]))
    assert half.tolist() == [[False, True]]


def test_a_temperature_of_one_changes_no_bit() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for task in (SingleLabel(4), MultiLabel(4)):
        np.testing.assert_array_equal(DecisionRule(task).to_probabilities(logits), task.to_probabilities(logits))
        halved = task.to_probabilities(np.asarray(logits / 2, np.float32))
        assert DecisionRule(task, np.array([2.0])).to_probabilities(logits) == pytest.approx(halved, rel=1e-6)
