"""Findings in the order in which they matter, so that a page can show the few that do and fold the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from budwood.data.checks import LEAKS
from budwood.text import counted

SEVERITIES: Final = ("error", "warning", "note")
FOUND_SHOWN: Final = 3  # findings that are not folded
_CONTRADICTIONS: Final = ("D011", "D013")  # one image under two labels


class AnyFinding(Protocol):
    """A finding about data or about results."""

    @property
    def code(self) -> str:
        """Its number."""

    @property
    def severity(self) -> str:
        """`error`, `warning` or `note`."""


Found = TypeVar("Found", bound=AnyFinding)


def sort_by_importance(findings: Sequence[Found]) -> list[Found]:
    """Sort findings by what matters most.

    Args:
        findings: The findings.

    Returns:
        Errors, then warnings, then notes; in each leaks between splits first, then images under two labels, then the
        others by their number.
    """

    def rank(one: Found) -> tuple[int, bool, bool, str]:
        return SEVERITIES.index(one.severity), one.code not in LEAKS, one.code not in _CONTRADICTIONS, one.code

    return sorted(findings, key=rank)


def count_severities(findings: Sequence[AnyFinding]) -> str:
    """Count findings by severity.

    Args:
        findings: The findings.

    Returns:
        For example "1 error, 4 notes"; empty where there are none.
    """
    counts = Counter(one.severity for one in findings)
    return ", ".join(counted(counts[severity], severity) for severity in SEVERITIES if counts[severity])
