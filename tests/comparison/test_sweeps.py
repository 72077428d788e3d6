"""Rows that differ in one number alone are found, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budwood.comparison.rows import ComparisonRow
from budwood.comparison.sweeps import find_sweeps
from budwood.evaluation.intervals import Metric

VALUE = Metric(0.5, 0.4, 0.6, 100)


def _row(label: str, options: Mapping[str, object], **given: Any) -> ComparisonRow:
    about: dict[str, Any] = {"seeds": 1, "group": 1, "differs": {}, "parameters": None, "macs": None, "epochs": ()}
    about |= {"seconds": 1.0, "training_seconds": 1.0, "value": VALUE, "spread": None, "test": None, "looks": ()}
    about |= {"runs": ("run",), "train": VALUE, "published": None, **given}
    return ComparisonRow(label=label, options=options, **about)


def _labels(*rows: ComparisonRow) -> list[tuple[str, list[str]]]:
    return [(sweep.option, [row.label for row in sweep.rows]) for sweep in find_sweeps(rows)]


def test_rows_of_one_option_are_ordered_by_its_value() -> None:
    rows = [_row(str(value), {"dropout": value, "optimizer": "adam"}) for value in (0.3, 0.1, 0.4, 0.2)]
    rows.append(_row("sgd", {"dropout": 0.2, "optimizer": "sgd"}))
    (sweep,) = find_sweeps(rows)
    assert (sweep.option, sweep.values, sweep.shared) == ("dropout", (0.1, 0.2, 0.3, 0.4), {"optimizer": "adam"})
    assert [row.label for row in sweep.rows] == ["0.1", "0.2", "0.3", "0.4"]


def test_a_grid_of_two_options_has_a_sweep_for_each_value_of_the_other() -> None:
    rows = [_row(f"{lr} {batch}", {"lr": lr, "batch": batch}) for lr in (0.1, 0.01, 0.001) for batch in (8, 16, 32, 64)]
    found = _labels(*rows)
    assert [option for option, _ in found] == ["batch"] * 3 + ["lr"] * 4, "the longest first"
    assert found[0] == ("batch", ["0.1 8", "0.1 16", "0.1 32", "0.1 64"])


def test_what_makes_no_sweep() -> None:
    assert _labels(*(_row(str(n), {"lr": n}) for n in (1, 2))) == [], "two values"
    assert _labels(*(_row(str(n), {"lr": n, "epochs": n}) for n in (1, 2, 3))) == [], "two options at once"
    assert _labels(*(_row(name, {"optimizer": name}) for name in ("adam", "sgd", "adamw"))) == [], "no numbers"
    assert _labels(*(_row(str(n), {"batch_norm": bool(n)}) for n in (0, 1, 1))) == [], "yes or no"
    assert _labels(*(_row(str(n), {"lr": n}, group=n) for n in (1, 2, 3))) == [], "other images"
    few = (Metric(0.5, 0.4, 0.6, 10 * n) for n in (1, 2, 3))
    assert _labels(*(_row(str(n), {"lr": n}, train=train) for n, train in enumerate(few))) == [], "as many to train"
    assert _labels(*(_row(str(n), {"lr": n // 2}) for n in (2, 3, 4, 6))) == [], "rows that differ in something else"
    assert _labels(*(_row(str(n), {"lr": n}, runs=() if n == 2 else ("run",)) for n in (1, 2, 3))) == [], "not trained"
