"""What a run's folder holds beside its record, and how its record tells of data and network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.config.metric_registry import LOSS
from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset, Samples
from budwood.evaluation.label_task import task_of
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.split_metrics import SplitMetrics
from budwood.networks.spec import NetworkSpec
from budwood.runs.run_record import DatasetRecord, NetworkRecord, SplitCounts, WeightsRecord
from budwood.storage.atomic import encode_parquet, write_bytes


def evaluate_predictions(predictions: Predictions, classes: tuple[str, ...], recipe: Recipe) -> SplitMetrics:
    """Compute the metrics of a split from its predictions.

    Args:
        predictions: Logits and true labels of the images; the labels are not sealed.
        classes: Class names in the order of the logits.
        recipe: Its `select` names the metric to select by; None there means the loss. Its `metrics` are the user's own.

    Returns:
        The metrics of the split, with those of each class.
    """
    select, more = recipe.select or LOSS, recipe.metrics or ()
    return predictions.task.evaluate(predictions.truth, predictions.logits, classes, select, more)


def describe_dataset(data: Dataset, leaks_allowed: bool = False) -> DatasetRecord:
    """Make the record of a data set for a run.

    Args:
        data: The data set.
        leaks_allowed: Whether images leak between the given splits, which was allowed.

    Returns:
        The record, with the number of images of each split.
    """
    values: dict[str, Any] = {"value_range": data.value_range} if data.value_range else {}  # None is not written
    if data.left_out:
        values["left_out"] = len(data.left_out)
    return DatasetRecord(
        fingerprint=data.fingerprint,
        name=data.name,
        split=data.split_source,
        classes=data.classes,
        several=task_of(data.label_sets, len(data.classes)).multilabel,
        counts=SplitCounts(**data.counts()),
        set_aside=len(data.set_aside),
        corrected=data.corrected,
        leaks_allowed=leaks_allowed,
        **values,
    )


def describe_network(spec: NetworkSpec, aside: str) -> NetworkRecord:
    """What a record tells of a network; `aside` says which tensors of the weights' file were not used."""
    return NetworkRecord(**spec.plan.run_record(), weights=WeightsRecord(**spec.weights.record(), set_aside=aside))


def save_weights(path: Path, state: Mapping[str, NDArray[Any]]) -> None:
    """Write the weights of a network as a safetensors file, atomically.

    Args:
        path: The file to write.
        state: Tensors by name; they are stored in C order.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    write_bytes(path, save({name: np.asarray(tensor, order="C") for name, tensor in state.items()}))


def save_sealed(path: Path, samples: Samples) -> None:
    """Write the labels of the test split to a Parquet file of their own, atomically.

    The file has the columns `id` and `label` (int32).

    Args:
        path: The file to write.
        samples: The images of the test split with their labels.

    Raises:
        OSError: The file cannot be written.
    """
    table = pa.table({"id": list(samples.ids), "label": pa.array(samples.labels, pa.int32())})
    write_bytes(path, encode_parquet(table))
