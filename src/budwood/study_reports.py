"""A study's page and table, made again from its folder: nothing is trained, and no image is looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from budwood.comparison import Comparison, Entry, Published, compare
from budwood.comparison_page import render_comparison
from budwood.errors import StudyError
from budwood.files import guarded, write_text
from budwood.runs import Run, found_run
from budwood.studies import load_study
from budwood.studying import base_of, headline

RECORD: Final = "study.json"


def study_report(folder: Path) -> Comparison:
    """The comparison of a study's finished rows, with `table.csv` and `report.html` written again.

    Raises `StudyError` when the study's record cannot be read or no row of it was trained.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        study = replace(load_study(folder / "study.toml"), changed=record["changed"])
        rows = [(row["label"], row["runs"], row["published"], row["problem"]) for row in record["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{folder / RECORD}: cannot be read ({type(error).__name__}: {error}).", "Carry the study out again."
        ) from error
    entries, taken = [], set[str]()
    for label, names, published, problem in rows:
        runs = _finished(folder, [name for name in names if name not in taken])
        taken |= {run.path.name for run in runs}
        whole = bool(runs) and len(runs) == len(names)
        why = "" if whole else problem or "was not trained to its end"
        entries.append(Entry(label, runs, Published(**published) if published else None, why))
    if not any(entry.runs for entry in entries):
        raise StudyError(f"{folder}: no row of the study was trained.", "Carry the study out: `budwood study FILE`.")
    base = base_of(study, [run for entry in entries for run in entry.runs])
    made = compare(entries, metric=study.metric, base=base, edges=study.edges, apart=True)
    with guarded(folder):
        write_text(folder / "table.csv", made.csv())
        write_text(folder / "report.html", render_comparison(made.record(), headline(study)))
    return made


def _finished(folder: Path, names: list[str]) -> tuple[Run, ...]:
    runs = [found_run(folder / name) for name in names if (folder / name / "run.json").is_file()]
    return tuple(run for run in runs if run.record["state"] == "done")
