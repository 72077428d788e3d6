"""What a source says of its rows, held against the rows that were trained here by paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from budwood.comparison.document import Claim, Comparison, JudgedClaim, Pair, Verdict
from budwood.comparison.pairs import turn_around
from budwood.comparison.published_text import Cell
from budwood.comparison.rows import ComparisonRow
from budwood.comparison.text import format_gap, format_p_value, join_cell
from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import Metric
from budwood.evaluation.significance import ALPHA, correct_holm
from budwood.text import Unit

ALTERED: Final = (
    "Options were set for every row, so that these verdicts are of altered rows, not of those that the source tells of."
)


def judge_claims(
    claims: Sequence[Claim], rows: Sequence[ComparisonRow], pairs: Sequence[Pair], metric: str
) -> tuple[JudgedClaim, ...]:
    """Judge claims by the paired tests of a comparison.

    A claim that one row is better is confirmed or denied where the corrected p-value is at most 0.05. A claim with a
    margin is confirmed where the whole interval of the difference lies above minus the margin, and denied where all of
    it lies below (non-inferiority; Walker and Nowacki 2011, Understanding equivalence and noninferiority testing).

    Args:
        claims: The claims.
        rows: The rows of the comparison.
        pairs: Its tests of all pairs.
        metric: Name of the metric.

    Returns:
        One judged claim for each, in their order.
    """
    found = {row.label: row for row in rows}
    tested = {(pair.one, pair.other): pair for pair in pairs}
    tested |= {(pair.other, pair.one): turn_around(pair) for pair in pairs}
    measured = [tested.get((claim.better, claim.than)) for claim in claims]
    alone = [pair.p for claim, pair in zip(claims, measured, strict=True) if pair and not claim.margin]
    corrected = iter(correct_holm(np.array(alone)).tolist() if alone else ())
    judged = []
    for claim, pair in zip(claims, measured, strict=True):
        made = JudgedClaim(claim.says, claim.better, claim.than, claim.margin)
        if pair is None:
            judged.append(replace(made, reason=_explain_untested(claim, found)))
            continue
        p = None if claim.margin else next(corrected)
        verdict = _judge(pair.difference, p, claim.margin, -1 if is_loss(metric) else 1)
        judged.append(replace(made, verdict=verdict, difference=pair.difference, p=p))
    return tuple(judged)


def format_claims(made: Comparison) -> list[tuple[str, str, Cell, str]]:
    """Format the claims of a comparison.

    Args:
        made: The comparison.

    Returns:
        For each claim its statement with the two rows, the verdict, the difference with its interval, and the p-value;
        the reason in place of the difference where it was not tested.
    """
    unit = Unit(is_loss(made.metric))
    lines: list[tuple[str, str, Cell, str]] = []
    for claim in made.claims:
        says = f"{claim.says} ({claim.better} against {claim.than})"
        if claim.margin:
            says += f", worse by at most {format_margin(claim.margin, unit)}"
        gap = format_gap(claim.difference, unit) if claim.difference else (claim.reason, "")
        lines.append((says, claim.verdict, gap, format_p_value(claim.p) if claim.p is not None else ""))
    return lines


def format_margin(margin: float, unit: Unit) -> str:
    """Format the margin of a claim.

    Args:
        margin: By how much a row may be worse, above 0.
        unit: How the metric is written.

    Returns:
        A difference of losses, or percentage points, without zeros at the end.
    """
    return f"{margin:g}" if unit.loss else f"{100 * margin:g} {'point' if margin == 0.01 else 'points'}"


def write_claims(made: Comparison, altered: bool = False) -> str:
    """Write the claims of a comparison for a terminal.

    Args:
        made: The comparison.
        altered: Whether options were set for every row, so that these are not the rows as the study has them.

    Returns:
        One line for each claim after a heading; empty where there are none.
    """
    claims = format_claims(made)
    lines = [f"  {verdict}: {says}: {join_cell(gap)}{f', p {p}' if p else ''}" for says, verdict, gap, p in claims]
    return "\n".join(["What the source says, tested here:", *lines, *([ALTERED] if altered else ())]) if lines else ""


def _judge(difference: Metric, p: float | None, margin: float, sign: int) -> Verdict:
    """The verdict by a difference (better minus other) whose sign says whether more is better."""
    if p is not None:
        gain = sign * (difference.value or 0.0)
        if p > ALPHA or not gain:
            return "not distinguishable"
        return "confirmed" if gain > 0 else "denied"
    if difference.low is None or difference.high is None:
        return "not distinguishable"
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > -margin:
        return "confirmed"
    return "denied" if high < -margin else "not distinguishable"


def _explain_untested(claim: Claim, rows: Mapping[str, ComparisonRow]) -> str:
    for label in (claim.better, claim.than):
        row = rows.get(label)
        if row is None:
            return f"{label}: not among the rows that were trained"
        if row.value is None:
            return f"{label}: {row.problem or 'has no score'}"
    return "the two rows were scored on different images"
