"""The trials of a search, drawn and judged by Optuna, which is loaded only where something is searched.

A trial is drawn from what was learned from those before it and from a seed of its own number, so that a search that
was killed goes on with the trials that it would have had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from budwood.config.metric_registry import is_loss
from budwood.errors import StudyError
from budwood.networks.plan import hash_json
from budwood.studies.search_space import Axis, ChoiceAxis, Search, list_grid_points
from budwood.training.history import EpochCallback, Rows

if TYPE_CHECKING:
    import optuna

STARTUP: Final = 10  # trials that TPE draws at random, and that are not pruned
WARMUP: Final = 2  # epochs of a trial before it may be pruned
OPTIONS: Final = "options"  # the attribute of a trial that holds its recipe options
OWNER: Final = "owner"  # the attribute that holds the folder of the study that carries it out

TrialStatus = Literal["running", "done", "pruned", "failed"]


class Pruned(Exception):  # noqa: N818 - it is no error
    """The early end of a trial that was worse than half of those before it at the same epoch."""


@dataclass(frozen=True)
class TrialPlace:
    """Where a trial is stored, for the process that runs it.

    Attributes:
        storage: The storage's URL.
        study: The name of the trial's study in the storage.
        trial: The trial's number, from 0.
        metric: The metric that the search compares.
        prunes: Whether a bad trial is ended early.
    """

    storage: str
    study: str
    trial: int
    metric: str
    prunes: bool


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        number: Its number, from 0.
        options: Its recipe options.
        state: running, done, pruned or failed.
        value: The metric on validation; None unless it is done.
        problem: Why it was pruned or failed.
    """

    number: int
    options: Mapping[str, Any]
    state: TrialStatus
    value: float | None
    problem: str = ""


class TrialStore:
    """The trials of one search in a storage, which studies on other machines may share."""

    def __init__(self, search: Search, storage: str, name: str, metric: str, owner: str) -> None:
        """Open the storage, and make the search in it where it is missing.

        Args:
            search: The search.
            storage: The storage's URL, as Optuna takes it.
            name: The name of the study; a digest of search and metric is added.
            metric: The metric that is compared; losses are minimised, scores maximised.
            owner: Names this study's folder, to tell its trials from those that other machines run for the same search.

        Raises:
            StudyError: The storage cannot be opened.
        """
        optuna = _import_optuna()
        self.search = search
        self.storage = storage
        self.metric = metric
        self.owner = owner
        self._asked: set[int] = set()
        self.name = f"{name}-{hash_json([search.record(), metric])[:8]}"
        try:
            self._storage: Any = optuna.storages.RDBStorage(storage)
            self._study: Any = optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                direction="minimize" if is_loss(metric) else "maximize",
                load_if_exists=True,
            )
        except Exception as error:  # of whatever library the URL needs
            raise StudyError(
                f"--storage {_hide_password(storage)}: cannot be opened ({type(error).__name__}: {error}).",
                "Expected a URL such as sqlite:///study.db or postgresql+psycopg://USER@HOST/NAME, and its driver.",
            ) from error

    def all(self) -> list[Trial]:
        """List every trial so far, in the order of their numbers.

        Returns:
            The trials, those of other machines included.
        """
        return [_record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def place(self, trial: Trial) -> TrialPlace:
        """Return where a trial is stored, for the process that runs it.

        Args:
            trial: A trial of this store.

        Returns:
            The place; bad trials are ended early with the sampler tpe only.
        """
        return TrialPlace(self.storage, self.name, trial.number, self.metric, self.search.sampler == "tpe")

    def ask(self) -> Trial | None:
        """Draw the next trial, or return one that an earlier process of this study started and did not end.

        Returns:
            The trial; None where there are enough.
        """
        unfinished = next((trial for trial in self._study.get_trials(deepcopy=False) if self._is_ours(trial)), None)
        if unfinished is not None:
            return self._drawn_trial(unfinished.number)
        if len(self._study.get_trials(deepcopy=False)) >= self.most:
            return None
        trial = self._study.ask()
        trial.set_user_attr(OWNER, self.owner)
        return self._drawn_trial(trial.number)

    def _is_ours(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial was begun by an earlier process of this study, and is not being carried out by this one."""
        if trial.state.name != "RUNNING" or trial.number in self._asked:
            return False
        return bool(trial.user_attrs.get(OWNER, self.owner) == self.owner)

    def _drawn_trial(self, number: int) -> Trial:
        """A trial with its options; what was drawn of it before it was interrupted is drawn alike again."""
        self._asked.add(number)
        trial = _open_trial(self._study, self._storage, number)
        if self.search.sampler == "grid":
            drawn_options = list_grid_points(self.search.space)[number]
        else:
            drawn_options = _suggest_options(trial, self.search, number)
        trial.set_user_attr(OPTIONS, {**self.search.options, **drawn_options})
        return Trial(number, {**self.search.options, **drawn_options}, "running", None)

    @property
    def most(self) -> int:
        """Return how many trials there will be in total; a grid has no more than its points."""
        if self.search.sampler != "grid":
            return self.search.trials
        return min(self.search.trials, len(list_grid_points(self.search.space)))

    def tell(self, trial: Trial, state: str, value: float | None, problem: str) -> None:
        """Record how a trial ended.

        Args:
            trial: The trial; one that has ended already is left as it is.
            state: done, pruned or failed.
            value: The metric on validation, for a trial that is done.
            problem: Why it was pruned or failed; empty for none.
        """
        from optuna.trial import TrialState

        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        if problem:
            _open_trial(self._study, self._storage, trial.number).set_user_attr("problem", problem)
        self._study.tell(trial.number, value if state == "done" else None, state=states[state], skip_if_finished=True)


def make_reporter(place: TrialPlace) -> EpochCallback:
    """Make a function that reports every epoch of a trial to its search.

    The function raises `Pruned` where the trial is worse than the median at that epoch (sampler tpe only). Epochs
    that an interrupted trial has reported already are not reported again.

    Args:
        place: Where the trial is stored.

    Returns:
        A function to call after every epoch with all rows of history so far.
    """
    optuna = _import_optuna()
    storage = optuna.storages.RDBStorage(place.storage)
    study = optuna.load_study(study_name=place.study, storage=storage, pruner=_make_pruner())
    trial = _open_trial(study, storage, place.trial)
    reported = set(study.get_trials(deepcopy=False)[place.trial].intermediate_values)

    def report(history: Rows) -> None:
        row = history[-1]
        epoch = int(row["epoch"])
        if epoch not in reported:  # an interrupted trial has reported its first epochs already
            reported.add(epoch)
            trial.report(float(row.get(f"val_{place.metric}", _substitute_metric(row, place.metric))), epoch)
        if place.prunes and trial.should_prune():
            raise Pruned(f"pruned after epoch {epoch}: worse than half of the earlier trials at this epoch")

    return report


def _open_trial(study: optuna.Study, storage: optuna.storages.RDBStorage, number: int) -> optuna.Trial:
    """A trial that has begun, opened by its number: Optuna's own `ask` begins new ones only."""
    id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)
    return _import_optuna().Trial(study, id)  # type: ignore[no-any-return]


def _substitute_metric(row: Mapping[str, float], metric: str) -> float:
    """What of an epoch stands in for a metric that training does not follow."""
    return row["val_loss"] if is_loss(metric) else row["val_accuracy"]


def _suggest_options(trial: optuna.Trial, search: Search, number: int) -> dict[str, object]:
    """The options of a trial; what others decide about is drawn after them, where it is drawn."""
    options: dict[str, object] = {}
    for name, axis in search.space.items():
        if axis.applies(options):
            trial.study.sampler = _make_sampler(search, number, name)
            options[name] = _suggest_value(trial, name, axis)
    return options


def _suggest_value(trial: optuna.Trial, name: str, axis: Axis) -> Any:
    if isinstance(axis, ChoiceAxis):
        place = trial.suggest_categorical(name, list(range(len(axis.values))))  # a choice may be a list
        return axis.values[place]
    if axis.whole:
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log, step=axis.step)


def _make_sampler(search: Search, number: int, option: str) -> Any:
    """A sampler that draws one option of one trial from the search's seed and the trials that are done."""
    optuna = _import_optuna()
    seed = int(hash_json([search.seed, number, option])[:8], 16)
    if search.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def _make_pruner() -> Any:
    return _import_optuna().pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP + 1)


def _record(trial: optuna.trial.FrozenTrial) -> Trial:
    states: dict[str, TrialStatus] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
    return Trial(
        trial.number,
        trial.user_attrs.get(OPTIONS, {}),
        states.get(trial.state.name, "running"),
        trial.value if trial.state.name == "COMPLETE" else None,
        trial.user_attrs.get("problem", ""),
    )


def _hide_password(url: str) -> str:
    """A URL without what stands between user and host."""
    head, at, tail = url.rpartition("@")
    return f"{head.rpartition(':')[0]}:...@{tail}" if at and head.count(":") > 1 else url


def _import_optuna() -> Any:
    """Optuna, which is slow to load, with its own notes turned off."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
