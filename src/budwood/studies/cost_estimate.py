"""What a study would cost: every row's network, what rows share, and time, memory and disk where they can be measured.

Rows of one network, prefix and way of training are measured once, on a sample of the images, and reckoned from that by
their epochs. Where the images are not there, the networks alone are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from budwood.comparison.published import PublishedFigure, choose_figure
from budwood.config.recipe import Recipe
from budwood.data.downloads import known_class_count
from budwood.data.sources import source_exists
from budwood.errors import BudwoodError, DataError, RecipeError, WeightsError
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import hash_json, load_plan
from budwood.storage.context import Context
from budwood.studies.ensemble_table import EnsembleRow
from budwood.studies.job_planning import hash_shared, list_repeats, refuse_without_network
from budwood.studies.study import Experiment, Study
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import CheckedDataset, DatasetCache
from budwood.training.cost_estimate import CostEstimate
from budwood.workflows.train import measure_recipe_cost


@dataclass(frozen=True)
class RowEstimate:
    """The estimated cost of a row: its network, how often it is trained, and time, memory and disk space.

    Attributes:
        label: The row's label.
        plan: Its network; None where the row is refused.
        runs: How many times it is trained.
        shares: Number, from 1, of the group of rows that share frozen layers; 0 where nothing is cached.
        seconds: Seconds of one training; None where nothing was measured.
        reading: Seconds of that in which images are read.
        memory: Bytes of memory at the peak of one training; None where nothing was measured.
        disk: Bytes on disk of one training, by place (cache, run); None where nothing was measured.
        published: The published figure of the row, of its test images where that is told; None where there is none.
        problem: Why the row is refused, or why nothing was measured.
    """

    label: str
    plan: NetworkPlan | None
    runs: int
    shares: int
    seconds: float | None
    reading: float
    memory: int | None
    disk: Mapping[str, int] | None
    published: PublishedFigure | None
    problem: str = ""

    def record(self) -> dict[str, object]:
        """Return the estimate as plain values.

        Returns:
            Values by name, with the network's main figures; None for the network of a refused row.
        """
        network = None
        if self.plan is not None:
            plan = self.plan.record()
            network = {name: plan[name] for name in ("name", "source", "parameters", "macs", "prefix", "size")}
            network["stages"] = [row.name for row in self.plan.stages]
        return {
            "label": self.label,
            "network": network,
            "runs": self.runs,
            "shares": self.shares,
            "seconds": self.seconds,
            "reading_seconds": self.reading,
            "memory_bytes": self.memory,
            "disk_bytes": dict(self.disk) if self.disk else None,
            "published": self.published.value if self.published else None,
            "problem": self.problem,
        }


def estimate_rows(study: Study, context: Context) -> list[RowEstimate]:
    """Estimate the cost of every row of a study, and of one trial of its search where it has one.

    Args:
        study: The study.
        context: The cache folder, and where notes and the steps of the work go.

    Returns:
        One estimate a row, that of the trial after the others, and the ensembles last.

    Raises:
        StudyError: The networks of some rows cannot be made; the message names each.
    """
    datasets, measured, groups = DatasetCache(context), dict[str, CostEstimate | str](), dict[str, int]()
    rows = [*study.rows, *([_draw_first_trial(study)] if study.search else [])]
    estimates, wrong = [], []
    with context.progress.bar("Estimating costs", len(rows)) as step:
        for row in rows:
            try:
                estimates.append(_estimate_row(row, study, datasets, measured, groups))
            except RecipeError as error:
                wrong.append(f"{row.label}: {error.message}")
            step(1)
    refuse_without_network(study, wrong)
    return [*estimates, *(_describe_ensemble(row) for row in study.ensembles)]


def _describe_ensemble(row: EnsembleRow) -> RowEstimate:
    """An ensemble, of which nothing is trained, as a row."""
    return RowEstimate(row.label, None, 0, 0, None, 0.0, None, None, None, row.describe())


def sum_seconds(estimates: Sequence[RowEstimate]) -> float | None:
    """Sum the seconds of all rows, counting what rows share only once.

    Args:
        estimates: The estimates of a study's rows.

    Returns:
        Seconds; None where there are no rows or one was not measured.
    """
    if not estimates or any(row.seconds is None and row.plan is not None for row in estimates):
        return None
    shared: dict[int, float] = {}
    for row in estimates:
        shared[row.shares] = max(shared.get(row.shares, 0.0), row.reading)
    return sum(row.runs * ((row.seconds or 0.0) - row.reading) for row in estimates) + sum(shared.values())


def _draw_first_trial(study: Study) -> Experiment:
    """The trial of a search with the first of every choice and the low end of every range."""
    assert study.search
    options: dict[str, object] = {}
    for name, axis in study.search.space.items():
        if axis.applies(options):
            options[name] = axis.ends[0]
    recipe = Recipe(**{**study.search.options, **options})
    return Experiment(
        f"search, {study.search.trials} trials like this one", options, recipe, study.searched, study.search.best
    )


def _estimate_row(
    row: Experiment,
    study: Study,
    datasets: DatasetCache,
    measured: dict[str, CostEstimate | str],
    groups: dict[str, int],
) -> RowEstimate:
    published = choose_figure(row.published.figures, study.metric, "test") if row.published else None
    if row.recipe is None:
        return RowEstimate(row.label, None, 0, 0, None, 0.0, None, None, published, f"refused: {row.refused}")
    checked = _load(row.images, study, datasets)
    classes = len(checked.data.classes) if isinstance(checked, CheckedDataset) else _count_classes(row, study)
    plan = load_plan(row.recipe, classes, datasets.context.cache)
    cached = plan.prefix and not row.recipe.augments
    shares = groups.setdefault(hash_shared(row.recipe, plan, row.images), len(groups) + 1) if cached else 0
    runs = len(list_repeats(study, row.recipe)) * (
        study.search.trials if study.search and row.label.startswith("search,") else 1
    )
    if not isinstance(checked, CheckedDataset):
        return RowEstimate(row.label, plan, runs, shares, None, 0.0, None, None, published, checked)
    key = hash_json([hash_shared(row.recipe, plan, row.images), row.images.record(), _list_deciding(row.recipe, plan)])
    if key not in measured:
        measured[key] = _measure(row.recipe, checked, datasets.context)
    cost = measured[key]
    if isinstance(cost, str):
        return RowEstimate(row.label, plan, runs, shares, None, 0.0, None, None, published, cost)
    seconds, reading = _scale(cost, row.recipe)
    return RowEstimate(row.label, plan, runs, shares, seconds, reading, cost.memory, cost.disk, published)


def _load(images: DataSpec, study: Study, datasets: DatasetCache) -> CheckedDataset | str:
    """A row's images, or why there are none; nothing is fetched for an estimate."""
    if not images.data:
        return "no images are given"
    if not source_exists(images.data, datasets.context.cache):
        return f"{images.data} was not found"
    try:
        return datasets.load(images, 0 if study.folds else None, study.folds)
    except DataError as error:
        return error.message


def _count_classes(row: Experiment, study: Study) -> int:
    """How many classes a row's images have, where they are not there; raises `RecipeError`."""
    images = row.images
    count = images.classes or known_class_count(images.data)
    if count is None:
        raise RecipeError(
            f"{images.data or 'the images'} were not found, and `classes` does not give the number of classes."
        )
    return count if images.classes else count - len(images.exclude)


def _list_deciding(recipe: Recipe, plan: NetworkPlan) -> list[Any]:
    """What decides the cost of a step, but for how many there are."""
    network: list[Any] = [
        plan.name,
        plan.cut,
        plan.pool,
        recipe.head,
        recipe.freeze,
        recipe.phases,
        asdict(plan.parameters),
    ]
    network += [asdict(tap) for tap in plan.taps]
    tuning = [recipe.frozen_norm, recipe.trained_norm, recipe.probe, recipe.wise_ft, recipe.size_start]
    return [
        network,
        tuning,
        recipe.head_alone,
        recipe.optimizer,
        recipe.batch,
        recipe.accumulate,
        recipe.augments,
        recipe.tta,
    ]


def _measure(recipe: Recipe, checked: CheckedDataset, context: Context) -> CostEstimate | str:
    """Return the cost of a recipe, or why it cannot be measured.

    What a step costs does not depend on the weights, so random ones stand in for those that are not here.
    """
    data, findings = checked.data, checked.findings
    try:
        with suppress(WeightsError):
            return measure_recipe_cost(data, recipe, Path("runs"), "allow", context, findings)[1]
        random = recipe.model_copy(update={"weights": "none"})
        return measure_recipe_cost(data, random, Path("runs"), "allow", context, findings)[1]
    except BudwoodError as error:
        return error.message


def _scale(cost: CostEstimate, recipe: Recipe) -> tuple[float, float]:
    """Seconds of a recipe, and of the images' reading in it, from a measurement with other epochs."""
    reading = cost.seconds.get("reading images", 0.0)
    epochs = sum(phase.epochs for phase in recipe.phases or ()) or recipe.epochs or cost.epochs
    factor = epochs / cost.epochs if cost.epochs else 1.0
    growing = sum(cost.seconds.get(name, 0.0) for name in ("training", "evaluating", "training the head"))
    seconds = cost.total - growing + growing * factor
    return (min(seconds, recipe.time) if recipe.time else seconds), reading
