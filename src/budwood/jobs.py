"""The whole jobs, each a sentence of calls: train, test, predict, report.

scan -> findings -> seal -> frozen prefix -> head -> predictions -> metrics -> run -> report
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budwood import hygiene, metrics
from budwood.answers import TOP, Answer
from budwood.dataset import SEALED, Dataset, Samples
from budwood.descent import descend_head
from budwood.errors import DataError, RunError
from budwood.files import cache_folder, folder_draft, guarded, parquet_bytes, write_bytes, write_text
from budwood.head import Head, Split, logits
from budwood.images import BadImage, examine
from budwood.networks import imagenet_weights, network
from budwood.page import Evidence, Pictures, render_findings, render_run
from budwood.pictures import finding_thumbnails, run_pictures
from budwood.predictions import predictions_of
from budwood.prefix import Outputs, Prefix, outputs, prefix_of, processors, trunk_parameters, trunk_state
from budwood.progress import Progress, Silent
from budwood.recipe import Recipe
from budwood.runs import Run, count_look, environment, hardware, new_id, now, open_run, save_history, save_record


class _Clock:
    """Seconds by step of a job."""

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        here = time.perf_counter()
        self.seconds[name] = round(here - self._last, 3)
        self._last = here

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": round(time.perf_counter() - self.start, 3)}


def train(
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path = "runs",
    allow_leaks: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a classifier and keep it, with its evidence, as a new run under `out`.

    Raises `DataError` when the given split leaks (unless `allow_leaks`) or a split is empty, `WeightsError` when the
    weights are missing, `StorageError` when `out` cannot be written. A run that fails leaves nothing behind.
    """
    recipe, cache, progress, clock = recipe or Recipe(), cache or cache_folder(), progress or Silent(), _Clock()
    net = network(recipe.model)
    found = hygiene.findings(data)
    _refuse_leaks(found, allow_leaks)
    sealed = data.sealed()
    training, validation = sealed.samples("train"), sealed.samples("val")
    _refuse_empty(data, training, validation)
    clock.lap("check")

    with guarded(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
    with guarded(cache):
        prefix = prefix_of(net, imagenet_weights(net), recipe.size, recipe.resize, cache)
        features = outputs(prefix, _joined(training, validation), progress)
    clock.lap("prefix")

    fit = Split(features.values[: len(training)], training.labels)
    held_out = Split(features.values[len(training) :], validation.labels)
    head = _fit_head(fit, held_out, len(data.classes), recipe, progress)
    clock.lap("head")

    predictions = predictions_of(validation, held_out.outputs, head.weight, head.bias)
    scores = metrics.evaluate(predictions.labels, predictions.logits, data.classes)
    clock.lap("evaluate")

    versions = environment()
    record = {
        "budwood": versions["budwood"],
        "id": new_id(recipe.model),
        "state": "done",
        "created": now(),
        "source": data.source,
        "root": str(data.root),
        "recipe": recipe.table(),
        "dataset": {**_about(data), "leaks_allowed": bool(hygiene.leaks(found))},
        "findings": [finding.record() for finding in found],
        "network": _about_network(prefix, head.weight),
        "choices": _choices(features),
        "selected": head.selected,
        "metrics": {"val": scores},
        "timings": {},
        "prefix": {"computed": features.computed, "reused": features.reused},
        "environment": versions,
        "hardware": hardware(processors()),
        "test": None,
    }
    with guarded(Path(out)), folder_draft(Path(out) / str(record["id"])) as folder:
        (folder / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
        save_history(folder, head.history)
        _save_weights(folder / "weights.safetensors", prefix, head.weight, head.bias)
        sealed.save(folder / "dataset.parquet")
        _save_sealed(folder / "sealed.parquet", data.samples("test"))
        predictions.save(folder / "predictions-val.parquet")
        clock.lap("save")
        record["timings"] = clock.total()
        save_record(folder, record)
        write_text(folder / "report.html", _rendered(Run(folder, record)))
    return Run(Path(out) / str(record["id"]), record)


def test(run: Run | str | Path, *, cache: Path | None = None, progress: Progress | None = None) -> Run:
    """Open the sealed test split: score the run on it, note the look, and put both into the run and its report.

    The look is counted over all runs of the same folder before any label is read. Raises `RunError` when the data set
    has no test split or its images were changed.
    """
    run, cache, progress = _opened(run), cache or cache_folder(), progress or Silent()
    samples = run.dataset().samples("test")
    if not len(samples):
        raise RunError(f"{run.path}: the data set has no test split.", "Train again on data with a test split.")
    prefix = _prefix(run, cache)
    with guarded(cache):
        values = outputs(prefix, samples, progress).values
    split = hashlib.sha256("".join(sorted(samples.ids)).encode()).hexdigest()[:24]
    looks = count_look(run.path.parent, run.path.name, split)
    unsealed = Samples(samples.root, samples.ids, samples.paths, _sealed_labels(run, samples))
    predictions = predictions_of(unsealed, values, *run.head())
    scores = metrics.evaluate(predictions.labels, predictions.logits, run.classes)
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
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """What a run's network says of image files and of the files in folders, in order.

    A file that cannot be decoded gets an answer with its problem. Raises `DataError` when a path does not exist.
    """
    run, cache, progress = _opened(run), cache or cache_folder(), progress or Silent()
    paths = list(_files(files))
    facts = _ids(paths, progress)
    good = [row for row, fact in enumerate(facts) if isinstance(fact, str)]
    samples = Samples(
        Path(),
        tuple(str(facts[row]) for row in good),
        tuple(str(paths[row]) for row in good),
        np.full(len(good), SEALED, np.int32),
    )
    prefix = _prefix(run, cache)
    with guarded(cache):
        answers = logits(outputs(prefix, samples, progress).values, *run.head())
    tops = iter(_top(metrics.probabilities(answers), run.classes) if good else [])
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


def report_findings(data: Dataset, found: Sequence[hygiene.Finding], path: Path) -> None:
    """Write the findings about a data set, with pictures, as one HTML file."""
    records = [finding.record() for finding in found]
    about = {**_about(data), "source": data.source, "n": len(data), "findings": records}
    with guarded(path):
        write_text(path, render_findings(about, Pictures(finding_thumbnails(data.root, records))))


def _fit_head(train: Split, val: Split, classes: int, recipe: Recipe, progress: Progress) -> Head:
    """The head that the recipe asks for; SciPy, slow to load, is imported only where it solves one."""
    if recipe.optimizer == "lbfgs":
        from budwood.solve import solve_head

        return solve_head(train, val, classes, recipe, progress)
    return descend_head(train, val, classes, recipe, progress)


def _rendered(run: Run) -> str:
    predictions = run.predictions("val")
    evidence = Evidence(
        history=run.history(),
        pictures=run_pictures(run.record, predictions),
        confusion=metrics.confusion(predictions.labels, predictions.logits).tolist(),
        reliability=metrics.reliability(predictions.labels, predictions.logits),
    )
    return render_run(run.record, evidence)


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _prefix(run: Run, cache: Path) -> Prefix:
    """The run's prefix, made again; raises `RunError` when the weights on this machine are others."""
    recipe = run.record["recipe"]
    net = network(recipe["model"])
    prefix = prefix_of(net, imagenet_weights(net), recipe["size"], recipe["resize"], cache)
    if prefix.digest != run.record["network"]["weights_digest"]:
        raise RunError(
            f"{run.path}: was trained on other weights of {net.name} than are on this machine.",
            f"Install the version of {net.package} that the run was made with.",
        )
    return prefix


def _refuse_leaks(found: Sequence[hygiene.Finding], allowed: bool) -> None:
    leaking = hygiene.leaks(found)
    if leaking and not allowed:
        raise DataError(
            " ".join(f"{finding.code}: {finding.message}" for finding in leaking)
            + f" The first: {', '.join(map(repr, leaking[0].groups[0]))}.",
            leaking[0].advice,
        )


def _refuse_empty(data: Dataset, training: Samples, validation: Samples) -> None:
    for name, samples in (("train", training), ("val", validation)):
        if not len(samples):
            raise DataError(
                f"{data.root}: the {name} split has no usable image.", "Add images, or give no split at all."
            )
    if len(np.unique(training.labels)) < 2:
        raise DataError(
            f"{data.root}: the train split has usable images of one class only.", "Add images of another class."
        )


def _joined(first: Samples, second: Samples) -> Samples:
    return Samples(
        first.root,
        first.ids + second.ids,
        first.paths + second.paths,
        np.concatenate([first.labels, second.labels]),
    )


def _about(data: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "name": data.name,
        "split": data.split_source,
        "classes": list(data.classes),
        "counts": data.counts(),
        "set_aside": len(data.set_aside),
    }


def _about_network(prefix: Prefix, weight: NDArray[np.float32]) -> dict[str, Any]:
    net = prefix.net
    return {
        "name": net.name,
        "stages": list(net.stages),
        "head": net.head,
        "features": net.features,
        "mean": list(net.mean),
        "std": list(net.std),
        "weights_file": prefix.weights.name,
        "weights_digest": prefix.digest,
        "parameters": {"trainable": int(weight.size + len(weight)), "frozen": trunk_parameters(prefix)},
    }


def _choices(features: Outputs) -> dict[str, Any]:
    return {
        "device": "cuda" if "CUDA" in features.engine else "cpu",
        "engine": features.engine,
        "engine_check": features.agreement,
        "threads": processors(),
    }


def _save_weights(path: Path, prefix: Prefix, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    from safetensors.numpy import save

    head = prefix.net.head
    tensors = {**trunk_state(prefix), f"{head}.weight": weight, f"{head}.bias": bias}
    write_bytes(path, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


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


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if not file.is_dir() and not file.name.startswith("."))
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder.", "Check the path; quote it if it holds spaces.")


def _ids(paths: Sequence[Path], progress: Progress) -> list[str | BadImage]:
    results: list[str | BadImage] = []
    with ThreadPoolExecutor(processors()) as pool, progress.bar("Reading images", len(paths)) as step:
        for result in pool.map(_id, paths):
            results.append(result)
            step(1)
    return results


def _id(path: Path) -> str | BadImage:
    try:
        return examine(path).id
    except BadImage as problem:
        return problem


def _top(probabilities: NDArray[np.float64], classes: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return [
        tuple((classes[c], float(row[c])) for c in best.tolist())
        for best, row in zip(order, probabilities, strict=True)
    ]
