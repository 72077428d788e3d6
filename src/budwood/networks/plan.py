"""The plan of a recipe's network, known before anything is computed and remembered, so that torch is not needed."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from budwood.config.recipe import Recipe
from budwood.networks.network_plan import NetworkPlan, plan_from_record
from budwood.networks.registry import code_of
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights
from budwood.storage.checked_files import read_checked, write_checked

LIBRARIES: Final = ("torch", "torchvision", "timm", "onnxruntime")
MADE_BY: Final = (  # a change of these is another plan
    "budwood.networks.factories",
    "budwood.networks.registry",
    "budwood.networks.network_plan",
    "budwood.networks.pooling",
    "budwood.networks.small",
    "budwood.networks.stages",
    "budwood.networks.surgery",
    "budwood.networks.freezing",
    "budwood.networks.taps",
)
DECIDING: Final = (
    *("model", "freeze", "frozen_norm", "trained_norm", "cut", "pool", "head", "dropout", "batch_norm"),
    *("channels", "size"),
)


def load_plan(recipe: Recipe, classes: int, cache: Path) -> NetworkPlan:
    """Load the plan of a recipe's network from the cache, or make and store it.

    A file of the cache that is damaged, or of another version, counts as missing.

    Args:
        recipe: Recipe that decides the network.
        classes: Number of logits.
        cache: Folder of Budwood's cache.

    Returns:
        The plan.

    Raises:
        RecipeError: A network, stage, size or pooling does not exist.
    """
    file = _plan_file(recipe, classes, cache)
    plan = _read(file)
    if plan is None:
        from budwood.networks.surgery import plan_network

        plan = plan_network(recipe, classes)
        sized = recipe.model_copy(update={"size": plan.size})  # as a run's record has it
        with suppress(OSError):  # a cache that cannot be written costs time, not the plan
            for name in {file, _plan_file(sized, classes, cache)}:
                write_checked(name, plan.record())
    return plan


def spec_of(recipe: Recipe, classes: int, weights: Weights, cache: Path) -> NetworkSpec:
    """Combine a recipe with its plan, the number of classes and weights.

    Args:
        recipe: Recipe that decides the network.
        classes: Number of logits.
        weights: Where the network's values come from.
        cache: Folder of Budwood's cache, for the plan.

    Returns:
        The specification, from which the network can be built.

    Raises:
        RecipeError: A network, stage, size or pooling does not exist.
    """
    return NetworkSpec(recipe, load_plan(recipe, classes, cache), classes, weights)


def _read(file: Path) -> NetworkPlan | None:
    """The plan in a file; None where there is none, or not one that was written as it is now."""
    document = read_checked(file)
    try:
        return None if document is None else plan_from_record(document)
    except (ValueError, KeyError, TypeError):
        return None


def _plan_file(recipe: Recipe, classes: int, cache: Path) -> Path:
    """Where the plan of a recipe is remembered."""
    options = [[getattr(recipe, name) for name in DECIDING], recipe.own_options, classes]
    options += [recipe.taps] if recipe.taps else []
    key = hash_json([options, code_of(recipe.model), toolchain_digest(), plan_source_digest()])
    return cache / "plans" / f"{key}.json"


@cache
def toolchain_digest() -> str:
    """Compute the digest of the library versions that networks and exported graphs depend on.

    Returns:
        The first 8 hex digits of the digest for torch, torchvision, timm and ONNX Runtime.
    """
    return hash_json([version(name) for name in LIBRARIES])[:8]


def hash_json(parts: Any) -> str:
    """Compute the BLAKE2b-96 digest of plain values.

    Args:
        parts: Values that JSON can hold; others are converted by `str`.

    Returns:
        The digest, 24 hex digits.
    """
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=12).hexdigest()


@cache
def plan_source_digest() -> str:
    """Compute the digest of the modules that make plans; none of them is imported.

    Returns:
        The digest, 24 hex digits.
    """
    return hash_json([_source(name) for name in MADE_BY])


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
