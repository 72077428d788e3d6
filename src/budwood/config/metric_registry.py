"""The table of metrics: what each is called, which labels it is of, and where its definition is.

A metric is added here, with one entry, and defined in `metrics` (or wherever the entry points). A recipe may name one
of the user's own, too: `select = "package.module:name"`, a function of labels and logits that gives a float, of which
more is better. Nothing is imported before a metric is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budwood.config.registry import Registry, is_entry_point

LOSS: Final = "loss"  # as `select` calls the validation loss
LAST: Final = "last"  # as `select` asks for the last epoch, whatever validation says of it


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric without computing it.

    Attributes:
        words: Its name in tables.
        definition: `package.module:name` of what computes it: an entry of `metrics`, or a user's own function.
        selected: How a report names the epoch that it prefers.
        is_loss: Whether it is in nats, and lower is better.
        single_label: Whether it is defined where an image has one label.
        multilabel: Whether it is defined where an image has several.
        reported: Whether every run is scored by it.
        selectable: Whether a recipe may keep the epoch that is best by it.
        printed: Whether a terminal shows it beside accuracy.
    """

    words: str
    definition: str
    selected: str = ""
    is_loss: bool = False
    single_label: bool = True
    multilabel: bool = True
    reported: bool = True
    selectable: bool = True
    printed: bool = True


METRICS: Final = Registry(
    "metric",
    {
        "accuracy": MetricInfo(
            "accuracy", "budwood.evaluation.metrics:ACCURACY", "highest validation accuracy", printed=False
        ),
        "balanced_accuracy": MetricInfo(
            "balanced accuracy",
            "budwood.evaluation.metrics:BALANCED_ACCURACY",
            "highest balanced validation accuracy",
            multilabel=False,
            printed=False,
        ),
        "macro_f1": MetricInfo("macro F1", "budwood.evaluation.metrics:MACRO_F1", "highest macro F1 on validation"),
        "mean_average_precision": MetricInfo(
            "mean average precision",
            "budwood.evaluation.metrics:MEAN_AVERAGE_PRECISION",
            "highest mean average precision on validation",
            single_label=False,
        ),
        "auroc": MetricInfo("AUROC", "budwood.evaluation.metrics:AUROC", "highest AUROC on validation", reported=False),
        "log_loss": MetricInfo(
            "log loss", "budwood.evaluation.metrics:LOG_LOSS", is_loss=True, selectable=False, printed=False
        ),
    },
)
REPORTED: Final = tuple(name for name in METRICS.entries if METRICS.get(name).reported)
SELECTABLE: Final = (LOSS, LAST, *(name for name in METRICS.entries if METRICS.get(name).selectable))


def find_metric(name: str) -> MetricInfo:
    """Find what is known of a metric.

    A user's own is taken to be a score, defined for any labels.

    Args:
        name: A name of the table, or `package.module:name`.

    Returns:
        The metric's entry.

    Raises:
        RecipeError: There is no such metric.
    """
    if name not in METRICS and is_entry_point(name):
        return MetricInfo(name, name, f"highest {name} on validation", reported=False)
    return METRICS.get(name)


def is_metric(name: str, known: Mapping[str, object] | tuple[str, ...]) -> bool:
    """Return whether a name is one of the known ones, or a user's own.

    Args:
        name: A metric's name, or `package.module:name`.
        known: The names that are allowed.

    Returns:
        Whether it is.
    """
    return name in known or is_entry_point(name)


def is_loss(name: str) -> bool:
    """Return whether a metric is in nats, where lower is better; an unknown one is taken to be a score.

    Args:
        name: A metric's name.

    Returns:
        Whether it is a loss.
    """
    return name in METRICS and METRICS.get(name).is_loss


def describe_metric(name: str) -> str:
    """Return a metric's name in tables; an unknown one, as a published source may name, keeps its own.

    Args:
        name: A metric's name.

    Returns:
        The name for tables.
    """
    return METRICS.get(name).words if name in METRICS else name


def describe_selection(select: str) -> str:
    """Return how a report names the epoch that a metric prefers.

    Args:
        select: A metric's name, `loss` or `last`.

    Returns:
        Some words, such as "lowest validation loss".

    Raises:
        RecipeError: There is no such metric.
    """
    words = {LOSS: "lowest validation loss", LAST: "last epoch"}
    return words[select] if select in words else find_metric(select).selected
