"""What a study says on a terminal and in JSON: its rows, and before that what they would cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from budwood.comparison.claims import write_claims
from budwood.comparison.document import Comparison
from budwood.comparison.tested_rows import format_tested
from budwood.comparison.text import Order, format_comparison
from budwood.studies.cost_estimate import RowEstimate, sum_seconds
from budwood.studies.reports import format_title
from budwood.studies.study import Study
from budwood.text import format_seconds, format_table


def format_study(
    study: Study, comparison: Comparison, out: Path, order: Order | None = None, width: int | None = None
) -> str:
    """Format the result of a study for a terminal.

    Args:
        study: The study.
        comparison: The comparison of its rows.
        out: The folder that contains the study's folder.
        order: Of the rows; None: the study's own.
        width: Columns of the terminal; None: as many as it takes.

    Returns:
        The title and caveats, the table of the rows, their test figures where the test split is open, claims, the
        findings with advice, and where the files are.
    """
    findings = [f"{one.code} {one.severity}: {one.message}\n  {one.advice}" for one in comparison.findings]
    place = f"Runs, table.csv and report.html: {out / study.name}/"
    head = "\n".join([format_title(study), *(f"Caveat: {caveat}" for caveat in study.caveats)])
    table = format_comparison(comparison, order or study.order, width)
    parts = [head, table, format_tested(comparison), write_claims(comparison, bool(study.changed)), *findings, place]
    return "\n\n".join(part for part in parts if part)


def make_study_record(study: Study, comparison: Comparison, out: Path) -> dict[str, object]:
    """Return the result of a study as plain values.

    Args:
        study: The study.
        comparison: The comparison of its rows.
        out: The folder that contains the study's folder.

    Returns:
        The study's description and paths, with the contents of the comparison.
    """
    folder = out / study.name
    return {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "assumed": dict(study.assumed),
        "caveats": list(study.caveats),
        "folder": str(folder),
        "report": str(folder / "report.html"),
        "changed": dict(study.changed),
        **comparison.record(),
    }


def estimate_text(study: Study, estimates: Sequence[RowEstimate]) -> str:
    """Format the estimated cost of a study for a terminal.

    Args:
        study: The study.
        estimates: The estimates of its rows.

    Returns:
        A table of the rows, in which rows with the same letter share frozen layers, and the totals.
    """
    rows = [
        (
            "row",
            "network",
            "trained",
            "frozen",
            "multiply-adds",
            "features kept up to",
            "runs",
            "time each",
            "published",
            "",
        )
    ]
    for row in estimates:
        published = " to ".join(f"{end:.4g}" for end in dict.fromkeys(row.published.ends)) if row.published else ""
        if row.plan is None:
            rows.append((row.label, "", "", "", "", "", "", "", published, row.problem))
            continue
        counts = row.plan.parameters
        rows.append(
            (
                row.label,
                row.plan.name,
                f"{counts.trainable:,}",
                f"{counts.frozen:,}",
                f"{row.plan.macs:,}",
                f"{row.plan.prefix} ({_number_to_letters(row.shares)})" if row.shares else "",
                str(row.runs),
                format_seconds(row.seconds) if row.seconds is not None else "",
                published,
                row.problem,
            )
        )
    lines = [f"{study.title} ({len(study.rows)} rows)", format_table(rows, right=(2, 3, 4, 6, 7, 8))]
    if study.left_out:
        lines.append(f"Left out: {'; '.join(study.left_out)}.")
    total = sum_seconds(estimates)
    if total is None:
        lines.append("Time, memory and disk space cannot be estimated for all rows; see the last column.")
    else:
        memory = max((row.memory or 0 for row in estimates), default=0) / 2**30
        run_folders = sum(row.runs * (row.disk or {}).get("run", 0) for row in estimates) / 2**20
        lines.append(
            f"About {format_seconds(total)} in total, at most {memory:.1f} GiB of memory, "
            f"{run_folders:,.0f} MiB in run folders. "
            "Estimated from one measurement for each network and type of training. Nothing was trained."
        )
    return "\n".join(lines)


def estimate_record(study: Study, estimates: Sequence[RowEstimate]) -> dict[str, object]:
    """Return the estimated cost of a study as plain values.

    Args:
        study: The study.
        estimates: The estimates of its rows.

    Returns:
        The study's description, what is left out of it, the total seconds and the rows.
    """
    return {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "assumed": dict(study.assumed),
        "caveats": list(study.caveats),
        "changed": dict(study.changed),
        "left_out": list(study.left_out),
        "seconds": sum_seconds(estimates),
        "rows": [row.record() for row in estimates],
    }


def _number_to_letters(number: int) -> str:
    """A, B, ... Z, AA, AB, ... for 1, 2, ..."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
