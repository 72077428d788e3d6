"""The parts of a run's network that predictions and explanations are computed with, and what it says of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.inference.engines import Prefix, make_prefix
from budwood.inference.feature_cache import compute_tta_features
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights, describe_file
from budwood.progress import Progress
from budwood.runs.preflight import relocate_weights
from budwood.runs.run import Run
from budwood.training.linear_head import compute_head_logits


def describe_run_weights(run: Run) -> Weights:
    """A run's own weights, its head's included."""
    return replace(describe_file(run.path / "weights.safetensors"), kind="trained")


def make_initial_trunk(run: Run, cache: Path, progress: Progress) -> Prefix:
    """The trunk of a run's network with the weights that it started from; raises `RunError` when this machine has
    others."""
    plan = load_plan(run.recipe, len(run.classes), cache)
    weights = relocate_weights(run, run.recipe, plan, cache, progress)
    return make_prefix(NetworkSpec(run.recipe, plan, len(run.classes), weights), TRUNK, cache)


def make_trunk(run: Run, cache: Path, progress: Progress) -> Prefix:
    """The part of a run's network that makes features: the shared trunk where only a head was trained, else its own.

    Raises `RunError` when the weights that a head was trained on are not on this machine.
    """
    return make_initial_trunk(run, cache, progress) if run.record.trained == "head" else _make_prefix(run, TRUNK, cache)


def make_whole_network(run: Run, cache: Path) -> Prefix:
    """A run's whole network, from pixels to logits."""
    return _make_prefix(run, None, cache)


def predict_logits(run: Run, samples: Samples, cache: Path, progress: Progress) -> NDArray[np.float32]:
    """The logits of a run's network for images, float32 [n, classes]: the head's on the shared trunk, or the whole
    network's own."""
    if run.record.trained != "head":
        return compute_tta_features(make_whole_network(run, cache), samples, progress).values
    head = run.head()
    return compute_tta_features(
        make_trunk(run, cache, progress), samples, progress, lambda outputs: compute_head_logits(outputs, *head)
    ).values


def _make_prefix(run: Run, stop: str | None, cache: Path) -> Prefix:
    """A run's network with its own weights, from pixels to a place."""
    return make_prefix(spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache), stop, cache)
