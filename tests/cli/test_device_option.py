"""`--device` holds while a command runs, and only commands that compute with a network have it; so with `--seed`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from budwood.cli.device_option import add_device_option
from budwood.cli.main import app, run
from budwood.errors import RecipeError, StudyError
from budwood.explain.explain_request import ExplainRequest
from budwood.explain.explanation import make_explanation
from budwood.hardware import DEVICE_VARIABLE, GPUS_VARIABLE, find_best_device, use_device
from budwood.studies.study import Overrides
from budwood.studies.study_file import parse_study
from budwood.workflows.drift import _make_tests

COMPUTING = {
    "calibrate", "demo", "drift", "explain", "export", "lr-find", "predict", "publish", "resume", "study", "suggest",
    "test", "train", "tune",
}  # fmt: skip
RANDOM = {"drift", "explain", "lr-find", "study", "suggest", "train", "tune"}


def _have(flag: str) -> set[str]:
    return {
        name
        for name, command in app.commands.items()
        if any(flag in one.opts for one in command.get_params(click.Context(command)))
    }


def test_only_commands_in_which_they_mean_something_have_them() -> None:
    assert _have("--device") == COMPUTING
    assert _have("--seed") == RANDOM


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The variables in which each call of the command below found itself."""
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    monkeypatch.delenv(GPUS_VARIABLE, raising=False)
    return []


def _make_command(noted: list[dict[str, str]]) -> click.Command:
    @add_device_option
    def command() -> None:
        noted.append({name: os.environ[name] for name in (DEVICE_VARIABLE, GPUS_VARIABLE) if name in os.environ})

    return click.command()(command)


def test_the_device_holds_while_the_command_runs(noted: list[dict[str, str]]) -> None:
    command = _make_command(noted)
    assert CliRunner().invoke(command, ["--device", "CPU"]).exit_code == 0
    assert CliRunner().invoke(command, ["--device", "auto"]).exit_code == 0
    assert CliRunner().invoke(command, []).exit_code == 0
    assert CliRunner().invoke(command, [], env={DEVICE_VARIABLE: "cpu"}).exit_code == 0
    cpu = {DEVICE_VARIABLE: "cpu", GPUS_VARIABLE: "-1"}
    assert noted == [cpu, {}, {}, cpu]
    assert DEVICE_VARIABLE not in os.environ
    assert GPUS_VARIABLE not in os.environ


def test_cpu_is_found_whatever_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert find_best_device() == "cuda"
    with use_device("cpu"):
        assert find_best_device() == "cpu"


@pytest.mark.parametrize(("visible", "name"), [(None, "1"), ("2,3", "3"), ("GPU-a, GPU-b", "GPU-b"), ("2", "-1")])
def test_a_numbered_gpu_is_one_of_those_that_are_visible(
    visible: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GPUS_VARIABLE, raising=False)
    if visible:
        monkeypatch.setenv(GPUS_VARIABLE, visible)
    with use_device("cuda:1"):
        assert os.environ[GPUS_VARIABLE] == name
    assert os.environ.get(GPUS_VARIABLE) == visible


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "expected auto, cpu, cuda, cuda:N or mps, found 'tpu'"),
        ("0,1", "expected auto, cpu, cuda, cuda:N or mps, found '0,1'"),
        ("cuda", "PyTorch sees no cuda on this machine. Leave --device out, or say --device cpu."),
        ("1", "PyTorch sees no cuda:1 on this machine."),
        ("gpu", "PyTorch sees no gpu on this machine."),
    ],
)
def test_a_device_that_is_not_here_is_told(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert run(["train", "elpv", "--device", device]) == 2
    assert message in capsys.readouterr().err


def test_any_gpu_is_the_kind_that_is_there(noted: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    command = _make_command(noted)
    for device in ("gpu", "cuda", "1"):
        assert CliRunner().invoke(command, ["--device", device]).exit_code == 0
    assert noted == [{}, {}, {GPUS_VARIABLE: "1"}]


def test_a_device_without_effect_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    assert run(["predict", str(tmp_path / "m.onnx"), str(tmp_path / "a.png"), "--device", "cpu"]) == 2
    assert "m.onnx is an exported file, which ONNX Runtime computes on the processor." in capsys.readouterr().err
    for words in (["study", "s.toml"], ["tune", "elpv"]):
        assert run([*words, "--ray", "local", "--device", "cpu"]) == 2
        assert "--device: the machines of a Ray cluster choose their own." in capsys.readouterr().err


STUDY: dict[str, Any] = {"name": "s", "data": "elpv", "rows": [{"label": "one"}]}


def test_the_seeds_of_a_study_are_put_over_those_of_the_file() -> None:
    assert parse_study({**STUDY, "seeds": [0, 1]}, "s", "", Overrides(seeds=(7, 8))).seeds == (7, 8)
    assert parse_study({**STUDY, "seeds": [0, 1]}, "s", "").seeds == (0, 1)
    with pytest.raises(StudyError, match="the study has folds, which stand in place of seeds: leave out --seed"):
        parse_study({**STUDY, "folds": 3}, "s", "", Overrides(seeds=(7,)))


@pytest.mark.parametrize(("words", "seed"), [([], 0), (["--seed", "5"], 5)])
def test_the_seed_of_a_search_draws_its_trials(
    words: list[str], seed: int, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    drawn: list[int] = []

    def note(search: Any, **others: Any) -> Any:
        drawn.append(search.search.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr("budwood.studies.runner.study", note)
    assert run(["tune", str(photos), *words]) == 130
    assert drawn == [seed]


def test_the_seed_of_an_explanation_needs_a_part_that_draws(made_run: Any) -> None:
    request = ExplainRequest(parts=("filters",), seed=1)
    with pytest.raises(RecipeError, match="seed: is only used by the parts `images`, `classes` and `units`"):
        make_explanation(made_run, request, None)  # type: ignore[arg-type]


@pytest.fixture
def made_run() -> Any:
    """As much of a run as is asked before anything is computed."""

    class _Record:
        ensemble = None

    class _Run:
        record = _Record()

    return _Run()


def test_the_seed_of_drift_draws_the_permutations() -> None:
    random = np.random.default_rng(1)
    vectors = [random.normal(size=(30, 4)).astype(np.float32), random.normal(0.2, size=(30, 4)).astype(np.float32)]
    answers = [random.dirichlet((1, 1), 30) for _ in range(2)]
    one, same, other = (_make_tests(vectors, answers, 0.01, 0.2, seed) for seed in (0, 0, 1))
    assert [test.p for test in one] == [test.p for test in same]
    assert [test.p for test in one] != [test.p for test in other]
