"""Refusals name a few files and a count, and say why a split is empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from budwood.cli.output import show_dataset
from budwood.data.checks import Finding
from budwood.data.scanning import scan
from budwood.errors import DataError
from budwood.runs.preflight import _refuse_empty, _refuse_leaks
from conftest import fill


def _leak(count: int) -> Finding:
    paths = tuple(f"{number:03}.png" for number in range(count))
    return Finding("D021", "error", f"{count} files leak.", "Move them.", paths, (paths,))


def test_a_leak_of_many_files_names_three() -> None:
    with pytest.raises(DataError) as caught:
        _refuse_leaks([_leak(195)])
    assert str(caught.value).startswith(
        "D021: 195 files leak. The first: '000.png', '001.png', '002.png' and 192 more."
    )


def test_inspect_names_six_files_of_a_group(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_dataset(scan(photos), [_leak(195)])
    printed = capsys.readouterr().out
    assert "005.png  = and 189 more" in printed
    assert "006.png" not in printed


def test_an_empty_split_says_that_the_images_belong_together(tmp_path: Path) -> None:
    rows = ["path,label,group"]
    for hue, label in enumerate("ab"):
        rows += [f"{path.relative_to(tmp_path)},{label},one" for path in fill(tmp_path / label, 5, hue=hue)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = scan(tmp_path / "t.csv")
    with pytest.raises(DataError, match="has no usable images") as caught:
        _refuse_empty(data, data.samples("train"), data.samples("val"))
    assert caught.value.hint.startswith("10 of 10 images are kept in one split, as near duplicates or as one group")
