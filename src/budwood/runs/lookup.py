"""A run by whatever it is called: its folder, a file in it, its name, a part of its id, or `last`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budwood.errors import RunError
from budwood.runs.run_files import WEIGHTS
from budwood.runs.run_record import FILE
from budwood.storage.strict_json import decode_json
from budwood.text import listed, show_unprintable

LAST: Final = "last"
NAMED: Final = 5  # runs that a message names
ALIKE: Final = 0.5  # of the letters of a name that another must share to be called close


@dataclass(frozen=True)
class _Glance:
    """What is read of a run without checking it: enough to tell which is the newest."""

    folder: Path
    finished: bool
    when: tuple[str, int]
    best_of_search: bool


def list_run_folders(out: Path) -> list[Path]:
    """List the run folders of a folder of runs, and of the studies in it.

    Args:
        out: The folder of runs; it may not exist.

    Returns:
        The folders that hold a `run.json`, by name; hidden ones, which are drafts, are left out.
    """
    found = [*out.glob(f"*/{FILE}"), *out.glob(f"*/*/{FILE}")] if out.is_dir() else []
    folders = {file.parent for file in found if not file.is_symlink()}
    return sorted(one for one in folders if not any(part.startswith(".") for part in one.relative_to(out).parts))


def find_run_folder(name: str | Path, out: Path = Path("runs")) -> Path:
    """Find the folder of a run by whatever it is called.

    The first of these that there is: a run folder of that path; one of that id in `out`; the run that a file lies in;
    for `last` the newest finished run; the only run in `out`, or in a study there, whose id has `name` in it. Where
    several runs of one search have it, the one that the search has chosen is meant.

    Args:
        name: Path, id, a part of the id without regard to case, the name that a training was given, a file of a run,
            or `last`.
        out: The folder of runs.

    Returns:
        The folder, which holds a `run.json`.

    Raises:
        RunError: There is no such run, or several have that part in their ids; the message lists the closest.
    """
    place = find_exact_folder(name, out) or _find_around(Path(name))
    if place is not None:
        return place
    wanted, folders = str(name), list_run_folders(out)
    if wanted == LAST:
        return _find_last(folders, out)
    named = [one for one in folders if wanted.casefold() in one.name.casefold()] if wanted.strip() else []
    chosen = named if len(named) < 2 else _choose_of_search(named)
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise RunError(
            f"{show_unprintable(wanted)}: {len(chosen):,} runs in {out}/ have this in their ids: "
            f"{listed([_label(one, out) for one in reversed(chosen)], NAMED)}.",
            "Give more of the id.",
        )
    raise RunError(
        f"{show_unprintable(wanted)}: is not a run folder, nor a file in one, and no run in {out}/ has this name or "
        "this in its id.",
        _suggest(wanted, folders, out),
    )


def find_exact_folder(name: str | Path, out: Path) -> Path | None:
    """Find a run folder by its path, or by its id in a folder of runs.

    Args:
        name: Path or id.
        out: The folder of runs.

    Returns:
        The folder; None where there is none of exactly that name.
    """
    return next((place for place in (Path(name), out / name) if (place / FILE).is_file()), None)


def lies_in_run(file: Path) -> bool:
    """Tell whether a file is one in a run's folder."""
    return _find_around(file) is not None


def _find_around(path: Path) -> Path | None:
    """The innermost run folder that a file or folder lies in."""
    if not path.exists():
        return None
    return next((folder for folder in path.parents if (folder / FILE).is_file()), None) or next(
        (folder for folder in path.absolute().parents if (folder / FILE).is_file()), None
    )


def _find_last(folders: Sequence[Path], out: Path) -> Path:
    finished = [one for one in map(_glance, folders) if one.finished]
    if not finished:
        raise RunError(f"{LAST}: there is no finished run in {out}/.", "Train one, or name the folder of a run.")
    newest = max(finished, key=lambda one: (one.when, one.folder.name))
    search = _name_search(newest.folder)
    chosen = [one for one in finished if one.best_of_search and search and _name_search(one.folder) == search]
    return chosen[0].folder if len(chosen) == 1 else newest.folder


def _choose_of_search(folders: list[Path]) -> list[Path]:
    """The run that a search has chosen, where all runs are of that search; else the same runs."""
    names = {_name_search(folder) for folder in folders}
    if len(names) > 1 or "" in names:
        return folders
    best = [one.folder for one in map(_glance, folders) if one.best_of_search]
    return best if len(best) == 1 else folders


def _name_search(folder: Path) -> str:
    """What the ids of the runs of a search begin with, with its folder; empty where the id has no number at its end."""
    stem, separator, number = folder.name.rpartition("-")
    return str(folder.parent / stem) if separator and number.isdecimal() and len(number) < 4 else ""


def _glance(folder: Path) -> _Glance:
    try:
        table: dict[str, Any] = decode_json((folder / FILE).read_text(encoding="utf-8"))
        began = str(max([table["created"], *table.get("resumed", ())]))
        ladder = table.get("ladder") or {}
        done, best = table["state"] == "done", ladder.get("best") == folder.name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # it is told where it is used
        return _Glance(folder, False, ("", 0), False)
    weights = folder / WEIGHTS
    return _Glance(folder, done, (began, weights.stat().st_mtime_ns if weights.is_file() else 0), best)


def _label(folder: Path, out: Path) -> str:
    return show_unprintable(str(folder.relative_to(out)))


def _suggest(wanted: str, folders: Sequence[Path], out: Path) -> str:
    """The runs whose names are close, else the latest."""
    names = [_label(one, out) for one in folders]
    if not names:
        return f"There are no runs in {out}/."
    word = Path(wanted).name.casefold()
    close = difflib.get_close_matches(word, [name.casefold() for name in names], NAMED, ALIKE)
    if close:
        return f"The closest in {out}/: {', '.join(name for name in names if name.casefold() in close)}."
    return f"The latest runs in {out}/: {', '.join(sorted(names, reverse=True)[:NAMED])}. `budwood runs` lists them."
