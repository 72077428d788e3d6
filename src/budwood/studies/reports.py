"""A study's table and page: its finished rows side by side, when it ends and whenever it is asked for again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from budwood.comparison.compare import Comparison, compare
from budwood.comparison.rows import RowSpec
from budwood.config.metric_registry import is_loss
from budwood.errors import StudyError
from budwood.reporting.comparison_page import render_comparison
from budwood.runs.run import Run, find_run
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.studies.study_file import Study, load_study
from budwood.studies.study_state import STUDY_FILE, RowState, read_state


def report_study(folder: Path) -> Comparison:
    """Compare a study's finished rows again, from its folder: nothing is trained, and no image is looked at.

    Args:
        folder: The study's folder.

    Returns:
        The rows side by side.

    Raises:
        StudyError: The study's state cannot be read, or no row of it was trained.
    """
    state = read_state(folder)
    study = replace(load_study(folder / STUDY_FILE), changed=state.changed)
    entries = collect_entries(study, folder, state.rows)
    if not any(entry.runs for entry in entries):
        raise StudyError(f"{folder}: no row of the study was trained.", "Run the study: `budwood study FILE`.")
    return write_comparison(study, folder, entries)


def collect_entries(study: Study, folder: Path, rows: Iterable[RowState]) -> list[RowSpec]:
    """Collect the finished runs of every row; a run that two rows share is the first one's.

    Args:
        study: The study as its file says.
        folder: Where its runs lie.
        rows: How far each row is.

    Returns:
        What a comparison takes, one entry a row.
    """
    entries, taken = [], dict[str, str]()
    listed = {row.label for row in study.rows if not row.varied}
    for row in rows:
        runs = _list_finished(folder, row.runs)
        twin = next((taken[run.path.name] for run in runs if run.path.name in taken), None)
        if twin is not None:
            problem = f"the same experiment as {twin!r}, because options were set for every row"
            entries.append(RowSpec(row.label, (), row.published, problem, aside=True))
            continue
        taken |= {run.path.name: row.label for run in runs}
        whole = bool(runs) and len(runs) == len(row.runs)
        problem = "" if whole else row.problem or "its training did not finish"
        entries.append(RowSpec(row.label, runs, row.published, problem, row.state == "pruned", row.label not in listed))
    return _add_extremes(entries, study)


def write_comparison(study: Study, folder: Path, entries: Sequence[RowSpec]) -> Comparison:
    """Compare the rows of a study, and write `table.csv` and `report.html`.

    Args:
        study: The study as its file says.
        folder: Where both files are written.
        entries: The rows with their finished runs.

    Returns:
        The rows side by side.
    """
    base = _find_base(study, [run for entry in entries for run in entry.runs])
    made = compare(entries, metric=study.metric, base=base, edges=study.edges, apart=True)
    with raise_storage_errors(folder):
        write_text(folder / "table.csv", made.csv())
        write_text(folder / "report.html", render_comparison(made.record(), format_title(study)))
    return made


def format_title(study: Study) -> str:
    """The title of a study, with what was put over every row."""
    put = ", ".join(f"{name} = {value}" for name, value in study.changed.items())
    return f"{study.title} (set for every row: {put})" if put else study.title


def read_metric(run: Run, name: str) -> float:
    """Read a metric of a finished run on validation; NaN where it is undefined."""
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
    trials = [n for n, entry in enumerate(entries) if entry.label.startswith("trial ") and entry.runs]
    if search is None or not trials:
        return list(entries)
    sign = -1 if is_loss(study.metric) else 1
    ranked = sorted(trials, key=lambda n: sign * read_metric(entries[n].runs[0], study.metric))
    made = list(entries)
    for place, published in ((ranked[0], search.worst), (ranked[-1], search.best)):
        made[place] = replace(made[place], published=published)
    return made
