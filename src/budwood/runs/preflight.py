"""What is decided and checked before anything is trained: the plan, the weights, what the data show.

recipe and data -> plan -> findings -> weights -> Prepared
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset, Samples
from budwood.errors import DataError, RecipeError, RunError, WeightsError
from budwood.evaluation.label_task import task_of
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import load_plan
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights, describe_file, describe_random, find_imagenet
from budwood.runs.run import Run, open_run
from budwood.runs.run_files import WEIGHTS, list_places
from budwood.runs.run_record import FILE as RUN_FILE
from budwood.storage.context import Context
from budwood.text import listed

LEAKS_SHOWN: Final = 3  # files of the first leaking group that an error names


@dataclass(frozen=True)
class Preflight:
    """What is known before training: the network, the findings about the data, and the splits to use.

    Attributes:
        spec: The network; its recipe has the image size filled in.
        findings: Findings about the data, those about images that the initial trunk has seen included.
        training: The training images.
        validation: The validation images.
    """

    spec: NetworkSpec
    findings: tuple[checks.Finding, ...]
    training: Samples
    validation: Samples


def check_and_plan(
    data: Dataset,
    recipe: Recipe,
    out: Path,
    allow_leaks: bool,
    context: Context,
    findings: tuple[checks.Finding, ...] | None = None,
) -> Preflight:
    """Check data and recipe, and plan the network, before anything is trained.

    A recipe for images with several labels each is adapted: the head is then trained in steps, not solved directly.

    Args:
        data: The data set; the labels of its test split are sealed here.
        recipe: The recipe.
        out: The folder of runs, where the recipe's `run:ID` weights are looked up.
        allow_leaks: Whether to go on where images leak between splits.
        context: The cache folder, and where notes and the steps of the work go.
        findings: Findings about the data where they are known already; None: the data are checked here.

    Returns:
        The planned network, the findings and the splits.

    Raises:
        DataError: Images leak between splits and that is not allowed, a split is empty, or there is one class only.
        RecipeError: The network does not exist, or `views` is set although the first layers are not frozen.
        RunError: The run that the weights are from is missing or not finished.
        WeightsError: The weights cannot be found, or belong to another network.
    """
    adapted = task_of(data.label_sets, len(data.classes)).adapt_recipe(recipe)
    if adapted.optimizer != recipe.optimizer:
        context.progress.note(
            f"The images have several labels (multi-label), so the head is trained in steps ({adapted.optimizer})."
        )
    recipe = adapted
    plan = load_plan(recipe, len(data.classes), context.cache)
    _refuse_views_of_nothing(recipe, plan, len(data.classes), context.cache)
    findings = checks.findings(data) if findings is None else findings
    sealed = data.sealed()
    training, validation = sealed.samples("train").in_content_order(), sealed.samples("val")
    recipe = _with_absolute_weights(recipe, out)
    weights, seen = locate_weights(recipe, plan, out, context)
    findings += _find_seen_images(data, seen)
    _refuse_leaks(findings, allow_leaks)
    _refuse_empty(data, training, validation)
    sized = recipe.model_copy(update={"size": plan.size})
    return Preflight(NetworkSpec(sized, plan, len(data.classes), weights), findings, training, validation)


def names_weights_file(recipe: Recipe) -> bool:
    """Tell whether a recipe's weights are a file, not ImageNet's, none, or those of a run."""
    return recipe.weights not in ("imagenet", "none") and not recipe.weights.startswith("run:")


def _with_absolute_weights(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with weights that are found from every working folder; the id of a run under `out` stays."""
    if names_weights_file(recipe):
        return recipe.model_copy(update={"weights": str(Path(recipe.weights).expanduser().absolute())})
    if not recipe.weights.startswith("run:"):
        return recipe
    folder = Path(recipe.weights.removeprefix("run:"))
    elsewhere = (folder / RUN_FILE).is_file() and folder.absolute().parent != out.absolute()
    return recipe.model_copy(update={"weights": f"run:{folder.absolute()}"}) if elsewhere else recipe


def _refuse_views_of_nothing(recipe: Recipe, plan: NetworkPlan, classes: int, cache: Path) -> None:
    """Raises `RecipeError` when views are to be computed once, and nothing is frozen from the image on."""
    stops = [load_plan(phase, classes, cache).prefix for phase in recipe.in_phases()] or [plan.prefix]
    if recipe.views and not any(stops):
        raise RecipeError(
            "views: the first stages are not frozen, so their output for each version cannot be computed in advance.",
            "Leave out views, or freeze the first stages (`budwood models NAME` shows them).",
        )


def locate_weights(recipe: Recipe, plan: NetworkPlan, out: Path, context: Context) -> tuple[Weights, Run | None]:
    """Locate the weights that a recipe starts from.

    Args:
        recipe: Its `weights` is imagenet, none, `run:ID` or a path.
        plan: The plan of its network.
        out: The folder of runs, where `run:ID` is looked up.
        context: The cache folder, where ImageNet weights are kept, and where notes go, for example of a download.

    Returns:
        The weights, and the run that they are from; None where they are from no run.

    Raises:
        RunError: The run that they are from is missing or not finished.
        WeightsError: There are no such weights, or the run has another network.
    """
    if recipe.weights == "imagenet":
        return find_imagenet(plan.name, plan.origins, context), None
    if recipe.weights == "none":
        return describe_random(recipe.init, recipe.seed or 0), None
    if recipe.weights.startswith("run:"):
        run = open_run(recipe.weights.removeprefix("run:"), out)
        _refuse_other_network(run, recipe, plan)
        weights = describe_file(run.file(WEIGHTS))
        origin = f"run {run.path.name}, trained on {run.record.dataset.name}"
        return replace(weights, kind="run", about=origin), run
    return describe_file(Path(recipe.weights).expanduser()), None


def relocate_weights(run: Run, recipe: Recipe, plan: NetworkPlan, context: Context) -> Weights:
    """Locate the weights that a run started from, and check that they are the same.

    Args:
        run: The run.
        recipe: The recipe that names the weights.
        plan: The plan of its network.
        context: The cache folder, where ImageNet weights are kept, and where notes go, for example of a download.

    Returns:
        The weights, of the digest that the run recorded.

    Raises:
        RunError: The weights on this machine are others, or the run that they are from is missing.
        WeightsError: The weights cannot be found; the message says where they were looked for.
    """
    weights = _find_again(run, recipe, plan, context)
    if weights.digest != run.record.network.weights.digest:
        raise RunError(
            f"{run.path}: was trained from other weights of {plan.name} than those on this machine.",
            f"Restore the weights that the run started from ({run.record.network.weights.file}).",
        )
    return weights


def _find_again(run: Run, recipe: Recipe, plan: NetworkPlan, context: Context) -> Weights:
    """The weights of a run's recipe, whose path may be relative to a working folder that is not known."""
    if not names_weights_file(recipe):
        try:
            return locate_weights(recipe, plan, run.path.parent, context)[0]
        except RunError as error:  # the run that they are from
            raise WeightsError(error.message, error.hint) from error
    places = list_places(recipe.weights, run.path)
    found = [describe_file(place) for place in places if place.is_file()]
    same = [weights for weights in found if weights.digest == run.record.network.weights.digest]
    if not found:
        raise WeightsError(
            f"{run.path}: the weights that it started from are missing (looked for {', '.join(map(str, places))}).",
            "Put the file back there.",
        )
    return (same or found)[0]


def _refuse_other_network(run: Run, recipe: Recipe, plan: NetworkPlan) -> None:
    """Raises `WeightsError` when a run's network is another one than the recipe's."""
    theirs = run.record.network
    if (theirs.source, theirs.name) != (plan.source, plan.name):
        raise WeightsError(
            f"weights: run {run.path.name} holds a {theirs.name} of {theirs.source}, "
            f"but the recipe needs {plan.name} of {plan.source}.",
            f"Use model = {theirs.name}, or choose another run.",
        )


def _find_seen_images(data: Dataset, run: Run | None) -> tuple[checks.Finding, ...]:
    """The findings that runs which the trunk comes from, one after another, knew images that are held out here."""
    findings: tuple[checks.Finding, ...] = ()
    while run is not None:
        if run.record.network.trunk_trained:
            findings += checks.check_trunk_overlap(data, run.dataset(), run.path.name)
        run = _find_trunk_run(run)
    return findings


def _find_trunk_run(run: Run) -> Run | None:
    """The run whose trunk a run started from; None where that was no run, or it is gone."""
    weights = run.recipe.weights
    if not weights.startswith("run:"):
        return None
    with suppress(RunError):
        return open_run(weights.removeprefix("run:"), run.path.parent)
    return None


def _refuse_leaks(findings: Sequence[checks.Finding], allowed: bool) -> None:
    leaking = checks.leaks(findings)
    if leaking and not allowed:
        raise DataError(
            " ".join(f"{finding.code}: {finding.message}" for finding in leaking)
            + f" The first: {listed([repr(path) for path in leaking[0].groups[0]], LEAKS_SHOWN)}.",
            leaking[0].advice,
        )


def _refuse_empty(data: Dataset, training: Samples, validation: Samples) -> None:
    for name, samples in (("train", training), ("val", validation)):
        if not len(samples):
            raise DataError(
                f"{data.root}: the {name} split has no usable images.",
                _describe_cluster(data) or "Add images, or give the images without a split.",
            )
    if len(np.unique(training.labels)) < 2:
        raise DataError(
            f"{data.root}: the training set has usable images of only one class.", "Add images of another class."
        )


def _describe_cluster(data: Dataset) -> str:
    """A hint if a split is empty because most images stay together; empty otherwise."""
    _, sizes = np.unique(data.column("cluster"), return_counts=True)
    if sizes.max() <= len(data) / 2:
        return ""
    return (
        f"{sizes.max():,} of {len(data):,} images are kept in one split, as near duplicates or as one group of the "
        "table: `budwood inspect` shows them."
    )
