"""TOML files: what is written is read back, old files too; a file that is no TOML is told in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from budwood.config.recipe import Recipe, load_recipe
from budwood.config.toml import parse_value, read_toml, write_table
from budwood.errors import RecipeError, StudyError

OLD = """model = "resnet18"
weights = "a \\"quoted\\" pfad ü.pth"
freeze = ["features.*", "layer1.*"]
optimizer = "adam"
widths = [8, 16]
lr = 1e-05
phases = [{ freeze = "trunk", epochs = 5, lr = 0.001 }, { freeze = ["a.*"], epochs = 15, class_weights = true }]
"""


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, "recipe", RecipeError, missing="Look.", malformed="Correct.").table


def test_a_file_of_one_line_an_option_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(OLD, encoding="utf-8")
    table = _read(tmp_path / "recipe.toml")
    assert table["weights"] == 'a "quoted" pfad ü.pth'
    assert table["phases"][1] == {"freeze": ["a.*"], "epochs": 15, "class_weights": True}
    (tmp_path / "again.toml").write_text(write_table(table), encoding="utf-8")
    assert _read(tmp_path / "again.toml") == table


@pytest.mark.parametrize("text", ["\x7f", "a\nb\t\x00\\", '"""', "日本", "\u2028", "'", ""])
def test_every_text_is_read_as_it_was_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(write_table({"weights": text, "nested": {"a b": [text]}}), encoding="utf-8")
    assert _read(tmp_path / "t.toml") == {"weights": text, "nested": {"a b": [text]}}


def test_a_recipe_in_phases_can_be_read_by_people_and_by_budwood(tmp_path: Path) -> None:
    phases = [{"freeze": "trunk", "epochs": 5, "lr": 1e-3}, {"freeze": "upto:layer2", "epochs": 15, "lr": 1e-5}]
    recipe = Recipe(model="resnet18", optimizer="adam", phases=phases)
    text = recipe.toml()
    assert 'model = "resnet18"\n' in text
    assert text.count("{ freeze = ") == 2
    assert max(map(len, text.splitlines())) <= 120
    assert "lr = 1e-05" in text
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert Recipe(**load_recipe(tmp_path / "recipe.toml")) == recipe


def test_values_are_toml_else_plain_words() -> None:
    assert parse_value("[[8, 8], [16]]") == [[8, 8], [16]]
    assert parse_value("true") is True
    assert parse_value("upto:layer2") == "upto:layer2"


@pytest.mark.parametrize("content", [b"lr = = 3", b"name = \xff", b"a = 1\na = 2"])
def test_what_is_no_toml_is_told_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(StudyError, match=r"bad\.toml: cannot be read as TOML \(.+\)\.") as found:
        read_toml(tmp_path / "bad.toml", "study", StudyError, missing="Look.", malformed="Correct.")
    assert found.value.hint == "Correct."
    with pytest.raises(RecipeError, match=r"none\.toml: no such recipe file\.") as missing:
        _read(tmp_path / "none.toml")
    assert missing.value.hint == "Look."
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        _read(tmp_path)
