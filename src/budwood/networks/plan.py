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
from budwood.storage.atomic import raise_storage_errors, write_text

LIBRARIES: Final = ("torch", "torchvision", "timm", "onnxruntime")
MADE_BY: Final = ("registry", "small", "stages", "surgery", "freezing")  # a change of these is another plan
DECIDING: Final = ("model", "freeze", "cut", "pool", "head", "dropout", "batch_norm", "channels", "size")

Plan = Mapping[str, Any]


def load_plan(recipe: Recipe, classes: int, cache: Path) -> Plan:
    """The plan of a recipe's network, as `surgery.planned` gives it, from the cache where it is there.

    Raises `RecipeError` for a network, stage, size or pooling that does not exist.
    """
    file = _plan_file(recipe, classes, cache)
    try:
        plan: Plan = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        from budwood.networks.surgery import plan_network

        plan = plan_network(recipe, classes)
        sized = recipe.model_copy(update={"size": plan["size"]})  # as a run's record has it
        with raise_storage_errors(cache):
            for name in {file, _plan_file(sized, classes, cache)}:
                write_text(name, json.dumps(plan))
    return plan


def _plan_file(recipe: Recipe, classes: int, cache: Path) -> Path:
    """Where the plan of a recipe is remembered."""
    asked = [[getattr(recipe, name) for name in DECIDING], recipe.own_options, classes]
    return cache / "plans" / f"{hash_json([asked, toolchain_digest(), _source_digest()])}.json"


@cache
def toolchain_digest() -> str:
    """The versions that networks and exported graphs depend on."""
    return hash_json([version(name) for name in LIBRARIES])[:8]


def hash_json(parts: Any) -> str:
    """BLAKE2b-96 of plain values in hex."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=12).hexdigest()


def _source_digest() -> str:
    """A digest of the modules that make plans."""
    folder = Path(__file__).parent
    return hash_json([(folder / f"{name}.py").read_text(encoding="utf-8") for name in MADE_BY])
