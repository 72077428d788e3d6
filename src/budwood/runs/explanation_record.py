"""What was found out about a run, kept in its folder and shown by its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budwood.errors import RunError
from budwood.storage.atomic import guarded, write_text

FILE: Final = "explanation.json"


@dataclass(frozen=True)
class Explanation:
    """A record of plain values, and the pictures that belong to them by name: data URIs, or a fragment of HTML."""

    record: Mapping[str, Any]
    pictures: Mapping[str, str]


def keep_explanation(folder: Path, found: Explanation) -> None:
    """Write what was found into a run's folder."""
    with guarded(folder):
        write_text(folder / FILE, json.dumps({"record": found.record, "pictures": found.pictures}))


def kept_explanation(folder: Path) -> Explanation | None:
    """What was found out about the run in a folder, where that was asked; raises `RunError` when it cannot be read."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Explanation(found["record"], found["pictures"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file}: cannot be read ({error}).", "Remove it, or explain the run again.") from error
