"""Scores of strangeness, what they keep, thresholds, and the choice among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_ood.detector import KNN, EnergyBased, Mahalanobis
from sklearn.covariance import ledoit_wolf
from sklearn.neighbors import NearestNeighbors

from budwood.evaluation.novelty import (
    BANK,
    MEANS,
    WHITENING,
    NoveltyMethod,
    NoveltyScorer,
    normalise,
    score_energy,
    score_mahalanobis,
    score_neighbours,
)
from budwood.evaluation.novelty_choice import METHODS, Choice, choose_method, group_classes
from budwood.evaluation.novelty_fitting import (
    KnownImages,
    choose_neighbour,
    draw_evenly,
    find_threshold,
    fit_arrays,
    invert_triangle,
    limit_bank,
    pack_arrays,
    shrink_covariance,
)

Array = NDArray[Any]


def make_images(seed: int, labels: Array, classes: int, d: int = 16, apart: float = 3.0) -> KnownImages:
    """Images whose classes lie around centres of their own."""
    centres = apart * np.random.default_rng(99).normal(size=(classes, d))
    features = centres[labels] + np.random.default_rng(seed).normal(size=(len(labels), d))
    return KnownImages(features.astype(np.float32), labels[:, None] == np.arange(classes))


class TestScores:
    rows = np.random.default_rng(0).normal(1, 1, (700, 24)).astype(np.float32)
    asked = np.random.default_rng(1).normal(1, 2, (300, 24)).astype(np.float32)

    @pytest.mark.parametrize("k", [1, 5, 50])
    def test_neighbours_are_those_of_scikit_learn_and_pytorch_ood(self, k: int) -> None:
        mine = score_neighbours(self.asked, normalise(self.rows), k)
        found = NearestNeighbors(n_neighbors=k).fit(normalise(self.rows)).kneighbors(normalise(self.asked))[0]
        np.testing.assert_allclose(mine, found[:, -1], atol=1e-5)
        theirs = KNN(None, k=k).fit_features(torch.tensor(self.rows), torch.zeros(700))
        np.testing.assert_allclose(mine, theirs.predict_features(torch.tensor(self.asked)).numpy(), atol=1e-5)

    def test_energy_is_that_of_pytorch_ood(self) -> None:
        np.testing.assert_allclose(
            score_energy(self.asked), EnergyBased.score(torch.tensor(self.asked)).numpy(), rtol=1e-5
        )

    def test_mahalanobis_is_that_of_pytorch_ood_on_normalised_features(self) -> None:
        labels = np.arange(700) % 3
        rows, asked = (torch.tensor(normalise(part)) for part in (self.rows, self.asked))
        reference = Mahalanobis(None).fit_features(rows, torch.tensor(labels))
        spread = rows.numpy() - reference.mu.numpy()[labels]
        whitening = np.linalg.cholesky(np.linalg.inv(spread.T @ spread + 1e-6 * np.eye(24)))
        means = reference.mu.numpy() @ whitening
        mine = score_mahalanobis(self.asked, means.astype(np.float32), whitening.astype(np.float32))
        np.testing.assert_allclose(mine**2 / 2, reference.predict_features(asked).numpy(), rtol=2e-3)

    def test_mahalanobis_holds_where_training_images_hardly_vary(self) -> None:
        rows = self.asked[0] + np.random.default_rng(0).normal(0, 1e-5, (5, 24))
        asked = rows.astype(np.float32)
        whitening = (np.eye(24) * 1e7).astype(np.float32)
        white = asked / np.linalg.norm(asked.astype(np.float64), axis=1, keepdims=True) @ whitening
        means = white[:1].astype(np.float32)
        expected = np.sqrt(((white - means) ** 2).sum(axis=1))
        np.testing.assert_allclose(score_mahalanobis(asked, means, whitening), expected, rtol=1e-5)

    def test_fitted_means_and_whitening_measure_in_the_shrunk_covariance(self) -> None:
        labels = np.arange(700) % 3
        training = KnownImages(self.rows, labels[:, None] == np.arange(3))
        arrays = fit_arrays("mahalanobis", training)
        rows = normalise(self.rows).astype(np.float64)
        means = np.stack([rows[labels == c].mean(axis=0) for c in range(3)])
        covariance = ledoit_wolf(rows - means[labels], assume_centered=True)[0]
        away = normalise(self.asked)[:, None] - means
        squares = np.einsum("ncd,de,nce->nc", away, np.linalg.inv(covariance), away).min(axis=1)
        mine = score_mahalanobis(self.asked, arrays[MEANS], arrays[WHITENING])
        np.testing.assert_allclose(mine, np.sqrt(squares), rtol=1e-3)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_an_image_whose_values_are_not_finite_is_refused(self, method: NoveltyMethod, value: float) -> None:
        training = KnownImages(self.rows, (np.arange(700) % 3)[:, None] == np.arange(3))
        features, logits = self.asked.copy(), self.asked[:, :3].copy()
        features[7], logits[7] = value, value
        scores = NoveltyScorer(method, fit_arrays(method, training), 1e9).score(features, logits)
        assert scores[7] == np.inf > 1e9
        assert np.isfinite(np.delete(scores, 7)).all()


class TestKept:
    def test_a_bank_is_kept_in_sixteen_bits_and_scores_alike(self) -> None:
        training = make_images(0, np.arange(60) % 3, 3)
        arrays = fit_arrays("knn", training)
        packed = pack_arrays(arrays)
        assert packed[BANK].dtype == np.float16
        np.testing.assert_array_equal(packed[BANK].astype(np.float32), arrays[BANK])

    def test_a_bank_has_a_limit(self) -> None:
        assert limit_bank(1280) == 10_000
        assert limit_bank(25_088) * 25_088 * 2 <= 2**25
        assert limit_bank(10**9) == 1

    def test_covariance_is_shrunk_as_by_ledoit_and_wolf(self) -> None:
        spread = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
        spread[:, 3] *= 5
        covariance, share = shrink_covariance(spread)
        expected, shrinkage = ledoit_wolf(spread.astype(np.float64), assume_centered=True)
        assert share == pytest.approx(shrinkage, rel=1e-4)
        np.testing.assert_allclose(covariance, expected, atol=1e-4)

    @pytest.mark.parametrize("d", [1, 63, 64, 65, 300])
    def test_a_triangle_is_inverted(self, d: int) -> None:
        lower = np.tril(np.random.default_rng(d).normal(size=(d, d)) * 0.1 / np.sqrt(d)).astype(np.float32)
        lower[np.diag_indices(d)] = 1 + np.arange(d) % 3
        np.testing.assert_allclose(invert_triangle(lower) @ lower, np.eye(d), atol=1e-4)

    @pytest.mark.parametrize(("images", "classes", "expected"), [(1, 1, 1), (8, 2, 2), (60, 2, 5), (1496, 8, 14)])
    def test_the_neighbour_grows_with_the_bank(self, images: int, classes: int, expected: int) -> None:
        assert choose_neighbour(images, classes) == expected

    def test_the_neighbour_is_no_further_than_half_of_a_class(self) -> None:
        assert choose_neighbour(10_000, 1000) == 5
        assert choose_neighbour(10_000, 10) == 50
        assert choose_neighbour(0, 0) == 1

    def test_every_class_is_drawn_alike(self) -> None:
        labels = np.repeat([0, 1, 2], [800, 100, 1])
        rows = draw_evenly(labels, 90)
        assert len(rows) == 90
        assert np.all(np.diff(rows) > 0)
        assert np.bincount(labels[rows]).tolist() == [79, 10, 1]
        np.testing.assert_array_equal(draw_evenly(labels, 901), np.arange(901))


class TestThreshold:
    @pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
    @pytest.mark.parametrize("n", [19, 100, 374])
    def test_new_images_are_refused_at_the_share_on_average(self, share: float, n: int) -> None:
        random = np.random.default_rng(0)
        thresholds = np.array([find_threshold(random.random(n), share) for _ in range(4000)])
        refused = 1 - thresholds.mean()  # of scores that are equally likely everywhere from 0 to 1
        possible = max(share, 1 / (n + 1))
        assert possible - 1 / (n + 1) - 0.003 <= refused <= possible + 0.003

    def test_of_the_images_themselves_no_more_than_the_share_is_refused(self) -> None:
        scores = np.arange(374.0)
        assert np.mean(scores > find_threshold(scores, 0.05)) == pytest.approx(17 / 374)

    def test_too_few_images_refuse_none_of_theirs(self) -> None:
        assert find_threshold(np.array([3.0, 1.0, 2.0]), 0.05) == 3.0

    @pytest.mark.parametrize(("share", "expected"), [(0.0, 9.0), (1.0, 0.0)])
    def test_the_ends(self, share: float, expected: float) -> None:
        assert find_threshold(np.arange(10.0), share) == expected


def choose(training: KnownImages, validation: KnownImages) -> Choice:
    choice = choose_method(training, validation)
    for metric in choice.auroc.values():
        assert metric.value is not None
        assert metric.low is not None
        assert metric.high is not None
        assert 0 <= metric.low <= metric.value <= metric.high <= 1
    return choice


class TestChoice:
    def test_mahalanobis_wins_where_directions_differ_in_scale(self) -> None:
        """Classes differ along directions that hardly vary, and vary along others that tell nothing."""
        random, labels = np.random.default_rng(0), np.arange(600) % 6
        centres = random.normal(size=(6, 8))
        features = np.concatenate([0.6 * centres[labels] + 0.1 * random.normal(size=(600, 8)), np.zeros((600, 24))], 1)
        features[:, 8:] = 3 * random.normal(size=(600, 24))
        images = KnownImages(features.astype(np.float32), labels[:, None] == np.arange(6))
        choice = choose(images.take(np.arange(400)), images.take(np.arange(400, 600)))
        assert choice.method == "mahalanobis"
        assert choice.auroc["mahalanobis"].value > choice.auroc["knn"].value  # type: ignore[operator]

    def test_knn_wins_where_classes_are_no_clouds(self) -> None:
        """Every class has clouds all around a ring, between those of the others, so that all have one mean."""
        random, cloud = np.random.default_rng(0), np.arange(900) % 12
        labels, angle = cloud % 3, 2 * np.pi * cloud / 12
        ring = 5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        features = np.concatenate([ring, np.zeros((900, 4))], axis=1) + 0.2 * random.normal(size=(900, 6))
        images = KnownImages(features.astype(np.float32), labels[:, None] == np.arange(3))
        choice = choose(images.take(np.arange(600)), images.take(np.arange(600, 900)))
        assert choice.method == "knn"
        assert choice.auroc["knn"].value > 0.95  # type: ignore[operator]

    def test_energy_wins_where_the_length_of_features_tells(self) -> None:
        """What an image shows lies in a few directions; in all others it has noise, of some images much more."""
        random, labels = np.random.default_rng(1), np.arange(900) % 8
        noise = random.normal(size=(900, 400)) * random.uniform(0.1, 2, (900, 1))
        noise[:, :8] = 0.5 * random.normal(size=(900, 8))
        images = KnownImages((noise + 8 * np.eye(400)[labels]).astype(np.float32), labels[:, None] == np.arange(8))
        assert choose(images.take(np.arange(600)), images.take(np.arange(600, 900))).method == "energy"

    def test_what_a_group_added_to_the_covariance_is_taken_off(self) -> None:
        """The scores are those of a covariance that never saw the classes that are left out."""
        from budwood.evaluation.novelty_choice import _score_mahalanobis, _Trial
        from budwood.evaluation.novelty_fitting import compute_class_means, whiten

        training, validation = make_images(0, np.arange(120) % 4, 4), make_images(1, np.arange(40) % 4, 4)
        left = group_classes(4)
        scores = _score_mahalanobis(_Trial(training, validation, left, ~(training.targets @ left.T)))
        rows, labels = normalise(training.features), training.labels
        means, spread = compute_class_means(rows, labels)
        _, share = shrink_covariance(spread)
        level = np.trace(spread.T @ spread) / 120 / 16
        for group in range(4):
            mine = spread[labels != group]
            covariance = (1 - share) * (mine.T @ mine) / 120 + share * level * np.eye(16)
            whitening = whiten(covariance.astype(np.float32))
            expected = score_mahalanobis(validation.features, np.delete(means, group, 0) @ whitening, whitening)
            np.testing.assert_allclose(np.sqrt(scores[:, group]), expected, rtol=2e-2)

    def test_a_head_that_saw_all_classes_would_flatter_the_energy(self) -> None:
        """Of classes without any structure, no score can tell the one that is left out."""
        random, labels = np.random.default_rng(0), np.arange(800) % 4
        images = KnownImages(
            random.normal(size=(800, 300)).astype(np.float32), labels[:, None] == np.arange(4)
        )  # a head learns these by heart
        choice = choose(images.take(np.arange(400)), images.take(np.arange(400)))
        assert choice.auroc["energy"].value == pytest.approx(0.5, abs=0.3)

    def test_two_classes_leave_one_without_an_energy(self) -> None:
        choice = choose(make_images(0, np.arange(80) % 2, 2), make_images(1, np.arange(40) % 2, 2))
        assert set(choice.auroc) == {"mahalanobis", "knn"}
        assert choice.auroc[choice.method].n == 40

    def test_several_labels_compare_neighbours_alone(self) -> None:
        random = np.random.default_rng(0)
        targets = random.random((300, 5)) < 0.3
        targets[0] = False
        images = KnownImages(
            (targets @ random.normal(size=(5, 12)) + 0.1 * random.normal(size=(300, 12))).astype(np.float32),
            targets,
            multilabel=True,
        )
        choice = choose(images.take(np.arange(200)), images.take(np.arange(200, 300)))
        assert choice.method == "knn"
        assert set(choice.auroc) == {"knn"}

    @pytest.mark.parametrize("classes", [1, 2, 3, 8, 9, 100, 1000])
    def test_groups_have_every_class_once_and_leave_two(self, classes: int) -> None:
        left = group_classes(classes)
        assert (left.sum(axis=0) == 1).all()
        assert left.any(axis=1).all()
        assert len(left) <= 8
        if classes >= 3:
            assert ((~left).sum(axis=1) >= 2).all()


class TestHardCases:
    def check(self, training: KnownImages, validation: KnownImages) -> Choice:
        choice = choose(training, validation)
        for method in METHODS:
            arrays = fit_arrays(method, training)
            assert all(np.isfinite(array).all() for array in arrays.values())
            k = choose_neighbour(len(training), int(training.targets.any(axis=0).sum()))
            logits = validation.targets.astype(np.float32)
            scores = NoveltyScorer(method, arrays, 0.0, k).score(validation.features, logits)
            assert np.isfinite(scores).all()
            assert np.mean(scores > find_threshold(scores, 0.1)) <= 0.1
        return choice

    def test_a_thousand_features_and_few_images(self) -> None:
        self.check(make_images(0, np.arange(12) % 3, 3, d=1000), make_images(1, np.arange(6) % 3, 3, d=1000))

    def test_one_image_of_each_class(self) -> None:
        self.check(make_images(0, np.arange(3), 3), make_images(1, np.arange(3), 3))

    def test_a_class_without_validation_images(self) -> None:
        choice = self.check(make_images(0, np.arange(60) % 3, 3), make_images(1, np.arange(30) % 2, 3))
        assert choice.auroc[choice.method].n == 30

    def test_a_class_without_training_images(self) -> None:
        self.check(make_images(0, np.arange(60) % 2, 3), make_images(1, np.arange(30) % 3, 3))

    def test_validation_images_of_one_class_compare_nothing(self) -> None:
        choice = self.check(make_images(0, np.arange(60) % 3, 3), make_images(1, np.zeros(9, int), 3))
        assert choice == Choice("knn", {})

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_features_that_are_all_the_same(self, value: float) -> None:
        targets = (np.arange(60) % 3)[:, None] == np.arange(3)
        images = KnownImages(np.full((60, 10), value, np.float32), targets)
        choice = self.check(images, images)
        assert choice.method == "energy"  # the cheapest of equals
        assert {metric.value for metric in choice.auroc.values()} == {0.5}

    def test_features_some_of_which_never_change_or_repeat_others(self) -> None:
        images = make_images(0, np.arange(300) % 3, 3)
        features = np.concatenate([images.features, np.zeros((300, 5), np.float32), images.features], axis=1)
        images = KnownImages(features, images.targets)
        self.check(images.take(np.arange(200)), images.take(np.arange(200, 300)))

    def test_very_long_and_very_short_features(self) -> None:
        for scale in (1e-6, 1e6):
            images = make_images(0, np.arange(90) % 3, 3)
            images = KnownImages(images.features * np.float32(scale), images.targets)
            self.check(images.take(np.arange(60)), images.take(np.arange(60, 90)))

    def test_a_hundred_classes(self) -> None:
        self.check(make_images(0, np.arange(600) % 100, 100, d=64), make_images(1, np.arange(200) % 100, 100, d=64))
