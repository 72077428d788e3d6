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
    """Describe a run's own trained weights, those of its head included.

    Args:
        run: A finished run.

    Returns:
        The weights file of the run folder with its digest, of the kind `trained`.

    Raises:
        WeightsError: The run folder has no weights file.
    """
    return replace(describe_file(run.path / "weights.safetensors"), kind="trained")


def make_initial_trunk(run: Run, cache: Path, progress: Progress) -> Prefix:
    """Make the trunk of a run's network with the weights that it started from.

    Args:
        run: The run.
        cache: The cache folder.
        progress: Receives notes, for example of a download.

    Returns:
        The network from pixels to features.

    Raises:
        RunError: The weights on this machine are not those that the run started from.
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The weights cannot be found.
    """
    plan = load_plan(run.recipe, len(run.classes), cache)
    weights = relocate_weights(run, run.recipe, plan, cache, progress)
    return make_prefix(NetworkSpec(run.recipe, plan, len(run.classes), weights), TRUNK, cache)


def make_trunk(run: Run, cache: Path, progress: Progress) -> Prefix:
    """Make the part of a run's network that computes features.

    It is the shared trunk with its initial weights where only a head was trained, else the run's own trunk.

    Args:
        run: A finished run.
        cache: The cache folder.
        progress: Receives notes, for example of a download.

    Returns:
        The network from pixels to features.

    Raises:
        RunError: The weights that a head was trained on are not on this machine.
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The weights cannot be found.
    """
    return make_initial_trunk(run, cache, progress) if run.record.trained == "head" else _make_prefix(run, TRUNK, cache)


def make_whole_network(run: Run, cache: Path) -> Prefix:
    """Make a run's whole network, from pixels to logits, with its trained weights.

    Args:
        run: A finished run.
        cache: The cache folder.

    Returns:
        The network from pixels to logits.

    Raises:
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The run folder has no weights file.
    """
    return _make_prefix(run, None, cache)


def predict_logits(run: Run, samples: Samples, cache: Path, progress: Progress) -> NDArray[np.float32]:
    """Compute the logits of a run's network for images, averaged over the mirror images of the recipe's `tta`.

    Where only a head was trained, it is applied to features of the shared trunk; else the whole network is used.

    Args:
        run: A finished run.
        samples: The images.
        cache: The cache folder.
        progress: Receives notes and the steps of the work.

    Returns:
        Logits, float32 [n, classes].

    Raises:
        RunError: The weights that a head was trained on are not on this machine.
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The weights cannot be found.
    """
    if run.record.trained != "head":
        return compute_tta_features(make_whole_network(run, cache), samples, progress).values
    head = run.head()
    return compute_tta_features(
        make_trunk(run, cache, progress), samples, progress, lambda outputs: compute_head_logits(outputs, *head)
    ).values


def _make_prefix(run: Run, stop: str | None, cache: Path) -> Prefix:
    """A run's network with its own weights, from pixels to a place."""
    return make_prefix(spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache), stop, cache)
