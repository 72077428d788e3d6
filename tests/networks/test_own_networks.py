"""Networks of the user's own: registered with timm or named by their factory; edited, they are other networks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import timm

from budwood.config.recipe import Recipe
from budwood.networks.plan import load_plan

REGISTERED = """
from timm.models import register_model
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, width=WIDTH):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, 2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2)
        self.conv3 = nn.Conv2d(2 * width, 16, 3, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.conv3(self.conv2(self.conv1(x))))))


@register_model
def budwood_test_small(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **options):
    return Small(**options)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is worked in; its modules, and the names that they register with timm, are forgotten again."""
    from timm.models import _registry

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for table in (_registry._model_entrypoints, _registry._model_to_module, _registry._model_default_cfgs):
        table.pop("budwood_test_small", None)


def imported(name: str) -> ModuleType:
    """A module as its file is now."""
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.filterwarnings("ignore:Overwriting")
def test_an_edited_network_that_is_registered_with_timm_is_planned_anew(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(model="budwood_test_small", weights="none", freeze="none", optimizer="adam", size=32)
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "4"))
    imported("registering")
    assert timm.is_model("budwood_test_small")
    first = load_plan(recipe, 3, tmp_path / "cache")
    assert load_plan(recipe, 3, tmp_path / "cache") == first
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "8"))
    imported("registering")
    second = load_plan(recipe, 3, tmp_path / "cache")
    assert [row.shape[0] for row in (first.stages[0], second.stages[0])] == [4, 8]


def test_a_network_of_timm_without_a_pretrained_configuration_has_the_usual_one(folder: Path, tmp_path: Path) -> None:
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "4"))
    imported("registering")
    plan = load_plan(Recipe(model="budwood_test_small", weights="none", optimizer="adam"), 3, tmp_path / "cache")
    assert (plan.size, plan.source, plan.head) == (224, "timm", "fc")
    assert plan.parameters.trainable == 16 * 3 + 3 + sum(row.parameters for row in plan.places)
