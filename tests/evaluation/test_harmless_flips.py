"""A flip is harmless only where answers show it, and never where images are few or the head knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from budwood.evaluation.harmless_flips import FEWEST, judge_flip, judge_flips

Logits = NDArray[np.float32]


def _answers(labels: NDArray[np.int32], wrong: int, seed: int = 0, size: float = 3.0) -> Logits:
    """Logits that are right but for so many images."""
    called = labels.copy()
    rows = np.random.default_rng(seed).permutation(len(labels))[:wrong]
    called[rows] = (called[rows] + 1) % 4
    return (np.eye(4, dtype=np.float32) * np.float32(size))[called]


def _labels(n: int) -> NDArray[np.int32]:
    return (np.arange(n) % 4).astype(np.int32)


def test_a_flip_that_changes_no_answer_is_harmless_and_one_that_changes_many_is_not() -> None:
    labels = _labels(300)
    unchanged = _answers(labels, 30)
    same, other = (
        judge_flip("h", labels, unchanged, unchanged),
        judge_flip("v", labels, unchanged, _answers(labels, 90)),
    )
    assert (same.harmless, other.harmless) == (True, False)
    assert [same.drop, other.drop] == pytest.approx([0, 0.2])
    assert other.n == 300
    assert other.low > 0.1
    assert same.sentence == (
        "Mirroring images left to right: classes stay as they are (90.0% of 300 held-out images are right unchanged, "
        "90.0% mirrored)."
    )
    assert other.sentence == (
        "Mirroring images upside down: classes may change, so it is not done (90.0% of 300 held-out images are right "
        "unchanged, 70.0% mirrored)."
    )


def test_of_few_images_no_flip_is_harmless() -> None:
    labels = _labels(FEWEST - 1)
    found = judge_flip("hv", labels, _answers(labels, 2), _answers(labels, 2))
    assert not found.harmless
    assert found.sentence == (
        "Images turned by 180 degrees: whether classes stay cannot be told (fewer than 50 images), so it is not done."
    )
    none = judge_flip("h", _labels(0), np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))
    assert (none.n, none.harmless) == (0, False)
    assert "cannot be told (no image)" in none.sentence


def test_a_small_drop_needs_many_images() -> None:
    """One image in sixty, and four in three hundred: drops below 2 %, of which only the second is known well."""
    for n, more, harmless in ((60, 1, False), (300, 4, True), (300, 12, False)):
        labels = _labels(n)
        found = judge_flip("h", labels, _answers(labels, n // 10), _answers(labels, n // 10 + more))
        assert found.harmless is harmless, n


def test_a_head_that_knows_nothing_cannot_tell() -> None:
    labels = _labels(400)
    blind = np.zeros((400, 4), np.float32)
    found = judge_flip("h", labels, blind, blind)
    assert not found.harmless
    assert "hardly better than always the commonest class" in found.sentence


def test_a_class_that_is_always_called_cannot_tell() -> None:
    labels = np.zeros(400, np.int32)
    labels[:4] = 1
    always = np.tile(np.array([4, 0], np.float32), (400, 1))
    assert not judge_flip("h", labels, always, always).harmless


def test_answers_that_stay_right_but_lose_their_certainty_are_not_harmless() -> None:
    labels = _labels(400)
    found = judge_flip("v", labels, _answers(labels, 4, size=6), _answers(labels, 4, size=1))
    assert found.drop == 0
    assert found.rise > 0.3
    assert not found.harmless


def test_the_interval_covers_the_true_drop_nine_times_in_ten() -> None:
    random, covered, n = np.random.default_rng(0), 0, 150
    labels = np.zeros(n, np.int32)
    labels[: n // 2] = 1
    for _ in range(300):
        lost, won = random.random(n) < 0.10, random.random(n) < 0.05
        right = random.random(n) < 0.7
        one, two = np.where(lost, True, np.where(won, False, right)), np.where(lost, False, np.where(won, True, right))
        logits = [np.eye(2, dtype=np.float32)[np.where(ok, labels, 1 - labels)] for ok in (one, two)]
        found = judge_flip("h", labels, *logits)
        covered += found.low <= 0.10 - 0.9 * 0.05 <= found.high
    assert covered >= stats.binom.ppf(0.001, 300, 0.9)


def test_a_mark_on_one_side_is_told_from_one_in_the_middle() -> None:
    """Features are where a mark is: left, right and middle; a flip left to right swaps the first two."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 240).astype(np.int32)
    features = (np.eye(3)[labels] + random.normal(0, 0.2, (240, 3))).astype(np.float32)
    weight, bias = np.eye(3, dtype=np.float32) * 5, np.zeros(3, np.float32)
    mirrored = {"h": features[:, [1, 0, 2]], "v": features + np.float32(0.01)}
    found = judge_flips(weight, bias, labels, features, mirrored)
    assert {letters: verdict.harmless for letters, verdict in found.items()} == {"h": False, "v": True}
