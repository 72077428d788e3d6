"""The record of a run, as `run.json` has it: what was asked of which data and network, and what came of it.

`read_record` and `save_record` alone know the file. What a file does not have, as the results of a run that is still
being trained, has the value that stands in for nothing, and is not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from budwood.config.recipe import Recipe
from budwood.config.records import FrozenRecord
from budwood.config.resolved_recipe import OwnPart
from budwood.data.checks import Finding
from budwood.errors import RecipeError, RunError
from budwood.evaluation.metrics import SplitMetrics, plain
from budwood.networks.network_plan import ParameterCount, StagePlan
from budwood.storage.atomic import write_text
from budwood.training.training_record import Choices, PrefixRecord, Selected

SCHEMA_VERSION: Final = 1  # of run.json; where a file says none, it is of version 1
FILE: Final = "run.json"
LATER: Final = "Update Budwood, or open the run with the version that made it."

State = Literal["running", "stopped", "done"]
STATES: Final = ("running", "stopped", "done")


def _parse_split_metrics(value: Any) -> Any:
    """Metrics as a file has them, those of classes beside the others, as `SplitMetrics` holds them."""
    if not isinstance(value, dict) or "per_class" not in value:
        return value
    figures = {name: figure for name, figure in value.items() if name != "per_class"}
    return {"figures": figures, "per_class": value["per_class"]}


Scores = Annotated[
    SplitMetrics, BeforeValidator(_parse_split_metrics), PlainSerializer(plain, return_type=dict[str, Any])
]


class SplitCounts(FrozenRecord):
    """Images by split and, where labels are not sealed, by class."""

    train: Mapping[str, int]
    val: Mapping[str, int]
    test: int


class DatasetRecord(FrozenRecord):
    """The data of a run: its name, what identifies images and split, how it was split, and how many images there are.

    `several` says that an image may have several labels, `set_aside` counts files that could not be used, `corrected`
    labels that a table has corrected, and `leaks_allowed` says that the given split leaks.
    """

    fingerprint: str
    name: str
    split: str
    classes: tuple[str, ...]
    several: bool = False
    counts: SplitCounts
    set_aside: int = 0
    corrected: int = 0
    leaks_allowed: bool = False


class WeightsRecord(FrozenRecord):
    """Where a network's weights came from: imagenet, file, run or none; the file's name and a digest of the values.

    `set_aside` says which tensors of the file were not used.
    """

    kind: str
    file: str | None = None
    digest: str
    about: str = ""
    set_aside: str = ""


class NetworkRecord(FrozenRecord):
    """The network of a run: whose it is, what it sees, what surgery made of it, and the weights that it started from.

    `mean` and `std` normalise pixels between 0 and 1; `head` is the name of its last layer; `shape` is that of the
    trunk's output, pooled by `pool` to `features` numbers; `removed` are the stages that were cut off.
    """

    name: str
    source: str
    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: str
    accuracy: float | None = None
    stages: tuple[StagePlan, ...]
    cut: str | None = None
    pool: str
    features: int
    shape: tuple[int, ...]
    parameters: ParameterCount
    macs: int
    weights: WeightsRecord
    trunk_trained: bool
    removed: tuple[StagePlan, ...] = ()


class HardwareRecord(FrozenRecord):
    """The machine of a run: processor, cores in use, memory in GiB, accelerator, operating system."""

    cpu: str
    cores: int
    memory_gib: float | None = None
    accelerator: str
    system: str


class Timings(FrozenRecord):
    """Seconds of each step, and of the whole command."""

    check: float | None = None
    prefix: float | None = None
    head: float | None = None
    rate: float | None = None
    threads: float | None = None
    train: float | None = None
    evaluate: float | None = None
    save: float | None = None
    total: float = 0.0

    def steps(self) -> dict[str, float]:
        """Return the steps that there were, in the order of the work."""
        return self.model_dump(exclude_none=True, exclude={"total"})


class TestRecord(FrozenRecord):
    """The opened test split: the number of looks at it up to then, over all runs of the folder, when this run was
    scored on it (UTC), and its scores."""

    looks: int
    opened: tuple[str, ...]
    metrics: Scores


class RunRecord(FrozenRecord):
    """All that is known of a run but its history, weights and predictions; times are UTC, ISO 8601.

    `parts` are those that the recipe names of the user's own code, by option. `metrics` holds `val` once the run is
    done. `trained` says whether the head alone was trained or more of the network, and `problem` why a run has stopped.
    """

    schema_version: int = SCHEMA_VERSION
    budwood: str
    id: str
    state: State
    created: str
    resumed: tuple[str, ...] = ()
    source: str
    root: str
    recipe: Annotated[Recipe, PlainSerializer(Recipe.table, return_type=dict[str, Any])]
    parts: Mapping[str, OwnPart] = Field(default_factory=dict)
    dataset: DatasetRecord
    findings: tuple[Finding, ...]
    network: NetworkRecord
    environment: Mapping[str, str]
    hardware: HardwareRecord
    track: tuple[str, ...] = ()
    metrics: Mapping[str, Scores] = Field(default_factory=dict)
    test: TestRecord | None = None
    trained: Literal["head", "network"] | None = None
    choices: Choices = Field(default_factory=Choices)
    selected: Selected = Field(default_factory=Selected)
    timings: Timings = Field(default_factory=Timings)
    prefix: PrefixRecord = Field(default_factory=PrefixRecord)
    problem: str | None = None

    @property
    def val(self) -> SplitMetrics:
        """The scores on validation, of a run that is done."""
        return self.metrics["val"]

    def table(self) -> dict[str, Any]:
        """Return the record as `run.json` has it."""
        table = self.model_dump(exclude_unset=True)
        return {name: value for name, value in table.items() if name != "problem" or value is not None}


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    write_text(folder / FILE, json.dumps(record.table(), indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> RunRecord:
    """Return the record of a run.

    Args:
        folder: The run's folder.

    Raises:
        RunError: The file cannot be read, or a later version has made it.
    """
    file = folder / FILE
    try:
        return parse_record(json.loads(file.read_text(encoding="utf-8")), file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _make_unreadable_error(file, f"{type(error).__name__}: {error}") from error


def parse_record(table: Mapping[str, Any], file: Path = Path(FILE)) -> RunRecord:
    """Return the record that plain values are.

    Args:
        table: The values, as they come from JSON.
        file: What messages name.

    Raises:
        RunError: The values are no record, or one of a later version.
    """
    state, version = table["state"], table.get("schema_version", 1)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _make_later_error(file, f"it has schema version {version}, and this Budwood reads up to {SCHEMA_VERSION}")
    if state not in STATES:
        raise _make_unreadable_error(file, f"state {state!r}")
    try:
        return RunRecord(**{**table, "recipe": Recipe(**table["recipe"])})
    except RecipeError as error:
        raise _make_later_error(file, f"this Budwood does not know its recipe: {error.message}") from error
    except ValidationError as error:
        unknown = [
            _format_place(one["loc"])
            for one in error.errors()
            if one["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        ]
        if unknown:
            raise _make_later_error(file, f"this Budwood does not know {', '.join(unknown)}") from error
        first = error.errors()[0]
        raise _make_unreadable_error(file, f"{_format_place(first['loc'])}: {first['msg']}") from error


def _format_place(parts: tuple[int | str, ...]) -> str:
    return ".".join(map(str, parts))


def _make_unreadable_error(file: Path, problem: str) -> RunError:
    return RunError(f"{file}: cannot be read ({problem}).", "Restore the file, or train again.")


def _make_later_error(file: Path, why: str) -> RunError:
    return RunError(f"{file}: was made by a later version of Budwood ({why}).", LATER)
