"""What was found out about a run, kept in its folder and shown by its report: one record for each part."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ValidationError

from budwood.config.records import FrozenRecord
from budwood.errors import RunError
from budwood.evaluation.intervals import Metric
from budwood.runs.run_record import HardwareRecord
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.storage.checked_files import digest_bytes
from budwood.storage.strict_json import decode_json, encode_json, replace_undefined

EXPLANATION_FILE: Final = "explanation.json"
SCHEMA_VERSION: Final = 1  # of explanation.json; where a file says none, it is of version 1
SUSPECTS_SHOWN: Final = 24  # suspected labels with a picture in the report
PARTS: Final = ("images", "stages", "filters", "maps", "units", "embedding", "mistakes", "labels", "classes")


def _read_null(value: object) -> object:
    return math.nan if value is None else value


Number = Annotated[float, BeforeValidator(_read_null)]  # not a number where it is not defined, and null in the file


class ExplanationPart(FrozenRecord):
    """One part of an explanation."""


class NearImage(FrozenRecord):
    """A training image that the network finds like another.

    Attributes:
        likeness: Cosine similarity of the features.
    """

    path: str
    label: str
    likeness: Number


class ExplainedImage(FrozenRecord):
    """An image, what the network called it, and which maps of it there are.

    Attributes:
        label: The true class; None where it is not known.
        called: The predicted class.
        probability: Probability of the predicted class, 0 to 1.
        near: The most similar training images.
        maps: For each method, whether its map is empty.
        explained: The class that the maps are of.
    """

    path: str
    label: str | None
    called: str
    probability: Number
    near: tuple[NearImage, ...]
    maps: Mapping[str, bool]
    explained: str


class GainOverChance(FrozenRecord):
    """How much better than chance a method is, with its 95 % interval and the p-value of a paired test."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    p: Number


class MethodTrust(FrozenRecord):
    """Whether the maps of a method can be trusted.

    Attributes:
        place: Stage that the method looks at; None for methods that use none.
        errors: For each image by how much the map misses what it should add up to; empty for most methods.
        likeness: Rank correlation with the maps of a random network.
        unrelated: The same between maps of different images.
        depends: Whether the maps depend on what was learned.
        deletion: Mean probability while what is important is removed.
        insertion: Mean probability while what is important is added.
        gains: `deletion` and `insertion` compared with chance; empty where there is no image.
    """

    place: str | None
    errors: tuple[Number, ...]
    likeness: Metric
    unrelated: Metric
    depends: bool
    deletion: Metric
    insertion: Metric
    gains: Mapping[str, GainOverChance]


class ImagesPart(ExplanationPart):
    """Where the network looks.

    Attributes:
        methods: Whether each method can be trusted.
        chosen: Whether the images were chosen, not named.
    """

    rows: tuple[ExplainedImage, ...]
    methods: Mapping[str, MethodTrust]
    chosen: bool


class MappedStage(FrozenRecord):
    """A stage whose feature maps are shown, and the shape of its output."""

    name: str
    shape: tuple[int, ...]


class StagesPart(ExplanationPart):
    """One image on its way through the stages; `left_out` names the stages that are not shown."""

    path: str
    rows: tuple[MappedStage, ...]
    left_out: tuple[str, ...]


class FilterLayer(FrozenRecord):
    """The filters of a convolution.

    Attributes:
        filters: Number of filters.
        channels: Number of input channels of each.
        size: Height and width of each, in weights.
        colour: Whether they are shown in the colours that they respond to.
        dead: Numbers of filters whose weights are all near zero.
        duplicates: Numbers of filters that are almost the same, or the negative.
    """

    layer: str
    filters: int
    channels: int
    size: tuple[int, ...]
    colour: bool
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]


class FiltersPart(ExplanationPart):
    """Filters of some layers, and the path of the image that is shown after them."""

    rows: tuple[FilterLayer, ...]
    path: str


class ShownLayer(FrozenRecord):
    """A layer of one of the networks that are shown beside each other.

    Attributes:
        network: The run, or `start` or `imagenet` for its network before training.
        layer: Full name of the layer, with `#` and the number of its run where it is run several times.
        kind: Its class, its number among the layers, and which of its runs is meant, in words.
        shape: Shape of its output for one image.
        channels: Numbers of the channels that are shown.
    """

    network: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    channels: tuple[int, ...]


class MappedLayer(ShownLayer):
    """Feature maps of a layer; `same` tells whether they are those of the first network, as in frozen layers."""

    same: bool


class MapsPart(ExplanationPart):
    """Feature maps of layers.

    Attributes:
        paths: The images.
        rows: For each layer that was asked for, that layer of each network.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[MappedLayer, ...], ...]


class DrawnUnit(FrozenRecord):
    """A picture of what a channel looks for, and its output: before, after, and for noise alone."""

    channel: int
    before: Number
    after: Number
    noise: Number
    flat: bool


class DrawnLayer(ShownLayer):
    """What channels of a layer look for."""

    units: tuple[DrawnUnit, ...]


class UnitsPart(ExplanationPart):
    """What channels of layers look for: for each layer that was asked for, that layer of each network."""

    rows: tuple[tuple[DrawnLayer, ...], ...]


class EmbeddingPart(ExplanationPart):
    """The map of the images.

    Attributes:
        method: How the features became a plane.
        explained: Share of the variance that each axis shows; None where the method has none.
        n: Number of images.
        right: Number of images that were predicted correctly.
    """

    method: str
    explained: tuple[Number, ...] | None
    n: int
    right: int


class SliceScore(FrozenRecord):
    """Accuracy on images that share a property, and on all others."""

    property: str
    label: str
    n: int
    metric: Metric
    rest: Metric
    difference: Metric
    p: Number
    p_alone: float | None = None  # before Holm's correction; none in a run of version 0.1


class MistakeExample(FrozenRecord):
    """A mistake, beside a similar correct image of the predicted class; None where there is none."""

    id: str
    path: str
    probability: Number
    like_id: str | None
    like_path: str | None
    similarity: float | None


class ConfusedClasses(FrozenRecord):
    """A class that was predicted as another.

    Attributes:
        count: Number of images.
        share: That count as a share of all images of the class.
        by: What similarity is measured by.
    """

    actual: str
    called: str
    count: int
    share: Metric
    by: str
    examples: tuple[MistakeExample, ...]


class MistakesPart(ExplanationPart):
    """Where the run is weak: by subset of the images, and by confused classes."""

    slices: tuple[SliceScore, ...]
    pairs: tuple[ConfusedClasses, ...]


class UnjudgedLabels(ExplanationPart):
    """Why label errors were not looked for."""

    reason: str


class SuspectLabel(FrozenRecord):
    """An image whose label is doubted, with the probabilities of its label and of the suggested one."""

    path: str
    id: str
    split: str
    label: str
    suggested: str
    p_label: Number
    p_suggested: Number


class JudgedLabels(ExplanationPart):
    """Possible label errors.

    Attributes:
        reason: Empty, as they were looked for.
        file: The table to correct them by.
        threshold: Highest probability of a label that is suspected, 0 to 1.
        suggested_threshold: The threshold that `why` gives the reason for.
        expected: Number of label errors that are expected.
        n: Number of images that were judged.
        not_judged: Number of images of classes too small for the folds.
        accuracy: Agreement of the out-of-fold predictions with the labels.
        trunk: Whose features were used, in words.
    """

    reason: str
    file: str
    rows: tuple[SuspectLabel, ...]
    threshold: Number
    suggested_threshold: Number
    why: str
    expected: int
    n: int
    not_judged: int
    folds: int
    accuracy: Metric
    trunk: str


class DrawnClass(FrozenRecord):
    """A picture of what a class looks for, and the output of the class: before, after, and for noise alone."""

    name: str
    before: Number
    after: Number
    noise: Number
    flat: bool


class ClassesPart(ExplanationPart):
    """What each class looks for; `left_out` is the number of classes that are not shown."""

    rows: tuple[DrawnClass, ...]
    left_out: int


class ExplanationRecord(FrozenRecord):
    """What was found out about a run; a part that was not asked for is None.

    Attributes:
        run: Name of the run.
        created: When it was found out, UTC, ISO 8601.
        seconds: Seconds that each part took, in the order of the work.
    """

    run: str
    created: str
    images: ImagesPart | None = None
    stages: StagesPart | None = None
    filters: FiltersPart | None = None
    maps: MapsPart | None = None
    units: UnitsPart | None = None
    embedding: EmbeddingPart | None = None
    mistakes: MistakesPart | None = None
    labels: JudgedLabels | UnjudgedLabels | None = None
    classes: ClassesPart | None = None
    seconds: Mapping[str, float]
    hardware: HardwareRecord

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the names of the parts that there are, in the order of `PARTS`."""
        return tuple(name for name in PARTS if getattr(self, name) is not None)

    def list_named_images(self) -> set[str]:
        """List the images of the run that are shown beside others, or as examples, by path."""
        paths = {near.path for row in self.images.rows for near in row.near} if self.images else set()
        for pair in self.mistakes.pairs if self.mistakes else ():
            paths |= {path for one in pair.examples for path in (one.path, one.like_path) if path}
        if isinstance(self.labels, JudgedLabels):
            paths |= {row.path for row in self.labels.rows[:SUSPECTS_SHOWN]}
        return paths

    def table(self) -> dict[str, Any]:
        """Return the record in the form of `explanation.json` and of `budwood explain --json`.

        Returns:
            Plain values; the parts in the order in which they were asked for.
        """
        found = self.model_dump()
        for score in (found["mistakes"] or {}).get("slices", ()):
            if score["p_alone"] is None:  # of version 0.1, which did not know it
                del score["p_alone"]
        order = dict.fromkeys([*(name for name in self.seconds if name in self.parts), *self.parts])
        return {name: found[name] for name in ("run", "created", *order, "seconds", "hardware")}

    def merged(self, later: ExplanationRecord) -> ExplanationRecord:
        """Return a later record with the parts of this one that it does not have.

        Args:
            later: What was found out later.

        Returns:
            The merged record.
        """
        kept = {name: getattr(self, name) for name in self.parts if name not in later.parts}
        return later.model_copy(update={**kept, "seconds": {**self.seconds, **later.seconds}})


@dataclass(frozen=True)
class Explanation:
    """The explanation of a run, as kept in its folder and shown by its report.

    Attributes:
        record: What was found out.
        pictures: Pictures by name, each a data URI or a fragment of HTML.
    """

    record: ExplanationRecord
    pictures: Mapping[str, str]

    @property
    def left_out(self) -> int:
        """Return the number of named images that have no picture, as their files are gone, changed or elsewhere."""
        return sum(f"file-{path}" not in self.pictures for path in self.record.list_named_images())


def save_explanation(folder: Path, explanation: Explanation) -> None:
    """Write an explanation into a run's folder.

    Args:
        folder: The run folder.
        explanation: The explanation.

    Raises:
        StorageError: The folder cannot be written.
    """
    content = replace_undefined({"record": explanation.record.table(), "pictures": explanation.pictures})
    document = {"schema_version": SCHEMA_VERSION, "digest": _digest(content), **content}
    with raise_storage_errors(folder):
        write_text(folder / EXPLANATION_FILE, encode_json(document))


def load_explanation(folder: Path) -> Explanation | None:
    """Load the explanation of a run from its folder.

    Args:
        folder: The run folder.

    Returns:
        The explanation, from this or an earlier version of Budwood; None where the run has not been explained.

    Raises:
        RunError: The file cannot be read, or a later version of Budwood wrote it.
    """
    file = folder / EXPLANATION_FILE
    if not file.is_file():
        return None
    try:
        found = decode_json(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, found {type(found).__name__}")
        version = found.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise RunError(
                f"{file}: has the schema version {version}, expected {SCHEMA_VERSION} at most.", "Update Budwood."
            )
        if "digest" in found and found.pop("digest") != _digest({n: found.get(n) for n in ("record", "pictures")}):
            raise RunError(
                f"{file}: was changed or damaged since it was written (its content has another digest).",
                "Remove it, or restore it from a copy, and explain the run again.",
            )
        return _ExplanationFile.model_validate(found).explanation()
    except ValidationError as error:
        first = error.errors()[0]
        raise _make_unreadable_error(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise _make_unreadable_error(file, str(error)) from error


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of an explanation's content, however it was laid out in the file."""
    return digest_bytes(json.dumps(content, sort_keys=True, allow_nan=False).encode())


class _ExplanationFile(FrozenRecord):
    """The content of the file."""

    schema_version: int = SCHEMA_VERSION
    record: ExplanationRecord
    pictures: Mapping[str, str]

    def explanation(self) -> Explanation:
        return Explanation(self.record, self.pictures)


def _make_unreadable_error(file: Path, problem: str) -> RunError:
    return RunError(f"{file}: cannot be read ({problem}).", "Remove it, or explain the run again.")
