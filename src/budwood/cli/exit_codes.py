"""The exit codes of commands: what each means, where a command has codes of its own, and `--fail-on`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Protocol, TypeVar

import click

from budwood.text import counted

Command = TypeVar("Command", bound=Callable[..., Any])
Level = Literal["error", "warning", "never"]
DONE: Final = 0
INTERNAL: Final = 1
INPUT: Final = 2
SOME_UNREADABLE: Final = 3
DRIFTED: Final = 4
FOUND: Final = 5
INTERRUPTED: Final = 130  # as of a shell
COMMON: Final[Mapping[int, str]] = {
    DONE: "Done.",
    INTERNAL: "A fault of Budwood's.",
    INPUT: "Your input is at fault; the message says what to do.",
    INTERRUPTED: "Interrupted, as by Ctrl-C.",
}
_FOUND: Final = "A finding is as severe as --fail-on says."
OWN: Final[Mapping[str, Mapping[int, str]]] = {
    "drift": {DONE: "No drift was found, or it cannot be told with so few images.", DRIFTED: "Drift was found."},
    "inspect": {DONE: "Done, whatever was found, unless --fail-on is given.", FOUND: _FOUND},
    "predict": {
        DONE: "All images could be read.",
        INPUT: "No image could be read, or your input is at fault.",
        SOME_UNREADABLE: "Some images could not be read; the others are predicted.",
    },
    "study": {DONE: "Done; rows that failed are findings of the table.", FOUND: _FOUND},
    "train": {FOUND: f"{_FOUND} The run is kept."},
    "tune": {DONE: "Done; trials that failed are findings of the table.", FOUND: _FOUND},
}
LEVELS: Final[Mapping[Level, tuple[str, ...]]] = {
    "error": ("error",),
    "warning": ("error", "warning"),
    "never": (),
}


class _Finding(Protocol):
    @property
    def code(self) -> str: ...

    @property
    def severity(self) -> str: ...


def list_exit_codes(command: str) -> dict[int, str]:
    """List the exit codes of a command.

    Args:
        command: Its name.

    Returns:
        What each code means, in the order of the codes.
    """
    return dict(sorted({**COMMON, **OWN.get(command, {})}.items()))


def add_fail_on_option(command: Command) -> Command:
    """Add --fail-on, from which severity of a finding on the command fails, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the option.
    """
    option = click.option(
        "--fail-on",
        type=click.Choice(list(LEVELS), case_sensitive=False),
        default="never",
        help=f"Exit with code {FOUND} if there is a finding of this severity or a worse one, as for continuous "
        "integration; nothing else changes. [never]",
    )
    return option(command)


def judge_findings(findings: Iterable[_Finding], level: Level) -> int:
    """Judge findings as `--fail-on` asks for, and tell on stderr which of them fail the command.

    Args:
        findings: The findings.
        level: The lowest severity that fails.

    Returns:
        The exit code: 5 where a finding is so severe, else 0.
    """
    severe = [finding.code for finding in findings if finding.severity in LEVELS[level]]
    if not severe:
        return DONE
    codes = ", ".join(sorted(set(severe)))
    print(
        f"--fail-on {level}: {counted(len(severe), 'finding')} ({codes}), so the exit code is {FOUND}.", file=sys.stderr
    )
    return FOUND
