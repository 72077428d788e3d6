"""Plans are remembered, also under the size that a run's record has; what is damaged is made again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from budwood.config.recipe import Recipe
from budwood.networks import surgery
from budwood.networks.network_plan import plan_from_record
from budwood.networks.plan import load_plan


def test_a_plan_is_made_once_whether_its_size_is_given_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(model="cnn", weights="none", epochs=1)
    plan = load_plan(recipe, 3, tmp_path)
    monkeypatch.setattr(surgery, "plan_network", lambda *_: pytest.fail("a plan was made again"))
    assert load_plan(recipe, 3, tmp_path) == plan
    assert load_plan(recipe.model_copy(update={"size": plan.size}), 3, tmp_path) == plan


def test_a_plan_is_what_its_record_says() -> None:
    plan = surgery.plan_network(Recipe(model="cnn", weights="none", epochs=1), 3)
    record = json.loads(json.dumps(plan.record()))
    assert record == plan.record()
    assert plan_from_record(record) == plan
    assert plan.parameters.total == sum(row.parameters for row in plan.stages)
    with pytest.raises(ValueError, match="version 0, expected 1"):
        plan_from_record({**record, "schema_version": 0})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "[]",
        lambda text: text[:-20],
        lambda text: text.replace('"macs": ', '"macs": 1'),
        lambda text: json.dumps(json.loads(text)["record"]),
        lambda text: json.dumps({"digest": "", "record": {}}),
        lambda text: text.replace('"schema_version": 1', '"schema_version": 0'),
    ],
)
def test_a_damaged_or_older_file_is_made_again(damage: Callable[[str], str], tmp_path: Path) -> None:
    recipe = Recipe(model="mlp", fc=(8,), epochs=1)
    plan = load_plan(recipe, 3, tmp_path)
    whole = {file: file.read_text() for file in tmp_path.rglob("*.json")}
    for file, text in whole.items():
        file.write_text(damage(text))
    assert load_plan(recipe, 3, tmp_path) == plan
    assert {file: file.read_text() for file in whole} == whole


def test_a_plan_that_is_remembered_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from budwood.networks.plan import load_plan; "
        "from budwood.config.recipe import Recipe; "
        "load_plan(Recipe(model='mlp', fc=(8,), epochs=1), 3, Path(sys.argv[1])); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'timm')))"
    )
    load_plan(Recipe(model="mlp", fc=(8,), epochs=1), 3, tmp_path)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
