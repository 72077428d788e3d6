"""Images in feature space: axes as scikit-learn finds them, neighbours as brute force does, no torch when warm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

import budwood as bw
from budwood.explain.embeddings import (
    compute_run_features,
    find_nearest,
    find_neighbours,
    make_embedding,
    project_on_principal_axes,
)
from budwood.runs.networks import make_trunk
from budwood.storage.context import open_context
from conftest import fill


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bw.Run:
    folder = tmp_path_factory.mktemp("embedded")
    for hue, name in enumerate(("fire", "leaf", "sky")):
        fill(folder / "photos" / name, 24, hue=hue)
    return bw.train(bw.scan(folder / "photos"), bw.Recipe(size=32), out=folder / "runs")


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (300, 20)])
def test_axes_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    features = (np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 5).astype(np.float32)
    points, explained = project_on_principal_axes(features)
    reference = PCA(2, svd_solver="full").fit(features.astype(np.float64))
    assert np.allclose(explained, reference.explained_variance_ratio_, atol=1e-8)
    expected = reference.transform(features.astype(np.float64))
    assert np.allclose(points, expected, atol=1e-4 * np.abs(expected).max())


def test_few_features_and_few_images_have_axes_too() -> None:
    points, explained = project_on_principal_axes(np.array([[1.0], [4.0], [1.0]], np.float32))
    assert np.allclose(points, [[-1, 0], [2, 0], [-1, 0]])
    assert explained == pytest.approx((1.0, 0.0))
    points, explained = project_on_principal_axes(np.array([[1.0, 2.0, 3.0]], np.float32))
    assert np.array_equal(points, [[0, 0]])
    assert explained == (0.0, 0.0)


def test_neighbours_are_those_of_brute_force_across_blocks() -> None:
    random = np.random.default_rng(1)
    some, all_ = random.normal(size=(600, 9)).astype(np.float32), random.normal(size=(9000, 9)).astype(np.float32)
    skipped = np.full(600, -1)
    skipped[:300] = np.arange(300) * 30
    some[:300] = all_[skipped[:300]]
    rows, cosines = find_nearest(some, all_, 4, skipped)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (some, all_)]
    whole = (unit[0] @ unit[1].T).astype(np.float64)
    whole[np.arange(300), skipped[:300]] = -2
    expected = np.argsort(-whole, axis=1)[:, :4]
    assert np.allclose(np.take_along_axis(whole, rows, 1), np.take_along_axis(whole, expected, 1), atol=1e-6)
    assert np.mean(rows == expected) > 0.999, "float32 may swap two that are equally near"
    assert np.allclose(cosines, np.take_along_axis(whole, rows, 1), atol=1e-6)


def test_equals_are_in_order_and_nothing_is_like_zero() -> None:
    all_ = np.array([[1, 0], [2, 0], [0, 1], [0, 0]], np.float32)
    rows, cosines = find_nearest(np.array([[3, 0], [0, 0]], np.float32), all_, 9, np.array([-1, -1]))
    assert rows.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert cosines.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert find_nearest(all_, all_[:1], 3, np.array([0, -1, -1, -1]))[0].shape == (4, 0)


def test_the_embedding_of_validation(run: bw.Run) -> None:
    found = make_embedding(run, open_context())
    predictions = run.predictions("val")
    assert (found.ids, found.paths, found.of) == (predictions.ids, predictions.paths, len(predictions.ids))
    assert np.array_equal(found.predicted, predictions.logits.argmax(axis=1))
    assert np.array_equal(found.correct, found.predicted == found.labels)
    features = compute_run_features(run, run.dataset().samples("val"), open_context())
    expected, explained = project_on_principal_axes(features)
    assert np.allclose(found.points, expected)
    assert found.explained == pytest.approx(explained)
    few = make_embedding(run, open_context(), most=6)
    assert (len(few), few.of) == (6, len(found))
    assert set(few.ids) <= set(found.ids)
    assert len(set(few.labels.tolist())) == 3, "each class keeps its share"


def test_features_are_what_the_head_sees(run: bw.Run) -> None:
    weight, bias = run.head()
    predictions = run.predictions("val")
    logits = compute_run_features(run, run.dataset().samples("val"), open_context()) @ weight.T + bias
    assert np.allclose(logits, predictions.logits, atol=1e-4 * np.abs(logits).max())


def test_features_of_a_trained_network_are_its_own(run: bw.Run, tmp_path: Path) -> None:
    recipe = bw.Recipe(model="cnn", widths=[4, 8], fc=[8], size=32, epochs=1, lr=0.01, batch=8)
    own = bw.train(bw.scan(run.record.source), recipe, out=tmp_path / "runs")
    weight, bias = own.head()
    logits = compute_run_features(own, own.dataset().samples("val"), open_context()) @ weight.T + bias
    assert np.allclose(logits, own.predictions("val").logits, atol=1e-3 * np.abs(logits).max())
    assert make_trunk(own, open_context()).spec.weights.path == own.path / "weights.safetensors"


def test_the_test_split_stays_sealed_until_it_is_opened(run: bw.Run) -> None:
    with pytest.raises(bw.RunError, match="its test set is sealed") as caught:
        make_embedding(run, open_context(), "test")
    assert "budwood test" in caught.value.hint
    opened = bw.test(run)
    assert len(make_embedding(opened, open_context(), "test")) == len(run.dataset().samples("test"))


def test_neighbours_are_training_images(run: bw.Run) -> None:
    data = run.dataset()
    training, validation = data.samples("train"), data.samples("val")
    near = find_neighbours(run, validation, open_context(), 3)
    features, others = (compute_run_features(run, samples, open_context()) for samples in (validation, training))
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (features, others)]
    cosines = unit[0] @ unit[1].T
    assert [one.id for one in near] == list(validation.ids)
    for one, row in zip(near, cosines, strict=True):
        places = [training.ids.index(id) for id in one.ids]
        assert np.allclose(one.similarities, np.sort(row)[::-1][:3], atol=1e-5)
        assert np.allclose(row[places], one.similarities, atol=1e-5)
        assert one.labels.tolist() == training.labels[places].tolist()
        assert [training.paths[place] for place in places] == list(one.paths)
    own = find_neighbours(run, training, open_context(), 1)
    assert all(one.id not in one.ids for one in own)


def test_training_images_have_an_embedding_too(run: bw.Run) -> None:
    found = make_embedding(run, open_context(), "train")
    training = run.dataset().samples("train")
    assert found.ids == training.ids
    weight, bias = run.head()
    features = compute_run_features(run, training, open_context())
    assert np.array_equal(found.predicted, (features @ weight.T + bias).argmax(axis=1))


def test_neighbours_of_files(run: bw.Run, tmp_path: Path) -> None:
    file = run.dataset().root / run.dataset().samples("val").paths[0]
    (one,) = find_neighbours(run, [file], open_context(), 2)
    (same,) = find_neighbours(run, run.dataset().samples("val"), open_context(), 2)[:1]
    assert one.path == str(file)
    assert one.ids == same.ids
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(bw.DataError, match=r"cannot be read as images: .*no.png \(not an image.*gone.png \(unreadable"):
        find_neighbours(run, [tmp_path / "no.png", file, tmp_path / "gone.png"], open_context())


def test_mistakes_of_the_caller_are_named(run: bw.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bw.RunError, match="expected a whole number from 1, found 0"):
        find_neighbours(run, run.dataset().samples("val"), open_context(), 0)
    with pytest.raises(bw.RunError, match="there is no method 'tsne'"):
        make_embedding(run, open_context(), method="tsne")  # type: ignore[arg-type]
    with pytest.raises(bw.RunError, match="there is no split 'training'"):
        make_embedding(run, open_context(), "training")
    monkeypatch.setattr("budwood.explain.embeddings.find_spec", lambda name: None)
    with pytest.raises(bw.RunError, match="umap-learn is not installed") as caught:
        make_embedding(run, open_context(), method="umap")
    assert "budwood[embed]" in caught.value.hint


def test_umap_keeps_neighbours_together(run: bw.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", True)  # to compile it takes half a minute
    found = make_embedding(run, open_context(), method="umap")
    assert found.explained is None
    assert found.points.shape == (len(found), 2)
    assert np.array_equal(found.points, make_embedding(run, open_context(), method="umap").points)


def test_a_warm_run_loads_no_torch(run: bw.Run) -> None:
    make_embedding(run, open_context())
    find_neighbours(run, run.dataset().samples("val"), open_context())
    code = (
        "import sys; from budwood.runs.run import open_run; from budwood.storage.context import open_context; "
        "from budwood.explain.embeddings import make_embedding, find_neighbours; "
        "from budwood.explain.confused_pairs import find_confusions; "
        "from budwood.explain.subgroups import find_slices; "
        "from budwood.explain.label_errors import find_suspects; run, context = open_run(sys.argv[1]), open_context(); "
        "make_embedding(run, context); find_neighbours(run, run.dataset().samples('val'), context); "
        "find_confusions(run, context); find_slices(run, context); find_suspects(run, context); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False, env={**os.environ})
    assert done.returncode == 0
