"""PyTorch is loaded early only where it will be needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from budwood import early
from budwood.recipe import Recipe


@pytest.mark.parametrize(
    ("options", "known", "loads"),
    [({}, False, True), ({}, True, False), ({"freeze": "none"}, True, True), ({"dropout": 0.2}, True, True)],
)
def test_what_will_be_needed_is_loaded_early(
    options: dict[str, Any], known: bool, loads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if known:
        bundle = tmp_path / "networks" / "lite0" / "bundle.json"
        bundle.parent.mkdir(parents=True)
        bundle.write_text("{}")
    asked: list[str] = []
    monkeypatch.setattr("importlib.import_module", asked.append)
    monkeypatch.setattr(early, "Thread", lambda target, args: type("T", (), {"start": lambda _: target(*args)})())
    early.load_early(Recipe(**options), tmp_path)
    assert asked == (["timm"] if loads else [])
