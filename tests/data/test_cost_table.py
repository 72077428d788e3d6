"""Tables of costs: what is read, and every mistake that is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import budwood as bw
from budwood.data.cost_table import read_costs

CLASSES = ("ok", "broken")


def _write(folder: Path, text: str) -> Path:
    (folder / "costs.csv").write_text(text, encoding="utf-8")
    return folder / "costs.csv"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_read_in_any_order(tmp_path: Path, mark: str) -> None:
    text = "called,broken,ok\n\nok,1.5,0\nbroken,0,20\n".replace(",", mark)
    assert read_costs(_write(tmp_path, text), CLASSES).tolist() == [[0, 1.5], [20, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first row lacks 'ok'"),
        (",ok\nok,0\nbroken,1\n", "the first row lacks 'broken'"),
        (",ok,broken,dirt\nok,0,1,1\nbroken,1,0,1\n", "the first row has the unknown class 'dirt'"),
        (",ok,broken\nok,0,1\n", "the first column lacks 'broken'"),
        (",ok,broken\nok,0,1\nok,0,1\nbroken,1,0\n", "the first column has more than once 'ok'"),
        (",ok,broken\nok,0\nbroken,1,0\n", "expected 2 costs for 'ok', found 1"),
        (",ok,broken\nok,0,dear\nbroken,1,0\n", "as the cost of calling 'ok' 'broken', found 'dear'"),
        (",ok,broken\nok,0,inf\nbroken,1,0\n", "as the cost of calling 'ok' 'broken', found 'inf'"),
        (",ok,broken\nok,0,\nbroken,1,0\n", "as the cost of calling 'ok' 'broken', found ''"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(bw.DataError) as told:
        read_costs(_write(tmp_path, text), CLASSES)
    assert message in told.value.message
    assert told.value.hint.startswith("A first row with the classes")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(bw.DataError, match="cannot be read"):
        read_costs(tmp_path / "none.csv", CLASSES)
    with pytest.raises(bw.DataError, match="is no table of costs"):
        read_costs(_write(tmp_path, ",ok,broken\nok,0,1\nbroken,1," + "0" * 200_000), CLASSES)
    (tmp_path / "costs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(bw.DataError, match="is not UTF-8 text"):
        read_costs(tmp_path / "costs.csv", CLASSES)
