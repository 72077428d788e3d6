"""The learning-rate finder: known curves give known rates, a real one gives a rate that trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import SMALL as PLAIN
from test_loop import _split

import budwood as bw
from budwood.cli.main import run
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.training.lr_finder import HIGHEST, LOWEST, RateCurve, measure_rate_curve
from subjects import untrained

RATES = tuple(float(rate) for rate in np.geomspace(LOWEST, HIGHEST, 100))
SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "batch": 8, "epochs": 4}


@pytest.mark.parametrize("middle", [1e-4, 1e-3, 1e-2])
def test_the_steepest_fall_is_found(middle: float) -> None:
    places = np.log10(RATES)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (places - np.log10(middle)))) + 3 * np.clip(places + 0.5, 0, None)
    found = RateCurve(RATES, tuple(losses.tolist())).suggestion
    assert found == pytest.approx(middle, rel=0.25)


def test_a_loss_that_never_falls_gives_no_rate() -> None:
    assert RateCurve(RATES, tuple(np.linspace(1, 3, 100).tolist())).suggestion is None
    assert RateCurve(RATES, tuple([1.0] * 100)).suggestion is None


@pytest.mark.parametrize(
    ("losses", "problem"),
    [
        (np.linspace(1, 3, 100), "the loss fell at no rate"),
        (np.linspace(1, 0.97, 100), "the loss fell by 2.9% at most, and less than 5% may be chance"),
        (np.r_[2.0, 1.0, np.linspace(2, 3, 98)], "the loss fell at the smallest rates only"),
        (np.linspace(1, 0.5, 100), ""),
    ],
)
def test_why_there_is_no_suggestion_is_what_the_table_shows(losses: Any, problem: str) -> None:
    curve = RateCurve(RATES, tuple(losses.tolist()))
    assert curve.problem.startswith(problem)
    assert bool(curve.problem) == (curve.suggestion is None) == bool(problem)


def test_a_loss_that_is_no_number_from_the_start_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(**{**PLAIN, "batch": 8, "optimizer": "sgd"})
    part = NetworkSlice(untrained(recipe, 2), None)
    monkeypatch.setattr("budwood.training.lr_finder.compute_gradients", lambda *_: (float("nan"), 0))
    with pytest.raises(RecipeError, match="The loss is not a finite number at the smallest learning rate already"):
        measure_rate_curve(part, resolve(recipe, False, 16), _split(64), Silent())


def test_the_curve_starts_at_the_loss_of_the_untrained_network_and_stops_where_it_diverges() -> None:
    recipe = Recipe(**{**PLAIN, "batch": 8, "optimizer": "sgd", "lr": 3.0})
    part = NetworkSlice(untrained(recipe, 2), None)
    curve = measure_rate_curve(part, resolve(recipe, False, 16), _split(64), Silent())
    assert curve.rates == pytest.approx(RATES[: len(curve.rates)])
    assert curve.losses[5] == pytest.approx(np.log(2), abs=0.25)
    assert min(curve.losses) < 0.5 * curve.losses[5]
    assert curve == measure_rate_curve(part, resolve(recipe, False, 16), _split(64), Silent())


def test_the_trial_takes_the_steps_that_training_takes() -> None:
    recipe = Recipe(**{**PLAIN, "batch": 8, "optimizer": "sgd", "clip": 1e-6})
    part = NetworkSlice(untrained(recipe, 2), None)
    curve = measure_rate_curve(part, resolve(recipe, False, 16), _split(64), Silent())
    assert curve.rates == pytest.approx(RATES)
    assert min(curve.losses) == pytest.approx(curve.losses[5], abs=0.05), "clipped gradients learn nothing"


def test_auto_finds_a_rate_that_trains_and_says_which(photos: Path, tmp_path: Path) -> None:
    made = bw.train(bw.scan(photos), bw.Recipe(**SMALL, lr="auto"), out=tmp_path / "runs")
    rate = made.record.choices.lr
    assert rate is not None
    assert 1e-5 < rate < 1
    assert made.history[0]["lr"] == pytest.approx(rate)
    assert made.metrics["val"]["accuracy"]["value"] > 0.9
    assert f"and a learning rate of {rate:g} (found automatically)" in (made.path / "report.html").read_text()
    assert made.recipe.lr == "auto"


def test_the_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "cnn", "--widths", "8", "--fc", "16", "--size", "16", "--batch", "8"]
    assert run(["lr-find", str(photos), *flags, "--html", str(tmp_path / "rates.html")]) == 0
    said = capsys.readouterr().out
    assert "Suggested learning rate: " in said
    assert "learning rate</" not in said
    assert "<svg" in (tmp_path / "rates.html").read_text()
    assert run(["lr-find", str(photos), *flags, "--json"], as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rates"]) == len(found["losses"]) > 20
    assert run(["lr-find", str(photos), "--optimizer", "lbfgs"]) == 2


@pytest.mark.parametrize("named", [["-s", "optimizer=sgd"], ["--momentum", "0.9"], []])
def test_the_command_tries_the_optimizer_that_is_asked_for(
    named: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def find(data: Any, recipe: Recipe, context: Context) -> RateCurve:
        asked.append(recipe.optimizer)
        return RateCurve((), ())

    monkeypatch.setattr("budwood.workflows.train.find_learning_rate", find)
    monkeypatch.setattr(RateCurve, "suggestion", None)
    assert run(["lr-find", str(photos), *named, "--json"]) == 0
    assert asked == ["sgd" if named else "adam"]
