"""Commands that a report or a terminal prints: quoted for a shell, with all that was asked of the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budwood.config.notation import write_duration
from budwood.runs.run_record import RunRecord
from budwood.text import quote_path


def write_place(record: RunRecord, folder: Path | None) -> str:
    """Write the folder of a run as a word of a command.

    Args:
        record: The record of the run.
        folder: Its folder; None: that of its id in `runs`.

    Returns:
        The absolute path, so that the command works from any folder; `runs/ID` where the folder is not known.
    """
    return quote_path(str(folder.absolute()) if folder else f"runs/{record.id}")


def write_again_command(record: RunRecord, folder: Path | None) -> str:
    """Write the command that carries a recipe out again, or makes an ensemble again.

    Args:
        record: The record of the run.
        folder: Its folder; None: that of its id in `runs`.

    Returns:
        The command, which works from any folder where that of the run is known.
    """
    out = ["--out", quote_path(str(folder.absolute().parent))] if folder else []
    if record.ensemble:
        runs = map(quote_path, record.ensemble.candidates)
        return " ".join(["budwood ensemble", *runs, "--weights", record.ensemble.rule, *out])
    recipe = quote_path(str(folder.absolute() / "recipe.toml") if folder else f"runs/{record.id}/recipe.toml")
    return " ".join(["budwood train", quote_path(record.source), "--recipe", recipe, *list_data_flags(record), *out])


def write_longer_command(record: RunRecord, out: Path | None) -> str:
    """Write the command of the longer search that is advised.

    Args:
        record: The record of the run that the search has found.
        out: The folder of runs; None: `runs`.

    Returns:
        For example "budwood train photos/ --time 20m", with the options that were given; empty where no longer search
        is advised.
    """
    ladder = record.ladder
    if ladder is None or ladder.longer is None:
        return ""
    flags = [*_list_flags(ladder.given), *list_data_flags(record), *(["--out", quote_path(str(out))] if out else [])]
    return " ".join(["budwood train", quote_path(record.source), *flags, "--time", write_duration(ladder.longer)])


def list_data_flags(record: RunRecord) -> list[str]:
    """List the options that say how the data of a run were read and split, as words of a command.

    Args:
        record: The record of the run; one of an earlier version does not have them.

    Returns:
        Flags and their values, quoted.
    """
    return [*_list_flags(record.reading), *(["--leaks", "allow"] if record.dataset.leaks_allowed else [])]


def _list_flags(options: Mapping[str, Any], repeated: tuple[str, ...] = ("exclude", "corrections")) -> list[str]:
    """Options as flags; some are given once for each value, lists of others are one value with commas."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if name in repeated else [value]:
            words += [f"--{name.replace('_', '-')}", quote_path(_write_value(one))]
    return words


def _write_value(value: object) -> str:
    """A value of an option as its flag takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_write_value, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
