"""A study's table and page: its finished rows side by side, when it ends and whenever it is asked for again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from budwood.comparison.claims import judge_claims
from budwood.comparison.compare import compare
from budwood.comparison.document import Comparison
from budwood.comparison.rows import RowEnd, RowSpec
from budwood.comparison.tested_rows import compare_on_test
from budwood.comparison.text import Order
from budwood.config.metric_registry import is_loss
from budwood.errors import StudyError
from budwood.evaluation.result_checks import ResultFinding
from budwood.reporting.comparison_page import About, render_comparison
from budwood.runs.run import Run, find_run
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.studies.deviations import describe_deviations
from budwood.studies.study import Study
from budwood.studies.study_file import load_study
from budwood.studies.study_state import STUDY_FILE, RowState, read_state
from budwood.text import counted, listed

UNTESTED_SHOWN: Final = 4  # rows that a finding names


def report_study(folder: Path, order: Order | None = None) -> Comparison:
    """Compare the finished rows of a study again, from its folder.

    Nothing is trained and no images are read; `table.csv` and `report.html` are written again, and once more where
    the study went on meanwhile.

    Args:
        folder: The study's folder.
        order: Of the rows on the page; None: the study's own.

    Returns:
        The comparison of the rows.

    Raises:
        StudyError: The study's state or file cannot be read, or no row was trained.
        StorageError: The folder cannot be written.
    """
    while True:
        state = read_state(folder)
        study = load_study(folder / STUDY_FILE)
        study = replace(study, metric=state.metric, changed=state.changed, left_out=state.left_out)
        entries = collect_entries(study, folder, state.rows)
        if not any(entry.runs for entry in entries):
            raise StudyError(f"{folder}: no row of the study was trained.", "Run the study: `budwood study FILE`.")
        comparison = write_comparison(study, folder, entries, order)
        if read_state(folder) == state:
            return comparison


def collect_entries(study: Study, folder: Path, rows: Iterable[RowState]) -> list[RowSpec]:
    """Collect the finished runs of every row.

    A run that two rows share counts for the first one; the other is marked as the same experiment.

    Args:
        study: The study as its file describes it.
        folder: The folder of its runs.
        rows: The state of each row.

    Returns:
        One entry a row, as a comparison takes them; the best and the worst trial get what the source published of
        its own best and worst.
    """
    entries, label_of_run = [], dict[str, str]()
    of_trials = study.search.stand_in if study.search else ""
    rows = list(rows)
    finished = {row.label: _list_finished(folder, row.runs) for row in rows}
    changes = describe_deviations(study, {label: runs[0].recipe for label, runs in finished.items() if runs})
    stand_ins = {row.label: "; ".join(filter(None, (row.stand_in, changes.get(row.label)))) for row in study.rows}
    ensembles = {row.label for row in study.ensembles}
    single = {row.label for row in study.rows if not row.varied} | ensembles
    for row in rows:
        runs = finished[row.label]
        stand_in = stand_ins.get(row.label, "" if row.label in ensembles else of_trials)
        twin = next((label_of_run[run.path.name] for run in runs if run.path.name in label_of_run), None)
        if twin is not None:
            problem = f"the same experiment as {twin!r}, because options were set for every row"
            entries.append(RowSpec(row.label, (), row.published, problem, "repeated", stand_in=stand_in))
            continue
        label_of_run |= {run.path.name: row.label for run in runs}
        complete = bool(runs) and len(runs) == len(row.runs)
        problem = "" if complete else row.problem or "its training did not finish"
        end: RowEnd = row.state if row.state in ("refused", "pruned") else "failed"
        entries.append(RowSpec(row.label, runs, row.published, problem, end, row.label not in single, stand_in))
    return _add_extremes(entries, study)


def write_comparison(study: Study, folder: Path, entries: Sequence[RowSpec], order: Order | None = None) -> Comparison:
    """Compare the rows of a study, and write `table.csv` and `report.html`.

    Args:
        study: The study as its file describes it.
        folder: Where both files are written.
        entries: The rows with their finished runs.
        order: Of the rows on the page; None: the study's own.

    Returns:
        The comparison of the rows.

    Raises:
        StorageError: The folder cannot be written.
    """
    base = _find_base(study, [run for entry in entries for run in entry.runs])
    comparison = compare(entries, metric=study.metric, base=base, edges=study.edges, apart=True)
    claims = judge_claims(study.claims, comparison.rows, comparison.pairs, study.metric)
    comparison = replace(comparison, claims=claims)
    about = About(study.source, study.caveats, study.assumed, format_changes(study))
    comparison = compare_on_test(comparison, entries)
    further = (*_check_left_out(study), *_check_untested(comparison, entries))
    comparison = replace(comparison, findings=(*comparison.findings, *further))
    with raise_storage_errors(folder):
        write_text(folder / "table.csv", comparison.csv())
        page = render_comparison(comparison, study.title, order or study.order, about)
        write_text(folder / "report.html", page)
    return comparison


def _check_left_out(study: Study) -> list[ResultFinding]:
    """What limits and options that were set for every row have left out of a study."""
    if not study.left_out:
        return []
    advice = "Run the study without --quick and -s for the whole table; finished runs of the same options are kept."
    return [ResultFinding("R015", "note", f"Left out: {'; '.join(study.left_out)}.", advice)]


def _check_untested(comparison: Comparison, entries: Sequence[RowSpec]) -> list[ResultFinding]:
    """The rows without a test figure, where others have one."""
    aside = {entry.label for entry in entries if entry.state in ("pruned", "repeated")}
    lacking = [row for row in comparison.rows if row.test is None and row.label not in aside]
    if not lacking or not any(row.test for row in comparison.rows):
        return []
    told = [f"{row.label} ({row.problem.rstrip('.') or 'its test set is still sealed'})" for row in lacking]
    message = f"{counted(len(told), 'row has', 'rows have')} no test figure: {listed(told, UNTESTED_SHOWN, '; ')}."
    advice = "What is tested later, by the same command with --test, counts another look at the test set."
    return [ResultFinding("R016", "note", message, advice, tuple(row.label for row in lacking))]


def format_title(study: Study) -> str:
    """Format the title of a study, with the options that were set for every row.

    Args:
        study: The study.

    Returns:
        One line.
    """
    put = format_changes(study)
    return f"{study.title} (set for every row: {put})" if put else study.title


def format_changes(study: Study) -> str:
    """Format the options that were set for every row of a study; empty where none was."""
    return ", ".join(f"{name} = {value}" for name, value in study.changed.items())


def read_metric(run: Run, name: str) -> float:
    """Read a metric of a finished run on the validation set.

    Args:
        run: A finished run.
        name: The metric's name.

    Returns:
        The value; NaN where it is undefined.
    """
    value = run.record.val.figures[name].value
    return float("nan") if value is None else value


def _list_finished(folder: Path, names: Sequence[str]) -> tuple[Run, ...]:
    runs = [find_run(folder / name) for name in names if (folder / name / "run.json").is_file()]
    return tuple(run for run in runs if run.record.state == "done")


def _find_base(study: Study, runs: Sequence[Run]) -> Mapping[str, object]:
    """The options that rows are told from: the base's, and the network's own size where all rows have it."""
    sizes = {run.recipe.size for run in runs}
    return {**({"size": sizes.pop()} if len(sizes) == 1 else {}), **study.base, **study.changed_options}


def _add_extremes(entries: Sequence[RowSpec], study: Study) -> list[RowSpec]:
    """The best and the worst trial beside what the source reports of its own best and worst."""
    search = study.search
    others = {row.label for row in study.rows} | {row.label for row in study.ensembles}
    trials = [n for n, entry in enumerate(entries) if entry.label not in others and entry.runs]
    if search is None or not trials:
        return list(entries)
    sign = -1 if is_loss(study.metric) else 1
    ranked = sorted(trials, key=lambda n: sign * read_metric(entries[n].runs[0], study.metric))
    extended = list(entries)
    for place, published in ((ranked[0], search.worst), (ranked[-1], search.best)):
        extended[place] = replace(extended[place], published=published)
    return extended
