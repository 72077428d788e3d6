"""What a recipe will cost on this machine: time, memory and disk, from a measured sample of its own images."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from budwood.config.recipe import Recipe
from budwood.data.dataset import Samples
from budwood.data.loading import VIEWS, decoded, missing_pixels
from budwood.hardware import processors
from budwood.inference.feature_cache import HELD, missing_outputs, output_bytes, outputs
from budwood.networks.plan import plan_of
from budwood.progress import Progress
from budwood.training.trainer import (
    Task,
    features_of,
    fitted_head,
    frozen_prefix,
    inputs_of,
    joined,
    keeps_outputs,
    part_of,
    shown,
    splits_of,
    trains_head_alone,
)

SAMPLE: Final = 64  # images of each split that are looked at, at least
WARM: Final = 16  # images on which an engine is made and checked before it is timed


@dataclass(frozen=True)
class Rehearsal:
    """What a recipe will cost.

    `steps` are the optimizer's (0 where a head alone is trained), `seconds` are by part of the work, `memory` is in
    bytes at the peak, `disk` in bytes in the cache and in the run; `measured` says on what.
    """

    steps: int
    epochs: float
    seconds: dict[str, float]
    memory: int
    disk: dict[str, int]
    measured: str

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    def record(self) -> dict[str, Any]:
        """The estimate as plain values."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "seconds": {**self.seconds, "total": self.total},
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "measured": self.measured,
        }


def rehearsed(task: Task, progress: Progress) -> Rehearsal:
    """Measure a sample and reckon the whole; but for the cache, nothing is kept. Phases are added up."""
    if not task.recipe.phases:
        return _one(task, progress)
    phases: list[Rehearsal] = []
    before: tuple[str | None, ...] = ()
    for number, recipe in enumerate(task.recipe.in_phases(), 1):
        plan = plan_of(recipe, task.classes, task.cache)
        phases.append(_one(replace(task, recipe=recipe, plan=plan, phase=number, before=before), progress))
        before = (*before, plan["prefix"])
    names = dict.fromkeys(name for phase in phases for name in phase.seconds)
    return Rehearsal(
        steps=sum(phase.steps for phase in phases),
        epochs=sum(phase.epochs for phase in phases),
        seconds={name: sum(phase.seconds.get(name, 0.0) for phase in phases) for name in names},
        memory=max(phase.memory for phase in phases),
        disk={name: max(phase.disk[name] for phase in phases) for name in phases[0].disk},
        measured="; ".join(f"phase {number}: {phase.measured}" for number, phase in enumerate(phases, 1)),
    )


def _one(task: Task, progress: Progress) -> Rehearsal:
    """The cost of a recipe without phases, or of one phase."""
    recipe, plan, n = task.recipe, task.plan, len(task.training)
    everything = joined(task.training, task.validation)
    cached = keeps_outputs(task)
    views, more = len(VIEWS[recipe.tta]), _cache_bytes(task, everything, cached)
    reading, read = _reading(task, everything, cached, progress)
    alone = trains_head_alone(task)
    small = replace(
        task,
        training=_some(task.training, range(min(n, max(SAMPLE if alone else 0, _a_step(recipe))))),
        validation=_some(task.validation, range(min(len(task.validation), SAMPLE))),
    )
    features = features_of(small, progress) if cached else None
    if features and alone:
        for _ in range(2):  # the first loads what solves it
            started = time.perf_counter()
            fitted_head(*splits_of(features, small), task.classes, recipe, progress)
        seconds = {"training the head": (time.perf_counter() - started) * n / len(small.training)}
        steps, epochs, moved, network = 0, float(recipe.epochs or 0), 0, 0
        measured = f"the head on {len(small.training)} images"
    else:
        from budwood.training.loop import steps_of
        from budwood.training.profiling import MEASURED, step_cost

        train, val = inputs_of(small, features, progress)
        part = part_of(replace(task, recipe=_with_a_rate(recipe)), features)
        cost = step_cost(part, train, val, progress)
        steps_an_epoch = steps_of(recipe, n)
        evaluating = cost.evaluating * len(task.validation) * views
        an_epoch = steps_an_epoch * cost.seconds + evaluating
        epochs = _epochs(recipe, reading, an_epoch)
        steps, network, moved = round(steps_an_epoch * epochs), cost.network, cost.moved
        seconds = {"starting": cost.starting, "training": steps * cost.seconds, "evaluating": epochs * evaluating}
        measured = f"{MEASURED - 1} steps of {len(train.labels)} images, {len(small.validation)} evaluated"
    whole = sum(row["parameters"] for row in plan["stages"]) * 4
    return Rehearsal(
        steps=steps,
        epochs=epochs,
        seconds={"reading images": reading, **seconds},
        memory=_peak() + (_held_bytes(task) if cached else 0),
        disk={"cache": more, "run": whole + moved + network},
        measured=f"{read}; {measured}" if read else measured,
    )


def _cache_bytes(task: Task, samples: Samples, cached: bool) -> int:
    """What the cache will hold more than now: decoded pixels, and outputs of what is frozen."""
    size: int = task.plan["size"]
    pixels = len(missing_pixels(samples, size, task.recipe.resize, task.cache)) * size**2 * 3
    if not cached:
        return pixels
    prefix = frozen_prefix(task)
    missing = sum(len(missing_outputs(prefix, samples, view)) for samples, view in shown(task))
    return pixels + missing * output_bytes(prefix)


def _held_bytes(task: Task) -> int:
    """The memory that outputs take in training; what is more lies on disk."""
    images = sum(len(samples) for samples, _ in shown(task))
    return min(images * math.prod(frozen_prefix(task).shape) * 4, HELD)


def _reading(task: Task, samples: Samples, cached: bool, progress: Progress) -> tuple[float, str]:
    """Seconds until every image was decoded, and went through what is frozen, and on what this was measured."""
    if cached:
        prefix = frozen_prefix(task)
        rows = [missing_outputs(prefix, samples, view) for samples, view in shown(task)]
        count, (samples, view), missing = sum(map(len, rows)), shown(task)[-1], rows[-1]
        warm, timed = missing[:WARM], missing[WARM : WARM + SAMPLE]
        started = time.perf_counter()
        outputs(prefix, _some(samples, warm), progress, view)
        making = time.perf_counter() - started
        started = time.perf_counter()
        outputs(prefix, _some(samples, timed), progress, view)
        each = (time.perf_counter() - started) / max(len(timed), 1)
        told = f"{len(warm) + len(timed)} images through what is frozen" if missing else ""
        return (making if warm else 0.0) + each * (count - len(warm)), told
    missing = missing_pixels(samples, task.plan["size"], task.recipe.resize, task.cache)
    timed = missing[:SAMPLE]
    started = time.perf_counter()
    for row in timed:
        decoded(samples, row, task.plan["size"], task.recipe.resize)
    each = (time.perf_counter() - started) / max(len(timed), 1) / processors()
    return each * len(missing), f"{len(timed)} images decoded" if missing else ""


def _epochs(recipe: Recipe, before: float, an_epoch: float) -> float:
    """How many epochs there will be: as many as asked for, or as the time allows."""
    wanted = float(recipe.epochs) if recipe.epochs else math.inf
    return wanted if recipe.time is None else min(wanted, max(recipe.time - before, 0.0) / an_epoch)


def _with_a_rate(recipe: Recipe) -> Recipe:
    """A recipe whose rate is a number: what a step costs does not depend on it."""
    return recipe.model_copy(update={"lr": 1e-6}) if recipe.lr == "auto" else recipe


def _a_step(recipe: Recipe) -> int:
    """Images of one optimizer step."""
    return (recipe.batch or 1) * (recipe.accumulate or 1)


def _some(samples: Samples, rows: Sequence[int]) -> Samples:
    ids, paths = (tuple(values[row] for row in rows) for values in (samples.ids, samples.paths))
    return Samples(samples.root, ids, paths, samples.labels[list(rows)], samples.sets)


def _peak() -> int:
    """The most memory that this process has held, bytes: on a GPU if one is used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
