"""From the rows of a study to the jobs that they are: which network, which images, which seed or fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from budwood.config.recipe import Recipe
from budwood.errors import BudwoodError, RecipeError, StudyError
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import hash_json, load_plan
from budwood.studies.optuna_search import Trial, TrialPlace
from budwood.studies.row_progress import RowProgress
from budwood.studies.study import Experiment, Study, with_seed
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import DatasetCache, TrainingJob, digest_job, name_job


@dataclass(frozen=True)
class JobPlanner:
    """A planner that makes the jobs of one study.

    Attributes:
        study: The study.
        datasets: The data sets of the study.
        known: The names of the study's runs by their digests; new names are added.
    """

    study: Study
    datasets: DatasetCache
    known: dict[str, str]

    def plan_rows(self) -> list[RowProgress]:
        """Plan the jobs of every row.

        Returns:
            The rows in the order of the study; rows that are refused, or whose images cannot be used, have no jobs.

        Raises:
            StudyError: The networks of some rows cannot be made; the message names each.
            BudwoodError: No row has a job and there is no search; usually a `DataError`, as no images can be used.
        """
        rows, wrong = [], []
        first: BudwoodError | None = None
        for row in self.study.rows:
            if row.recipe is None:
                rows.append(RowProgress(row.label, (), row.published, row.refused, "refused"))
                continue
            try:
                rows.append(RowProgress(row.label, self._plan_jobs(row, row.recipe), row.published))
            except RecipeError as error:
                wrong.append(f"{row.label}: {error.message}")
            except BudwoodError as error:
                first = first or error
                rows.append(RowProgress(row.label, (), row.published, error.message, "failed"))
        refuse_without_network(self.study, wrong)
        if first is not None and self.study.search is None and not any(row.jobs for row in rows):
            raise first
        return rows

    def plan_trial(self, trial: Trial, place: TrialPlace) -> RowProgress:
        """Plan the job of a trial.

        Args:
            trial: The trial as drawn.
            place: Where it is stored, for the process that runs it.

        Returns:
            A row of one job; without a job, but with the problem, where the options do not make a valid job.
        """
        label = f"trial {trial.number}"
        try:
            recipe = Recipe(**trial.options)
            fold = 0 if self.study.folds is not None else None
            job = self._plan_job(label, recipe, self.study.searched, fold)
        except BudwoodError as error:
            return RowProgress(label, (), problem=error.message, trial=trial)
        return RowProgress(label, (replace(job, trial=place),), trial=trial)

    def _plan_jobs(self, row: Experiment, recipe: Recipe) -> tuple[TrainingJob, ...]:
        repeats = list_repeats(self.study, recipe)
        return tuple(self._plan_job(row.label, with_seed(recipe, seed), row.images, fold) for seed, fold in repeats)

    def _plan_job(self, label: str, recipe: Recipe, images: DataSpec, fold: int | None) -> TrainingJob:
        folds = self.study.folds
        data = self.datasets.load(images, fold, folds).data
        plan = load_plan(recipe, len(data.classes), self.datasets.context.cache)
        return TrainingJob(
            id=name_job(label, digest_job(recipe, images, data.fingerprint, fold, folds), self.known),
            label=label,
            recipe=recipe,
            images=images,
            fingerprint=data.fingerprint,
            fold=fold,
            folds=folds if fold is not None else None,
            group=hash_shared(recipe, plan, images),
        )


def list_repeats(study: Study, recipe: Recipe) -> list[tuple[int, int | None]]:
    """List the seed and the fold of each job of a row.

    A recipe that leaves nothing to chance is trained once for each split.

    Args:
        study: The study of the row.
        recipe: The row's recipe.

    Returns:
        Pairs of a seed and a fold, from 0; the fold is None where there are no folds.
    """
    if study.folds is not None:
        return [(recipe.seed or 0, fold) for fold in range(study.folds)]
    seeds = study.seeds if recipe.seed is not None else study.seeds[:1]
    return [(seed, None) for seed in seeds]


def hash_shared(recipe: Recipe, plan: NetworkPlan, images: DataSpec) -> str:
    """Hash what jobs share that is computed once per image: features of frozen layers, else decoded pixels.

    Args:
        recipe: The job's recipe.
        plan: Its network.
        images: Its images.

    Returns:
        A digest, the same for jobs that share it.
    """
    pixels = [images.data, plan.size, recipe.resize, recipe.resizing.interpolation]
    if not plan.prefix or recipe.augments:
        return hash_json(pixels)
    start = recipe.seed if recipe.weights == "none" else None
    parts = [plan.source, plan.name, plan.channels, plan.cut, plan.pool, plan.prefix, *plan.versions]
    parts += [tap.name for tap in plan.taps]
    return hash_json([pixels, parts, recipe.weights, recipe.own_options, recipe.init, start])


def refuse_without_network(study: Study, wrong: Sequence[str]) -> None:
    """Refuse a study with rows whose network cannot be made.

    Args:
        study: The study.
        wrong: One message for each such row; may be empty.

    Raises:
        StudyError: There is such a row; the message names each.
    """
    if wrong:
        count = "1 row that makes" if len(wrong) == 1 else f"{len(wrong)} rows that make"
        raise StudyError(
            f"{study.name} has {count} no network: {' '.join(wrong)}", "`budwood models NAME` shows its stages."
        )
