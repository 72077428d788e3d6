"""Commands that work on one run or study at once: the second waits or is refused, and what is written is right."""

from __future__ import annotations

import datetime
import itertools
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.errors import BudwoodError
from budwood.explain.explain_request import ExplainRequest
from budwood.explain.explanation import make_explanation
from budwood.networks.weights import describe_file
from budwood.reporting.card_summary import CardSummary
from budwood.runs import preflight
from budwood.runs.explanation_record import Explanation, load_explanation
from budwood.runs.run import Run, find_run, lock_run, open_run
from budwood.storage.context import open_context
from budwood.studies import reports, study_state
from budwood.workflows import evaluate
from budwood.workflows import explain as explaining
from budwood.workflows import report as reporting
from budwood.workflows.explain import explain_run
from conftest import TINY

WAIT = 0.3  # seconds after which who still waits is taken to wait for a lock


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Run:
    shutil.copytree(tiny / "runs", tmp_path / "runs")
    return open_run(tmp_path / "runs" / "one")


def _looks(run: Run) -> int:
    ledger = run.path.parent / "test-looks.csv"
    return len(ledger.read_text().splitlines()) if ledger.is_file() else 0


def _read(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()}


def test_a_second_resume_is_refused_and_changes_nothing(run: Run) -> None:
    seen = []

    def second(history: Any) -> None:
        before = _read(run)
        with pytest.raises(bw.RunError, match="is being trained by another process"):
            bw.resume(run, epochs=4)
        assert _read(run) == before
        seen.append(len(history))

    longer = bw.resume(run, epochs=3, on_epoch_end=second)
    assert seen == [2, 3]
    assert find_run(run.path).record == longer.record
    assert {path.name for path in run.path.rglob(".*")} == set()


def test_a_resume_goes_on_from_what_the_run_has_become_meanwhile(run: Run) -> None:
    longer = bw.resume(find_run(run.path), epochs=3)
    tested = bw.test(longer)
    with pytest.raises(bw.RunError, match="already has 3 epochs, which is not less than 2"):
        bw.resume(run, epochs=2)
    assert open_run(run.path).record == tested.record


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("make_predictor", "was (trained further by another process|changed) while this command was using it"),
        ("lock_ledger", "was trained further by another process while this command was using it"),
    ],
)
def test_a_test_of_weights_that_a_resume_replaced_is_refused_and_is_no_look(
    run: Run, monkeypatch: pytest.MonkeyPatch, moment: str, message: str
) -> None:
    def meanwhile(*given: Any) -> Any:
        made = function(*given)
        bw.resume(run.path, epochs=3)
        return made

    function = getattr(evaluate, moment)
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, moment, meanwhile)
        with pytest.raises(BudwoodError, match=message):
            bw.test(run)
    assert _looks(run) == 0
    assert open_run(run.path).record.test is None
    assert bw.test(run.path).opened().looks == 1


def test_beside_a_resume_no_command_writes_into_the_run(run: Run) -> None:
    def beside(history: Any) -> None:
        before = _read(run)
        for command in (bw.test, reporting.report, lambda one: explain_run(one, open_context(), parts=("mistakes",))):
            with pytest.raises(bw.RunError, match="is not a finished run; it is still being trained"):
                command(run)
        assert _read(run) == before
        assert _looks(run) == 0

    assert bw.resume(run, epochs=2, on_epoch_end=beside).record.state == "done"


def test_an_explanation_of_weights_that_were_replaced_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*given: Any) -> Explanation:
        bw.resume(run.path, epochs=3)
        return make_explanation(*given)

    monkeypatch.setattr(explaining, "make_explanation", meanwhile)
    with pytest.raises(bw.RunError, match="was trained further by another process while"):
        explain_run(run, open_context(), parts=("mistakes",))
    assert load_explanation(run.path) is None


def _start_and_wait(work: Callable[[], object]) -> threading.Thread:
    """A thread that works, or waits for a lock that the caller holds."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)
    return thread


@pytest.fixture
def explain(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Explains a part of the run that was worked out before, so that it takes no time."""

    def make(part: str) -> Explanation:
        return make_explanation(run, ExplainRequest(parts=(part,)), open_context())

    made = {part: make(part) for part in ("mistakes", "stages")}
    monkeypatch.setattr(explaining, "make_explanation", lambda _run, asked, _context: made[asked.parts[0]])
    return lambda part: explain_run(run, open_context(), parts=(part,))


def test_a_report_never_shows_less_than_was_explained_beside_it(
    run: Run, explain: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def slow(opened: Run, summary: CardSummary | None = None) -> str:
        page = render(opened, summary)
        if not threads:
            threads.append(_start_and_wait(lambda: explain("mistakes")))
        return page

    render = reporting.render_report
    monkeypatch.setattr(reporting, "render_report", slow)
    bw.report(run)
    threads[0].join()
    assert load_explanation(run.path)
    assert (run.path / "report.html").read_text() == render(open_run(run.path))


def test_two_explanations_at_once_keep_the_parts_of_both(
    run: Run, explain: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def slow(earlier: Explanation | None, latest: Explanation) -> Explanation:
        if not threads:
            threads.append(_start_and_wait(lambda: explain("stages")))
        return merge(earlier, latest)

    merge = explaining._merge_explanations
    monkeypatch.setattr(explaining, "_merge_explanations", slow)
    explain("mistakes")
    threads[0].join()
    explanation = load_explanation(run.path)
    assert explanation
    assert set(explanation.record.parts) == {"mistakes", "stages"}
    assert {path.name for path in run.path.rglob(".*")} == set()


def test_tests_at_once_are_one_look(run: Run) -> None:
    opened: list[int] = []
    threads = [threading.Thread(target=lambda: opened.append(bw.test(run.path).opened().looks)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1, 1, 1]
    assert _looks(run) == 1
    assert len(open_run(run.path).opened().opened) == 1


def test_a_training_that_is_taken_over_is_not_removed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*given: Any) -> Any:
        begun = begin(*given)
        held.append(lock_run(begun.path))
        held[0].__enter__()
        return begun

    held: list[Any] = []
    begin = bw.workflows.train._begin
    monkeypatch.setattr("budwood.workflows.train._begin", taken)
    with pytest.raises(bw.RunError, match="is being trained by another process"):
        bw.train(bw.scan(tiny / "photos"), bw.Recipe(**TINY), out=tmp_path / "runs", id="mine")
    held[0].__exit__(None, None, None)
    assert find_run(tmp_path / "runs" / "mine").record.state == "running"


def test_a_report_of_a_study_that_goes_on_meanwhile_is_written_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.toml"
    base = "\n".join(f"{name} = {value}" for name, value in TINY.items() if name in ("size", "epochs", "batch"))
    rows = "".join(f'[[rows]]\nlabel = "{label}"\nlr = {lr}\n' for label, lr in (("first", 0.01), ("second", 0.1)))
    head = f'name = "s"\ntitle = "S"\ndata = "{tiny / "photos"}"\n[base]\nmodel = "cnn"\nwidths = [4]\nfc = [4]\n'
    file.write_text(f"{head}{base}\n{rows}")
    bw.study(file, out=tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    done = study_state.read_state(folder)
    waiting = done.rows[1].model_copy(update={"state": "waiting", "runs": ()})
    half = done.model_copy(update={"state": "running", "rows": (done.rows[0], waiting)})
    study_state.write_state(folder, half)

    def meanwhile(*given: Any) -> Any:
        monkeypatch.undo()
        study_state.write_state(folder, done)
        return write(*given)

    write = reports.write_comparison
    monkeypatch.setattr(reports, "write_comparison", meanwhile)
    comparison = reports.report_study(folder)
    assert all(row.runs for row in comparison.rows)
    assert (folder / "table.csv").read_text() == comparison.csv()


def test_a_clock_that_is_set_back_changes_no_duration_and_no_count(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards(datetime.datetime):
        """A clock that is set back by a day whenever somebody looks."""

        days = 0

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Backwards:
            cls.days += 1
            return cls(2026, 1, 1, tzinfo=tz) - datetime.timedelta(cls.days)

    seconds = itertools.count(1.7e9, -3600)
    monkeypatch.setattr(datetime, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(seconds)) * 10**9)
    monkeypatch.setattr("budwood.training.checkpoints.Checkpoints.due", property(lambda self: self.folder is not None))
    data = bw.scan(tiny / "photos", cache=tmp_path / "cache")
    first = bw.train(data, bw.Recipe(**TINY), out=tmp_path / "runs", cache=tmp_path / "cache")
    other = bw.train(data, bw.Recipe(**TINY), out=tmp_path / "runs", cache=tmp_path / "cache")
    assert [bw.test(run).opened().looks for run in (first, other)] == [1, 2]
    longer = bw.resume(first, epochs=3)
    assert bw.test(longer).opened().looks == 3
    for run in (longer, other):
        assert all(value >= 0 for value in run.record.timings.model_dump(exclude_unset=True).values())
        assert all(row["seconds"] >= 0 for row in run.history if "seconds" in row)
    assert len(longer.history) == 3
    explanation, _ = explain_run(find_run(longer.path), open_context(), parts=("mistakes",))
    assert all(value >= 0 for value in explanation.record.seconds.values())


def test_weights_that_change_between_two_readings_are_refused(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shutil.copy(run.file("weights.safetensors"), tmp_path / "w.safetensors")

    def meanwhile(*given: Any) -> Any:
        found = describe_file(*given)
        longer = bw.resume(run, epochs=3)
        shutil.copy(longer.file("weights.safetensors"), file)
        monkeypatch.undo()
        return found

    monkeypatch.setattr(preflight, "describe_file", meanwhile)
    recipe = bw.Recipe(**TINY, weights=str(file))
    with pytest.raises(bw.WeightsError, match=r"w\.safetensors: was changed while this command was using it"):
        bw.train(bw.scan(tiny / "photos"), recipe, out=tmp_path / "mine", cache=tmp_path / "cache")
    assert not list((tmp_path / "mine").iterdir())
