"""A time limit holds: what follows training is measured and kept back, and phases share the time."""

from __future__ import annotations

import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.progress import Silent
from budwood.reporting.recipe_text import describe_recipe
from budwood.runs.contents import evaluate_predictions
from budwood.training import checkpoints, trainer
from budwood.training import clock as clocks
from budwood.training import loop as fitting
from budwood.training.checkpoints import Checkpoints, LoopState
from budwood.training.clock import SAVING_SECONDS
from budwood.training.loop import LoopHooks, LoopResult, fit
from budwood.training.task import TrainingTask
from budwood.workflows import train as workflow
from subjects import untrained

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8,), "fc": (8,), "size": 16, "batch": 8}
PHASES = [{"freeze": "none", "epochs": 30, "lr": 0.01}, {"freeze": "upto:conv1", "epochs": 10, "lr": 0.001}]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of training, in a list of one; nothing but the test moves it."""
    seconds = [0.0]
    for module in (clocks, fitting, checkpoints):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def _steps_of(seconds: float, now: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let every step take so many seconds; the time at which each begins."""
    compute, begun = fitting.compute_gradients, list[float]()

    def slowed(*arguments: Any) -> Any:
        begun.append(now[0])
        now[0] += seconds
        return compute(*arguments)

    monkeypatch.setattr(fitting, "compute_gradients", slowed)
    return begun


def _fit(left: float, **options: Any) -> LoopResult:
    recipe = Recipe(**{**SMALL, "time": left, **options})
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 80).astype(np.int32)
    split = Labelled(ArraySource(random.integers(0, 255, (80, 16, 16, 3)).astype(np.uint8)), labels)
    val = Labelled(split.inputs, labels)
    part = NetworkSlice(untrained(recipe, 2), None)
    keep = options.pop("checkpoints", Checkpoints(None))
    return fit(part, resolve(recipe, False, 16), split, val, Silent(), hooks=LoopHooks(keep, left=lambda: left))


def test_no_step_begins_that_would_end_after_the_time(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_estimate_evaluation", lambda state, images: 5.0)
    begun = _steps_of(10.0, now, monkeypatch)
    assert len(_fit(47.0).history) == 1
    assert begun == [0, 10, 20, 30], "a fifth would end after 50 seconds, and 5 are the evaluation's"


def test_a_step_that_is_too_long_is_taken_once(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _steps_of(100.0, now, monkeypatch)
    assert len(_fit(3.0).history) == 1
    assert begun == [0]


def test_writing_a_checkpoint_is_kept_back(now: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep = Checkpoints(tmp_path)
    assert keep.expect_seconds(10**8) == 4.0, "until it is measured, as a slow disk does"
    write = Checkpoints._write

    def slowly(*arguments: Any) -> None:
        now[0] += 7.0
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "_write", slowly)
    keep.save(LoopState(), {"a": torch.zeros(3)}, np.random.default_rng())
    assert keep.expect_seconds(10**8) == 7.0
    assert Checkpoints(None).expect_seconds(10**8) == 0.0


def test_scoring_is_measured_and_kept_back(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.3)
        return evaluate_predictions(*arguments)

    def note(task: TrainingTask, *others: Any) -> Any:
        left.append(task.left() or 0.0)
        return trainer.train_network(task, *others)

    monkeypatch.setattr(workflow, "evaluate_predictions", slowly)
    monkeypatch.setattr(workflow, "train_network", note)
    made = bw.train(bw.scan(photos), bw.Recipe(**SMALL, epochs=1, time=1000), out=tmp_path)
    assert 900 < left[0] < 1000 - SAVING_SECONDS - 0.3
    assert made.record.state == "done"


def test_phases_share_the_time_by_their_epochs(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float | None] = []

    def note(task: TrainingTask, *others: Any) -> Any:
        left.append(task.left())
        return train_once(task, *others)

    train_once = trainer._train_once
    monkeypatch.setattr(trainer, "_train_once", note)
    short = [{**phase, "epochs": epochs} for phase, epochs in zip(PHASES, (3, 1), strict=True)]
    made = bw.train(bw.scan(photos), bw.Recipe(**SMALL, phases=short, time=1000), out=tmp_path)
    assert left[0] == pytest.approx(0.75 * 990, rel=0.1)
    assert left[1] == pytest.approx(990, rel=0.1), "what the first did not use is the last one's"
    assert len(made.history) == 4
    assert "at most 1,000 seconds in total" in describe_recipe(made.record)


def test_a_phase_for_which_no_time_is_left_is_not_begun(photos: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Noted(Silent):
        def note(self, sentence: str) -> None:
            notes.append(sentence)

    recipe = bw.Recipe(**SMALL, phases=PHASES, time=0.1)
    made = bw.train(bw.scan(photos), recipe, out=tmp_path, progress=Noted())
    assert [row["phase"] for row in made.history] == [1]
    assert "Phase 2 was not begun, because the time limit was reached." in notes
    assert Recipe(**recipe.table()) == recipe


def test_a_dry_run_shares_the_time_of_phases(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    _, cost = bw.estimate_cost(data, bw.Recipe(**SMALL, phases=PHASES, time=0.01), out=tmp_path)
    assert (cost.epochs, cost.steps) == (0, 0)
    _, free = bw.estimate_cost(data, bw.Recipe(**SMALL, phases=PHASES, time="5h"), out=tmp_path)
    assert free.epochs == 40


def test_a_limit_that_is_not_the_recipes_own_leaves_its_schedule(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe(**SMALL, optimizer="adam", schedule="onecycle", epochs=4)
    free, limited = (
        workflow.train_recipe(bw.scan(photos), recipe, out=tmp_path, limit=limit, novelty=False)
        for limit in (None, 30.0)
    )
    assert free.history == limited.history
    assert np.array_equal(free.predictions("val").logits, limited.predictions("val").logits)


def test_an_evaluation_is_expected_to_take_a_third_of_training_until_one_was_measured() -> None:
    fixed: Any = types.SimpleNamespace(
        clock=clocks.Clock(0.0, 60.0),
        val_views=[types.SimpleNamespace(labels=np.zeros(100))],
        checkpoints=types.SimpleNamespace(expect_seconds=lambda size: 0.5),
        size=0,
        last_evaluations=10,
    )
    begun = LoopState(seconds=3.0, seen=10)
    assert fitting._estimate_ending(begun, fixed) == pytest.approx(10.5)
    begun.evaluating = 2.0
    assert fitting._estimate_ending(begun, fixed) == pytest.approx(22.5)
