"""A look at the test split is counted once: for each network, whoever asks, and however many ask at once."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

import budwood as bw
from budwood.runs import predictor
from budwood.runs.look_ledger import Look, count_look, lock_ledger
from budwood.runs.run import Run, is_locked, lock_run, open_run
from budwood.storage.context import Context


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Run:
    shutil.copytree(tiny / "runs", tmp_path / "runs")
    return open_run(tmp_path / "runs" / "one")


def _lines(run: Run) -> list[str]:
    ledger = run.path.parent / "test-looks.csv"
    return ledger.read_text().splitlines() if ledger.is_file() else []


def test_the_same_network_is_looked_at_once_and_another_again(run: Run) -> None:
    first = bw.test(run)
    (run.path / "report.html").unlink()
    for again in (bw.test(first), bw.test(run.path), bw.test(run)):
        assert again.record == first.record
    assert "look 1" in (run.path / "report.html").read_text()
    assert len(_lines(run)) == 1
    longer = bw.resume(first, epochs=2)
    assert longer.record.test is None
    assert bw.test(longer).opened().looks == 2
    assert len(_lines(run)) == 2


def test_a_score_of_changed_files_is_not_shown(run: Run) -> None:
    tested = bw.test(run)
    file = run.path / "predictions-test.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(bw.RunError, match=r"predictions-test\.parquet: was changed or damaged"):
        bw.test(tested)
    assert len(_lines(run)) == 1


def test_a_process_that_has_tested_the_run_meanwhile_has_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(opened: Run, context: Context) -> predictor.RunPredictor:
        monkeypatch.undo()
        bw.test(run.path)
        return predictor.make_predictor(opened, context)

    monkeypatch.setattr("budwood.workflows.evaluate.make_predictor", meanwhile)
    assert bw.test(run).opened().looks == 1
    assert len(_lines(run)) == 1
    assert len(open_run(run.path).opened().opened) == 1


def test_a_look_that_was_counted_before_a_kill_is_not_counted_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> Run:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("budwood.workflows.evaluate._save_score", killed)
        with pytest.raises(KeyboardInterrupt):
            bw.test(run)
    assert len(_lines(run)) == 1
    with lock_ledger(run.path.parent):
        split = _lines(run)[0].rpartition(",")[2]
        assert count_look(run.path.parent, [Look("another", "weights", split)]) == [2]
    assert bw.test(run).opened().looks == 1, "the first that was counted"
    assert len(_lines(run)) == 2


def test_a_line_of_the_ledger_that_was_torn_spoils_no_other(run: Run) -> None:
    (run.path.parent / "test-looks.csv").write_text("2026-01-01T00:00:00+00:00,other,spl")
    assert [count_look(run.path.parent, [Look("one", weights, "split")]) for weights in ("a", "b", "a")] == [
        [1],
        [2],
        [1],
    ]
    assert len(_lines(run)) == 3


def test_runs_that_look_at_once_count_one_look_at_each_split(tmp_path: Path) -> None:
    """Old lines, ids with commas, and lines that were torn after their last sign count as what they are."""
    ledger = tmp_path / "test-looks.csv"
    ledger.write_text("2026-01-01T00:00:00+00:00,single,s1\n2026-01-01T00:00:00+00:00,a, b,n0,s1")
    first = [Look("a", "n1", "s1"), Look("b", "n2", "s1"), Look("c", "n3", "s2"), Look("b", "n2", "s1")]
    assert count_look(tmp_path, first) == [3, 3, 1, 3]
    assert ledger.read_text().splitlines()[2].split(",", 1)[1] == "a/b,n1/n2,s1"
    assert ledger.read_text().splitlines()[3].split(",", 1)[1] == "c,n3,s2"
    later = [Look("d", "n4", "s1"), Look("b", "n2", "s1"), Look("a, b", "n0", "s1")]
    assert count_look(tmp_path, later) == [4, 3, 2], "only what is new counts a new look"
    text = ledger.read_text()
    assert count_look(tmp_path, [*first, *later]) == [3, 3, 1, 3, 4, 3, 2]
    assert ledger.read_text() == text


def test_looks_are_counted_one_after_another(run: Run) -> None:
    counted: list[int] = []

    def look() -> None:
        with lock_ledger(run.path.parent):
            counted.extend(count_look(run.path.parent, [Look("one", f"weights {len(counted)}", "split")]))

    thread = threading.Thread(target=look)
    with lock_ledger(run.path.parent):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert not _lines(run)
    thread.join(10)
    look()
    assert counted == [1, 2]


def test_asking_whether_a_run_is_being_trained_writes_nothing(run: Run) -> None:
    shutil.rmtree(run.path / "checkpoint", ignore_errors=True)
    draft = run.path / ".x.part"
    draft.touch()
    before = {path: path.stat().st_mtime_ns for path in (run.path, *run.path.rglob("*"))}
    (run.path / "run.json").chmod(0o444)
    assert not is_locked(run.path)
    assert {path: path.stat().st_mtime_ns for path in (run.path, *run.path.rglob("*"))} == before
    with lock_run(run.path):
        assert is_locked(run.path)
    assert not is_locked(run.path)
    (run.path / "run.json").unlink()
    (run.path / "run.json").write_text(json.dumps({**run.record.table(), "state": "running"}))
    draft.touch()
    with pytest.raises(bw.RunError, match="its training was interrupted"):
        open_run(run.path)
    assert draft.is_file(), "which another process may be writing"
