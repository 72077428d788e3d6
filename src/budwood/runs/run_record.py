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

from budwood.config.recipe import Recipe, restore_recipe
from budwood.config.records import FrozenRecord
from budwood.config.resolved_recipe import OwnPart
from budwood.data.checks import Finding
from budwood.data.value_range import ValueRange
from budwood.errors import RecipeError, RunError
from budwood.evaluation.split_metrics import SplitMetrics, plain
from budwood.networks.network_plan import ParameterCount, StagePlan, Tap, list_blocks
from budwood.runs.confidence_record import ConfidenceRecord
from budwood.runs.ladder_record import LadderRecord
from budwood.storage.atomic import write_text
from budwood.storage.checked_files import digest_bytes
from budwood.storage.strict_json import decode_json, encode_json
from budwood.training.training_record import Choices, PrefixRecord, Selected

SCHEMA_VERSION: Final = 1  # of run.json; where a file says none, it is of version 1
FILE: Final = "run.json"
DIGEST: Final = "digest"  # of all other values of the file
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
    """The numbers of images of each split, by class where labels are not sealed."""

    train: Mapping[str, int]
    val: Mapping[str, int]
    test: int


class DatasetRecord(FrozenRecord):
    """The data set of a run: its identity, how it was split, and how many images it has.

    Attributes:
        fingerprint: Identifies images and split.
        split: How it was split: made, given, or given with the validation split made.
        several: Whether an image may have several labels.
        set_aside: Number of files that could not be used.
        corrected: Number of images whose labels a table has corrected, those that it leaves out or adds included.
        leaks_allowed: Whether images leak between the given splits, which was allowed.
        left_out: Number of usable images that their split leaves out, as they leak.
        value_range: Values of more than 8 bits that become black and white; None for the range of their type.
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
    left_out: int = 0
    value_range: ValueRange | None = None


class WeightsRecord(FrozenRecord):
    """The origin and the identity of a network's weights.

    Attributes:
        kind: imagenet, file, run or none.
        file: The file's name.
        digest: Digest of the values.
        about: More about them, such as the run and its data set, or the seed of random weights.
        set_aside: The tensors of the file that were not used.
    """

    kind: str
    file: str | None = None
    digest: str
    about: str = ""
    set_aside: str = ""


class NetworkRecord(FrozenRecord):
    """The network of a run: its source, its input, its layers after all changes, and the weights that it started from.

    Attributes:
        source: `budwood`, `torchvision`, `timm`, or the user's module.
        size: Side of the input, pixels.
        mean: Mean for each channel, to normalise pixels between 0 and 1.
        std: Standard deviation for each channel, as for `mean`.
        head: Name of the last layer.
        accuracy: Published top-1 accuracy on ImageNet, 0 to 1; None where the source reports none.
        cut: The stage after which the network was cut off; None: it was not.
        pool: How the trunk's output is pooled.
        features: Length of the pooled output of the trunk.
        shape: Shape of the trunk's output before pooling.
        macs: Multiply-adds for one image.
        trunk_trained: Whether any layer of the trunk was trained.
        removed: The stages that were cut off.
        taps: The earlier stages that the head sees beside the trunk.
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
    taps: tuple[Tap, ...] = ()

    @property
    def blocks(self) -> tuple[int, ...]:
        """Return the widths of the blocks that the head's inputs consist of; empty without taps."""
        return list_blocks(self.taps, self.features)


class HardwareRecord(FrozenRecord):
    """The machine of a run.

    Attributes:
        cores: Number of processor cores in use.
        system: The operating system.
    """

    cpu: str
    cores: int
    memory_gib: float | None = None
    accelerator: str
    system: str


class Timings(FrozenRecord):
    """The seconds that each step and the whole command took.

    Attributes:
        probe: Solving the head first, where training starts from it.
        prefix: Computing the features of the frozen layers.
        head: Training a head alone.
        rate: Finding the learning rate.
        threads: Finding the number of threads.
        novelty: Measuring how images are told that show none of the classes.
    """

    check: float | None = None
    probe: float | None = None
    prefix: float | None = None
    head: float | None = None
    rate: float | None = None
    threads: float | None = None
    train: float | None = None
    evaluate: float | None = None
    save: float | None = None
    novelty: float | None = None
    total: float = 0.0

    def steps(self) -> dict[str, float]:
        """Return the seconds of each step that took place.

        Returns:
            Seconds by step, in the order of the work, without the total.
        """
        return self.model_dump(exclude_none=True, exclude={"total"})


class TestRecord(FrozenRecord):
    """The results on the opened test split.

    Attributes:
        looks: Number of looks at this test split so far, over all runs of the folder.
        opened: When this run was evaluated on it, UTC.
    """

    looks: int
    opened: tuple[str, ...]
    metrics: Scores


class EnsembleMember(FrozenRecord):
    """A network of an ensemble.

    Attributes:
        run: The id of the run that it is a copy of.
        folder: The folder of the copy, a run of its own, relative to the folder of the ensemble.
        weight: Its weight in the mean; those of all members add up to 1.
    """

    run: str
    folder: str
    weight: float


class EnsembleRecord(FrozenRecord):
    """How an ensemble was made.

    Attributes:
        members: The networks, the one with the largest weight first.
        rule: How the weights were chosen: `equal`, or on the `validation` set.
        folds: Whether the members are folds of a cross-validation: the validation prediction of an image is then the
            mean of the members that were not trained on it.
        candidates: The ids of the runs that it was to be made of; validation may have left out some.
        picks: How often the greedy selection picked each candidate; None where there was none.
    """

    members: tuple[EnsembleMember, ...]
    rule: Literal["equal", "validation"]
    folds: bool = False
    candidates: tuple[str, ...]
    picks: tuple[int, ...] | None = None


class RunRecord(FrozenRecord):
    """The record of a run: everything but its history, weights and predictions, with times in UTC, ISO 8601.

    Attributes:
        budwood: The version of Budwood.
        resumed: When training was continued.
        source: The data as they were named on the command line or in Python.
        root: The folder that the images' paths are relative to.
        parts: The user's own code that the recipe names, by option.
        environment: Versions of libraries.
        track: The experiment trackers.
        metrics: Metrics by split; `val` once the run is done.
        trained: Whether the head alone was trained, or more of the network.
        problem: Why the run has stopped.
        files: BLAKE2b-128 digests of the run's files by name; none of a run of an earlier version.
        ensemble: How the run was made of others; None of a run that was trained. The recipe of an ensemble is that of
            its first member.
        confidence: Temperature, prediction sets, thresholds and "none of these"; None of a run of an earlier version.
        reading: How the data were read and split beside the usual way, by the names of `bw.scan` and
            `bw.select_per_class`; runs of an earlier version do not say.
        ladder: The search that found the run; None of a run whose recipe was given.
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
    files: Mapping[str, str] = Field(default_factory=dict)
    ensemble: EnsembleRecord | None = None
    confidence: ConfidenceRecord | None = None
    reading: Mapping[str, Any] = Field(default_factory=dict)
    ladder: LadderRecord | None = None

    @property
    def val(self) -> SplitMetrics:
        """Return the metrics on the validation set, of a run that is done."""
        return self.metrics["val"]

    def table(self) -> dict[str, Any]:
        """Return the record in the form of `run.json`.

        Returns:
            Plain values; fields that were never set are left out, and so is `problem` where there is none.
        """
        table = self.model_dump(exclude_unset=True)
        return {name: value for name, value in table.items() if name != "problem" or value is not None}


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`, atomically, with the digest of its values.

    Args:
        folder: The run folder.
        record: The record of the run.

    Raises:
        OSError: The file cannot be written.
    """
    table = decode_json(encode_json(record.table()))
    write_text(folder / FILE, encode_json({**table, DIGEST: _digest(table)}, indent=1) + "\n")


def _digest(table: Mapping[str, Any]) -> str:
    """The digest of a record's values, however they were laid out in the file."""
    return digest_bytes(json.dumps(table, sort_keys=True, allow_nan=False).encode())


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run.

    Args:
        folder: The run folder.

    Returns:
        The record.

    Raises:
        RunError: The file cannot be read, was changed or damaged, or a later version of Budwood wrote it. A file of an
            earlier version has no digest, and is not checked.
    """
    file = folder / FILE
    try:
        table = decode_json(file.read_text(encoding="utf-8"))
        expected = table.pop(DIGEST, None)
        if expected is not None and _digest(table) != expected:
            raise RunError(
                f"{file}: was changed or damaged since the run wrote it (its values have another digest).",
                f"Restore the file from a copy, or train again; if you changed it yourself, remove its `{DIGEST}`.",
            )
        return parse_record(table, file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _make_unreadable_error(file, f"{type(error).__name__}: {error}") from error


def parse_record(table: Mapping[str, Any], file: Path = Path(FILE)) -> RunRecord:
    """Parse plain values into the record of a run.

    Args:
        table: The values, as they come from JSON.
        file: The file that messages name.

    Returns:
        The record.

    Raises:
        RunError: The values are not a record, or one of a later version.
        KeyError: There is no `state` or no `recipe`.
    """
    state, version = table["state"], table.get("schema_version", 1)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _make_later_error(file, f"it has schema version {version}, and this Budwood reads up to {SCHEMA_VERSION}")
    if state not in STATES:
        raise _make_unreadable_error(file, f"state {state!r}")
    try:
        return RunRecord(**{**table, "recipe": restore_recipe(table["recipe"])})
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
