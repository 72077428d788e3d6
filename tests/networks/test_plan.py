"""Plans are remembered, also under the size that a run's record has."""

from __future__ import annotations

from pathlib import Path

import pytest

from budwood.config.recipe import Recipe
from budwood.networks import surgery
from budwood.networks.plan import load_plan


def test_a_plan_is_made_once_whether_its_size_is_given_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(model="cnn", weights="none", epochs=1)
    plan = load_plan(recipe, 3, tmp_path)
    monkeypatch.setattr(surgery, "plan_network", lambda *_: pytest.fail("a plan was made again"))
    assert load_plan(recipe, 3, tmp_path) == plan
    assert load_plan(recipe.model_copy(update={"size": plan["size"]}), 3, tmp_path) == plan
