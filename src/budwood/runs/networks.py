"""The parts of a run's network that predictions and explanations are computed with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from budwood.config.recipe import Recipe
from budwood.errors import BudwoodError, RunError, WeightsError
from budwood.inference.bundle import Prefix, make_prefix
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights, describe_file, describe_random, is_local
from budwood.runs.preflight import relocate_weights
from budwood.runs.run import CHECKPOINT, Run
from budwood.runs.run_files import WEIGHTS
from budwood.storage.context import Context
from budwood.training.task import has_checkpoint


def describe_run_weights(run: Run) -> Weights:
    """Describe a run's own trained weights, those of its head included.

    Args:
        run: A finished run.

    Returns:
        The weights file of the run folder with its digest, of the kind `trained`.

    Raises:
        RunError: The weights were changed or damaged, or the run is an ensemble.
        WeightsError: The run folder has no weights file.
    """
    run.refuse_ensemble("its weights")
    return replace(describe_file(run.file(WEIGHTS)), kind="trained")


def make_initial_trunk(run: Run, context: Context) -> Prefix:
    """Make the trunk of a run's network with the weights that it started from.

    Where these are missing and only a head was trained, it is the run's own trunk, which has the same values.

    Args:
        run: The run.
        context: The cache folder, and where notes go, for example of a download.

    Returns:
        The network from pixels to features.

    Raises:
        RunError: The weights on this machine are not those that the run started from.
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The weights cannot be found.
    """
    run.refuse_ensemble("its trunk")
    plan = load_plan(run.recipe, len(run.classes), context.cache)
    try:
        weights = relocate_weights(run, run.recipe, plan, context)
    except WeightsError:
        if run.record.trained != "head":
            raise
        return _make_prefix(run, TRUNK, context.cache)
    return make_prefix(NetworkSpec(run.recipe, plan, len(run.classes), weights), TRUNK, context.cache)


def find_training_weights(run: Run, recipe: Recipe, plan: NetworkPlan, context: Context) -> Weights:
    """Find the weights that a training goes on with.

    They are those that the run started from; where these are missing, the run's own, if nothing that was trained is
    taken from them: a head is trained anew, and all else comes from the checkpoint.

    Args:
        run: The run.
        recipe: The recipe that it goes on with.
        plan: The plan of its network.
        context: The cache folder, and where notes go, for example of a download.

    Returns:
        The weights.

    Raises:
        RunError: The weights on this machine are others, or are missing and the run cannot do without.
        WeightsError: The run's own weights cannot be read.
    """
    try:
        return relocate_weights(run, recipe, plan, context)
    except WeightsError as error:
        resumable = has_checkpoint(run.path / CHECKPOINT)
        if run.record.state == "done" and (run.record.trained == "head" or resumable):
            context.progress.note("The weights that the run started from are missing; its own file has the same trunk.")
            return describe_run_weights(run)
        if resumable and not run.record.network.parameters.frozen and not recipe.phases:
            return describe_random(recipe.init, recipe.seed or 0)  # the checkpoint has every tensor
        raise RunError(
            f"{run.path}: cannot go on without the weights that it started from, as its checkpoint does not have the "
            f"layers that are frozen. {error.message}",
            error.hint,
        ) from error


def make_trunk(run: Run, context: Context) -> Prefix:
    """Make the part of a run's network that computes features.

    It is the shared trunk with its initial weights where only a head was trained and the trunk is on this machine:
    its features may be in the cache. Else it is the run's own trunk, which needs nothing but the run folder.

    Args:
        run: A finished run.
        context: The cache folder, and where notes go, for example of a download.

    Returns:
        The network from pixels to features.

    Raises:
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The run folder has no weights file.
    """
    if run.record.trained == "head" and _has_initial_weights(run, context.cache):
        with suppress(BudwoodError):  # the weights here are others
            return make_initial_trunk(run, context)
    return _make_prefix(run, TRUNK, context.cache)


def _has_initial_weights(run: Run, cache: Path) -> bool:
    """Whether the weights that a run started from can be had without a download."""
    return run.recipe.weights != "imagenet" or is_local(load_plan(run.recipe, len(run.classes), cache).origins, cache)


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


def _make_prefix(run: Run, stop: str | None, cache: Path) -> Prefix:
    """A run's network with its own weights, from pixels to a place."""
    return make_prefix(spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache), stop, cache)
