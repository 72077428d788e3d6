"""`study --test`: one look for the whole study, whatever happens; what is told of it; nothing is chosen by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli import main
from budwood.errors import RunError
from budwood.runs.run import Run, find_run
from budwood.studies.executors import InProcessExecutor
from budwood.studies.monitor import SilentMonitor
from budwood.studies.reports import report_study
from budwood.studies.runner import ExecutionOptions
from budwood.studies.training_job import JobResult
from budwood.workflows import evaluate
from conftest import SMALL_STUDY, Notes

WILD = '[[rows]]\nlabel = "wild"\nmomentum = 1.2\noptimizer = "sgd"\nrefused = "momentum"\n'
TEST = ExecutionOptions(test=True)


class Noting(Notes, SilentMonitor):
    """Keeps the notes of a study."""


def _row(label: str, lr: float) -> str:
    return f'[[rows]]\nlabel = "{label}"\nlr = {lr}\n'


ROWS = _row("slow", 0.001) + _row("fast", 0.01) + WILD


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, the file of a study and its runs, whose tests are sealed."""
    folder = tmp_path_factory.mktemp("opened")
    shutil.copytree(tiny / "photos", folder / "photos")
    (folder / "small.toml").write_text(SMALL_STUDY + ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert all(row.test is None for row in bw.study("small.toml").rows)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _ledger() -> list[str]:
    file = Path("runs/small/test-looks.csv")
    return file.read_text().splitlines() if file.is_file() else []


def _looks(made: bw.Comparison) -> dict[str, tuple[int, ...]]:
    return {row.label: row.looks for row in made.rows}


def test_the_test_split_is_opened_once_for_all_rows(here: Path) -> None:
    before = report_study(Path("runs/small"))
    made = bw.study("small.toml", execution=TEST)
    assert _looks(made) == {"slow": (1,), "fast": (1,), "wild": ()}
    (line,) = _ledger()
    assert [Path(path).name for row in made.rows for path in row.runs] == line.split(",")[1].split("/")
    again = bw.study("small.toml", execution=TEST)
    assert (_looks(again), len(_ledger())) == (_looks(made), 1)
    assert made.best == before.best, "nothing is chosen by test"
    assert {finding.code for finding in made.findings} & {"R009"} == set()
    (pair,) = made.test_pairs
    assert {pair.one, pair.other} == {"slow", "fast"}
    assert made.record()["test_pairs"][0]["p_holm"] == pair.p
    chosen = next(row for row in made.rows if row.best)
    other = next(row for row in made.rows if row.label == pair.one)
    assert pair.other == chosen.label
    assert chosen.test
    assert other.test
    assert pair.difference.value == pytest.approx((other.test.value or 0) - (chosen.test.value or 0))


def test_killed_after_the_look_was_counted_it_goes_on_at_that_look(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = evaluate._save_score, list[Any]()

    def die_at_second(*arguments: Any) -> Run:
        if saved:
            raise KeyboardInterrupt
        saved.append(arguments)
        return save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_save_score", die_at_second)
        with pytest.raises(KeyboardInterrupt):
            bw.study("small.toml", execution=TEST)
    tested = [find_run(file.parent).record.test for file in sorted(Path("runs/small").glob("*/run.json"))]
    assert sorted(record is None for record in tested) == [False, True]
    assert json.loads(Path("runs/small/study.json").read_text())["state"] == "stopped"
    made = bw.study("small.toml", execution=TEST)
    assert _looks(made) == {"slow": (1,), "fast": (1,), "wild": ()}
    assert len(_ledger()) == 1


def test_a_row_that_is_added_later_is_tested_alone_at_a_second_look(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bw.study("small.toml", execution=TEST)
    Path("small.toml").write_text(SMALL_STUDY + ROWS + _row("new", 0.02))
    untested = bw.study("small.toml")
    told = next(finding for finding in untested.findings if finding.code == "R016")
    assert told.rows == ("wild", "new")
    assert "2 rows have no test figure: wild (momentum: expected under 1," in told.message
    assert told.message.endswith("; new (its test set is still sealed).")
    made = bw.study("small.toml", execution=TEST)
    assert _looks(made)["new"] == (2,)
    assert len(_ledger()) == 2
    assert "R009" in {finding.code for finding in made.findings}
    same = [row.label for row in made.rows if row.looks == next(row for row in made.rows if row.best).looks]
    assert {label for pair in made.test_pairs for label in (pair.one, pair.other)} <= set(same)


def test_the_terminal_and_the_page_show_the_test_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["study", "small.toml", "--test"]) == 0
    told = capsys.readouterr().out
    assert "* chosen on validation. p: McNemar's exact test against the row that was chosen on validation." in told
    assert "No row was chosen by these figures" in told
    assert "test accuracy" in told
    assert "1 row has no test figure: wild (momentum: expected under 1" in told
    page = Path("runs/small/report.html").read_text()
    assert "<h2>Test set</h2>" in page
    report_study(Path("runs/small"))
    assert Path("runs/small/report.html").read_text() == page
    assert main.run(["study", "small.toml", "--test", "--json"], as_json=True) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert set(record["rows"][0]["test"]) == {"value", "low", "high", "n"}
    assert record["rows"][0]["looks"] == [1]
    assert len(record["test_pairs"]) == 1


def test_the_test_set_stays_sealed_until_every_row_has_ended(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("small.toml").write_text(SMALL_STUDY + ROWS + _row("new", 0.02))
    monitor = Noting()
    stopped = JobResult("stopped", "the time is over")
    with monkeypatch.context() as patch:
        patch.setattr(InProcessExecutor, "run", lambda *arguments: stopped)
        made = bw.study("small.toml", execution=ExecutionOptions(test=True, time=600), monitor=monitor)
    assert not _ledger()
    assert _looks(made) == {"slow": (), "fast": (), "wild": (), "new": ()}
    assert monitor.kept == ["The test set stays sealed, because not every row has ended: repeat the command to go on."]
    assert set(_looks(bw.study("small.toml", execution=TEST)).values()) == {(1,), ()}


def test_a_run_that_cannot_be_tested_is_told_and_the_others_are_tested(here: Path) -> None:
    (slow,) = Path("runs/small").glob("slow-*")
    truth = (slow / "sealed.parquet").read_bytes()
    (slow / "sealed.parquet").write_bytes(truth[:-1] + b"?")
    monitor = Noting()
    made = bw.study("small.toml", execution=TEST, monitor=monitor)
    assert _looks(made) == {"slow": (), "fast": (1,), "wild": ()}
    assert [note.partition(":")[0] for note in monitor.kept] == [f"{slow.name} could not be tested"]
    assert not made.test_pairs
    (slow / "sealed.parquet").write_bytes(truth)
    assert _looks(bw.study("small.toml", execution=TEST))["slow"] == (2,), "the others' figures were known then"


def test_without_a_test_set_it_is_refused_before_anything_is_trained(here: Path, photos: Path) -> None:
    for split, names in {"train": range(10), "val": range(10, 15)}.items():
        for name in ("leaf", "sky"):
            (here / "given" / split / name).mkdir(parents=True)
            for number in names:
                shutil.copy(photos / name / f"{number:03}.png", here / "given" / split / name)
    with pytest.raises(RunError, match=r"given: has no test set, which --test opens\.$"):
        bw.study("small.toml", "given", out="other", execution=TEST)
    assert not list(here.glob("other/small/*/run.json"))
