"""What is written is JSON that everything can read, and what is read has no number that is none."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import budwood
from budwood.cli.options import print_json
from budwood.evaluation.intervals import Metric
from budwood.storage.strict_json import decode_json, encode_json


def test_undefined_numbers_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": math.nan, "b": [1.5, -math.inf, (math.inf, 2)], "c": {"größer": None}, "d": True}
    expected = {"a": None, "b": [1.5, None, [None, 2]], "c": {"größer": None}, "d": True}
    assert json.loads(encode_json(value)) == expected
    assert "größer" in encode_json(value)
    assert "\\u00f6" in encode_json(value, ensure_ascii=True)
    print_json({**value, "metric": Metric(value=0.5, low=math.nan, high=1.0, n=3)})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=lambda name: pytest.fail(name))["metric"]["low"] is None
    with pytest.raises(TypeError):
        encode_json({"path": object()})


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[-Infinity]", "[1e999]"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of JSON"):
        decode_json(text)


def test_numbers_are_read_as_they_were() -> None:
    for value in (0.1, 1e-300, -2.5, 3, 2**70):
        assert decode_json(encode_json(value)) == value


def test_no_module_writes_files_in_another_way() -> None:
    source = Path(budwood.__file__).parent
    wanted = re.compile(r"write_(text|bytes)\(.*json\.dumps|json\.loads\(.*read_text")
    found = [path.name for path in source.rglob("*.py") if wanted.search(path.read_text(encoding="utf-8"))]
    assert found == []
