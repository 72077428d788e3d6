"""Searches: trials are drawn alike whatever happened, pruned ones are recorded, many machines share a storage."""

from __future__ import annotations

import ast
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.errors import StudyError
from budwood.studies import optuna_search
from budwood.studies.optuna_search import Pruned, TrialStore, make_reporter
from budwood.studies.runner import ExecutionOptions
from budwood.studies.search_space import Search
from budwood.studies.study_file import parse_study
from conftest import absent

SPACE = {
    "optimizer": ["adam", "sgd"],
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": ["sgd"]}},
    "batch": {"low": 8, "high": 32, "step": 8},
}


def _search(sampler: str = "tpe", trials: int = 16, space: dict[str, Any] = SPACE) -> Search:
    table = {"name": "s", "search": {"sampler": sampler, "trials": trials, "space": space}}
    search = parse_study(table, "s", "").search
    assert search
    return search


def _url(folder: Path, name: str = "trials.db") -> str:
    return f"sqlite:///{folder / name}"


def _value(options: Any) -> float:
    """How good a recipe is: best at a rate of 0.01."""
    return float(1 - abs(np.log10(options["lr"]) + 2) / 4)


def _carried_out(trials: TrialStore, most: int = 100) -> list[dict[str, Any]]:
    drawn: list[dict[str, Any]] = []
    while len(drawn) < most and (trial := trials.ask()) is not None:
        trials.tell(trial, "done", _value(trial.options), "")
        drawn.append(dict(trial.options))
    return drawn


def _carried_out_flat(trials: TrialStore) -> list[dict[str, Any]]:
    """Every trial, each as good as the others."""
    drawn: list[dict[str, Any]] = []
    while (trial := trials.ask()) is not None:
        trials.tell(trial, "done", 0.5, "")
        drawn.append(dict(trial.options))
    return drawn


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_interrupted_search_draws_the_trials_that_it_would_have_had(sampler: str, tmp_path: Path) -> None:
    whole = _carried_out(TrialStore(_search(sampler), _url(tmp_path), "whole", "accuracy", "here"))
    assert len(whole) == 16
    assert len({str(options) for options in whole}) == 16
    first = TrialStore(_search(sampler), _url(tmp_path, "cut.db"), "cut", "accuracy", "here")
    begun = _carried_out(first, 12)
    open_ = first.ask()  # and is killed before it tells
    assert open_
    second = TrialStore(_search(sampler), _url(tmp_path, "cut.db"), "cut", "accuracy", "here")
    again = second.ask()
    assert again
    assert (again.number, again.options) == (open_.number, open_.options)
    second.tell(again, "done", _value(again.options), "")
    assert [*begun, dict(again.options), *_carried_out(second)] == whole


def test_a_trial_draws_only_what_applies_and_its_numbers_lie_in_the_space(tmp_path: Path) -> None:
    for options in _carried_out(TrialStore(_search("random"), _url(tmp_path), "s", "accuracy", "here")):
        assert ("momentum" in options) == (options["optimizer"] == "sgd")
        assert 1e-4 <= options["lr"] <= 1e-1
        assert options["batch"] in (8, 16, 24, 32)


def test_tpe_learns_where_the_best_is() -> None:
    space = {"lr": SPACE["lr"]}
    tpe, random = (
        _carried_out(TrialStore(_search(sampler, 30, space), "sqlite:///:memory:", "s", "accuracy", "here"))
        for sampler in ("tpe", "random")
    )
    late = [np.mean([_value(options) for options in drawn[15:]]) for drawn in (tpe, random)]
    assert late[0] > late[1] + 0.1


def test_a_grid_has_every_point_once_and_ends(tmp_path: Path) -> None:
    search = _search("grid", 100, {"optimizer": ["adam", "sgd"], "batch": {"low": 8, "high": 24, "step": 8}})
    trials = TrialStore(search, _url(tmp_path), "s", "accuracy", "here")
    assert trials.most == 6
    drawn = [(options["optimizer"], options["batch"]) for options in _carried_out_flat(trials)]
    assert drawn == [(name, size) for name in ("adam", "sgd") for size in (8, 16, 24)]


def test_two_machines_share_the_trials_of_one_search(tmp_path: Path) -> None:
    one, two = (TrialStore(_search("random", 6), _url(tmp_path), "s", "accuracy", owner) for owner in ("one", "two"))
    first, second = one.ask(), two.ask()
    assert first
    assert second
    assert (first.number, second.number) == (0, 1)
    assert len(_carried_out(one)) == 4
    assert two.ask() is None


def test_a_trial_that_is_worse_than_half_at_its_epoch_is_pruned(tmp_path: Path) -> None:
    trials = TrialStore(_search("tpe"), _url(tmp_path), "s", "accuracy", "here")
    for _ in range(optuna_search.STARTUP):
        trial = trials.ask()
        assert trial
        report = make_reporter(trials.place(trial))
        for epoch in range(1, 6):
            report([{"epoch": float(epoch), "val_loss": 0.5, "val_accuracy": 0.8}])
        trials.tell(trial, "done", 0.8, "")
    bad = trials.ask()
    assert bad
    report = make_reporter(trials.place(bad))
    for epoch in (1, 2):
        report([{"epoch": float(epoch), "val_loss": 2.0, "val_accuracy": 0.1}])
    with pytest.raises(Pruned, match="pruned after epoch 3: worse than half of the earlier trials"):
        report([{"epoch": 3.0, "val_loss": 2.0, "val_accuracy": 0.1}])
    with pytest.raises(Pruned):  # an interrupted one ends where it ended
        make_reporter(trials.place(bad))([{"epoch": 3.0, "val_loss": 2.0, "val_accuracy": 0.1}])
    trials.tell(bad, "pruned", None, "pruned after epoch 3")
    told = trials.all()[-1]
    assert (told.state, told.value, told.problem) == ("pruned", None, "pruned after epoch 3")


def test_a_storage_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/none"
    with pytest.raises(StudyError, match=r"--storage postgresql\+psycopg://me:\.\.\.@127\.0\.0\.1:1/none: cannot be"):
        TrialStore(_search(), url, "s", "accuracy", "here")


def test_only_the_public_interface_of_optuna_is_used() -> None:
    tree = ast.parse(Path(optuna_search.__file__).read_text())
    hidden = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert not hidden
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if "._" in name]


SMALL = {"model": "cnn", "widths": [8, 8], "fc": [16], "size": 16, "epochs": 2, "dropout": 0.0}


def test_tune_finds_goes_on_and_counts_its_trials(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = bw.tune(photos, SMALL, trials=2, out=tmp_path / "runs")
    assert [row.label for row in made.rows] == ["as given", "trial 0", "trial 1"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "trials.db").is_file()
    more = bw.tune(bw.scan(photos), SMALL, trials=3, out=tmp_path / "runs")
    assert [row.label for row in more.rows] == ["as given", "trial 0", "trial 1", "trial 2"]
    assert [row.runs for row in more.rows[:3]] == [row.runs for row in made.rows]
    flags = ["--model", "cnn", "--widths", "8,8", "--fc", "16", "--size", "16", "--epochs", "1", "--time", "10m"]
    assert run(["tune", str(photos), "--trials", "1", *flags, "--dropout", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"].startswith("tune-photos-")
    assert [row["label"] for row in told["rows"]] == ["as given", "trial 0"]


def test_pruned_trials_are_rows_with_their_reason(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_search, "STARTUP", 1)
    monkeypatch.setattr(optuna_search, "WARMUP", 0)
    text = (
        'name = "pruning"\n[base]\nmodel = "cnn"\nwidths = [8, 8]\nfc = [16]\nsize = 16\nepochs = 6\nbatch = 8\n'
        '[search]\ntrials = 6\nseed = 1\n[search.space]\noptimizer = ["sgd"]\n'
        "lr = { low = 1e-7, high = 1e-1, log = true }\n"
        "[search.best]\nvalue = 0.95\n[search.worst]\nvalue = 0.2\n"
    )
    (tmp_path / "p.toml").write_text(text)
    made = bw.study(tmp_path / "p.toml", photos, out=tmp_path / "runs")
    record = json.loads((tmp_path / "runs/pruning/study.json").read_text())
    states = [row["state"] for row in record["rows"]]
    assert len(states) == 6
    assert "pruned" in states
    assert all(row.problem.startswith("pruned after epoch") for row in made.rows if not row.runs)
    known = {row.published.figures[0].value: row.value for row in made.rows if row.published}
    best, worst = known[0.95], known[0.2]
    assert best
    assert worst
    assert float(best["value"] or 0) >= float(worst["value"] or 0)
    again = bw.study(tmp_path / "p.toml", photos, out=tmp_path / "runs")
    assert again.csv() == made.csv()


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of the test's own, on a socket of its own."""
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        absent("PostgreSQL (initdb)")
    found = shutil.which("initdb") or str(max(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    tools = Path(found).resolve().parent
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    user = _unprivileged()
    if user:
        shutil.chown(folder, user)

    def call(*command: str | Path) -> None:
        subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=folder, user=user)

    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    call(tools / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tester")
    call(tools / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://tester@/postgres?host={folder}"
    finally:
        call(tools / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _unprivileged() -> str | None:
    """PostgreSQL refuses to be run by root: the user that it is run by then."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def test_a_search_in_postgresql_has_the_trials_of_one_in_a_file(postgres: str, photos: Path, tmp_path: Path) -> None:
    whole = _carried_out(TrialStore(_search(), _url(tmp_path), "s", "accuracy", "here"))
    assert _carried_out(TrialStore(_search(), postgres, "s", "accuracy", "here")) == whole
    made = bw.tune(photos, SMALL, trials=1, execution=ExecutionOptions(storage=postgres), out=tmp_path / "here")
    other = bw.tune(photos, SMALL, trials=2, execution=ExecutionOptions(storage=postgres), out=tmp_path / "there")
    assert [row.label for row in other.rows] == ["as given", "trial 0", "trial 1"]
    assert other.rows[1].problem == "was trained elsewhere; its run folder is not here"
    assert made.rows[1].runs
    assert other.rows[2].runs
