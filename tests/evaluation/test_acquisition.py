"""Which images are selected to be labelled: unsure ones, unlike each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from budwood.evaluation.acquisition import (
    Floats,
    Numbers,
    draw_spread,
    measure_nearest,
    measure_uncertainty,
    select_images,
)


def _clusters(count: int, each: int, seed: int = 0) -> tuple[Floats, Numbers]:
    random = np.random.default_rng(seed)
    place = np.repeat(np.arange(count), each)
    return random.normal(0, 0.1, (count * each, 5)) + 10 * np.eye(5)[place % 5] * (1 + place // 5)[:, None], place


def test_uncertainty_is_one_minus_the_margin() -> None:
    chances = np.array([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert measure_uncertainty(chances) == pytest.approx([0.8, 1.0, 0.0])
    assert measure_uncertainty(np.array([[0.9, 0.6], [0.01, 1.0]]), multilabel=True) == pytest.approx([0.8, 0.02])


def test_distances_to_the_nearest_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    values, others = random.normal(size=(30, 6)), random.normal(size=(11, 6))
    assert measure_nearest(values, others) == pytest.approx((cdist(values, others) ** 2).min(axis=1))
    assert np.isinf(measure_nearest(values, others[:0])).all()


def test_the_middles_of_clusters_are_those_of_weighted_k_means() -> None:
    values, _ = _clusters(6, 20)
    weights = np.random.default_rng(1).random(120) + 0.1
    chosen = select_images(values, weights, values[:0], np.arange(120), 6)
    fitted = KMeans(6, n_init=10, random_state=0).fit(values, sample_weight=weights)
    naive = {
        int(np.argmin(np.where(fitted.labels_ == one, cdist(values, centre[None])[:, 0], np.inf)))
        for one, centre in enumerate(fitted.cluster_centers_)
    }
    assert set(chosen.tolist()) == naive
    assert (np.diff(weights[chosen]) <= 0).all()


def test_seeds_are_drawn_as_a_plain_loop_draws_them() -> None:
    random = np.random.default_rng(0)
    values, weights, labelled = random.normal(size=(25, 3)), random.random(25) + 0.01, random.normal(size=(4, 3))
    drawn, chosen = np.random.default_rng(7), list[int]()
    for _ in range(6):
        known = np.concatenate([labelled, values[chosen]])
        chance = [0.0 if i in chosen else weights[i] * (cdist(values[i : i + 1], known) ** 2).min() for i in range(25)]
        point, total, row = drawn.random() * sum(chance), 0.0, 0
        while total + chance[row] <= point:
            total += chance[row]
            row += 1
        chosen.append(row)
    assert draw_spread(values, weights, labelled, 6, np.random.default_rng(7)).tolist() == chosen


def test_of_copies_the_most_uncertain_is_selected() -> None:
    values, place = _clusters(8, 3)
    weights = np.random.default_rng(0).random(24)
    chosen = select_images(values, weights, values[:0], place, 8)
    assert sorted(place[chosen].tolist()) == list(range(8))
    assert all(weights[row] == weights[place == place[row]].max() for row in chosen.tolist())
    assert len(select_images(values, weights, values[:0], place, 20)) == 8


def test_images_like_the_labelled_ones_and_sure_ones_come_last() -> None:
    values, place = _clusters(4, 30)
    weights = np.where(place == 3, 1e-6, 1.0)
    chosen = select_images(values, weights, values[place == 0], np.arange(120), 2)
    assert sorted(place[chosen].tolist()) == [1, 2]


def test_equal_images_and_no_uncertainty_still_give_as_many() -> None:
    assert len(set(select_images(np.zeros((9, 3)), np.zeros(9), np.zeros((2, 3)), np.arange(9), 4).tolist())) == 4
