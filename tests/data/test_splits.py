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
    val: float = 0.2,
    test: float = 0.2,
) -> np.ndarray:
    n = len(ids)
    return assign_splits(
        ids.tolist(),
        np.zeros(n, np.int32) if labels is None else labels,
        [""] * n if groups is None else groups.tolist(),
        np.arange(n) if cluster is None else cluster,
        np.full(n, -1, np.int8) if given is None else given,
        val=val,
        test=test,
    )


@pytest.mark.parametrize("first", [60, 400, 3000])
def test_adding_files_moves_no_old_one(first: int) -> None:
    ids = _ids(4000)
    labels = (np.arange(4000) % 3).astype(np.int32)
    before = _assign(ids[:first], labels[:first])
    after = _assign(ids, labels)
    assert np.array_equal(before, after[:first])


def test_the_order_of_files_does_not_matter() -> None:
    ids, order = _ids(500), np.random.default_rng(0).permutation(500)
    assert np.array_equal(_assign(ids)[order], _assign(ids[order]))


def test_every_class_gets_about_the_asked_shares() -> None:
    labels = (np.arange(20_000) % 4).astype(np.int32)
    split = _assign(_ids(20_000), labels, val=0.25, test=0.2)
    for label in range(4):
        shares = np.bincount(split[labels == label], minlength=3) / 5000
        assert np.abs(shares - [0.6, 0.2, 0.2]).max() < 0.025


def test_clusters_and_groups_stay_together_and_keep_their_place() -> None:
    ids = _ids(3000)
    cluster = np.arange(3000) // 10 * 10
    split = _assign(ids, cluster=cluster)
    assert all(len(set(split[start : start + 10])) == 1 for start in range(0, 3000, 10))
    groups = np.array([f"g{row // 10}" for row in range(3000)])
    whole = _assign(ids, groups=groups, cluster=cluster)
    part = _assign(ids[::2], groups=groups[::2], cluster=np.arange(1500) // 5 * 5)
    assert np.array_equal(whole[::2], part), "a group's split depends on its name, not on its members"


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_a_small_class_has_an_image_in_every_split(n: int) -> None:
    for salt in map(str, range(40)):
        assert set(_assign(_ids(n, salt)).tolist()) == {0, 1, 2}


def test_given_splits_are_kept_and_only_the_missing_validation_is_made() -> None:
    given = np.array([0] * 300 + [2] * 100, np.int8)
    split = _assign(_ids(400), given=given, val=0.3, test=0)
    assert (split[300:] == 2).all()
    assert set(split[:300].tolist()) == {0, 1}
    assert (split[:300] == 1).mean() == pytest.approx(0.3, abs=0.08)


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
