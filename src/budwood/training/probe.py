"""A head that is solved on the frozen trunk, from which fine-tuning starts: linear probing first (Kumar et al. 2022).

A random head sends random gradients through the trunk and distorts the features that it came with; a solved one does
not (https://arxiv.org/abs/2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from budwood.config.metric_registry import LAST
from budwood.config.options import OF_ONE_LABEL, SURGERY
from budwood.config.recipe import Recipe
from budwood.networks.plan import spec_of
from budwood.storage.checked_files import read_checked_bytes, write_checked_bytes
from budwood.training.frozen_features import load_features
from budwood.training.inputs import make_head_splits
from budwood.training.linear_head import LinearHead
from budwood.training.task import TrainingTask

PROBE: Final = "probe.head"  # beside a checkpoint; it is none, as there is nothing to go on with before the first
HEAD_SHAPING: Final = {"freeze", "head", "dropout", "batch_norm"}
PASSED_ON: Final = frozenset(
    {"model", "weights", "resize", "interpolation", "select", "class_weights", "seed", *OF_ONE_LABEL}
    | (SURGERY - HEAD_SHAPING)
)

HeadFitter = Callable[..., LinearHead]


@dataclass(frozen=True)
class Probe:
    """A head that was solved on the frozen trunk.

    Attributes:
        weight: float32 [classes, features].
        bias: float32 [classes].
        figures: Its `train_loss` (nats) and `train_accuracy`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    figures: Mapping[str, float]


def make_probe_task(task: TrainingTask) -> TrainingTask:
    """Make the task of solving the head on the frozen trunk, on images as they are.

    Its features have the names in the cache that those of a run with a frozen trunk have. What is minimised is
    cross-entropy with the recipe's label smoothing, class weights, balance and logit adjustment, whatever its loss.

    Args:
        task: What is to be fine-tuned.

    Returns:
        The task, whose time is limited by that of the whole.
    """
    table = task.spec.recipe.table()
    options = {name: value for name, value in table.items() if name in PASSED_ON}
    if options.get("select") == LAST:
        del options["select"]
    recipe = Recipe(**options, freeze="trunk", optimizer="lbfgs")
    spec = spec_of(recipe, task.spec.classes, task.spec.weights, task.context.cache)
    return TrainingTask(spec, task.training, task.validation, task.context, left=task.left)


def start_from_probe(task: TrainingTask, fit_head: HeadFitter) -> TrainingTask:
    """Solve the head on the frozen trunk, and let training start from it.

    The head is kept beside the checkpoint, so that a training that goes on does not solve it again.

    Args:
        task: What is to be fine-tuned.
        fit_head: Solves a head, as `trainer.fit_head` does.

    Returns:
        The task with the head and its figures; the same task where its recipe does not ask for it.

    Raises:
        StorageError: The head cannot be written.
    """
    if not task.spec.recipe.probe:
        return task
    file = task.checkpoint and task.checkpoint / PROBE
    probe = _read(file) if file else None
    if probe is None:
        probe = _solve(task, fit_head)
        if file:
            _write(file, probe)
    return replace(task, start=_name_tensors(task, probe), probed=probe.figures)


def _solve(task: TrainingTask, fit_head: HeadFitter) -> Probe:
    """The head, with the penalty that validation prefers."""
    solving = make_probe_task(task)
    features = load_features(solving)
    assert features is not None
    splits = make_head_splits(features, solving)
    head = fit_head(*splits, task.spec.classes, solving.resolved, task.context.progress, task.left)
    row = next(row for row in head.history if row["regularisation"] == head.selected["regularisation"])
    task.context.progress.note(
        "Training starts from the head that was solved on the frozen trunk: validation loss "
        f"{row['val_loss']:.3g}, accuracy {row['val_accuracy']:.1%}."
    )
    return Probe(head.weight, head.bias, {name: row[name] for name in ("train_loss", "train_accuracy")})


def _name_tensors(task: TrainingTask, probe: Probe) -> dict[str, NDArray[Any]]:
    """The head's tensors by their names in the network; with dropout before it, the linear layer is the second."""
    path = task.spec.plan.head + (".1" if task.spec.recipe.dropout else "")
    return {f"{path}.weight": probe.weight, f"{path}.bias": probe.bias}


def _write(file: Path, probe: Probe) -> None:
    figures = {name: np.array([value]) for name, value in probe.figures.items()}
    write_checked_bytes(file, save({"weight": probe.weight, "bias": probe.bias, **figures}))


def _read(file: Path) -> Probe | None:
    """The head in a file; None where there is none, or it is damaged: then it is solved again."""
    content = read_checked_bytes(file)
    try:
        tensors = load(content) if content else {}
        figures = {name: float(tensors[name][0]) for name in ("train_loss", "train_accuracy")}
        return Probe(tensors["weight"], tensors["bias"], figures)
    except (SafetensorError, KeyError):
        return None
