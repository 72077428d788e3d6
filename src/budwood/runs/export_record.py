"""What an exported file tells of itself: the run that it is of, how its answers are to be read, and how it was checked.

An ONNX file has it as one JSON document under the key `budwood` of its metadata.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ValidationError

from budwood.config.records import FrozenRecord
from budwood.data.training_images import TrainingImages
from budwood.data.value_range import ValueRange
from budwood.errors import RunError
from budwood.evaluation.intervals import Metric
from budwood.evaluation.novelty import NoveltyMethod
from budwood.storage.strict_json import decode_json, encode_json

EXPORT_SCHEMA: Final = 1
METADATA_KEY: Final = "budwood"


class ParityRecord(FrozenRecord):
    """How an exported file answered, in a process of its own, against the run that it was made of.

    Attributes:
        images: Number of images of the run's data.
        made: Number of made images of unusual shapes and kinds.
        largest_difference: Of a probability, of any of them.
        tolerance: The difference above which the export is refused; None where it is in 8 bits, which a paired test
            on validation judges.
        agreement: The share of all images that both call the same.
        same_refusals: Number of all images that both refuse, or both take, as none of the classes; None where the run
            cannot tell.
        reject_difference: The largest difference of a reject score, as a part of the threshold; None as above.
        run_accuracy: Of the run, on the validation images among them.
        accuracy: Of the file, on the same.
        engine: What ran the file.
    """

    images: int
    made: int
    largest_difference: float
    tolerance: float | None
    agreement: Metric
    same_refusals: int | None = None
    reject_difference: float | None = None
    run_accuracy: Metric
    accuracy: Metric
    engine: str

    @property
    def n(self) -> int:
        """Return the number of all images."""
        return self.images + self.made


class Int8Record(FrozenRecord):
    """What 8 bits cost on the validation images.

    Attributes:
        n: Number of validation images.
        run_correct: Correct by the run.
        int8_correct: Correct by the file in 8 bits.
        p: p-value of McNemar's exact test of the difference.
    """

    n: int
    run_correct: int
    int8_correct: int
    p: float


class ExportRecord(FrozenRecord):
    """An exported file.

    Attributes:
        run: Id of the run.
        created: When the file was made, UTC, ISO 8601.
        classes: Names in the order of the outputs.
        task: Whether an image has one label or several.
        temperature: What logits are divided by, inside the file already: one, or one for each label.
        thresholds: Of several labels, the probability from which on an image has each; None: one half.
        costs: Of calling class i (row) class j (column), where an image has one label; None: all mistakes are equal.
        set_limits: The least probability with which each class is in the prediction set; None: there are no sets.
        coverage: The share of images whose true class is to be in its set.
        reject_method: The score of `reject_score`; None: the file has no such output.
        reject_threshold: An image whose score is larger is none of the classes.
        value_range: Values of more than 8 bits that become black and white before the file sees them; None: images
            have 8 bits.
        training: What the training images were like; None where that is not known.
        features: Length of the output `features`.
        recipe: The run's recipe, TOML.
        data: Fingerprint of the data set, its split included.
        weights: Digests of the run's weights by file.
        versions: Of Budwood and of libraries.
        parity: How it was checked; None while that has not been done.
        int8: What 8 bits cost; None where the file is in 32 bits.
    """

    schema_version: int = EXPORT_SCHEMA
    run: str
    created: str
    classes: tuple[str, ...]
    task: Literal["single-label", "multi-label"]
    temperature: tuple[float, ...]
    thresholds: tuple[float, ...] | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    set_limits: tuple[float, ...] | None = None
    coverage: float | None = None
    reject_method: NoveltyMethod | None = None
    reject_threshold: float | None = None
    value_range: ValueRange | None = None
    training: TrainingImages | None = None
    features: int
    recipe: str
    data: str
    weights: dict[str, str]
    versions: dict[str, str]
    parity: ParityRecord | None = None
    int8: Int8Record | None = None

    def to_json(self) -> str:
        """Return the record as one JSON document."""
        return encode_json(self.model_dump())


def parse_export_record(text: str, place: str) -> ExportRecord:
    """Parse the record of an exported file.

    Args:
        text: The JSON document of its metadata.
        place: The file, for messages.

    Returns:
        The record.

    Raises:
        RunError: It is damaged, or of a later version of Budwood.
    """
    try:
        table = decode_json(text)
        version = table.get("schema_version")
        if isinstance(version, int) and version > EXPORT_SCHEMA:
            raise RunError(
                f"{place}: was made by a later version of Budwood (its metadata have schema version {version}, and "
                f"this Budwood reads up to {EXPORT_SCHEMA}).",
                "Update Budwood.",
            )
        return ExportRecord(**table)
    except (ValueError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise RunError(f"{place}: its metadata cannot be read ({error}).", "Export the run again.") from error
