"""What a recipe makes of its network, known before anything is computed and remembered, so that torch is not needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from budwood.config.recipe import Recipe
from budwood.storage.atomic import guarded, write_text

LIBRARIES: Final = ("torch", "torchvision", "timm", "onnxruntime")
MADE_BY: Final = ("registry", "small", "stages", "surgery", "freezing")  # a change of these is another plan
DECIDING: Final = ("model", "freeze", "cut", "pool", "head", "dropout", "batch_norm", "channels", "size")

Plan = Mapping[str, Any]


def plan_of(recipe: Recipe, classes: int, cache: Path) -> Plan:
    """The plan of a recipe's network, as `surgery.planned` gives it, from the cache where it is there.

    Raises `RecipeError` for a network, stage, size or pooling that does not exist.
    """
    file = _file(recipe, classes, cache)
    try:
        plan: Plan = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        from budwood.networks.surgery import planned

        plan = planned(recipe, classes)
        sized = recipe.model_copy(update={"size": plan["size"]})  # as a run's record has it
        with guarded(cache):
            for name in {file, _file(sized, classes, cache)}:
                write_text(name, json.dumps(plan))
    return plan


def _file(recipe: Recipe, classes: int, cache: Path) -> Path:
    """Where the plan of a recipe is remembered."""
    asked = [[getattr(recipe, name) for name in DECIDING], recipe.own_options, classes]
    return cache / "plans" / f"{hash_of([asked, toolchain(), _made_by()])}.json"


@cache
def toolchain() -> str:
    """The versions that networks and exported graphs depend on."""
    return hash_of([version(name) for name in LIBRARIES])[:8]


def hash_of(parts: Any) -> str:
    """BLAKE2b-96 of plain values in hex."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=12).hexdigest()


def _made_by() -> str:
    """A digest of the modules that make plans."""
    folder = Path(__file__).parent
    return hash_of([(folder / f"{name}.py").read_text(encoding="utf-8") for name in MADE_BY])
