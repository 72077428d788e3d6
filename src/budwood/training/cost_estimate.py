"""What a recipe will cost on this machine: time, memory and disk, from a measured sample of its own images."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from budwood.config.optimizers import LBFGS
from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.dataset import Samples
from budwood.data.loading import TTA_FLIPS, decode_sample, find_missing_pixels
from budwood.hardware import count_processors, find_best_device
from budwood.inference.feature_cache import HELD, compute_features, count_feature_bytes, find_missing_features
from budwood.training.clock import SAVING_SECONDS
from budwood.training.frozen_features import caches_features, list_feature_requests, load_features, make_frozen_prefix
from budwood.training.inputs import make_head_splits, make_inputs, make_trained_slice
from budwood.training.probe import make_probe_task
from budwood.training.task import TrainingTask, each_phase, share_of_time, trains_linear_head_only
from budwood.training.trainer import fit_head

SAMPLE: Final = 64  # images of each split that are looked at, at least
A_RATE: Final = 1e-6  # what a step costs does not depend on its learning rate
WARM: Final = 16  # images on which an engine is made and checked before it is timed


@dataclass(frozen=True)
class CostEstimate:
    """What a recipe will cost on this machine.

    Attributes:
        steps: Optimizer steps; 0 where a linear head is trained alone.
        epochs: Epochs; fractional where time is the limit.
        seconds: Seconds by part of the work.
        memory: Bytes at the peak.
        disk: Bytes by place: `cache` (more than now) and `run`.
        measured: A sentence on what this was measured.
    """

    steps: int
    epochs: float
    seconds: dict[str, float]
    memory: int
    disk: dict[str, int]
    measured: str

    @property
    def total(self) -> float:
        """Return the seconds of all parts of the work."""
        return sum(self.seconds.values())

    def record(self) -> dict[str, Any]:
        """Return the estimate as plain values.

        Returns:
            Keys `steps`, `epochs`, `seconds` (with `total`), `memory_bytes`, `disk_bytes` and `measured`.
        """
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "seconds": {**self.seconds, "total": self.total},
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "measured": self.measured,
        }


def measure_cost(task: TrainingTask) -> CostEstimate:
    """Measure a sample of the work and extrapolate to the whole.

    Nothing is kept of it but what goes into the cache. Steps, epochs and seconds of phases are added up; memory and
    disk are the largest of any phase.

    Args:
        task: What would be trained.

    Returns:
        The estimate.
    """
    left = task.resolved.limits.seconds - SAVING_SECONDS
    if task.spec.recipe.probe:
        return _measure_after_probe(task, left)
    return _measure_training(task, left)


def _measure_after_probe(task: TrainingTask, left: float) -> CostEstimate:
    """The cost of solving the head first, and of the training that starts from it."""
    solving = _measure_single(make_probe_task(task), left)
    training = _measure_training(task, max(left - solving.total, 0.0))
    return replace(
        training,
        seconds={"solving the head first": solving.total, **training.seconds},
        memory=max(solving.memory, training.memory),
        disk={**training.disk, "cache": solving.disk["cache"] + training.disk["cache"]},
        measured=f"{solving.measured}; {training.measured}",
    )


def _measure_training(task: TrainingTask, left: float) -> CostEstimate:
    """The cost of a training, to which so many seconds are left."""
    if not task.spec.recipe.phases:
        return _measure_single(task, left)
    phases: list[CostEstimate] = []
    for number, phase in enumerate(each_phase(task), 1):
        unused = max(left - sum(each.total for each in phases), 0.0)
        phases.append(_measure_single(phase, unused * share_of_time(task.spec.recipe, number)))
    names = dict.fromkeys(name for phase in phases for name in phase.seconds)
    return CostEstimate(
        steps=sum(phase.steps for phase in phases),
        epochs=sum(phase.epochs for phase in phases),
        seconds={name: sum(phase.seconds.get(name, 0.0) for phase in phases) for name in names},
        memory=max(phase.memory for phase in phases),
        disk={name: max(phase.disk[name] for phase in phases) for name in phases[0].disk},
        measured="; ".join(f"phase {number}: {phase.measured}" for number, phase in enumerate(phases, 1)),
    )


def _measure_single(task: TrainingTask, left: float) -> CostEstimate:
    """The cost of a recipe without phases, or of one phase, to which so many seconds are left."""
    recipe, plan, n, progress = task.resolved, task.spec.plan, len(task.training), task.context.progress
    samples = task.training.join(task.validation)
    cached = caches_features(task)
    views, cache_bytes = len(TTA_FLIPS[recipe.network.tta]), _cache_bytes(task, samples, cached)
    reading, read = _measure_reading(task, samples, cached)
    head_only = trains_linear_head_only(task)
    sample = replace(
        task,
        training=task.training.subset(range(min(n, max(SAMPLE if head_only else 0, recipe.sampling.step)))),
        validation=task.validation.subset(range(min(len(task.validation), SAMPLE))),
    )
    features = load_features(sample) if cached else None
    if features and head_only:
        for _ in range(2):  # the first loads what solves it
            started = time.perf_counter()
            fit_head(*make_head_splits(features, sample), task.spec.classes, recipe, progress)
        solving = (time.perf_counter() - started) * n / len(sample.training)
        seconds = {"training the head": min(solving, max(left - reading, 0.0))}
        steps, epochs, step_tensors, network = 0, _epochs_of_head(recipe), 0, 0
        measured = f"the head on {len(sample.training)} images"
    else:
        from budwood.training.growth import estimate_work
        from budwood.training.loop import count_steps
        from budwood.training.profiling import MEASURED, measure_step
        from budwood.training.wise_ft import count_evaluations

        train, val = make_inputs(sample, features)
        cost = measure_step(make_trained_slice(task, features), recipe.with_rate(A_RATE), train, val, progress)
        steps_an_epoch, a_step = count_steps(recipe.sampling, n), cost.seconds * estimate_work(recipe.network)
        evaluating = cost.evaluating * len(task.validation) * views
        an_epoch, ending = steps_an_epoch * a_step + evaluating, count_evaluations(recipe.wise_ft) * evaluating
        epochs = min(recipe.limits.epochs, max(left - reading - cost.starting - ending, 0.0) / an_epoch)
        steps, network, step_tensors = round(steps_an_epoch * epochs), cost.network, cost.moved
        seconds = {"starting": cost.starting, "training": steps * a_step, "evaluating": epochs * evaluating}
        seconds |= {"choosing weights": ending} if ending else {}
        measured = f"{MEASURED - 1} steps of {len(train.labels)} images, {len(sample.validation)} evaluated"
    weights = sum(row.parameters for row in plan.stages) * 4
    return CostEstimate(
        steps=steps,
        epochs=epochs,
        seconds={"reading images": reading, **seconds},
        memory=_peak_memory() + (_count_held_bytes(task) if cached else 0),
        disk={"cache": cache_bytes, "run": weights + step_tensors + network},
        measured=f"{read}; {measured}" if read else measured,
    )


def _cache_bytes(task: TrainingTask, samples: Samples, cached: bool) -> int:
    """What the cache will hold more than now: decoded pixels, and outputs of what is frozen."""
    size = task.spec.plan.size
    pixels = len(find_missing_pixels(samples, size, task.spec.recipe.resizing, task.context.cache)) * size**2 * 3
    if not cached:
        return pixels
    prefix = make_frozen_prefix(task)
    missing = sum(len(find_missing_features(prefix, samples, view)) for samples, view in list_feature_requests(task))
    return pixels + missing * count_feature_bytes(prefix)


def _count_held_bytes(task: TrainingTask) -> int:
    """The memory that outputs take in training; what is more lies on disk."""
    images = sum(len(samples) for samples, _ in list_feature_requests(task))
    return min(images * math.prod(make_frozen_prefix(task).shape) * 4, HELD)


def _measure_reading(task: TrainingTask, samples: Samples, cached: bool) -> tuple[float, str]:
    """Seconds until every image was decoded, and went through what is frozen, and on what this was measured."""
    if cached:
        prefix, progress = make_frozen_prefix(task), task.context.progress
        rows = [find_missing_features(prefix, samples, view) for samples, view in list_feature_requests(task)]
        count, (samples, view), missing = sum(map(len, rows)), list_feature_requests(task)[-1], rows[-1]
        warm, timed = missing[:WARM], missing[WARM : WARM + SAMPLE]
        started = time.perf_counter()
        compute_features(prefix, samples.subset(warm), progress, view)
        making = time.perf_counter() - started
        started = time.perf_counter()
        compute_features(prefix, samples.subset(timed), progress, view)
        each = (time.perf_counter() - started) / max(len(timed), 1)
        measured = f"{len(warm) + len(timed)} images through the frozen layers" if missing else ""
        return (making if warm else 0.0) + each * (count - len(warm)), measured
    missing = find_missing_pixels(samples, task.spec.plan.size, task.spec.recipe.resizing, task.context.cache)
    timed = missing[:SAMPLE]
    started = time.perf_counter()
    for row in timed:
        decode_sample(samples, row, task.spec.plan.size, task.spec.recipe.resizing)
    each = (time.perf_counter() - started) / max(len(timed), 1) / count_processors()
    return each * len(missing), f"{len(timed)} images decoded" if missing else ""


def _epochs_of_head(recipe: ResolvedRecipe) -> float:
    """The epochs of a head that is trained alone; none where it is solved."""
    return 0.0 if isinstance(recipe.optimizer, LBFGS) else recipe.limits.epochs


def _peak_memory() -> int:
    """The most memory that this process has held, bytes: on a GPU if one is used."""
    if find_best_device() == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
