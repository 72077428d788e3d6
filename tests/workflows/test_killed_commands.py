"""Commands that are killed at random moments and repeated end as if nobody had disturbed them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from budwood.runs.explanation_record import load_explanation
from budwood.runs.run import open_run
from conftest import fill
from killing import run_killer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

# Trains a run and lets each command work on copies of it, which are there before it can be killed.
KILLER = """
import contextlib, io, shutil, sys
from pathlib import Path
import optuna
import budwood as bw
from budwood.cli.main import run
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from killing import killed_until_done

photos, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
small = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "lr": 0.01}
data = bw.scan(photos)
bw.train(data, bw.Recipe(**small), out=out / "runs", id="one")


def predict(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["predict", str(folder / "one"), str(photos), "--csv", str(folder / "a.csv")]) == 0


commands = {
    "test": lambda folder: bw.test(folder / "one"),
    "predict": predict,
    "report": lambda folder: bw.report(folder / "one"),
    "explain": lambda folder: explain_run(bw.open_run(folder / "one"), open_context(), parts=("labels", "mistakes")),
}
shutil.copytree(out / "runs", out / "warm")
for name, work in commands.items():
    work(out / "warm")  # loads what is slow to load, once for all
    for number in range(kills + 2):
        folder = out / name / (f"killed-{number}" if number else "whole")
        shutil.copytree(out / "runs", folder)
    killed_until_done(work, out / name, kills)
killed_until_done(lambda folder: bw.tune(data, small, trials=2, out=folder), out / "tune", 1)
"""
KILLS = int(os.environ.get("BUDWOOD_KILLS", "1"))  # more by hand
COMMANDS = ("test", "predict", "report", "explain", "tune")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """For each command the folder in which nothing disturbed it, then those in which it was killed and repeated."""
    out = tmp_path_factory.mktemp("killed")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(out / "photos" / name, 15, hue=hue)
    done = run_killer(KILLER, out / "photos", out, KILLS)
    assert done.returncode == 0, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [kills for _, kills in counts] == [*[KILLS] * (len(COMMANDS) - 1), 1]
    names = (["whole", *(f"killed-{number + 1}" for number in range(count))] for count, _ in counts)
    return {command: [out / command / name for name in some] for command, some in zip(COMMANDS, names, strict=True)}


def _drop(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _read_test(folder: Path) -> object:
    run = open_run(folder / "one")
    looks = [line.split(",", 1)[1] for line in (folder / "test-looks.csv").read_text().splitlines()]
    assert len(looks) == 1, "one look for one network"
    assert len(run.opened().opened) == 1
    return looks, run.opened().looks, run.opened().metrics, run.file("predictions-test.parquet").read_bytes()


def _read_explanation(folder: Path) -> object:
    explanation = load_explanation(folder / "one")
    assert explanation
    record = _drop(explanation.record.table(), "created", "seconds")
    assert record["labels"].pop("file") == str(folder / "one/label-suspects.csv")
    return record, explanation.pictures, (folder / "one/label-suspects.csv").read_bytes()


def _read_tuned(folder: Path) -> object:
    (table,) = folder.glob("*/table.csv")
    (state,) = folder.glob("*/study.json")
    with table.open(newline="") as handle:
        rows = [_drop(row, "seconds", "training_seconds", "runs") for row in csv.DictReader(handle)]
    assert len(rows) == 3
    return rows, _drop(json.loads(state.read_text()), "written")


READERS: Mapping[str, Callable[[Path], object]] = {
    "test": _read_test,
    "predict": lambda folder: (folder / "a.csv").read_bytes(),
    "report": lambda folder: (folder / "one/report.html").read_text().replace(str(folder), ""),  # in its commands
    "explain": _read_explanation,
    "tune": _read_tuned,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_and_repeated_a_command_leaves_what_it_would_have_left(
    killed: Mapping[str, list[Path]], command: str
) -> None:
    whole, *others = killed[command]
    assert others
    expected = READERS[command](whole)
    names = {path.relative_to(whole).as_posix() for path in whole.glob("**/one/*")}
    for other in others:
        assert READERS[command](other) == expected
        assert {path.relative_to(other).as_posix() for path in other.glob("**/one/*")} == names
        hidden = {path.name for path in other.rglob(".*") if "cache" not in path.relative_to(other).parts}
        assert hidden <= {".test-looks.lock"}, "drafts in the cache are swept by the next that writes there"
        for record in other.rglob("run.json"):
            run = open_run(record.parent)
            assert all(run.file(name).is_file() for name in run.record.files)
