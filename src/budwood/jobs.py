"""The whole jobs, each a sentence of calls: train, resume, test, predict, report.

scan -> findings -> seal -> plan -> training -> predictions -> metrics -> run -> report
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budwood import hygiene, metrics
from budwood.answers import TOP, Answer
from budwood.dataset import SEALED, Dataset, Samples
from budwood.decoding import processors
from budwood.errors import DivergedError, RunError
from budwood.explanations import FILE as EXPLANATION
from budwood.explanations import kept_explanation
from budwood.facts import content_ids
from budwood.files import cache_folder, folder_draft, guarded, parquet_bytes, write_bytes, write_text
from budwood.images import BadImage
from budwood.listing import image_files
from budwood.networks import TRUNK
from budwood.page import Evidence, Pictures, render_findings, render_run
from budwood.pictures import data_uri, finding_thumbnails, jpeg, run_pictures
from budwood.plan import Plan, plan_of
from budwood.predictions import Predictions, predictions_of
from budwood.prefix import evaluated
from budwood.prepare import Prepared, prepared, same_weights
from budwood.progress import Progress, Silent
from budwood.recipe import Recipe
from budwood.rehearsal import Rehearsal, rehearsed
from budwood.results import run_findings
from budwood.rows import outcome_of
from budwood.run_parts import said_of, whole_of
from budwood.runs import (
    CHECKPOINT,
    Run,
    count_look,
    environment,
    found_run,
    hardware,
    locked,
    new_id,
    now,
    open_run,
    save_history,
    save_record,
)
from budwood.schedule import best_epoch
from budwood.tracking import refuse_unknown_trackers, tracked
from budwood.training import Task, Told, has_checkpoint, rate_search, trained
from budwood.weights import Weights

if TYPE_CHECKING:
    from budwood.rates import Curve

MARKS: Final = ("history.csv", "recipe.toml", "run.json")  # files that say what a run is, the one that counts last
SHEET: Final = "augmented.jpg"
SAVING: Final = 3.0  # seconds kept back from a limited time for writing the run and its report
SEEN: Final = 224  # side in pixels of augmented images that no network has asked for


class _Clock:
    """Seconds by step of a job."""

    def __init__(self, spent: float = 0.0) -> None:
        self._last = time.perf_counter()
        self.start = self._last - spent
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        here = time.perf_counter()
        self.seconds[name] = round(here - self._last, 3)
        self._last = here

    def so_far(self) -> float:
        return time.perf_counter() - self.start

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": round(self.so_far(), 3)}


def train(
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path = "runs",
    allow_leaks: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    track: Sequence[str] = (),
    spent: float = 0.0,
    id: str | None = None,
    found: tuple[hygiene.Finding, ...] | None = None,
    told: Told | None = None,
) -> Run:
    """Train a classifier and keep it, with its evidence, as a new run under `out`.

    Raises `DataError` when the given split leaks (unless `allow_leaks`) or a split is empty, `WeightsError` when the
    weights are missing, `StorageError` when `out` cannot be written. A run that fails leaves nothing behind, unless it
    came far enough to be resumed. `track` names tools that are told of every epoch: tensorboard, mlflow. `spent` is how
    many seconds of the recipe's `time` have gone already, in scanning. `id` names the run (None: a new name), `found`
    are the data's findings where they are known already, and `told` gets the history after every epoch; what it raises
    ends the training.
    """
    recipe, cache, progress, clock = recipe or Recipe(), cache or cache_folder(), progress or Silent(), _Clock(spent)
    refuse_unknown_trackers(track)
    ready = prepared(data, recipe, Path(out), allow_leaks, cache, progress, found)
    recipe, plan, weights, found = ready.recipe, ready.plan, ready.weights, ready.findings
    sealed = data.sealed()
    clock.lap("check")

    versions = environment()
    record = {
        "budwood": versions["budwood"],
        "id": id or new_id(recipe.model),
        "state": "running",
        "created": now(),
        "resumed": [],
        "source": data.source,
        "root": str(data.root),
        "recipe": recipe.table(),
        "dataset": {**_about(data), "leaks_allowed": bool(hygiene.leaks(found))},
        "findings": [finding.record() for finding in found],
        "network": _about_network(plan, weights, ""),
        "environment": versions,
        "hardware": hardware(processors()),
        "track": list(track),
        "metrics": {},
        "test": None,
    }
    with guarded(Path(out)), folder_draft(Path(out) / str(record["id"])) as draft:
        (draft / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
        sealed.save(draft / "dataset.parquet")
        _save_sealed(draft / "sealed.parquet", data.samples("test"))
        if recipe.augments:
            write_bytes(draft / SHEET, _sheet(recipe, ready.training, plan["size"]))
        save_record(draft, record)
    run = Run(Path(out) / str(record["id"]), record)
    try:
        return _carried_out(run, recipe, plan, weights, cache, progress, clock, told)
    except BaseException:
        if not has_checkpoint(run.path / CHECKPOINT) and found_run(run.path).record["state"] != "done":
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def resume(
    run: Run | str | Path,
    *,
    epochs: int | None = None,
    patience: int | None = None,
    lr: float | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    told: Told | None = None,
) -> Run:
    """Go on with a run whose training was interrupted, or train a finished one for more epochs.

    On a CPU the result has the bits of one that was never interrupted. `epochs` counts all, those that are done
    included (of the last phase, where there are phases); schedules that depend on their number are drawn anew over all.
    `told` gets the history after every epoch.
    Raises `RunError` when there is nothing to go on with, or another process trains the run.
    """
    run = found_run(run) if not isinstance(run, Run) else run
    cache, progress, clock = cache or cache_folder(), progress or Silent(), _Clock()
    given = {name: value for name, value in (("epochs", epochs), ("patience", patience), ("lr", lr)) if value}
    recipe = _continued(run, given)
    _refuse_nothing_to_do(run, recipe, given)
    plan = plan_of(recipe, len(run.classes), cache)
    weights = same_weights(run, recipe, plan, cache, progress)
    clock.lap("check")
    before = {name: (run.path / name).read_bytes() for name in MARKS if (run.path / name).is_file()}
    weighed = _changed(run)
    record = {**run.record, "state": "running", "recipe": recipe.table(), "resumed": [*run.record["resumed"], now()]}
    with locked(run.path), guarded(run.path):
        save_record(run.path, record)
        write_text(run.path / "recipe.toml", recipe.toml())
    try:
        return _carried_out(Run(run.path, record), recipe, plan, weights, cache, progress, clock, told)
    except BaseException:
        if run.record["state"] == "done" and _changed(run) == weighed:
            with guarded(run.path):  # what was finished stays so
                for name, content in before.items():
                    write_bytes(run.path / name, content)
        raise


def _carried_out(
    run: Run,
    recipe: Recipe,
    plan: Plan,
    weights: Weights,
    cache: Path,
    progress: Progress,
    clock: _Clock,
    listener: Told | None = None,
) -> Run:
    """The run trained to its end, with its evidence; what stops it is noted where there is something to go on with."""
    data = run.dataset()
    training, validation = data.samples("train"), data.samples("val")
    with locked(run.path), tracked(run.record["track"], run.path, run.record, progress) as tell:

        def kept(history: Sequence[Mapping[str, float]]) -> None:
            with guarded(run.path):
                save_history(run.path, history)
            tell(history)

        def told(history: Sequence[Mapping[str, float]]) -> None:
            kept(history)
            if listener:
                listener(history)

        task = Task(
            recipe,
            plan,
            weights,
            len(data.classes),
            training,
            validation,
            cache,
            checkpoint=run.path / CHECKPOINT,
            told=told,
            left=lambda: None if recipe.time is None else recipe.time - clock.so_far() - SAVING,
        )
        try:
            with guarded(cache):
                made = trained(task, progress, clock.lap)
        except BaseException as error:
            _note_stop(run, error, progress)
            raise

        predictions = predictions_of(validation, made.logits)
        scores = _scores(predictions, data.classes)
        clock.lap("evaluate")
        record = {
            **run.record,
            "state": "done",
            "network": _about_network(plan, weights, made.aside),
            "trained": made.trained,
            "choices": made.choices,
            "selected": made.selected,
            "metrics": {"val": scores},
            "timings": {},
            "prefix": made.prefix,
            "test": None,  # an earlier look was at another network
        }
        record.pop("problem", None)
        with guarded(run.path):
            kept(made.history)
            for stale in ("predictions-test.parquet", EXPLANATION):
                (run.path / stale).unlink(missing_ok=True)
            _save_weights(run.path / "weights.safetensors", made.state)
            predictions.save(run.path / "predictions-val.parquet")
            clock.lap("save")
            record["timings"] = clock.total()
            finished = Run(run.path, record)
            write_text(run.path / "report.html", _rendered(finished))
            save_record(run.path, record)
    if not has_checkpoint(finished.path / CHECKPOINT):
        shutil.rmtree(run.path / CHECKPOINT, ignore_errors=True)
    return finished


def _scores(predictions: Predictions, classes: tuple[str, ...]) -> dict[str, Any]:
    if predictions.sets:
        return metrics.evaluate_several(predictions.targets, predictions.logits, classes)
    return metrics.evaluate(predictions.labels, predictions.logits, classes)


def _note_stop(run: Run, error: BaseException, progress: Progress) -> None:
    """Note in a run's record why it stopped, and say how to go on, where there is a checkpoint."""
    if not has_checkpoint(run.path / CHECKPOINT):
        return
    with suppress(OSError):  # a full disk may be the reason
        save_record(run.path, {**run.record, "state": "stopped", "problem": str(error) or type(error).__name__})
    further = " --lr RATE" if isinstance(error, DivergedError) else ""
    progress.note(f"The last good checkpoint is kept: `budwood resume {run.path}{further}` goes on from it.")


def _continued(run: Run, given: Mapping[str, Any]) -> Recipe:
    """A run's recipe with other epochs, patience or rate. Of phases, the last gets the epochs and the first that is not
    finished the rate. Raises `RunError` for what cannot be changed in a training that has begun."""
    recipe = Recipe(**run.record["recipe"])
    alone = run.record.get("trained") == "head"
    for name in ("lr", "patience"):
        if name in given and (alone or (name == "patience" and recipe.phases)):
            what = "a head that is trained alone" if alone else "a training in phases"
            raise RunError(f"{run.path}: --{name} does not apply to {what}.", "Train anew with it.")
    options = {**recipe.table(), **given}
    if "epochs" in given:
        options.pop("time", None)  # it is over
    if recipe.phases:
        phases = [phase.model_dump() for phase in recipe.phases]
        if "epochs" in given:
            phases[-1]["epochs"] = options.pop("epochs")
        if "lr" in given:
            done = [_epochs_done(run, number) for number in range(1, len(phases) + 1)]
            open_ = [n for n, phase in enumerate(phases) if done[n] < phase["epochs"]]
            phases[open_[0] if open_ else -1]["lr"] = options.pop("lr")
        options["phases"] = phases
    return Recipe(**options)


def _changed(run: Run) -> int | None:
    """When a run's weights were written last (nanoseconds); None where there are none."""
    file = run.path / "weights.safetensors"
    return file.stat().st_mtime_ns if file.is_file() else None


def _refuse_nothing_to_do(run: Run, recipe: Recipe, given: Mapping[str, Any]) -> None:
    """Raises `RunError` when a finished run would not be trained any further, or has so many epochs already."""
    last = len(recipe.phases or ())
    done = _epochs_done(run, last)
    if "epochs" in given and given["epochs"] <= done:
        raise RunError(
            f"{run.path}: has {done} epochs already, not fewer than {given['epochs']}.", "Give a larger number."
        )
    if run.record["state"] != "done":
        return
    whole = recipe.phases[-1].epochs if recipe.phases else recipe.epochs
    if recipe.time is not None or whole is None or done >= whole:
        raise RunError(f"{run.path}: is finished.", "`--epochs N` trains it for more epochs.")
    since = done - best_epoch([row for row in run.history() if row.get("phase", last) == last], recipe)
    if recipe.patience and since >= recipe.patience:
        raise RunError(
            f"{run.path}: stopped as no epoch was better for {since}.", f"Give a --patience of more than {since}."
        )


def _epochs_done(run: Run, phase: int) -> int:
    """The epochs that a run has done: of one phase, counted from 1, or of all where it has none (0)."""
    if not (run.path / "history.csv").is_file():
        return 0
    return sum(row.get("phase", phase) == phase for row in run.history())


def rehearse(
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path = "runs",
    allow_leaks: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    found: tuple[hygiene.Finding, ...] | None = None,
) -> tuple[Recipe, Rehearsal]:
    """The recipe as it would be carried out, and what it will cost, measured on a sample; no run is made.

    `found` are the data's findings where they are known already. Raises what `train` raises before it trains.
    """
    cache, progress = cache or cache_folder(), progress or Silent()
    ready = prepared(data, recipe or Recipe(), Path(out), allow_leaks, cache, progress, found)
    with guarded(cache):
        return ready.recipe, rehearsed(_task(ready, len(data.classes), cache), progress)


def find_rate(data: Dataset, recipe: Recipe, *, cache: Path | None = None, progress: Progress | None = None) -> Curve:
    """The loss of a recipe's network while its learning rate grows; nothing is kept of what it learns."""
    cache, progress = cache or cache_folder(), progress or Silent()
    ready = prepared(data, recipe, Path("runs"), True, cache, progress)
    with guarded(cache):
        return rate_search(_task(ready, len(data.classes), cache), progress)


def _task(ready: Prepared, classes: int, cache: Path) -> Task:
    return Task(ready.recipe, ready.plan, ready.weights, classes, ready.training, ready.validation, cache)


def test(run: Run | str | Path, *, cache: Path | None = None, progress: Progress | None = None) -> Run:
    """Open the sealed test split: score the run on it, note the look, and put both into the run and its report.

    The look is counted over all runs of the same folder before any label is read. Raises `RunError` when the data set
    has no test split or its images were changed.
    """
    run, cache, progress = _opened(run), cache or cache_folder(), progress or Silent()
    samples = run.dataset().samples("test")
    if not len(samples):
        raise RunError(f"{run.path}: the data set has no test split.", "Train again on data with a test split.")
    with guarded(cache):
        answers = _answers(run, samples, cache, progress)
    split = hashlib.sha256("".join(sorted(samples.ids)).encode()).hexdigest()[:24]
    looks = count_look(run.path.parent, run.path.name, split)
    unsealed = replace(samples, labels=_sealed_labels(run, samples))
    predictions = predictions_of(unsealed, answers)
    scores = _scores(predictions, run.classes)
    opened = [*(run.record["test"] or {"opened": []})["opened"], now()]
    record = {**run.record, "test": {"looks": looks, "opened": opened, "metrics": scores}}
    with guarded(run.path):
        predictions.save(run.path / "predictions-test.parquet")
        save_record(run.path, record)
    return report(Run(run.path, record))


def predict(
    run: Run | str | Path,
    files: Iterable[str | Path],
    *,
    int8: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """What a run's network says of image files and of the files in folders, in order.

    With `int8` the network computes in 8-bit whole numbers, unless that calls fewer of the run's validation images
    rightly. A file that cannot be decoded gets an answer with its problem. Raises `DataError` for a path that does not
    exist.
    """
    run, cache, progress = _opened(run), cache or cache_folder(), progress or Silent()
    paths = list(image_files(files))
    facts = content_ids(paths, progress)
    good = [row for row, fact in enumerate(facts) if isinstance(fact, str)]
    samples = Samples(
        Path(),
        tuple(str(facts[row]) for row in good),
        tuple(str(paths[row]) for row in good),
        np.full(len(good), SEALED, np.int32),
    )
    with guarded(cache):
        answers = _answers(run, samples, cache, progress, int8)
    chance = metrics.sigmoid if run.record["dataset"].get("several") else metrics.probabilities
    tops = iter(_top(chance(answers), run.classes) if good else [])
    return [
        Answer(str(path), (), f"{fact.problem}: {fact.detail}")
        if isinstance(fact, BadImage)
        else Answer(str(path), next(tops))
        for path, fact in zip(paths, facts, strict=True)
    ]


def report(run: Run | str | Path) -> Run:
    """Write a run's `report.html` again."""
    run = _opened(run)
    with guarded(run.path):
        write_text(run.path / "report.html", _rendered(run))
    return run


def report_findings(
    data: Dataset, found: Sequence[hygiene.Finding], path: Path, augmentation: Recipe | None = None
) -> None:
    """Write the findings about a data set, with pictures, as one HTML file.

    With a recipe that augments, the file also shows what it makes of training images.
    """
    records = [finding.record() for finding in found]
    about = {**_about(data), "source": data.source, "n": len(data), "findings": records}
    with guarded(path):
        thumbnails = finding_thumbnails(data.root, records)
        sheet = _sheet(augmentation, data.samples("train"), augmentation.size or SEEN) if augmentation else None
        pictures = Pictures(thumbnails, augmented=data_uri(sheet) if sheet else None)
        write_text(path, render_findings(about, pictures))


def _answers(run: Run, samples: Samples, cache: Path, progress: Progress, int8: bool = False) -> NDArray[np.float32]:
    """The logits of a run's network for images, in full precision or in 8-bit whole numbers."""
    if not int8:
        return said_of(run, samples, cache, progress)
    from budwood.quantised import in_whole_numbers

    whole = in_whole_numbers(whole_of(run, cache), run.dataset().samples("train"), run.predictions("val"), progress)
    return evaluated(whole, samples, progress).values


def _sheet(recipe: Recipe, training: Samples, size: int) -> bytes:
    """The contact sheet of a recipe's augmentation; torch is loaded only where there is one."""
    from budwood.sheet import contact_sheet

    return jpeg(contact_sheet(recipe, training, size))


def _rendered(run: Run) -> str:
    predictions = run.predictions("val")
    several = bool(predictions.sets)
    sheet = run.path / SHEET
    augmented = data_uri(sheet.read_bytes()) if sheet.is_file() else None
    evidence = Evidence(
        history=run.history(),
        pictures=replace(run_pictures(run.record, predictions), augmented=augmented),
        confusion=[] if several else metrics.confusion(predictions.labels, predictions.logits).tolist(),
        reliability=metrics.reliability_several(predictions.targets, predictions.logits)
        if several
        else metrics.reliability(predictions.labels, predictions.logits),
        results=[finding.record() for finding in run_findings(outcome_of("", [run]))],
        explanation=kept_explanation(run.path),
    )
    return render_run(run.record, evidence)


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _about(data: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "name": data.name,
        "split": data.split_source,
        "classes": list(data.classes),
        "several": bool(data.sets),
        "counts": data.counts(),
        "set_aside": len(data.set_aside),
        "corrected": data.corrected,
    }


def _about_network(plan: Plan, weights: Weights, aside: str) -> dict[str, Any]:
    trunk = [row for row in plan["stages"] if row["name"] != plan["head"]]
    return {
        **{key: value for key, value in plan.items() if key not in ("origins", "before", "prefix", "prefix_shape")},
        "weights": {**weights.record(), "set_aside": aside},
        "trunk_trained": any(row["trainable"] for row in trunk),
        "removed": _removed(plan),
    }


def _removed(plan: Plan) -> list[dict[str, Any]]:
    """The rows of the stages that the cut has taken off."""
    names = [row["name"] for row in plan["before"]]
    if plan["cut"] is None:
        return []
    return [row for row in plan["before"][names.index(plan["cut"]) + 1 :] if row["name"] not in (TRUNK, plan["head"])]


def _save_weights(path: Path, state: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    write_bytes(path, save({name: np.ascontiguousarray(tensor) for name, tensor in state.items()}))


def _save_sealed(path: Path, samples: Samples) -> None:
    table = pa.table({"id": list(samples.ids), "label": pa.array(samples.labels, pa.int32())})
    write_bytes(path, parquet_bytes(table))


def _sealed_labels(run: Run, samples: Samples) -> NDArray[np.int32]:
    file = run.path / "sealed.parquet"
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{file}: cannot be read ({error}).", "Restore the file, or train again.") from error
    known = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
    missing = [path for id, path in zip(samples.ids, samples.paths, strict=True) if id not in known]
    if missing:
        raise RunError(f"{file}: lacks the label of {missing[0]!r}.", "Restore the file, or train again.")
    return np.array([known[id] for id in samples.ids], np.int32)


def _top(probabilities: NDArray[np.float64], classes: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return [
        tuple((classes[c], float(row[c])) for c in best.tolist())
        for best, row in zip(order, probabilities, strict=True)
    ]
