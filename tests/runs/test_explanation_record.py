"""Explanations of version 0.1 are opened, shown and written as they were; what is none is told in one message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from budwood.errors import RunError
from budwood.reporting.run_page import render_explanation
from budwood.runs.explanation_record import EXPLANATION_FILE, PARTS, Explanation, load_explanation, save_explanation

KEPT = Path(__file__).parents[1] / "kept" / "explanation-0.1"
THEN = tuple(part for part in PARTS if part not in ("maps", "units"))  # that there were then


@pytest.fixture
def kept() -> Explanation:
    """The explanation that version 0.1 has written."""
    found = load_explanation(KEPT)
    assert found is not None
    return found


def test_a_kept_explanation_is_written_as_it_was_read(kept: Explanation, tmp_path: Path) -> None:
    assert kept.record.parts == THEN
    save_explanation(tmp_path, kept)
    written = json.loads((tmp_path / EXPLANATION_FILE).read_text())
    assert written.pop("schema_version") == 1
    assert len(written.pop("digest")) == 32
    assert written == json.loads((KEPT / EXPLANATION_FILE).read_text())
    assert load_explanation(tmp_path) == kept


def test_a_kept_explanation_is_shown(kept: Explanation) -> None:
    html = render_explanation(kept, "photos", "cnn")
    titles = ("Where the network looks", "From the first stage to the last", "Filters", "What each class looks for")
    for title in (*titles, "Map of the images", "Confused classes", "Possible label errors"):
        assert f"<h2>{title}</h2>" in html
    assert "1 of 38 labels may be wrong" in html


def test_a_later_part_replaces_an_earlier_one(kept: Explanation) -> None:
    filters = kept.record.model_copy(update={**dict.fromkeys(PARTS), "filters": kept.record.filters, "seconds": {}})
    assert filters.parts == ("filters",)
    assert list(filters.table()) == ["run", "created", "filters", "seconds", "hardware"]
    later = filters.model_copy(update={"created": "later", "seconds": {"filters": 7.0}})
    merged = kept.record.merged(later)
    assert merged.parts == THEN
    assert merged.created == "later"
    assert merged.seconds == {**kept.record.seconds, "filters": 7.0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "expected an object, found list"),
        ({"record": None, "pictures": {}}, "record: Input should be"),
        ({"record": {}, "pictures": {}}, "record.run: Field required"),
        ({"record": {"run": "r", "created": "2026", "images": 7}, "pictures": {}}, "record.images: Input should be"),
        ({"pictures": {}}, "record: Field required"),
    ],
)
def test_a_malformed_explanation_is_one_error(content: Any, problem: str, tmp_path: Path) -> None:
    (tmp_path / EXPLANATION_FILE).write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        load_explanation(tmp_path)
    assert caught.value.message.startswith(f"{tmp_path / EXPLANATION_FILE}: cannot be read ({problem}")
    assert caught.value.hint == "Remove it, or explain the run again."


def test_an_explanation_of_a_later_version_is_refused(tmp_path: Path) -> None:
    shutil.copy(KEPT / EXPLANATION_FILE, tmp_path)
    file = tmp_path / EXPLANATION_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 2}))
    with pytest.raises(RunError, match="has the schema version 2, expected 1 at most"):
        load_explanation(tmp_path)
