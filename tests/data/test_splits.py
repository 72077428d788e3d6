"""Splits depend on content alone, keep clusters together and respect what is given."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from budwood.data.splits import assign_splits


def _ids(n: int, salt: str = "") -> np.ndarray:
    return np.array([hashlib.blake2b(f"{salt}{row}".encode(), digest_size=16).hexdigest() for row in range(n)])


def _assign(
    ids: np.ndarray,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    given: np.ndarray | None = None,
    counted: np.ndarray | None = None,
    val: float = 0.2,
    test: float = 0.2,
) -> np.ndarray:
    n = len(ids)
    return assign_splits(
        ids.tolist(),
        np.zeros(n, np.int32) if labels is None else labels.astype(np.int32),
        [""] * n if groups is None else groups.tolist(),
        np.arange(n) if cluster is None else cluster,
        np.full(n, -1, np.int8) if given is None else given,
        np.ones(n, bool) if counted is None else counted,
        val=val,
        test=test,
    )


@pytest.mark.parametrize(("first", "added"), [(60, 1), (60, 7), (400, 40), (3000, 1000)])
def test_adding_k_files_moves_at_most_k_old_ones_over_each_border(first: int, added: int) -> None:
    for salt in "abcde":
        ids = _ids(first + added, salt)
        before, after = _assign(ids[:first]), _assign(ids)[:first]
        for split in (2, 1):
            assert np.sum((before >= split) != (after >= split)) <= added
    assert np.sum(before != after) < added or added < 10, "most stay where they are"


def test_adding_files_to_a_class_moves_none_of_another() -> None:
    ids, labels = _ids(900), np.repeat([0, 1, 0], 300)
    assert np.array_equal(_assign(ids[:600], labels[:600])[300:], _assign(ids, labels)[300:600])


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.2), (0.1, 0.3), (0.5, 0.25), (0.05, 0.9)])
@pytest.mark.parametrize("n", [3, 4, 5, 11, 30, 206, 1001])
def test_every_class_has_its_shares_to_within_one_image(n: int, val: float, test: float) -> None:
    labels = np.repeat(np.arange(3), [n, n + 1, 2 * n])
    for salt in "abc":
        split = _assign(_ids(len(labels), salt), labels, val=val, test=test)
        for label, size in enumerate([n, n + 1, 2 * n]):
            counts = np.bincount(split[labels == label], minlength=3)
            wished = size * np.array([(1 - test) * (1 - val), (1 - test) * val, test])
            assert counts.min() >= 1
            if wished.min() >= 1:
                assert np.abs(counts - wished)[1:].max() <= 1


def test_copies_and_images_in_doubt_do_not_count_for_the_shares() -> None:
    cluster = np.arange(300)
    cluster[100:200] = np.arange(100)  # each of the first hundred has a copy
    counted = np.r_[np.ones(100, bool), np.zeros(100, bool), np.ones(100, bool)]
    split = _assign(_ids(300), cluster=cluster, counted=counted)
    assert np.bincount(split[counted]).tolist() == [128, 32, 40]
    assert np.array_equal(split[:100], split[100:200])


def test_groups_of_unequal_size_come_near_the_shares() -> None:
    sizes = np.random.default_rng(0).integers(1, 12, 120)
    cluster = np.repeat(np.cumsum(sizes) - sizes, sizes)
    split = _assign(_ids(len(cluster)), cluster=cluster)
    assert all(len(set(split[cluster == name])) == 1 for name in np.unique(cluster))
    assert np.abs(np.bincount(split) / len(cluster) - [0.64, 0.16, 0.2]).max() <= 1 / len(cluster)


@pytest.mark.parametrize(
    ("sizes", "splits"), [([50], {0}), ([25, 25], {0, 1}), ([1, 1, 98], {0, 1, 2}), ([9] * 3, {0, 1, 2})]
)
def test_few_clusters_train_first_then_validate_then_test(sizes: list[int], splits: set[int]) -> None:
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    for salt in "abcd":
        assert set(_assign(_ids(len(cluster), salt), cluster=cluster).tolist()) == splits


def test_a_cluster_counts_for_the_class_of_most_of_its_images() -> None:
    labels, cluster = np.r_[np.zeros(40, int), np.ones(41, int)], np.arange(81)
    cluster[[0, 78, 79, 80]] = 0  # one image of the first class among three of the second
    split = _assign(_ids(81), labels, cluster=cluster)
    assert len(set(split[[0, 78, 79, 80]])) == 1
    assert np.bincount(split[1:40]).tolist() == [25, 6, 8]


def test_the_order_of_files_does_not_matter() -> None:
    ids, order = _ids(500), np.random.default_rng(0).permutation(500)
    assert np.array_equal(_assign(ids)[order], _assign(ids[order]))


def test_clusters_and_groups_stay_together_and_keep_their_place() -> None:
    ids = _ids(3000)
    cluster = np.arange(3000) // 10 * 10
    split = _assign(ids, cluster=cluster)
    assert all(len(set(split[start : start + 10])) == 1 for start in range(0, 3000, 10))
    groups = np.array([f"g{row // 10}" for row in range(3000)])
    whole = _assign(ids, groups=groups, cluster=cluster)
    part = _assign(ids[::2], groups=groups[::2], cluster=np.arange(1500) // 5 * 5)
    assert np.array_equal(whole[::2], part), "a group's place depends on its name, not on its members"


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_a_small_class_has_an_image_in_every_split(n: int) -> None:
    for salt in map(str, range(40)):
        assert set(_assign(_ids(n, salt)).tolist()) == {0, 1, 2}


def test_given_splits_are_kept_and_only_the_missing_validation_is_made() -> None:
    given = np.array([0] * 300 + [2] * 100, np.int8)
    split = _assign(_ids(400), given=given, val=0.3, test=0)
    assert (split[300:] == 2).all()
    assert set(split[:300].tolist()) == {0, 1}
    assert (split[:300] == 1).sum() == 90


def test_given_validation_is_kept_and_no_test_is_made() -> None:
    given = np.array([0] * 30 + [1] * 10, np.int8)
    assert np.array_equal(_assign(_ids(40), given=given, val=0, test=0), given)


def test_a_train_folder_alone_is_no_split() -> None:
    assert set(_assign(_ids(200), given=np.zeros(200, np.int8)).tolist()) == {0, 1, 2}


def test_an_image_without_a_split_follows_its_cluster() -> None:
    given = np.full(300, -1, np.int8)
    given[:100] = 0
    given[100] = 2
    cluster = np.arange(300)
    cluster[200:] = 100
    assert (_assign(_ids(300), cluster=cluster, given=given, test=0)[200:] == 2).all()


def test_images_beside_a_given_test_image_are_not_drawn_for_validation() -> None:
    given = np.array([0] * 300 + [2] * 100, np.int8)
    cluster = np.arange(400)
    cluster[:50] = np.arange(300, 350)
    split = _assign(_ids(400), given=given, cluster=cluster, test=0)
    assert (split[:50] == 0).all(), "they leak, and are told and left out as training images"
    assert (split[50:300] == 1).sum() == 50
