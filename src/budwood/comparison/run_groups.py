"""Which runs make a row: those that differ in nothing but the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from budwood.comparison.recipe_diff import find_varying, label_rows, make_distinct, normalize_options
from budwood.comparison.rows import RowSpec
from budwood.comparison.run_options import list_run_options
from budwood.errors import RunError
from budwood.runs.lookup import find_exact_folder
from budwood.runs.run import Run, find_run, open_run


def find_runs(path: str | Path, out: Path = Path("runs")) -> tuple[list[Run], list[str]]:
    """Find the finished run that is called so, or all finished runs in a folder of runs.

    Args:
        path: What a run is called, as in `open_run`, or folder of runs, also by its name in `out`.
        out: Folder in which names are looked up.

    Returns:
        The finished runs, and name and state of each other run that was left out.

    Raises:
        RunError: There is no finished run, or a run's record cannot be read.
    """
    folder = find_folder_of_runs(path, out)
    if folder is None:
        return [open_run(path, out)], []
    found = [find_run(one) for one in _list_runs_in(folder)]
    left = [f"{run.path.name} ({run.record.state})" for run in found if run.record.state != "done"]
    finished = [run for run in found if run.record.state == "done"]
    if not finished:
        raise RunError(f"{folder}: contains no finished run.", "`budwood resume RUN` continues an unfinished run.")
    return finished, left


def find_folder_of_runs(path: str | Path, out: Path = Path("runs")) -> Path | None:
    """Find a folder that holds runs, as a study's does.

    Args:
        path: Its path, or its name in `out`.
        out: Folder in which names are looked up.

    Returns:
        The folder; None where there is none, or where a run is called so.
    """
    if find_exact_folder(path, out):
        return None
    return next((place for place in (Path(path), out / path) if _list_runs_in(place)), None)


def _list_runs_in(folder: Path) -> list[Path]:
    """The run folders that lie directly in a folder, by name, without hidden ones, which are drafts."""
    return [file.parent for file in sorted(folder.glob("*/run.json")) if not file.parent.name.startswith(".")]


def group_runs(runs: Sequence[Run | str | Path | RowSpec]) -> list[RowSpec]:
    """Make the rows of a table: those given as they are, and of other runs a row for those that differ in the seed.

    Args:
        runs: Each a `Run`, a run folder, a folder of runs, or a `RowSpec`.

    Returns:
        The rows with different labels, those given first.

    Raises:
        RunError: A folder contains no finished run.
    """
    entries = [item for item in runs if isinstance(item, RowSpec)]
    plain_runs = [run for item in runs if not isinstance(item, RowSpec) for run in _open_runs(item)]
    rows: dict[str, list[Run]] = {}
    seen: dict[str, int] = {}
    for run in plain_runs:
        key = _repeat_key(run)
        again = seen[key + _describe_seed(run)] = seen.get(key + _describe_seed(run), 0) + 1
        rows.setdefault(f"{key} {again}", []).append(run)
    options = find_varying([list_run_options(row[0]) for row in rows.values()])
    names = label_rows(options, [row[0].path.name for row in rows.values()])
    made = [RowSpec(name, tuple(row)) for name, row in zip(names, rows.values(), strict=True)]
    every = [*entries, *made]
    return [
        replace(entry, label=name) for entry, name in zip(every, make_distinct(e.label for e in every), strict=True)
    ]


def _open_runs(item: Run | str | Path) -> list[Run]:
    return [item] if isinstance(item, Run) else find_runs(item)[0]


def _repeat_key(run: Run) -> str:
    """What runs have in common that are repeats of one recipe on the same data, or folds of them."""
    weights = run.record.network.weights
    if run.record.ensemble:
        return f"ensemble {weights.digest}"
    came = "" if weights.kind == "none" else weights.digest
    return f"{sorted(normalize_options(run.recipe.table()).items(), key=str)} {came} {run.record.dataset.fingerprint}"


def _describe_seed(run: Run) -> str:
    return f" {run.recipe.seed}"
