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
import pyarrow as pa
import pyarrow.compute as pc

from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset, Samples
from budwood.data.leaks import LEAKS, Leaks, drop_known, drop_leaks
from budwood.data.listing import SPLITS
from budwood.errors import DataError, RecipeError, RunError, WeightsError
from budwood.evaluation.label_task import task_of
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import load_plan
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights, describe_file, describe_random, find_imagenet
from budwood.runs.lookup import find_exact_folder, find_run_folder
from budwood.runs.run import Run, open_run
from budwood.runs.run_files import WEIGHTS, list_places
from budwood.storage.context import Context
from budwood.text import counted, listed

LEAKS_SHOWN: Final = 3  # files of the first leaking group that an error names


@dataclass(frozen=True)
class Preflight:
    """What is known before training: the network, the findings about the data, and the splits to use.

    Attributes:
        data: The data set as it is used: without the images that are left out because of leaks.
        leaking: Whether images leak between its splits, which was allowed.
        spec: The network; its recipe has the image size filled in.
        findings: Findings about the data, those about images that the initial trunk has seen included.
        training: The training images.
        validation: The validation images.
    """

    data: Dataset
    leaking: bool
    spec: NetworkSpec
    findings: tuple[checks.Finding, ...]
    training: Samples
    validation: Samples


def check_and_plan(
    data: Dataset,
    recipe: Recipe,
    out: Path,
    leaks: Leaks,
    context: Context,
    findings: tuple[checks.Finding, ...] | None = None,
) -> Preflight:
    """Check data and recipe, and plan the network, before anything is trained.

    A recipe for images with several labels each is adapted: the head is then trained in steps, not solved directly.

    Args:
        data: The data set; the labels of its test split are sealed here.
        recipe: The recipe.
        out: The folder of runs, where the recipe's `run:ID` weights are looked up.
        leaks: What to do where images leak between splits: `drop` leaves out those of the training side, `refuse`
            raises, `allow` goes on with them.
        context: The cache folder, and where notes and the steps of the work go.
        findings: Findings about the data where they are known already; None: the data are checked here.

    Returns:
        The planned network, the findings and the splits.

    Raises:
        DataError: Images leak between splits and that is to be refused, or cannot be mended; a split is empty, or
            there is one class only.
        RecipeError: The network does not exist, or `views` is set although the first layers are not frozen.
        RunError: The run that the weights are from is missing or not finished.
        WeightsError: The weights cannot be found, or belong to another network.
    """
    if leaks not in LEAKS:
        raise DataError(
            f"leaks: expected 'drop', 'refuse' or 'allow', found {leaks!r}.", "Give one of these three words."
        )
    adapted = task_of(data.label_sets, len(data.classes)).adapt_recipe(recipe)
    if adapted.optimizer != recipe.optimizer:
        context.progress.note(
            f"The images have several labels (multi-label), so the head is trained in steps ({adapted.optimizer})."
        )
    recipe = adapted
    plan = load_plan(recipe, len(data.classes), context.cache)
    _refuse_views_of_nothing(recipe, plan, len(data.classes), context.cache)
    recipe = _with_absolute_weights(recipe, out)
    weights, origin = locate_weights(recipe, plan, out, context)
    data, findings = _settle_leaks(data, findings, origin, leaks)
    for finding in findings:
        if data.left_out and finding.code in checks.LEFT_OUT:
            context.progress.note(f"{finding.code}: {finding.message}")
    sealed = data.sealed()
    training, validation = sealed.samples("train").in_content_order(), sealed.samples("val")
    _refuse_empty(data, training, validation)
    sized = recipe.model_copy(update={"size": plan.size})
    leaking = leaks == "allow" and bool(checks.leaks(findings))
    spec = NetworkSpec(sized, plan, len(data.classes), weights)
    return Preflight(data, leaking, spec, findings, training, validation)


def names_weights_file(recipe: Recipe) -> bool:
    """Tell whether a recipe's weights are a file, not ImageNet's, none, or those of a run."""
    return recipe.weights not in ("imagenet", "none") and not recipe.weights.startswith("run:")


def _with_absolute_weights(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with weights that are found from every working folder; a run under `out` has its whole id there."""
    if names_weights_file(recipe):
        return recipe.model_copy(update={"weights": str(Path(recipe.weights).expanduser().absolute())})
    if not recipe.weights.startswith("run:"):
        return recipe
    name = recipe.weights.removeprefix("run:")
    exact = find_exact_folder(name, out)
    folder = exact or find_run_folder(name, out)
    if folder.absolute().parent != out.absolute():
        return recipe.model_copy(update={"weights": f"run:{folder.absolute()}"})
    return recipe if exact else recipe.model_copy(update={"weights": f"run:{folder.name}"})


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
        run = _open_recorded(recipe, out)
        run.refuse_ensemble("a trunk")
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


def _settle_leaks(
    data: Dataset, found: tuple[checks.Finding, ...] | None, origin: Run | None, leaks: Leaks
) -> tuple[Dataset, tuple[checks.Finding, ...]]:
    """The data set as it is used, and the findings about it; `origin` is the run that the weights are from, if any."""
    kept = drop_leaks(data) if leaks == "drop" else data
    findings = checks.findings(kept) if found is None or kept is not data else found
    if leaks == "refuse":
        _refuse_leaks(checks.leaks(findings))
    while origin is not None:
        if origin.record.network.trunk_trained or origin.recipe.frozen_norm == "train":
            known = checks.check_trunk_overlap(kept, origin.dataset(), origin.path.name)
            if known and leaks != "allow":
                kept, known = _leave_out_known(kept, known, origin.path.name, leaks)
            findings += known
        origin = _find_trunk_run(origin)
    return kept, findings


def _leave_out_known(
    data: Dataset, known: tuple[checks.Finding, ...], run: str, leaks: Leaks
) -> tuple[Dataset, tuple[checks.Finding, ...]]:
    """The data set without held-out images that a run has learned from.

    Raises:
        DataError: When leaks are to be refused, or an image is of a test set that the user gave, which stays whole.
    """
    held_out = pc.is_in(data.table["path"], pa.array(known[0].files)).to_numpy(zero_copy_only=False)
    given_test = held_out & data.column("given") & (data.column("split") == SPLITS.index("test"))
    if leaks == "refuse" or given_test.any():
        _refuse_leaks(known)
    return drop_known(data, np.flatnonzero(held_out), run), tuple(checks.tell_left_out(finding) for finding in known)


def _find_trunk_run(run: Run) -> Run | None:
    """The run whose trunk a run started from; None where that was no run, or it is gone."""
    weights = run.recipe.weights
    if not weights.startswith("run:"):
        return None
    with suppress(RunError):
        return _open_recorded(run.recipe, run.path.parent)
    return None


def _open_recorded(recipe: Recipe, out: Path) -> Run:
    """The run that a recipe names, which no other stands in for, however alike its id is."""
    name = recipe.weights.removeprefix("run:")
    folder = find_exact_folder(name, out)
    if folder is None:
        raise RunError(
            f"{name}: is not a run folder, nor the id of a run in {out}/, and the weights are from it.",
            "Restore the run, or choose other weights.",
        )
    return open_run(folder)


def _refuse_leaks(leaking: Sequence[checks.Finding]) -> None:
    if leaking:
        raise DataError(
            " ".join(f"{finding.code}: {finding.message}" for finding in leaking)
            + f" The first: {listed([repr(path) for path in leaking[0].groups[0]], LEAKS_SHOWN)}.",
            leaking[0].advice,
        )


def _refuse_empty(data: Dataset, training: Samples, validation: Samples) -> None:
    for name, samples in (("train", training), ("val", validation)):
        if not len(samples):
            raise DataError(
                f"{data.root}: the {name} split has no usable images{_tell_left_out(data, name)}.",
                _describe_cluster(data) or "Add images, or give the images without a split.",
            )
    if len(np.unique(training.labels)) < 2:
        raise DataError(
            f"{data.root}: the training set has usable images of only one class.", "Add images of another class."
        )


def _tell_left_out(data: Dataset, split: str) -> str:
    count = sum(item.split == split for item in data.left_out)
    return f" ({counted(count, 'image')} left out, because of leaks between the splits)" if count else ""


def _describe_cluster(data: Dataset) -> str:
    """A hint if a split is empty because most images stay together; empty otherwise."""
    _, sizes = np.unique(data.column("cluster"), return_counts=True)
    if sizes.max() <= len(data) / 2:
        return ""
    return (
        f"{sizes.max():,} of {len(data):,} images are kept in one split, as near duplicates or as one group of the "
        "table: `budwood inspect` shows them."
    )
