"""Fine-tuning that starts from a head solved on the frozen trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import budwood as bw
from budwood.config.label_rules import adapt_to_labels
from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.inference.feature_cache import find_missing_features
from budwood.progress import Silent
from budwood.runs.preflight import check_and_plan
from budwood.runs.run import Run, find_run
from budwood.storage.context import open_context
from budwood.training import trainer
from budwood.training.frozen_features import load_features, make_frozen_prefix
from budwood.training.probe import make_probe_task, start_from_probe
from budwood.training.task import TrainingTask
from budwood.workflows.train import estimate_cost
from conftest import Notes, fill

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "conv_norm": True}
STEPS: dict[str, Any] = {"batch": 8, "lr": 0.01, "freeze": "none", "probe": True}


def _make_trunk(photos: Path, tmp_path: Path, seed: int = 0) -> dict[str, Any]:
    """The options of a small network that starts from the weights of a run."""
    return {**SMALL, "weights": f"run:{_train(photos, tmp_path, **SMALL, batch=8, epochs=1, seed=seed).path.name}"}


@pytest.fixture
def trunk(photos: Path, tmp_path: Path) -> dict[str, Any]:
    """The options of a small network that starts from the weights of a run on the photos."""
    return _make_trunk(photos, tmp_path)


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Two classes of 30 pictures that nothing tells apart."""
    for first, name in ((0, "leaf"), (100, "sky")):
        fill(tmp_path / "alike" / name, 30, first=first, hue=1)
    return tmp_path / "alike"


def _train(photos: Path, tmp_path: Path, **options: Any) -> Run:
    return bw.train(bw.scan(photos), bw.Recipe(**options), out=tmp_path / "runs", novelty=False)


def _weights(run: Run) -> dict[str, np.ndarray]:
    return load_file(run.path / "weights.safetensors")


def _content(run: Run) -> list[bytes]:
    return [
        (run.path / name).read_bytes() for name in ("weights.safetensors", "history.csv", "predictions-val.parquet")
    ]


def _cut_short(photos: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """The run `cut`, interrupted after its first epoch."""

    def stop(history: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bw.train(bw.scan(photos), Recipe(**options), out=tmp_path / "runs", id="cut", on_epoch_end=stop, novelty=False)


def _make_task(photos: Path, tmp_path: Path, options: dict[str, Any], **fields: Any) -> TrainingTask:
    context = open_context(None, fields.pop("progress", Silent()))
    preflight = check_and_plan(bw.scan(photos), Recipe(**options), tmp_path / "runs", "drop", context)
    return TrainingTask(preflight.spec, preflight.training, preflight.validation, context, **fields)


@pytest.mark.parametrize(
    ("shared", "own", "place"),
    [
        ({}, {}, "head"),
        ({"class_weights": True, "label_smoothing": 0.1, "select": "macro_f1"}, {}, "head"),
        ({"balanced_sampling": True, "logit_adjustment": 1.0}, {"loss": "focal"}, "head"),
        ({}, {"dropout": 0.3, "flip": 0.5, "freeze": "upto:conv1"}, "head.1"),
    ],
    ids=["plain", "weighted", "balanced", "with dropout and augmentation"],
)
def test_training_starts_from_the_head_that_a_frozen_run_solves(
    shared: dict[str, Any], own: dict[str, Any], place: str, trunk: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    frozen = _train(photos, tmp_path, **trunk, **shared)
    started = _train(photos, tmp_path, **{**trunk, **shared, **STEPS, **own}, epochs=1, wise_ft=0)
    expected, found = _weights(frozen), _weights(started)
    assert np.array_equal(found[f"{place}.weight"], expected["head.weight"])
    assert np.array_equal(found[f"{place}.bias"], expected["head.bias"])
    for name in expected:
        assert name.startswith("head.") or np.array_equal(found[name], expected[name]), name
    assert np.allclose(started.predictions("val").logits, frozen.predictions("val").logits, atol=1e-3)
    assert frozen.record.selected.regularisation is not None
    row = next(row for row in frozen.history if row["regularisation"] == frozen.record.selected.regularisation)
    told = started.record.choices.probe or {}
    assert {name: told[name] for name in ("train_loss", "train_accuracy")} == pytest.approx(
        {name: row[name] for name in ("train_loss", "train_accuracy")}
    )
    assert told["val_loss"] == pytest.approx(row["val_loss"], rel=1e-2, abs=1e-6)
    assert started.record.timings.probe is not None


def test_after_a_frozen_run_nothing_is_computed(photos: Path, tmp_path: Path) -> None:
    trunk = _make_trunk(photos, tmp_path, seed=7)
    task = _make_task(photos, tmp_path, {**trunk, **STEPS, "flip": 0.5, "epochs": 1})
    solving = make_probe_task(task)
    assert len(find_missing_features(make_frozen_prefix(solving), task.training)) == len(task.training)
    _train(photos, tmp_path, **trunk)
    features = load_features(solving)
    assert features is not None
    assert (features.computed, features.reused) == (0, len(task.training) + len(task.validation))


def test_the_time_limit_ends_the_search_for_a_penalty(trunk: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    notes = Notes()
    task = _make_task(photos, tmp_path, {**trunk, **STEPS, "epochs": 1}, left=lambda: 0.0, progress=notes)
    started = start_from_probe(task, trainer.fit_head)
    assert set(started.start or {}) == {"head.weight", "head.bias"}
    assert any("time limit was reached after 1 strength of the penalty" in note for note in notes.kept)
    assert any("Training starts from the head that was solved on the frozen trunk" in note for note in notes.kept)
    assert start_from_probe(started, trainer.fit_head).probed == started.probed


@pytest.mark.parametrize("own", [{}, {"wise_ft": "auto", "ema": 0.5}], ids=["kept", "averaged"])
def test_a_training_that_goes_on_does_not_solve_again_and_ends_with_the_same_bits(
    own: dict[str, Any], trunk: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**trunk, **STEPS, "epochs": 3, "lr": 0.02, **own}
    _cut_short(photos, tmp_path, options)
    whole = _train(photos, tmp_path, **options)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit_head", lambda *arguments: pytest.fail("the head was solved again"))
        gone_on = bw.resume(find_run(tmp_path / "runs" / "cut"), novelty=False)
        assert _content(gone_on) == _content(whole)
        assert gone_on.record.choices.probe == whole.record.choices.probe
        assert gone_on.record.choices.wise_ft == whole.record.choices.wise_ft
        longer = bw.resume(gone_on, epochs=4, novelty=False)
    assert _content(longer) == _content(_train(photos, tmp_path, **{**options, "epochs": 4}))


def test_a_damaged_head_is_solved_again(trunk: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    first = _train(photos, tmp_path, **trunk, **STEPS, epochs=1, wise_ft=0)
    file = first.path / "checkpoint" / "probe.head"
    file.write_bytes(file.read_bytes()[:-40])
    longer = bw.resume(first, epochs=2, novelty=False)
    assert _content(longer)[0] == _content(first)[0], "the start is the same"


def test_the_start_is_kept_where_no_epoch_is_better(alike: Path, tmp_path: Path) -> None:
    photos, trunk = alike, _make_trunk(alike, tmp_path)
    spoilt = {**trunk, **STEPS, "optimizer": "sgd", "lr": 3.0, "epochs": 4}
    frozen, run = _train(photos, tmp_path, **trunk), _train(photos, tmp_path, **spoilt, patience=2)
    history, figures = run.history, run.record.choices.probe or {}
    assert min(row["val_loss"] for row in history) > figures["val_loss"]
    assert [row["epoch"] for row in history] == [1, 2], "the start counts when patience does"
    assert run.record.selected.epoch == 0
    assert all(np.array_equal(tensor, _weights(frozen)[name]) for name, tensor in _weights(run).items())
    assert run.metrics["val"]["log_loss"].value == pytest.approx(figures["val_loss"], rel=1e-6)
    report = (run.path / "report.html").read_text()
    assert "the start was kept, with the solved head, because it has the lowest validation loss" in report
    assert "The head was solved on the frozen trunk first, and training started from there (validation loss" in report
    assert "Chosen: 0" in report
    with pytest.raises(bw.BudwoodError, match="stopped after 2 epochs without improvement"):
        bw.resume(run, epochs=9, novelty=False)
    _cut_short(photos, tmp_path, {**spoilt, "patience": 2})
    assert (tmp_path / "runs" / "cut" / "checkpoint" / "best-0.safetensors").is_file()
    assert _content(bw.resume(tmp_path / "runs" / "cut", novelty=False)) == _content(run)
    last = _train(photos, tmp_path, **spoilt, select="last")
    assert last.record.selected.epoch == 4
    row = next(row for row in bw.compare([run, last], metric="accuracy").rows if row.epochs == (0,))
    assert row.train is not None
    assert row.train.value == pytest.approx(figures["train_accuracy"])


def test_the_head_is_solved_before_the_first_phase(alike: Path, photos: Path, tmp_path: Path) -> None:
    trunk = _make_trunk(alike, tmp_path)
    shared = {**trunk, "batch": 8, "probe": True, "optimizer": "sgd", "trained_norm": "eval"}
    bad = [{"freeze": "trunk", "epochs": 1, "lr": 1e-9}, {"freeze": "upto:conv1", "epochs": 2, "lr": 0.7}]
    run, frozen = _train(alike, tmp_path, **shared, phases=bad), _train(alike, tmp_path, **trunk)
    start, history = run.record.choices.probe or {}, run.history
    assert start["val_loss"] == pytest.approx(history[0]["val_loss"], rel=1e-3), "the first phase hardly moves"
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert run.record.selected.epoch in (0, 1)
    assert np.allclose(_weights(run)["head.weight"], _weights(frozen)["head.weight"], atol=1e-5)
    good = [{"freeze": "trunk", "epochs": 1, "lr": 1e-9}, {"freeze": "none", "epochs": 3, "lr": 1e-3}]
    better = _train(photos, tmp_path, **shared, phases=good)
    losses = [(better.record.choices.probe or {})["val_loss"], *(row["val_loss"] for row in better.history)]
    assert better.record.selected.epoch == losses.index(min(losses)) > 0


def test_images_with_several_labels_have_no_head_to_solve() -> None:
    with pytest.raises(RecipeError, match="probe: not used for multi-label data, where the head is not solved exactly"):
        adapt_to_labels(Recipe(freeze="none", probe=True), multilabel=True)


def test_the_cost_of_solving_first_is_told(trunk: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**trunk, **STEPS, "epochs": 2}
    both = estimate_cost(bw.scan(photos), Recipe(**options, wise_ft="auto"), out=tmp_path / "runs")[1]
    assert {"solving the head first", "choosing weights"} <= both.seconds.keys()
    del options["probe"]
    alone = estimate_cost(bw.scan(photos), Recipe(**options), out=tmp_path / "runs")[1]
    assert not {"solving the head first", "choosing weights"} & alone.seconds.keys()
