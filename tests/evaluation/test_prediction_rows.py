"""Predictions as rows of a table."""

from __future__ import annotations

import csv

from budwood.evaluation.prediction_rows import make_cells, name_columns
from budwood.evaluation.prediction_table import ImagePrediction
from budwood.text import format_csv


def test_a_negative_strangeness_is_a_number_and_a_name_that_begins_like_a_formula_is_not() -> None:
    answer = ImagePrediction("=1+1.jpg", (("cat", 1.0),), strangeness=-8.8500471)
    table = format_csv([name_columns(("cat",), 1), make_cells(answer, 1, 1)])
    (row,) = csv.DictReader(table.splitlines())
    assert row["strangeness"] == "-8.850047"
    assert row["path"] == "'=1+1.jpg"
