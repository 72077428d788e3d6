"""The notebooks of the documentation run from the first cell to the last, and every value in them is shown as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _read(file: Path) -> Any:
    return nbformat.reads(file.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]


def test_there_are_some() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["features-and-explanations", "first-classifier"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_kept_without_outputs(file: Path) -> None:
    for cell in _read(file).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs_to_its_end_and_shows_its_values(file: Path, tmp_path: Path) -> None:
    notebook = _read(file)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs: list[Any] = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    shown = [one.data for one in outputs if one.output_type == "execute_result"]
    html = [one["text/html"] for one in shown if "text/html" in one]
    assert len(html) >= 5
    assert all(part.startswith("<div") for part in html)
    bars = [one for one in outputs if one.output_type == "display_data"]
    assert all(one.data["text/html"] == "" for one in bars), "bars are gone when the work is done"
    assert not any("Traceback" in str(one) for one in outputs)
