"""The study files have every number that their sources tell: the page of the sources is parsed, nothing is copied."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import REAL

SOURCES = REAL.parent / "studies.md"
FILES = Path(__file__).parents[2] / "studies"
NUMBER = re.compile(r"(?<![\w.])(\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?)")
Options = dict[str, Any]

pytestmark = pytest.mark.skipif(not SOURCES.is_file(), reason=f"no page of the sources at {SOURCES}")


def _section(study: int) -> str:
    return re.split(r"^## (?=\d)", SOURCES.read_text(), flags=re.MULTILINE)[study]


def _cells(study: int) -> Iterator[list[str]]:
    """The cells of each row of a section's table, without its head and the signs of what was missing."""
    lines = [line for line in _section(study).replace("(!)", "").splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def _text(study: int) -> str:
    return next(file for file in FILES.glob(f"study{study}_*.toml") if "lite0" not in file.name).read_text()


def _rows(study: int) -> list[Options]:
    """The rows of a study file with a published figure, each over the base: single rows, then points of grids."""
    file = tomllib.loads(_text(study))
    rows = [{**file["base"], **row} for row in file["rows"] if "published" in row]
    grids = file.get("grid", [])
    for grid in [grids] if isinstance(grids, dict) else grids:
        rows += [{**file["base"], **figure["where"], "published": figure} for figure in grid.get("published", [])]
    return rows


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def _leaves(value: object) -> Iterator[float]:
    """Every number in a table, those in its texts included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(str(key))
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield from _numbers(re.sub(r"(\d)[ms]\b", r"\1 ", value.replace("m", "m ")))
    elif not isinstance(value, bool):
        yield float(str(value))


def _shares(text: str) -> tuple[float | None, ...]:
    """Percentages parted by / as shares; - is none."""
    return tuple(None if part == "-" else round(float(part) / 100, 6) for part in text.split("/"))


def _published(row: Options, *names: str) -> tuple[Any, ...]:
    return tuple(row["published"].get(name) for name in names)


@pytest.mark.parametrize("study", range(1, 6))
def test_every_number_of_a_source_stands_in_its_file(study: int) -> None:
    remarks = " ".join(line for line in _text(study).splitlines() if line.startswith("#"))
    known = {*_leaves(tomllib.loads(_text(study))), *_numbers(remarks.replace('"', " "))}
    told = _numbers(_section(study))
    assert len(told) > 30
    scaled = [{number * scale for scale in (1, 0.01, 1e6)} for number in told]  # percentages, millions
    missing = [
        number
        for number, ways in zip(told, scaled, strict=True)
        if not any(abs(way - one) <= 1e-9 * max(1, one) for way in ways for one in known)
    ]
    assert missing == []


def test_study_1_has_each_row_with_its_settings_and_five_figures() -> None:
    pattern = re.compile(r"([^;|]*?) -> ([\d./-]+)(?: \(([\d.-]+), ([\d.-]+)\))?")
    rows = _rows(1)
    found = 0
    for part, told in ((cells[0], "; ".join(cells[1:])) for cells in _cells(1)):
        for settings, figures, *losses in pattern.findall(told):
            epochs, lr, *share = _numbers(settings) or _numbers(part)
            matching = [row for row in rows if _published(row, "train", "val", "test") == _shares(figures)]
            assert len(matching) == 1, figures
            assert (matching[0]["epochs"], matching[0]["lr"]) == (epochs, lr)
            assert [matching[0]["val"]] == (share or [matching[0]["val"]])
            of_row = _published(matching[0], "train_loss", "val_loss")
            assert of_row == tuple(float(loss) if loss not in ("", "-") else None for loss in losses)
            assert matching[0].get("schedule_every") == (40 if epochs == 60 else 20)
            found += 1
    assert found == len(rows) == 25


def test_study_2_has_the_accuracies_and_losses_of_each_network() -> None:
    rows = _rows(2)
    told = {cells[0]: cells[-1] for cells in _cells(2)}
    for network, label in {
        "model A": "model A",
        "VGG-16": "VGG-16, last layer trained",
        "cut after block 3": "VGG-16, cut after block 3, dense 1024",
        "cut after block 4": "VGG-16, cut after block 4, dense 1024",
    }.items():
        row = next(row for row in rows if row["label"] == label)
        figures = dict(re.findall(r"([\d.]+) %(?: \([\d/]+\))? (train|test)", told[network]))
        shares = {split: round(float(share) / 100, 8) for share, split in figures.items()}
        assert _published(row, "train", "test") == (shares.get("train"), shares.get("test"))
        losses = re.search(r"loss(?:es)? ([\d.]+)(?:, ([\d.]+))?", told[network])
        expected = tuple(float(loss) if loss else None for loss in losses.groups()) if losses else (None, None)
        assert _published(row, "train_loss", "test_loss") == expected
    best = next(row for row in rows if "62,006" in _section(2) and row["published"].get("parameters") == 62_006)
    assert (best["lr"], best["momentum"]) == (0.001, 0.92)
    assert all(
        (row["images_per_class"], row["test_images_per_class"]) == (32, 8) for row in rows if "VGG" in row["label"]
    )


def test_study_3_has_each_width_with_its_accuracy_and_loss() -> None:
    rows = {tuple(row.get("widths", ())): row for row in reversed(_rows(3))}
    names, figures = next((cells[1], cells[2]) for cells in _cells(3) if cells[0] == "widths")
    for widths, accuracy, loss in zip(
        names.split("; "), *zip(*re.findall(r"(\d+) \(([\d.]+)\)", figures), strict=True), strict=True
    ):
        row = rows[tuple(map(int, widths.split("/")))]
        assert _published(row, "test", "train_loss") == (float(accuracy) / 100, float(loss))


def test_study_4_has_each_row_with_its_time() -> None:
    pattern = re.compile(r"([\d.]+)/([\d.]+)/([\d.]+)(?: at ([\d.]+))?, (\d+) m (\d+) s")
    found = pattern.findall(_section(4))
    rows = {_published(row, "train", "val", "test"): row for row in _rows(4)}
    assert len(found) == len(rows) == 5
    for train, val, test, dropout, minutes, seconds in found:
        row = rows[float(train), float(val), float(test)]
        assert row["published"]["time"] == f"{minutes}m{seconds}s"
        assert row.get("dropout") == (float(dropout) if dropout else None)


def test_study_5_has_its_eight_told_models_and_every_published_accuracy() -> None:
    cells = next(cells for cells in _cells(5) if "told models" in cells[0])
    rows = [row for row in _rows(5) if row.get("label", "").startswith("told model")]
    models = [model.replace(" ", ", ", 1).split(", ") for model in cells[1].split("; ")]
    figures = list(map(float, cells[2].split(";")))
    assert len(models) == len(figures) == 8
    matched = set()
    for (name, *numbers), accuracy in zip(models, figures, strict=True):
        decay, momentum, dropout, rate, batch, norm, epoch = numbers
        settings = {"optimizer": name.lower(), "weight_decay": float(decay), "lr": float(rate), "batch": int(batch)}
        settings |= {"dropout": float(dropout), "batch_norm": norm == "yes"}
        row = next(row for row in rows if settings.items() <= row.items())
        value = row["published"]["val"]
        assert accuracy in (value if isinstance(value, list) else [value])
        assert {float(epoch), float(momentum)} <= {*_numbers(row["published"]["note"]), row.get("momentum")}
        matched.add(row["label"])
    assert len(matched) == len(rows) == 7, "two of the eight have the same settings"
    known = {*_leaves([row["published"] for row in _rows(5)])}
    assert {number for line in _cells(5) for number in _numbers(line[2]) if 0 < number < 1} <= known
