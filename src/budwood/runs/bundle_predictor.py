"""A predictor from an exported ONNX file alone: without the run, and without PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from budwood.data.image_inputs import ImageInput
from budwood.data.images import Square
from budwood.data.loading import Pixels
from budwood.data.value_range import ValueRange
from budwood.errors import RunError, WeightsError
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.label_task import MultiLabel, SingleLabel
from budwood.evaluation.novelty import NoveltyScorer
from budwood.hardware import count_threads
from budwood.inference.engines import ERRORS
from budwood.networks.weights import digest_file
from budwood.runs.answers import AnswerRules, Outputs
from budwood.runs.base_predictor import Predictor, ReadImage
from budwood.runs.export_record import METADATA_KEY, ExportRecord, parse_export_record
from budwood.runs.lookup import lies_in_run

IMAGE: Final = "image"
SUFFIX: Final = ".onnx"


@dataclass(frozen=True)
class BundlePredictor(Predictor):
    """An exported file, ready to say what images show; it makes them square and normalises them itself.

    Attributes:
        path: The file.
        record: What it tells of itself.
        session: ONNX Runtime's session.
    """

    path: Path
    record: ExportRecord
    session: Any

    @cached_property
    def rules(self) -> AnswerRules:
        """Return how the file's outputs become answers."""
        one, count = self.record, len(self.record.classes)
        task = MultiLabel(count) if one.task == "multi-label" else SingleLabel(count)
        thresholds, costs, limits = (
            None if values is None else np.array(values) for values in (one.thresholds, one.costs, one.set_limits)
        )
        decision = DecisionRule(task, np.array(one.temperature), thresholds, costs, limits)
        novelty = None
        if one.reject_method is not None and one.reject_threshold is not None:
            novelty = NoveltyScorer(one.reject_method, {}, one.reject_threshold)
        return AnswerRules(one.classes, decision, novelty, one.training)

    @property
    def squares(self) -> tuple[Square | None, ...]:
        """Return that the file takes whole images."""
        return (None,)

    @property
    def value_range(self) -> ValueRange | None:
        """Return the values of more than 8 bits that become black and white."""
        return self.record.value_range

    @cached_property
    def identity(self) -> str:
        """Return the digest of the file."""
        return digest_file(self.path)

    def read(self, image: ImageInput, name: str) -> ReadImage:
        """Read an image and compute its outputs at once, as whole images are too large to be kept; see `Predictor`."""
        read = super().read(image, name)
        return read if read.problem else replace(read, pixels=(), outputs=self.compute(read.pixels, True))

    def compute_read(self, images: Sequence[ReadImage], features: bool) -> Outputs:
        """Return the outputs of images that have been read."""
        parts = [image.outputs for image in images if image.outputs]
        features_, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "logits"))
        scores = [part.strangeness for part in parts if part.strangeness is not None]
        return Outputs(features_, logits, np.concatenate(scores) if scores else None)

    def compute(self, pixels: Sequence[Pixels], features: bool) -> Outputs:
        """Compute the outputs of one image.

        Args:
            pixels: The whole image, uint8 [h, w, 3], alone in a sequence; or several of one size, uint8 [n, h, w, 3].
            features: Whether features are needed; they always come.

        Returns:
            The outputs.

        Raises:
            WeightsError: A logit is not finite.
        """
        (images,) = pixels
        names = [output.name for output in self.session.get_outputs()]
        rows = [self.session.run(None, {IMAGE: image[None]}) for image in images.reshape(-1, *images.shape[-3:])]
        found = {name: np.concatenate(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
        if not np.isfinite(found["logits"]).all():
            raise WeightsError(
                f"{self.path}: its outputs are not finite (NaN or infinite) for an image.", "Export the run again."
            )
        scores = found.get("reject_score")
        strangeness = None if scores is None else np.asarray(scores, np.float64)
        return Outputs(found["features"], found["logits"], strangeness)

    def compute_outputs(self, pixels: Pixels) -> Outputs:
        """Compute features and logits of images of one size, uint8 [n, h, w, 3]."""
        if not len(pixels):
            empty = np.zeros((0, self.record.features), np.float32)
            return Outputs(empty, np.zeros((0, len(self.classes)), np.float32))
        return self.compute([pixels], True)


def is_bundle(place: object) -> bool:
    """Tell whether a run is named by an exported file.

    Args:
        place: What was given in place of a run.

    Returns:
        True for a path that ends in `.onnx`, and for any file that is not a run's own.
    """
    if not isinstance(place, str | Path):
        return False
    file = Path(place)
    return file.suffix == SUFFIX or (file.is_file() and not lies_in_run(file))


def open_bundle(path: str | Path) -> BundlePredictor:
    """Open a file that `budwood export` made.

    Args:
        path: The ONNX file.

    Returns:
        The predictor.

    Raises:
        RunError: There is no such file, it is damaged, or it was not exported by Budwood or by a later version.
    """
    import onnxruntime

    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: there is no such file.", "Name a run, or a file that `budwood export` made.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.log_severity_level = ERRORS
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"{path}: cannot be read as an ONNX file ({reason}).", "Export the run again.") from error
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise RunError(
            f"{path}: is no file that `budwood export` made (its metadata have no `{METADATA_KEY}`).",
            "Name a run, or export one with `budwood export RUN --to model.onnx`.",
        )
    record = parse_export_record(text, str(path))
    refuse_unlike(path, record, session)
    return BundlePredictor(path, record, session)


def refuse_unlike(path: Path, record: ExportRecord, session: Any) -> None:
    """Refuse a file whose metadata do not belong to its outputs, as after a change by hand.

    Args:
        path: The file.
        record: What it tells of itself.
        session: ONNX Runtime's session.

    Raises:
        RunError: They do not.
    """
    count = len(record.classes)
    expected = {"probabilities": [1, count], "logits": [1, count], "features": [1, record.features]}
    expected |= {"reject_score": [1]} if record.reject_method is not None else {}
    found = {output.name: list(output.shape) for output in session.get_outputs()}
    for name, shape in expected.items():
        if found.get(name) != shape:
            there = f"has the shape {found[name]}" if name in found else "is missing"
            reason = f"the output `{name}` {there}, expected {shape}"
            raise RunError(f"{path}: its metadata are of another file ({reason}).", "Export the run again.")
    every: dict[str, Collection[object] | None] = {
        "classes": set(record.classes),
        "thresholds": record.thresholds,
        "set_limits": record.set_limits,
    }
    every["costs"] = record.costs
    every |= {f"costs of {one}": row for one, row in enumerate(record.costs or ())}
    wrong = [name for name, values in every.items() if values is not None and len(values) != count]
    temperature = record.temperature
    if len(temperature) not in (1, count) or not all(np.isfinite(one) and one > 0 for one in temperature):
        wrong.append("temperature")
    if wrong:
        raise RunError(f"{path}: its metadata are damaged (`{wrong[0]}`).", "Export the run again.")
