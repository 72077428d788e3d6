"""Candidates are compared by heads that have not seen what they answer, as exactly as scikit-learn would."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from budwood.config.losses import CrossEntropy
from budwood.training.head_selection import (
    ALWAYS,
    FEWEST,
    LEFT_OUT,
    CandidateScore,
    choose_plan,
    cross_validate_head,
    hold_out,
    make_folds,
)
from budwood.training.head_solver import Objective

Features = NDArray[np.float32]
Labels = NDArray[np.int32]


def _images(n: int, classes: int, width: int, seed: int = 0, share: float | None = None) -> tuple[Features, Labels]:
    random = np.random.default_rng(seed)
    chances = None if share is None else [1 - share, share]
    labels = random.choice(classes, n, p=chances).astype(np.int32)
    centres = np.random.default_rng(9).normal(0, 0.8 / width**0.25, (classes, width))
    return (centres[labels] + random.normal(0, 1, (n, width))).astype(np.float32) * 3 + 2, labels


def _scale(features: Features, blocks: list[int], rows: NDArray[np.bool_]) -> Features:
    """Blocks of equal variance by the rows that train, plainly."""
    parts = np.split(features - features[rows].mean(axis=0), np.cumsum(blocks)[:-1], axis=1)
    unit = sum(blocks) / len(blocks)
    return np.concatenate([part / np.sqrt(part[rows].var(axis=0).sum() / unit) for part in parts], axis=1)


def _reference(
    features: Features,
    blocks: list[int],
    labels: Labels,
    folds: list[NDArray[np.int8]],
    strength: float,
    balanced: bool = False,
) -> NDArray[np.float64]:
    """The held-out losses of scikit-learn's heads, solved tightly one by one."""
    losses = np.zeros(len(labels))
    for part in folds:
        for fold in range(int(part.max()) + 1):
            rows, held = (part != fold) & (part != LEFT_OUT), part == fold
            inputs = _scale(features, blocks, rows)
            classes = len(np.unique(labels[rows]))
            one = strength / 2 if classes == 2 else strength  # there, the difference of two heads is penalised
            head = LogisticRegression(
                C=1 / (one * rows.sum()), tol=1e-8, max_iter=5000, class_weight="balanced" if balanced else None
            ).fit(inputs[rows], labels[rows])
            chances = head.predict_proba(inputs[held])
            losses[held] -= np.log(chances[np.arange(held.sum()), np.searchsorted(head.classes_, labels[held])])
    return losses / len(folds)


@pytest.mark.parametrize(
    ("n", "classes", "blocks"), [(300, 4, [40]), (300, 2, [30, 20]), (80, 3, [200]), (90, 3, [150, 20])]
)
def test_held_out_losses_are_scikit_learns(n: int, classes: int, blocks: list[int]) -> None:
    features, labels = _images(n, classes, sum(blocks))
    features[:, : blocks[0]] *= 20
    folds = make_folds(labels, None, 4, 2, 1)
    score = cross_validate_head(features, blocks, labels, folds, classes)
    expected = _reference(features, blocks, labels, folds, score.strength)
    assert score.losses.mean() == pytest.approx(expected.mean(), abs=1e-3)
    assert np.abs(score.losses - expected).mean() < 5e-3


def test_the_strength_is_the_best_of_its_neighbours() -> None:
    features, labels = _images(300, 4, 40)
    folds = make_folds(labels, None, 4, 1, 0)
    score = cross_validate_head(features, [40], labels, folds, 4)
    near = [_reference(features, [40], labels, folds, score.strength * factor).mean() for factor in (10**-0.5, 10**0.5)]
    assert score.losses.mean() < min(near) + 1e-3


def test_class_weights_enter_what_is_solved() -> None:
    features, labels = _images(400, 2, 20, share=0.1)
    folds = make_folds(labels, None, 4, 1, 0)
    plain = cross_validate_head(features, [20], labels, folds, 2)
    for objective in (Objective(CrossEntropy(class_weights=True)), Objective(balanced=True)):
        score = cross_validate_head(features, [20], labels, folds, 2, objective)
        expected = _reference(features, [20], labels, folds, score.strength, balanced=True)
        assert score.losses.mean() == pytest.approx(expected.mean(), abs=1e-3)
        assert score.correct[labels == 1].mean() > plain.correct[labels == 1].mean()


def test_logit_adjustment_moves_answers_to_the_rare_class() -> None:
    features, labels = _images(400, 2, 20, share=0.1)
    folds = make_folds(labels, None, 4, 1, 0)
    plain, adjusted = (
        cross_validate_head(features, [20], labels, folds, 2, Objective(CrossEntropy(logit_adjustment=tau)))
        for tau in (0.0, 1.0)
    )
    counts = [int((score.logits.argmax(axis=1) == 1).sum()) for score in (plain, adjusted)]
    assert counts[1] > counts[0]


def test_a_held_out_image_changes_no_answer_to_others_of_its_fold() -> None:
    features, labels = _images(120, 3, 30)
    fold = hold_out(np.arange(120) >= 90)
    first = cross_validate_head(features, [20, 10], labels, fold, 3)
    other = features.copy()
    other[119] *= 20
    second = cross_validate_head(other, [20, 10], labels, fold, 3)
    assert first.strength == second.strength
    assert np.abs(first.logits[90:119] - second.logits[90:119]).max() < 0.02


def test_a_hold_out_scores_validation_images_alone_and_reads_nothing_of_what_is_left_out() -> None:
    features, labels = _images(200, 3, 20)
    used = np.arange(200) % 10 != 0
    features[~used] = np.nan
    score = cross_validate_head(features, [20], labels, hold_out(np.arange(200) >= 150, used), 3)
    seen = used & (np.arange(200) >= 150)
    for values in (score.losses, score.correct, score.logits.sum(axis=1)):
        assert np.array_equal(np.isfinite(values), seen)


def test_images_that_always_train_are_never_scored() -> None:
    features, labels = _images(100, 2, 10)
    part = np.full(100, ALWAYS, np.int8)
    part[:50] = np.arange(50) % 2
    score = cross_validate_head(features, [10], labels, [part], 2)
    assert np.array_equal(np.isfinite(score.losses), np.arange(100) < 50)


def test_folds_are_stratified_and_keep_groups_together() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [100, 50, 10])
    groups = np.arange(160)
    groups[:30] = np.arange(30) // 3
    first, second = make_folds(labels, groups, 5, 2, 0)
    assert not np.array_equal(first, second)
    assert all(
        np.array_equal(one, two) for one, two in zip(make_folds(labels, groups, 5, 2, 0), (first, second), strict=True)
    )
    assert not np.array_equal(make_folds(labels, groups, 5, 1, 1)[0], first)
    for part in (first, second):
        counts = [np.bincount(part[labels == label], minlength=5) for label in range(3)]
        assert all(np.ptp(count) <= limit for count, limit in zip(counts, (3, 1, 1), strict=True))
        assert all(len(set(part[groups == group])) == 1 for group in range(10))


def test_as_many_folds_as_there_are_images_and_none_of_copies_of_one() -> None:
    assert sorted(make_folds(np.zeros(3, np.int32), None, 5, 1, 0)[0]) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least two images that are no copies of each other, found 3 in one group"):
        make_folds(np.zeros(3, np.int32), np.zeros(3, np.int64), 5, 1, 0)


def _finite(score: CandidateScore) -> bool:
    return bool(np.isfinite(score.losses).all() and np.isfinite(score.logits).all())


@pytest.mark.parametrize(("n", "classes"), [(2, 2), (5, 5), (20, 2), (20, 4), (1200, 1000)])
def test_few_images_of_a_class_work(n: int, classes: int) -> None:
    features, _ = _images(n, 2, 30)
    labels = (np.arange(n) % classes).astype(np.int32)
    score = cross_validate_head(features, [30], labels, make_folds(labels, None, 5, 1, 0), classes)
    assert _finite(score)
    assert score.losses.max() < 20


def test_a_class_that_a_fold_does_not_train_on_has_the_chance_of_half_an_image() -> None:
    features, labels = _images(100, 2, 10)
    labels[0] = 2
    folds = make_folds(labels, None, 5, 1, 0)
    score = cross_validate_head(features, [10], labels, folds, 3)
    trained = 100 - int((folds[0] == folds[0][0]).sum())
    assert score.losses[0] == pytest.approx(np.log(2 * trained + 1), abs=1e-3)
    assert _finite(score)


def test_one_image_in_a_hundred_of_a_class_works() -> None:
    features, labels = _images(500, 2, 20, share=0.01)
    score = cross_validate_head(features, [20], labels, make_folds(labels, None, 5, 2, 0), 2)
    assert _finite(score)
    share = labels.mean()
    assert score.losses.mean() < -share * np.log(share) - (1 - share) * np.log(1 - share) + 0.01


def test_features_that_are_all_equal_answer_with_the_shares_of_the_classes() -> None:
    labels = (np.arange(100) % 4 == 0).astype(np.int32)
    score = cross_validate_head(np.ones((100, 6), np.float32), [4, 2], labels, make_folds(labels, None, 5, 1, 0), 2)
    assert score.losses.mean() == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75), abs=2e-3)


def test_a_metric_chooses_the_strength() -> None:
    features, labels = _images(300, 2, 20, share=0.05)
    folds = make_folds(labels, None, 5, 1, 0)
    by_loss, by_f1 = (
        cross_validate_head(features, [20], labels, folds, 2, Objective(select=name)) for name in ("loss", "macro_f1")
    )
    recall = [score.correct[labels == 1].mean() for score in (by_loss, by_f1)]
    assert recall[1] >= recall[0]


def test_without_time_one_strength_is_scored() -> None:
    features, labels = _images(100, 2, 10)
    score = cross_validate_head(features, [10], labels, make_folds(labels, None, 5, 1, 0), 2, left=lambda: 0.0)
    assert np.isfinite(score.losses).all()
    assert score.losses.mean() < np.log(2)


def test_a_plan_has_more_folds_for_few_images_and_one_split_for_many() -> None:
    few, some = choose_plan(20, 1280, 2, 10), choose_plan(1900, 1900, 8, 10)
    assert few.cross
    assert some.cross
    assert few.cross.repeats > some.cross.repeats == 2
    many = choose_plan(1_000_000, 1900, 1000, 30)
    assert many.cross is None
    assert many.images * 1900 < 2**27
    assert many.images >= 5 * 1000
    assert choose_plan(1_000_000, 1900, 10, 30).seconds <= 30
    assert "a sample of" in many.reason
    assert "so many are precise enough without folds" in many.reason


def test_a_plan_for_little_time_keeps_enough_images() -> None:
    plan = choose_plan(15_000, 1900, 100, 0.1)
    assert plan.cross is None
    assert plan.images >= FEWEST
    assert "more folds would take too long" in plan.reason
    reason = choose_plan(500, 1280, 2, 30).reason
    assert reason == "500 images are compared by cross-validation with 5 folds, drawn 4 times."


def _mirrored_reference(
    features: Features,
    mirrored: Features,
    blocks: list[int],
    labels: Labels,
    part: NDArray[np.int8],
    strength: float,
) -> NDArray[np.float64]:
    """The held-out losses of scikit-learn's heads, solved on unchanged images, by their mean answer to both."""
    losses, n = np.zeros(len(labels)), len(labels)
    for fold in range(int(part.max()) + 1):
        rows, held = part != fold, part == fold
        twice = _scale(np.concatenate([features, mirrored]), blocks, np.concatenate([rows, np.zeros(n, bool)]))
        head = LogisticRegression(C=1 / (strength * rows.sum()), tol=1e-8, max_iter=5000)
        head.fit(twice[:n][rows], labels[rows])
        answers = (head.decision_function(twice[:n][held]) + head.decision_function(twice[n:][held])) / 2
        losses[held] = np.logaddexp.reduce(answers, axis=1) - answers[np.arange(held.sum()), labels[held]]
    return losses


@pytest.mark.parametrize(("n", "blocks"), [(300, [40]), (90, [200]), (90, [150, 20])])
def test_heads_answer_the_mean_of_images_unchanged_and_mirrored(n: int, blocks: list[int]) -> None:
    features, labels = _images(n, 3, sum(blocks))
    mirrored = features + np.random.default_rng(3).normal(0, 3, features.shape).astype(np.float32)
    folds = make_folds(labels, None, 4, 1, 1)
    plain = cross_validate_head(features, blocks, labels, folds, 3)
    score = cross_validate_head(features, blocks, labels, folds, 3, mirrored=mirrored)
    expected = _mirrored_reference(features, mirrored, blocks, labels, folds[0], score.strength)
    assert score.losses.mean() == pytest.approx(expected.mean(), abs=1e-3)
    assert np.abs(score.losses - expected).mean() < 5e-3
    assert np.abs(score.losses - plain.losses).mean() > 0.01, "mirrored images are answered otherwise"


@pytest.mark.parametrize("width", [30, 400])
def test_images_that_are_their_own_mirror_image_are_answered_as_before(width: int) -> None:
    features, labels = _images(120, 3, width)
    used = np.arange(120) % 10 > 0
    folds = hold_out(np.arange(120) >= 90, used)
    plain = cross_validate_head(features, [width], labels, folds, 3)
    score = cross_validate_head(features, [width], labels, folds, 3, mirrored=features.copy())
    np.testing.assert_allclose(score.losses, plain.losses, atol=1e-4)
    assert np.array_equal(np.isnan(score.losses), ~used | (np.arange(120) < 90))
