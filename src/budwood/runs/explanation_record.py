"""What was found out about a run, kept in its folder and shown by its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budwood.errors import RunError
from budwood.storage.atomic import raise_storage_errors, write_text

EXPLANATION_FILE: Final = "explanation.json"


@dataclass(frozen=True)
class Explanation:
    """The explanation of a run, as kept in its folder and shown by its report.

    Attributes:
        record: Results as plain values.
        pictures: Pictures by name, each a data URI or a fragment of HTML.
    """

    record: Mapping[str, Any]
    pictures: Mapping[str, str]


def save_explanation(folder: Path, explanation: Explanation) -> None:
    """Write an explanation into a run's folder.

    Args:
        folder: The run folder.
        explanation: The explanation.

    Raises:
        StorageError: The folder cannot be written.
    """
    with raise_storage_errors(folder):
        write_text(
            folder / EXPLANATION_FILE, json.dumps({"record": explanation.record, "pictures": explanation.pictures})
        )


def load_explanation(folder: Path) -> Explanation | None:
    """Load the explanation of a run from its folder.

    Args:
        folder: The run folder.

    Returns:
        The explanation; None where the run has not been explained.

    Raises:
        RunError: The file cannot be read.
    """
    file = folder / EXPLANATION_FILE
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return Explanation(document["record"], document["pictures"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file}: cannot be read ({error}).", "Remove it, or explain the run again.") from error
