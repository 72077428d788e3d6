"""Predictions as rows: of a table for spreadsheets, of JSON Lines, and of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from budwood.evaluation.prediction_table import ImagePrediction

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATOR: Final = "; "  # between the entries of one cell
YES_NO: Final[Mapping[bool | None, str]] = {True: "yes", False: "no", None: ""}


def name_columns(classes: Sequence[str], top: int, multilabel: bool = False) -> list[str]:
    """Name the columns of a table of predictions.

    Args:
        classes: Names of the classes.
        top: Number of likeliest classes that are listed.
        multilabel: Whether an image may have several of the classes, so that each is answered with yes or no.

    Returns:
        The names: those of the likeliest classes first, last the probability of each class, and yes or no.
    """
    ranks = [name for rank in range(1, top + 1) for name in (f"class_{rank}", f"probability_{rank}")]
    known = ["label", "confidence", "refused", "strangeness", "set", "notes"]
    return [
        "path",
        *ranks,
        "problem",
        *known,
        *(f"p: {name}" for name in classes),
        *_name_decisions(classes, multilabel),
    ]


def _name_decisions(classes: Sequence[str], multilabel: bool) -> list[str]:
    return [f"is: {name}" for name in classes] if multilabel else []


def make_cells(answer: ImagePrediction, classes: int, top: int, multilabel: bool = False) -> list[str | float]:
    """Make the cells of a prediction, in the order of `name_columns`.

    Args:
        answer: The prediction.
        classes: Number of classes.
        top: Number of likeliest classes that are listed.
        multilabel: Whether an image may have several of the classes.

    Returns:
        The cells; what is not known is empty. Strangeness is a number, as it may be negative and a text that begins
        with a minus is taken for a formula.
    """
    ranked = [text for name, share in answer.top[:top] for text in (name, f"{share:.6f}")]
    return [
        answer.path,
        *ranked,
        *[""] * (2 * top - len(ranked)),
        answer.problem,
        answer.label,
        _format(answer.confidence),
        YES_NO[answer.refused],
        "" if answer.strangeness is None else round(answer.strangeness, 6),
        SEPARATOR.join(answer.candidates or ()),
        SEPARATOR.join(answer.notes),
        *([""] * classes if answer.probabilities is None else [f"{share:.6f}" for share in answer.probabilities]),
        *((YES_NO[one] for one in answer.decisions or (None,) * classes) if multilabel else ()),
    ]


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def make_document(answer: ImagePrediction, classes: Sequence[str]) -> dict[str, Any]:
    """Make the JSON document of a prediction.

    Args:
        answer: The prediction.
        classes: Names of the classes.

    Returns:
        Plain values; null for what is not known or could not be read.
    """
    shares = None if answer.probabilities is None else answer.probabilities.tolist()
    return {
        "path": answer.path,
        "top": [{"class": name, "probability": share} for name, share in answer.top],
        "problem": answer.problem or None,
        "label": answer.label if not answer.problem else None,
        "labels": list(answer.labels),
        "decisions": answer.decisions and dict(zip(classes, answer.decisions, strict=True)),
        "confidence": answer.confidence,
        "refused": answer.refused,
        "strangeness": answer.strangeness,
        "candidates": None if answer.candidates is None else list(answer.candidates),
        "notes": list(answer.notes),
        "probabilities": shares and dict(zip(classes, shares, strict=True)),
    }


def make_schema(classes: Sequence[str], multilabel: bool = False) -> pa.Schema:
    """Make the schema of a Parquet file of predictions, with a column `p: NAME` for each class.

    Where an image may have several of the classes, each has a column `is: NAME`, too.
    """
    import pyarrow as pa

    texts = pa.list_(pa.string())
    return pa.schema(
        [
            ("path", pa.string()),
            ("problem", pa.string()),
            ("label", pa.string()),
            ("labels", texts),
            ("confidence", pa.float64()),
            ("refused", pa.bool_()),
            ("strangeness", pa.float64()),
            ("candidates", texts),
            ("notes", texts),
            *((f"p: {name}", pa.float64()) for name in classes),
            *((name, pa.bool_()) for name in _name_decisions(classes, multilabel)),
        ]
    )


def make_table(documents: Iterable[Mapping[str, Any]], classes: Sequence[str], multilabel: bool = False) -> pa.Table:
    """Make a table of predictions from their JSON documents.

    Args:
        documents: As `make_document` makes them.
        classes: Names of the classes.
        multilabel: Whether an image may have several of the classes.

    Returns:
        The table, by `make_schema`.
    """
    import pyarrow as pa

    rows = list(documents)
    schema = make_schema(classes, multilabel)
    named = len(make_schema(()))
    columns = [[row[name] for row in rows] for name in schema.names[:named]]
    columns += [[(row["probabilities"] or {}).get(name) for row in rows] for name in classes]
    columns += [[(row["decisions"] or {}).get(name) for row in rows] for name in (classes if multilabel else ())]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
