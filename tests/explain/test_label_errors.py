"""Planted label errors are found in synthetic clusters; the table of suspects comes back as corrections."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import budwood as bw
from budwood.data.dataset import Samples
from budwood.explain.label_errors import (
    LabelledSamples,
    collect_labelled,
    estimate_joint,
    find_suspects,
    judge_labels,
    predict_out_of_fold,
    save_suspects,
)
from budwood.progress import Silent
from budwood.storage.context import open_context
from conftest import fill

CLASSES = 4


def _clusters(
    n: int, flipped: float, seed: int, apart: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """Features of Gaussian clusters, labels of which a share is wrong, and which."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, n)
    centres = random.normal(size=(CLASSES, 30)) * apart
    features = (centres[truth] + random.normal(size=(n, 30))).astype(np.float32)
    wrong = random.random(n) < flipped
    labels = np.where(wrong, (truth + random.integers(1, CLASSES, n)) % CLASSES, truth)
    return features, labels.astype(np.int32), wrong


def _data(labels: NDArray[np.int32], classes: tuple[str, ...] = ("a", "b", "c", "d")) -> bw.Dataset:
    """A data set of training images with these labels."""
    table = pa.table({"split": pa.array(np.zeros(len(labels)), pa.int8()), "label": labels})
    return bw.Dataset("", Path(), "", classes, table, (), "made", "")


def _all(labels: NDArray[np.int32]) -> LabelledSamples:
    names = tuple(f"p{row:03}" for row in range(len(labels)))
    return LabelledSamples(Samples(Path(), names, names, labels), np.arange(len(labels)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_errors_are_found_by_heads_that_have_not_seen_them(seed: int) -> None:
    features, labels, wrong = _clusters(800, 0.05, seed)
    fold = (np.arange(800) % 5).astype(np.int8)
    chances, known = predict_out_of_fold(features, labels, fold, CLASSES, Silent())
    assert known.all()
    assert np.allclose(chances.sum(axis=1), 1)
    joint = estimate_joint(chances, labels)
    count = int(joint.counts.sum() - np.trace(joint.counts))
    named = np.argsort(chances[np.arange(800), labels])[:count]
    assert wrong[named].mean() >= 0.9
    assert wrong[named].sum() >= 0.7 * wrong.sum()
    assert 1 - np.trace(joint.shares) == pytest.approx(wrong.mean(), abs=0.02)


def test_clean_separated_data_have_no_suspects() -> None:
    features, labels, _ = _clusters(400, 0.0, 0, apart=3.0)
    chances, _ = predict_out_of_fold(features, labels, (np.arange(400) % 5).astype(np.int8), CLASSES, Silent())
    joint = estimate_joint(chances, labels)
    assert joint.counts.sum() == np.trace(joint.counts)


def test_the_confident_joint_by_hand() -> None:
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05]])
    labels = np.array([0, 0, 0, 1, 1, 1], np.int32)
    joint = estimate_joint(chances, labels)
    assert joint.thresholds == pytest.approx([0.6, 0.55])
    assert joint.counts.tolist() == [[2, 1], [1, 2]]
    assert joint.shares == pytest.approx(np.array([[2, 1], [1, 2]]) / 6)
    alone = estimate_joint(np.array([[0.5, 0.4, 0.1], [0.2, 0.8, 0.0]]), np.array([0, 1], np.int32))
    assert alone.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]], "a class without an image is never reached"


def test_a_class_that_a_fold_alone_has_is_not_judged() -> None:
    features, labels, _ = _clusters(200, 0.0, 0)
    labels[:] = labels % 3
    labels[7] = 3
    chances, known = predict_out_of_fold(features, labels, (np.arange(200) % 5).astype(np.int8), CLASSES, Silent())
    assert np.flatnonzero(~known).tolist() == [7]
    data = _data(labels)
    found = judge_labels(data, _all(labels), chances, known, 1.0, 5, "")
    assert (found.n, found.not_judged) == (199, 1)
    assert "p007" not in [one.path for one in found.rows]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tints with copies and groups; two leaves lie among the fires."""
    folder = tmp_path_factory.mktemp("suspected") / "photos"
    for hue, name in enumerate(("fire", "leaf", "sky")):
        fill(folder / name, 30, hue=hue)
    fill(folder / "fire", 2, first=100, hue=1)
    return folder


def _errors_that_train_or_validate(data: bw.Dataset) -> set[str]:
    split = dict(zip(data.table["path"].to_pylist(), data.column("split").tolist(), strict=True))
    return {path for path in ("fire/100.png", "fire/101.png") if split[path] != 2}


def test_suspects_of_a_run_and_back_as_corrections(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    planted = _errors_that_train_or_validate(data)
    assert planted, "else this test proves nothing"
    run = bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs")
    found = find_suspects(run, open_context())
    named = {one.path: (one.label, one.suggested) for one in found.rows}
    assert len(planted) <= len(named) <= len(planted) + 2
    assert {named[path] for path in planted} == {("fire", "leaf")}
    judged = collect_labelled(run.dataset()).samples
    assert found.n == len(judged) == len(run.dataset().samples("train")) + len(run.dataset().samples("val"))
    assert not set(judged.ids) & set(run.dataset().samples("test").ids)
    assert found.accuracy["n"] == found.n
    right = round((found.accuracy["value"] or 0) * found.n)
    assert 0 < right <= found.n - len(planted)
    assert found.threshold == found.suggested_threshold == max(one.p_label for one in found.rows)
    assert f"counts {len(named)} image" in found.why
    assert "has not seen these labels" in found.trunk
    assert find_suspects(run, open_context(), 0.0).rows == ()
    assert [one.p_label for one in found.rows] == sorted(one.p_label for one in found.rows)

    file = tmp_path / "suspects.csv"
    save_suspects(file, found)
    with file.open(newline="", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["path", "label", "suggested", "p_label", "p_suggested", "split", "correct"]
    assert bw.scan(photos, corrections=file).fingerprint == data.fingerprint, "an empty column changes nothing"
    filled = (
        file.read_text(encoding="utf-8-sig").replace(",train,\n", ",train,leaf\n").replace(",val,\n", ",val,leaf\n")
    )
    file.write_text(filled, encoding="utf-8-sig")
    assert bw.scan(photos, corrections=file).corrected == len(planted)


def test_a_trunk_that_has_seen_the_labels_is_said_to(photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(model="cnn", widths=[4, 8], fc=[8], size=32, epochs=1, lr=0.01, batch=8)
    own = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    assert "trained from scratch on these labels" in find_suspects(own, open_context()).trunk
    tuned = bw.train(
        bw.scan(photos),
        bw.Recipe(**{**recipe.table(), "weights": f"run:{own.path.name}"}),
        out=tmp_path / "runs",
    )
    assert "it has seen the labels of that run" in find_suspects(tuned, open_context()).trunk


def test_cells_that_a_spreadsheet_would_compute_are_text(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, 1], np.int32)
    chances = np.array([[0.01, 0.99], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    found = judge_labels(_data(labels, ("=sum", "b,c")), _all(labels), chances, np.ones(4, bool), 0.5, 5, "")
    save_suspects(tmp_path / "s.csv", found)
    assert (tmp_path / "s.csv").read_text(encoding="utf-8-sig").splitlines()[1] == (
        'p000,\'=sum,"b,c",0.0100,0.9900,train,'
    )


def test_what_cannot_be_judged_is_refused(photos: Path, tmp_path: Path) -> None:
    run = bw.train(bw.scan(photos), bw.Recipe(size=32), out=tmp_path / "runs")
    with pytest.raises(bw.RunError, match="expected a number from 0 to 1, found 2"):
        find_suspects(run, open_context(), 2)
    for folds in (1, 1000):
        with pytest.raises(bw.DataError, match=f"too few different images for {folds} folds"):
            find_suspects(run, open_context(), folds=folds)
    rows = "".join(f"photos/leaf/{n:03}.png,{'a;b' if n % 2 else 'a'}\n" for n in range(30))
    table = photos.parent / "several.csv"
    table.write_text(f"path,labels\n{rows}")
    several = bw.train(bw.scan(table), bw.Recipe(size=32, optimizer="adam", epochs=1), out=tmp_path / "runs")
    with pytest.raises(bw.RunError, match="label errors cannot be searched for in multi-label data"):
        find_suspects(several, open_context())
