"""The parts of a run's network that predictions and explanations are computed with, and what it says of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.config.recipe import Recipe
from budwood.data.dataset import Samples
from budwood.inference.engines import Prefix, prefix_of
from budwood.inference.feature_cache import evaluated
from budwood.networks.plan import plan_of
from budwood.networks.registry import TRUNK
from budwood.networks.weights import Weights, file_weights
from budwood.progress import Progress
from budwood.runs.preflight import same_weights
from budwood.runs.run import Run
from budwood.training.linear_head import compute_head_logits


def own_weights(run: Run) -> Weights:
    """A run's own weights, its head's included."""
    return replace(file_weights(run.path / "weights.safetensors"), kind="trained")


def first_trunk_of(run: Run, cache: Path, progress: Progress) -> Prefix:
    """The trunk of a run's network with the weights that it started from; raises `RunError` when this machine has
    others."""
    recipe = Recipe(**run.record["recipe"])
    plan = plan_of(recipe, len(run.classes), cache)
    return prefix_of(recipe, plan, len(run.classes), same_weights(run, recipe, plan, cache, progress), TRUNK, cache)


def trunk_of(run: Run, cache: Path, progress: Progress) -> Prefix:
    """The part of a run's network that makes features: the shared trunk where only a head was trained, else its own.

    Raises `RunError` when the weights that a head was trained on are not on this machine.
    """
    return first_trunk_of(run, cache, progress) if run.record["trained"] == "head" else _own(run, TRUNK, cache)


def whole_of(run: Run, cache: Path) -> Prefix:
    """A run's whole network, from pixels to logits."""
    return _own(run, None, cache)


def said_of(run: Run, samples: Samples, cache: Path, progress: Progress) -> NDArray[np.float32]:
    """The logits of a run's network for images, float32 [n, classes]: the head's on the shared trunk, or the whole
    network's own."""
    if run.record["trained"] != "head":
        return evaluated(whole_of(run, cache), samples, progress).values
    head = run.head()
    return evaluated(
        trunk_of(run, cache, progress), samples, progress, lambda outputs: compute_head_logits(outputs, *head)
    ).values


def _own(run: Run, stop: str | None, cache: Path) -> Prefix:
    """A run's network with its own weights, from pixels to a place."""
    recipe = Recipe(**run.record["recipe"])
    plan = plan_of(recipe, len(run.classes), cache)
    return prefix_of(recipe, plan, len(run.classes), own_weights(run), stop, cache)
