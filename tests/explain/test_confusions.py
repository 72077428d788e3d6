"""Confused pairs: the frequent ones, their surest mistakes, and the hit that each is most like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.evaluation.predictions import Predictions
from budwood.explain.confused_pairs import find_confusions, rank_confused_pairs
from budwood.explain.embeddings import compute_run_features
from budwood.storage.context import open_context
from conftest import fill, scored_run

CLASSES = ("a", "b", "c")


def _predictions() -> Predictions:
    """Ten of each class; 3 a called b, 1 c called a; the second a is the surest mistake."""
    labels = np.repeat(np.arange(3), 10).astype(np.int32)
    logits = 4 * np.eye(3, dtype=np.float32)[labels]
    for row, sure in ((0, 5.0), (1, 9.0), (2, 6.0)):
        logits[row] = [0, sure, 0]
    logits[20] = [7, 0, 0]
    ids = tuple(f"id{row:02}" for row in range(30))
    return Predictions(ids, tuple(f"{id}.png" for id in ids), labels, logits)


def test_pairs_by_frequency_with_the_surest_mistakes_first() -> None:
    predictions = _predictions()
    space = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    space[14] = 3 * space[1]
    space[5] = space[20] + 1e-4
    first, second = rank_confused_pairs(predictions, CLASSES, space, "features", examples=2)
    assert (first.actual, first.called, first.count, first.share["n"]) == ("a", "b", 3, 10)
    assert first.share["value"] == pytest.approx(0.3)
    assert [one.id for one in first.examples] == ["id01", "id02"]
    assert first.examples[0].probability == pytest.approx(np.exp(9) / (np.exp(9) + 2))
    assert first.examples[0].like_id == "id14"
    assert first.examples[0].similarity == pytest.approx(1.0)
    unit = space / np.linalg.norm(space, axis=1, keepdims=True)
    nearest = 10 + int((unit[10:20] @ unit[2]).argmax())
    assert first.examples[1].like_id == f"id{nearest}"
    assert (second.actual, second.called, second.examples[0].like_id) == ("c", "a", "id05")
    assert second.record()["by"] == "features"
    assert len(rank_confused_pairs(predictions, CLASSES, space, "features", pairs=1)) == 1


def test_where_no_image_of_a_class_is_called_rightly_nothing_is_alike() -> None:
    predictions = Predictions(
        ("x", "y"), ("x", "y"), np.array([0, 1], np.int32), np.array([[0, 1], [1, 0]], np.float32)
    )
    found = rank_confused_pairs(predictions, ("a", "b"), predictions.logits, "logits")
    assert [(one.actual, one.called) for one in found] == [("a", "b"), ("b", "a")]
    assert found[0].examples[0].like_id is None
    assert found[0].examples[0].similarity is None


def test_a_run_is_compared_by_features_from_the_store(tmp_path: Path) -> None:
    for hue, name in enumerate(CLASSES):
        fill(tmp_path / "photos" / name, 20, hue=hue)
    run = bw.train(bw.scan(tmp_path / "photos"), bw.Recipe(size=32), out=tmp_path / "runs")
    run = replace(run, record=run.record.model_copy(update={"files": {}}))  # its predictions are written anew below
    known, file = run.predictions("val"), run.path / "predictions-val.parquet"
    right = np.eye(3, dtype=np.float32)[known.labels]
    Predictions(known.ids, known.paths, known.labels, right).save(file)
    assert find_confusions(run, open_context()) == (), "no mistake, no pair"
    first = int(np.flatnonzero(known.labels == 0)[0])
    right[first] = [0, 1, 0]
    Predictions(known.ids, known.paths, known.labels, right).save(file)
    (found,) = find_confusions(run, open_context())
    assert (found.actual, found.called, found.by, found.examples[0].id) == ("a", "b", "features", known.ids[first])
    features = compute_run_features(run, run.dataset().samples("val"), open_context())
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    hits = np.flatnonzero(known.labels == 1)
    assert found.examples[0].like_id == known.ids[hits[(unit[hits] @ unit[first]).argmax()]]


def test_images_with_several_labels_are_refused(tmp_path: Path) -> None:
    run = scored_run(
        tmp_path / "run", np.array([0, 1], np.int32), np.zeros((2, 3), np.float32), label_sets=((0,), (0, 1))
    )
    with pytest.raises(bw.RunError, match="its data are multi-label"):
        find_confusions(run, open_context())
