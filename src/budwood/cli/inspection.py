"""What `budwood inspect` gives beside the terminal: every file of its findings, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budwood.cli.output import SHOWN
from budwood.errors import DataError
from budwood.text import format_csv, show_unprintable

if TYPE_CHECKING:
    from budwood.data.checks import Finding
    from budwood.data.dataset import Dataset


def scan_or_list_files(data: str, table: Path | None, **options: Any) -> Dataset:
    """Scan a data set; where too few files can be decoded, list those that cannot.

    Args:
        data: What the user gave.
        table: CSV file for the list; None: no file.
        options: Options of `scan`.

    Returns:
        The data set.

    Raises:
        DataError: The data cannot be used; the hint lists the first files that cannot be decoded.
        StorageError: The table cannot be written.
    """
    from budwood.data.scanning import scan

    try:
        return scan(data, **options)
    except DataError as error:
        if error.files and table:
            _write_rows(table, [("", "error", path, problem, error.message) for path, problem in error.files])
        raise DataError(error.message, _format_files(error.files) or error.hint, error.files) from error


def make_findings_document(dataset: Dataset, findings: Sequence[Finding]) -> dict[str, Any]:
    """Make the JSON document about a data set.

    Args:
        dataset: The data set.
        findings: The findings about it.

    Returns:
        Plain values.
    """
    return {
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "n": len(dataset),
        "split": dataset.split_source,
        "counts": dataset.counts(),
        "findings": [finding.record() for finding in findings],
    }


def _format_files(files: Sequence[tuple[str, str]]) -> str:
    """The first files, each with what is wrong with it, and the number of the others."""
    lines = [f"{show_unprintable(path)}: {show_unprintable(problem)}" for path, problem in files[:SHOWN]]
    more = [f"and {len(files) - SHOWN:,} more (all with --json or --csv)"] if len(files) > SHOWN else []
    return "\n  ".join([*lines, *more])


def save_findings(file: Path, dataset: Dataset, findings: Sequence[Finding]) -> None:
    """Write the files of findings as a CSV table, one a row.

    Args:
        file: File to make or replace.
        dataset: The data set.
        findings: The findings; one that names no file has a row without a path.

    Raises:
        StorageError: The file cannot be written.
    """
    details = {item.path: item.detail for item in dataset.set_aside}
    rows = [
        (finding.code, finding.severity, path, details.get(path, ""), finding.message)
        for finding in findings
        for path in finding.files or ("",)
    ]
    _write_rows(file, rows)


def _write_rows(file: Path, rows: Sequence[tuple[str, str, str, str, str]]) -> None:
    from budwood.storage.atomic import raise_storage_errors, write_text

    with raise_storage_errors(file):
        write_text(file, format_csv([("code", "severity", "path", "detail", "message"), *rows]))
