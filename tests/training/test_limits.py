"""Limits of time and memory: training fits into what there is, and says so."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import budwood as bw
from budwood.cli.main import run
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.evaluation.novelty_fitting import limit_bytes
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice, compile_module
from budwood.progress import Silent
from budwood.runs.confidence_record import NOVELTY_FILE
from budwood.training import clock as clocks
from budwood.training import loop as fitting
from budwood.training import lr_finder, profiling
from budwood.training.checkpoints import LoopState
from budwood.training.clock import Clock
from budwood.training.device import OnDevice, move_inputs
from budwood.training.loop import LoopHooks, LoopResult, fit
from budwood.training.losses import LossOfBatch, make_loss
from budwood.training.profiling import StepCost
from budwood.training.schedules import compute_rate_factor
from budwood.training.state import predict_logits, prepare_training
from subjects import untrained

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "pools": (1, 2), "lr": 0.01}


class Said(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def _split(n: int, seed: int = 0) -> Labelled:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n).astype(np.int32)
    pixels = random.integers(0, 120, (n, 16, 16, 3)) + 100 * labels[:, None, None, None]
    return Labelled(ArraySource(pixels.astype(np.uint8)), labels)


def _part(**options: Any) -> NetworkSlice:
    recipe = Recipe(**{**SMALL, **options})
    return NetworkSlice(untrained(recipe, 2), None)


def _fit(part: NetworkSlice, *rest: Any, **options: Any) -> LoopResult:
    """What training makes of a part, by its recipe."""
    return fit(part, resolve(part.spec.recipe, False, part.spec.plan.size), *rest, **options)


def _ready(part: NetworkSlice) -> Any:
    return prepare_training(part, resolve(part.spec.recipe, False, 16))


def _curve(part: NetworkSlice, *rest: Any) -> lr_finder.RateCurve:
    return lr_finder.measure_rate_curve(part, resolve(part.spec.recipe, False, 16), *rest)


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The schedule's factors as training asks for them, while every look at the clock takes a tenth of a second."""
    asked: list[float] = []
    ticks = iter(range(10**9))
    for module in (clocks, fitting):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: next(ticks) / 10))

    def noted(*arguments: Any) -> float:
        asked.append(compute_rate_factor(*arguments))
        return asked[-1]

    monkeypatch.setattr(fitting, "compute_rate_factor", noted)
    return asked


@pytest.mark.parametrize("epochs", [None, 1000])
def test_a_schedule_is_shaped_to_the_time(factors: list[float], epochs: int | None) -> None:
    said = Said()
    part = _part(batch=4, time=100.0, epochs=epochs, schedule="onecycle")
    found = _fit(part, _split(40), _split(8, seed=1), said, hooks=LoopHooks(left=lambda: 100.0))
    peak = int(np.argmax(factors))
    assert factors[0] == pytest.approx(1 / 25)
    assert max(factors) == pytest.approx(1, abs=0.01)
    assert peak / len(factors) == pytest.approx(0.3, abs=0.05)
    assert factors[-1] < 0.01
    assert 1 < len(found.history) < 1000
    assert said.notes == [f"Stopped in epoch {len(found.history)}: the time limit was reached."]


def test_time_that_is_not_needed_changes_nothing(factors: list[float]) -> None:
    options: dict[str, Any] = {"batch": 4, "epochs": 3, "schedule": "cosine"}
    limited = _fit(
        _part(**options, time=1e6), _split(40), _split(8, seed=1), Silent(), hooks=LoopHooks(left=lambda: 1e6)
    )
    asked = list(factors)
    free = _fit(_part(**options), _split(40), _split(8, seed=1), Silent())
    assert limited.history == free.history
    assert asked == factors[len(asked) :]


def test_even_less_time_than_an_epoch_gives_an_evaluated_network(factors: list[float]) -> None:
    part = _part(batch=4, time=2.0, schedule="cosine")
    found = _fit(part, _split(400), _split(8, seed=1), Silent(), hooks=LoopHooks(left=lambda: 2.0))
    assert len(found.history) == 1
    assert len(factors) < 100
    assert found.logits.shape == (8, 2)
    assert 0 <= found.history[0]["train_accuracy"] <= 1


def test_a_clock_goes_on_where_it_was_stopped() -> None:
    assert Clock(90.0, 100.0).is_over(11.0)
    assert not Clock(80.0, 100.0).is_over(11.0)
    assert Clock(50.0, 100.0).epochs(3.0, 40, reserve=0.0) == pytest.approx(6.0, abs=0.01)
    assert Clock(50.0, 100.0).epochs(3.0, 4, reserve=0.0) == 4.0
    assert Clock(50.0, None).epochs(3.0, 4, reserve=0.0) == 4.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("45", 45), (12, 12)]
)
def test_a_time_is_read_in_its_units(text: str | int, seconds: float) -> None:
    recipe = Recipe(time=text, optimizer="adam")
    assert (recipe.time, recipe.epochs) == (seconds, None)
    assert Recipe(**recipe.table()) == recipe
    assert Recipe(time=text, epochs=3).epochs == 3
    assert Recipe(time=text).time == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "soon"}, "time: expected seconds, or a duration such as 90s, 10m or 1.5h"),
        ({"time": 0}, "time: input should be greater than 0"),
    ],
)
def test_a_time_that_has_no_meaning_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**options)


def _short_of_memory(most: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A loss that fails for batches of more than `most` images; the sizes that it was asked for."""
    sizes: list[int] = []

    def failing(*arguments: Any) -> LossOfBatch:
        loss = make_loss(*arguments)

        def limited(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            sizes.append(len(logits))
            if len(logits) > most:
                raise error
            return loss(logits, shares)

        return limited

    monkeypatch.setattr(fitting, "make_loss", failing)
    monkeypatch.setattr(lr_finder, "make_loss", failing)
    return sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["device", "cpu"],
)
def test_memory_that_runs_out_halves_the_batch_and_keeps_the_step(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = _part(batch=16, epochs=2, optimizer="sgd", conv_norm=False)
    train, val, said = _split(40), _split(8, seed=1), Said()
    whole = _fit(part, train, val, Silent())
    sizes = _short_of_memory(5, error, monkeypatch)
    halved = _fit(part, train, val, said)
    assert sizes[:6] == [16, 8, 4, 4, 4, 4]
    assert max(sizes[2:]) == 4
    assert said.notes == [
        "Out of memory: each batch is now computed in 2 parts of 8 images.",
        "Out of memory: each batch is now computed in 4 parts of 4 images.",
    ]
    assert whole.choices.batch == "16 images"
    assert halved.choices.batch == "16 images in parts of 4, because memory ran out"
    for name, tensor in whole.state.items():
        assert np.allclose(halved.state[name], tensor, atol=1e-5), "the parts of a batch make the same step"


def test_what_does_not_fit_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _short_of_memory(1, torch.OutOfMemoryError("CUDA out of memory."), monkeypatch)
    with pytest.raises(RecipeError, match="not even 2 images at a time fit into the memory of the device"):
        _fit(_part(batch=8, epochs=1), _split(16), _split(8, seed=1), Silent())


@pytest.mark.parametrize("batch", [2, 16])
def test_memory_that_runs_out_in_evaluation_leaves_the_batch_alone(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def limited(model: Any, split: Labelled, size: int) -> Any:
        asked.append(size)
        if size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict_logits(model, split, size)

    monkeypatch.setattr(fitting, "predict_logits", limited)
    said = Said()
    found = _fit(_part(batch=batch, epochs=2), _split(16), _split(40, seed=1), said)
    assert asked == [64, 32, 16, 16]
    assert found.choices.batch == f"{batch} images"
    assert said.notes[-1] == "Out of memory: now 16 images are evaluated at a time."


def test_looking_for_a_rate_halves_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _short_of_memory(5, torch.OutOfMemoryError("CUDA out of memory."), monkeypatch)
    curve = _curve(_part(batch=16), _split(40), Said())
    assert len(curve.rates) > 20
    assert max(sizes[2:]) <= 4


def test_another_error_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _short_of_memory(0, RuntimeError("shapes differ"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes differ"):
        _fit(_part(batch=8, epochs=1), _split(16), _split(8, seed=1), Silent())


def test_inputs_that_lie_on_the_device_train_alike() -> None:
    part = _part(batch=8, epochs=2)
    train, val = _split(20), _split(8, seed=1)
    held = move_inputs(train, "cpu")
    assert isinstance(held.inputs, OnDevice)
    assert len(held.inputs) == 20
    assert _fit(part, held, move_inputs(val, "cpu"), Silent()).history == _fit(part, train, val, Silent()).history


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({**SMALL, "batch": 8, "epochs": 3, "ema": 0.9}, 15, 3),
        ({**SMALL, "batch": 8, "epochs": 4, "accumulate": 2, "freeze": "upto:conv1", "tta": "flip"}, 12, 4),
        ({**SMALL, "batch": 8, "epochs": 2, "lr": "auto", "flip": 0.5}, 10, 2),
        ({"size": 32}, 0, 0),
        ({"size": 32, "optimizer": "adam", "epochs": 7}, 0, 7),
        ({**SMALL, "lr": None, "batch": 8, "phases": [
            {"freeze": "upto:conv1", "epochs": 1, "lr": 0.1}, {"freeze": "none", "epochs": 2, "lr": 0.1}]}, 15, 3),
    ],
    ids=["scratch", "frozen", "augmented", "solved", "descended", "phases"],
)  # fmt: skip
def test_a_dry_run_reckons_with_every_step(
    options: dict[str, Any], steps: int, epochs: float, photos: Path, tmp_path: Path
) -> None:
    data = bw.scan(photos)  # 38 images to train on
    recipe, cost = bw.estimate_cost(data, bw.Recipe(**options), out=tmp_path / "runs")
    assert recipe.size
    assert (cost.steps, cost.epochs) == (steps, epochs)
    assert all(seconds >= 0 for seconds in cost.seconds.values())
    assert cost.total > 0
    assert cost.memory > 2**26
    assert cost.measured
    assert not (tmp_path / "runs").exists()


def test_what_a_dry_run_says_of_the_disk_is_what_a_run_takes(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "batch": 8, "epochs": 3, "fc": (512,), "ema": 0.9}
    data, cache = bw.scan(photos), tmp_path / "cache"
    _, cost = bw.estimate_cost(data, bw.Recipe(**options), cache=cache)
    made = bw.train(data, bw.Recipe(**options), out=tmp_path / "runs", cache=cache)
    known, strangers = (made.path / NOVELTY_FILE).stat().st_size, limit_bytes(512, len(data.samples("train")), 2)
    taken = sum(file.stat().st_size for file in made.path.rglob("*.safetensors")) - known
    assert known <= 1.01 * strangers
    assert cost.disk["run"] - strangers == pytest.approx(taken, rel=0.05)
    used = len(data.samples("train")) + len(data.samples("val"))
    assert cost.disk["cache"] == used * 16 * 16 * 3
    _, again = bw.estimate_cost(data, bw.Recipe(**options), cache=cache)
    assert again.disk["cache"] == 0


def test_a_dry_run_fits_its_epochs_to_the_time(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    _, cost = bw.estimate_cost(data, bw.Recipe(**SMALL, batch=8, time="2h"), out=tmp_path)
    assert 5000 < cost.total < 7201
    assert cost.epochs > 100


def test_a_dry_run_is_shown_and_is_json(photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["train", str(photos), "--dry-run", "--model", "cnn", "--size", "16", "--epochs", "3"]
    arguments += ["--widths", "8,8", "--fc", "16", "--pools", "1,2", "--batch", "8", "--out", str(tmp_path / "runs")]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert 'optimizer = "adam"' in told
    assert "15 optimizer steps in 3 epochs" in told
    assert "Nothing was trained." in told
    assert run([*arguments, "--time", "1.5h", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"recipe", "estimate"}
    assert shown["recipe"]["time"] == 5400
    assert set(shown["estimate"]) == {"steps", "epochs", "seconds", "memory_bytes", "disk_bytes", "measured"}
    assert not (tmp_path / "runs").exists()


def test_many_threads_are_measured_once_and_recorded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("budwood.training.trainer.count_threads", lambda: 4)
    monkeypatch.setattr("budwood.training.profiling.count_threads", lambda: 4)
    monkeypatch.setattr("budwood.training.trainer.LONG", 5)
    measured: list[int] = []

    def cost(*arguments: Any) -> StepCost:
        measured.append(torch.get_num_threads())
        return StepCost(0.0, float(torch.get_num_threads()), 0.0, 0, 0)

    monkeypatch.setattr(profiling, "measure_step", cost)
    made = bw.train(bw.scan(photos), bw.Recipe(**SMALL, batch=8, epochs=2), out=tmp_path)
    assert measured == [4, 2]
    assert made.record.choices.training_threads == 2
    assert torch.get_num_threads() == before
    longer = bw.resume(made, epochs=3)
    assert measured == [4, 2], "a resumed training decides alike without measuring again"
    assert longer.record.choices.training_threads == 2


def test_training_keeps_to_the_threads_of_openmp(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.hardware.count_processors", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = bw.train(bw.scan(photos), bw.Recipe(**SMALL, batch=8, epochs=1), out=tmp_path)
    assert (made.record.choices.threads, made.record.choices.training_threads) == (1, 1)


def test_a_network_is_compiled_on_a_gpu_when_enough_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _ready(_part(epochs=10, batch=8))
    at, said = LoopState(epoch=1), Said()
    monkeypatch.setattr(torch, "compile", lambda module: module)
    assert fitting._compile_if_it_pays(model, at, Clock(1000.0, None), said) is model
    on_gpu = replace(model, device="cuda")
    assert fitting._compile_if_it_pays(on_gpu, at, Clock(10.0, None), said) is on_gpu
    fast = fitting._compile_if_it_pays(on_gpu, at, Clock(100.0, None), said)
    assert fast.compiled
    assert said.notes == ["About 15 minutes of training are left, so the network is compiled."]
    assert fitting._compile_if_it_pays(fast, at, Clock(1000.0, None), said) is fast


def test_a_compiler_that_fails_is_said_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said, calls = Said(), []

    def failing(module: Any) -> Any:
        def run(inputs: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            raise torch._dynamo.exc.TorchDynamoException("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", failing)
    run = compile_module(lambda inputs: inputs + 1, said)
    assert run(torch.zeros(2)).tolist() == run(torch.zeros(2)).tolist() == [1, 1]
    assert len(calls) == 1
    assert said.notes == ["torch.compile failed (TorchDynamoException); continuing without it."]
