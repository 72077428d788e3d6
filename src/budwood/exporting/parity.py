"""Whether an exported file answers as the run does: real images through both, the file in a process of its own.

The file is refused where any of its outputs - probabilities, logits, features, reject score - differs by more than a
tolerance, or where it calls an image otherwise than the run although the run was not undecided. The refusal says which
images differ most, and where it begins.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from budwood.data.blocks import split_blocks
from budwood.data.dataset import Samples
from budwood.data.images import BadImage, decode, read_known_bytes
from budwood.errors import DataError, RunError
from budwood.evaluation.intervals import proportion_interval
from budwood.evaluation.label_task import task_of
from budwood.evaluation.significance import ALPHA, mcnemar_test
from budwood.exporting import answer_images
from budwood.inference.engines import BATCH, has_cuda_device
from budwood.runs.export_record import Int8Record, ParityRecord
from budwood.runs.predictor import RunPredictor
from budwood.runs.run import Run
from budwood.storage.strict_json import encode_json

IMAGES: Final = 200  # of the run's data, at least, where it has as many
VALIDATION: Final = 120  # of them
SEALED_IMAGES: Final = 20  # of them, whose labels stay sealed
TOLERANCE: Final = 0.005  # of a probability; of logits and features as a part of the image's largest
HALF_TOLERANCE: Final = 0.02  # where the run computes in half precision, on a GPU
SHOWN: Final = 3  # images that a refusal names
SLIGHT: Final = 1e-3  # difference of a logit or feature, as a part of the largest, that is rounding

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CheckImage:
    """An image of the check.

    Attributes:
        name: What messages call it.
        path: Its file.
        data: The content of the file.
        true: Which classes it has, bool [classes], of a validation image; None of any other.
        made: Whether it was made for the check.
    """

    name: str
    path: Path
    data: bytes = field(repr=False)
    true: NDArray[np.bool_] | None = None
    made: bool = False


@dataclass(frozen=True)
class Answers:
    """What was answered about images.

    Attributes:
        probabilities: float64 [n, classes].
        logits: float32 [n, classes].
        reject: Reject scores, float64 [n]; None where there are none.
        digests: Digests of the decoded images; of the file only.
        features: What the head receives, float32 [n, features]; None where that is not known.
        engine: What computed them.
    """

    probabilities: Floats
    logits: NDArray[np.float32]
    reject: Floats | None
    digests: tuple[str, ...] = ()
    features: NDArray[np.float32] | None = None
    engine: str = ""


def choose_images(run: Run, every: bool = False) -> list[CheckImage]:
    """Choose images of the run's data, evenly over its splits.

    Args:
        run: The run.
        every: Whether to take every validation image.

    Returns:
        Validation, training and test images; of the last the pixels only.

    Raises:
        RunError: There are no images where the run's data were.
    """
    data = run.dataset()
    val, train, test = (data.samples(split) for split in ("val", "train", "test"))
    chosen = _take(run, val, len(val) if every else max(VALIDATION, IMAGES - len(train)), labelled=True)
    chosen += _take(run, test, SEALED_IMAGES)
    return chosen + _take(run, train, max(IMAGES - len(chosen), 0 if every else IMAGES - VALIDATION - SEALED_IMAGES))


def _take(run: Run, samples: Samples, count: int, labelled: bool = False) -> list[CheckImage]:
    if not len(samples) or count <= 0:
        return []
    task = task_of(samples.label_sets, len(run.classes))
    targets = task.to_targets(task.read_labels(samples.labels)) if labelled else None
    images = []
    for row in np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)).tolist():
        path = samples.root / samples.paths[row]
        try:
            data = read_known_bytes(path, samples.ids[row])
        except BadImage as bad:
            raise RunError(
                f"{path}: {bad.detail}, so the export cannot be checked.",
                "Restore the run's images to where they were; without them nothing is exported.",
            ) from bad
        images.append(CheckImage(samples.paths[row], path, data, None if targets is None else targets[row]))
    return images


def make_images(folder: Path) -> list[CheckImage]:
    """Make images of unusual shapes and kinds.

    Args:
        folder: Where to write them.

    Returns:
        The images.
    """
    random = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        coarse = random.integers(0, 256, (min(height, 7), min(width, 7), 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    made = {f"{h} x {w}.png": picture(h, w) for h, w in ((1, 1), (1, 4000), (4000, 300), (300, 4000), (2, 3))}
    made |= {"grey.png": picture(61, 47).convert("L"), "palette.png": picture(61, 47).quantize(16)}
    clear = picture(61, 47)
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    made |= {"transparent.png": clear, "cmyk.jpg": picture(61, 47).convert("CMYK"), "turned.jpg": picture(61, 47)}
    turned = Image.Exif()
    turned[0x0112] = 6
    images = []
    for name, image in made.items():
        path = folder / name
        image.save(path, exif=turned if name == "turned.jpg" else Image.Exif())
        images.append(CheckImage(f"made: {name}", path, path.read_bytes(), made=True))
    return images


def ask_run(predictor: RunPredictor, images: Sequence[CheckImage]) -> Answers:
    """Answer images with the run.

    Args:
        predictor: The run's.
        images: The images.

    Returns:
        Its answers.

    Raises:
        DataError: An image cannot be decoded.
        WeightsError: A logit is not finite.
    """
    rules, parts = predictor.rules, []
    for block in split_blocks(len(images), BATCH):
        read = [predictor.read(image.data, image.name) for image in images[block]]
        bad = next((one for one in read if one.problem), None)
        if bad:
            raise DataError(f"{bad.name}: {bad.problem}.", "Run the command again on the images as they were.")
        pixels = [np.stack(each) for each in zip(*(one.pixels for one in read), strict=True)]
        parts.append(predictor.compute(pixels, True))
    features, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "logits"))
    reject = rules.novelty.score(features, logits) if rules.novelty else None
    return Answers(rules.decision.to_probabilities(logits), logits, reject, features=features)


def ask_file(model: bytes, predictor: RunPredictor, images: Sequence[CheckImage]) -> Answers:
    """Answer images with an exported file, in a process that imports neither Budwood nor PyTorch.

    Images of more than 8 bits are given as the run scales them to 8.

    Args:
        model: The file.
        predictor: The run's.
        images: The images.

    Returns:
        Its answers.

    Raises:
        RunError: ONNX Runtime cannot run the file.
    """
    with tempfile.TemporaryDirectory(prefix="budwood-") as name:
        folder = Path(name)
        file, job, result = folder / "model.onnx", folder / "job.json", folder / "result.npz"
        file.write_bytes(model)
        paths = []
        for number, image in enumerate(images):
            paths.append(str(image.path))
            if _is_deep(predictor, image):
                paths[-1] = str(folder / f"{number}.npy")
                np.save(paths[-1], _decode(predictor, image))
        job.write_text(encode_json({"model": str(file), "images": paths}), encoding="utf-8")
        command = [sys.executable, "-I", answer_images.__file__, str(job), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
            raise RunError(
                f"The exported file cannot be run by ONNX Runtime, and was not kept ({last}).",
                "Use the run with `budwood predict`, or export a run of another network.",
            )
        with np.load(result) as found:
            reject = found["reject_score"].astype(np.float64) if "reject_score" in found else None
            probabilities = found["probabilities"].astype(np.float64)
            digests, engine = tuple(found["digests"]), str(found["engine"])
            return Answers(probabilities, found["logits"], reject, digests, found["features"], engine)


def _decode(predictor: RunPredictor, image: CheckImage) -> NDArray[np.uint8]:
    return np.asarray(decode(image.data, predictor.value_range))


def _is_deep(predictor: RunPredictor, image: CheckImage) -> bool:
    shape = predictor.read(image.data, image.name).shape if predictor.value_range else None
    return bool(shape and shape.deep)


def compare_answers(
    predictor: RunPredictor, images: Sequence[CheckImage], run: Answers, file: Answers, int8: bool
) -> ParityRecord:
    """Compare the answers of a run and of its exported file.

    Args:
        predictor: The run's.
        images: The images.
        run: What the run answered.
        file: What the file answered.
        int8: Whether the file is in 8 bits, so that no difference is too large.

    Returns:
        How they agree.
    """
    decision, novelty = predictor.rules.decision, predictor.rules.novelty
    called, called_by_file = decision.decide(run.probabilities), decision.decide(file.probabilities)
    known = np.array([number for number, image in enumerate(images) if image.true is not None], int)
    true = np.array([image.true for image in images if image.true is not None]).reshape(len(known), -1)
    right, right_by_file = ((each[known] == true).all(axis=1) for each in (called, called_by_file))
    made = sum(image.made for image in images)
    same = int((called == called_by_file).all(axis=1).sum())
    refused, difference = None, None
    if novelty and run.reject is not None and file.reject is not None:
        refused = int(((run.reject > novelty.threshold) == (file.reject > novelty.threshold)).sum())
        difference = float(np.abs(run.reject - file.reject).max() / max(abs(novelty.threshold), 1e-12))
    return ParityRecord(
        images=len(images) - made,
        made=made,
        largest_difference=float(np.abs(run.probabilities - file.probabilities).max()),
        tolerance=None if int8 else find_tolerance(),
        agreement=proportion_interval(same, len(images)),
        same_refusals=refused,
        reject_difference=difference,
        run_accuracy=proportion_interval(int(right.sum()), len(known)),
        accuracy=proportion_interval(int(right_by_file.sum()), len(known)),
        engine=file.engine,
    )


def find_tolerance() -> float:
    """Return the largest difference of a probability that is taken, by how the run computes on this machine."""
    return HALF_TOLERANCE if has_cuda_device() else TOLERANCE


def list_differing(run: Answers, file: Answers, tolerance: float, multilabel: bool) -> list[int]:
    """List the images that a file answers otherwise than the run, the furthest apart first.

    Args:
        run: What the run answered.
        file: What the file answered.
        tolerance: Difference of a probability that is taken; of logits and features, as a part of the largest.
        multilabel: Whether images have several labels.

    Returns:
        Their numbers.
    """
    apart = np.abs(run.probabilities - file.probabilities).max(axis=1)
    differ = ~(apart <= tolerance)
    for ours, theirs in ((run.logits, file.logits), (run.features, file.features)):
        if ours is not None and theirs is not None:
            differ |= ~(_measure_apart(ours, theirs) <= tolerance)
    if run.reject is not None and file.reject is not None:
        differ |= ~(np.abs(run.reject - file.reject) <= tolerance * (1 + np.abs(run.reject)))
    if not multilabel and run.probabilities.shape[1] > 1:
        best = np.sort(run.probabilities, axis=1)
        other = run.probabilities.argmax(axis=1) != file.probabilities.argmax(axis=1)
        differ |= other & (best[:, -1] - best[:, -2] > tolerance)
    return [number for number in np.argsort(-apart, kind="stable").tolist() if differ[number]]


def _measure_apart(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Floats:
    """The largest difference of each row, as a part of the largest value of `ours`, or of 1 where that is more."""
    return np.asarray(np.abs(ours - theirs).max(axis=1) / np.maximum(np.abs(ours).max(axis=1), 1.0), np.float64)


def refuse_inconsistent(predictor: RunPredictor, file: Answers) -> None:
    """Refuse a file whose own logits and probabilities do not belong together, in however many bits it is.

    Args:
        predictor: The run's.
        file: What the file answered.

    Raises:
        RunError: They do not.
    """
    apart = np.abs(predictor.rules.decision.to_probabilities(file.logits) - file.probabilities).max()
    if not apart <= TOLERANCE:
        raise RunError(
            f"{predictor.run.path}: the exported file contradicts itself, and was not kept: its logits give other "
            f"probabilities than it tells, by up to {apart:.3g} (allowed: {TOLERANCE}).",
            "Use the run with `budwood predict`. If you changed nothing, this is a fault of Budwood or of ONNX "
            "Runtime: please report it with the network's name.",
        )


def refuse_differing(
    predictor: RunPredictor, images: Sequence[CheckImage], run: Answers, file: Answers, model: bytes
) -> None:
    """Refuse a file that answers otherwise than the run.

    Args:
        predictor: The run's.
        images: The images.
        run: What the run answered.
        file: What the file answered.
        model: The file.

    Raises:
        RunError: It does; the message names the images that differ most, and where the difference begins.
    """
    tolerance = find_tolerance()
    differing = list_differing(run, file, tolerance, predictor.task.multilabel)
    if not differing:
        return
    rows = []
    for number in differing[:SHOWN]:
        ours, theirs = run.probabilities[number], file.probabilities[number]
        worst = int(np.nanargmax(np.nan_to_num(np.abs(ours - theirs), nan=2.0)))
        name = predictor.classes[worst]
        rows.append(f"{images[number].name} ({name}: run {ours[worst]:.3f}, file {theirs[worst]:.3f})")
    largest = float(np.abs(run.probabilities - file.probabilities).max())
    place = find_first_difference(predictor, images[differing[0]], differing[0], run, file, model)
    raise RunError(
        f"{predictor.run.path}: the exported file answers otherwise than the run, and was not kept: "
        f"{len(differing):,} of {len(images):,} images differ, by up to {largest:.3g} of a probability (allowed: "
        f"{tolerance}). Furthest apart: {', '.join(rows)}. It begins with {place}.",
        "Use the run with `budwood predict`. If you changed nothing, this is a fault of Budwood or of ONNX Runtime: "
        "please report it with the network's name.",
    )


def find_first_difference(
    predictor: RunPredictor, image: CheckImage, number: int, run: Answers, file: Answers, model: bytes
) -> str:
    """Find where answers begin to differ: in decoding, pixels, features, logits or what follows, in words."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    decoded = _decode(predictor, image)
    if hashlib.blake2b(decoded.tobytes(), digest_size=16).hexdigest() != file.digests[number]:
        return "the decoding of the image file"
    inner = onnx.load_from_string(model)
    expected = predictor.read(image.data, image.name).pixels
    names = [f"network{one}/input" for one in range(len(expected))]
    inner.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    session = onnxruntime.InferenceSession(inner.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {"image": decoded[None]})
    for one, other in zip(expected, found, strict=True):
        steps = int(np.abs(one.astype(int) - other[0]).max())
        if steps:
            return f"the pixels that the network receives (by up to {steps} of 255)"
    for what, ours, theirs in (("features", run.features, file.features), ("logits", run.logits, file.logits)):
        if ours is None or theirs is None:
            continue
        if not _measure_apart(ours[[number]], theirs[[number]])[0] <= SLIGHT:
            apart, largest = np.abs(ours[number] - theirs[number]).max(), np.abs(ours[number]).max()
            return f"the {what} (by up to {apart:.3g}, where the largest is {largest:.3g})"
    if np.abs(run.probabilities[number] - file.probabilities[number]).max() > TOLERANCE:
        return "the probabilities, as the logits agree"
    return "the reject score"


def judge_int8(predictor: RunPredictor, images: Sequence[CheckImage], run: Answers, file: Answers) -> Int8Record:
    """Judge a file in 8 bits by a paired test on the validation images.

    Args:
        predictor: The run's.
        images: The images, every validation image among them.
        run: What the run answered.
        file: What the file answered.

    Returns:
        The counts and the test.

    Raises:
        RunError: The file is significantly worse.
    """
    known = [number for number, image in enumerate(images) if image.true is not None]
    true = np.array([images[number].true for number in known])
    decide = predictor.rules.decision.decide
    correct = np.stack([(decide(each.probabilities[known]) == true).all(axis=1) for each in (run, file)], axis=1)
    full, eight = correct.sum(axis=0).tolist()
    p = float(mcnemar_test(correct.astype(np.float64))[0, 1])
    if p < ALPHA and eight < full:
        raise RunError(
            f"{predictor.run.path}: 8 bits are significantly worse, and nothing was exported: {eight:,} of "
            f"{len(known):,} validation images are correct with 8 bits, {full:,} with 32 (p = {p:.2g}, exact McNemar "
            "test).",
            "Leave out --int8.",
        )
    return Int8Record(n=len(known), run_correct=full, int8_correct=eight, p=p)


def check_model(model: bytes, predictor: RunPredictor, int8: bool) -> tuple[ParityRecord, Int8Record | None]:
    """Check an exported file against its run.

    Args:
        model: The file.
        predictor: The run's.
        int8: Whether the file is in 8 bits.

    Returns:
        How they agree, and what 8 bits cost where it is in 8 bits.

    Raises:
        RunError: It answers otherwise than the run, or 8 bits are significantly worse; or the run's images are gone.
    """
    with tempfile.TemporaryDirectory(prefix="budwood-") as folder:
        images = [*choose_images(predictor.run, every=int8), *make_images(Path(folder))]
        run, file = ask_run(predictor, images), ask_file(model, predictor, images)
    if not int8:
        refuse_differing(predictor, images, run, file, model)
    refuse_inconsistent(predictor, file)
    eight = judge_int8(predictor, images, run, file) if int8 else None
    return compare_answers(predictor, images, run, file, int8), eight
