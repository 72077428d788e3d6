"""What a predictor says of an image: calibrated probabilities, labels, sets, strangers, notes, features."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import budwood as bw
from budwood.evaluation.intervals import Metric
from budwood.inference import head_inputs
from budwood.inference.engines import read_graph
from budwood.inference.feature_cache import compute_features
from budwood.runs.confidence_record import (
    NOVELTY_FILE,
    CalibrationRecord,
    ConfidenceRecord,
    DecisionsRecord,
    NoveltyRecord,
    SetsRecord,
)
from budwood.runs.networks import make_trunk
from budwood.runs.predictor import RunPredictor, make_predictor
from budwood.runs.run import Run
from budwood.runs.run_files import digest_run_files
from budwood.storage.context import open_context
from conftest import TINY, Notes, fill

NONE = Metric(0.5, 0.4, 0.6, 10)
RECIPES: dict[str, dict[str, Any]] = {
    "cnn": TINY,
    "mlp head": {"weights": "none", "size": 32, "head": "mlp:8", "batch_norm": True, "epochs": 1, "freeze": "none"},
    "linear": {"weights": "none", "size": 32, "optimizer": "adam", "epochs": 1, "freeze": "none"},
    "trunk": {"weights": "none", "size": 32},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for hue, name in enumerate(("leaf", "rock", "sky")):
        fill(folder / name, 10, hue=hue)
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def run(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = bw.Recipe(**RECIPES[request.param])
    return knowing(bw.train(bw.scan(photos), recipe, out=tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def small(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return knowing(bw.train(bw.scan(photos), bw.Recipe(**TINY), out=tmp_path_factory.mktemp("runs")))


def knowing(run: Run, **known: Any) -> Run:
    """The run with such a confidence, and nothing else of what it knew."""
    record = run.record.model_copy(update={"confidence": ConfidenceRecord(**known)})
    return Run(run.path, record)


def with_bank(run: Run, threshold: float) -> Run:
    """The run with the features of its training images as what it knows."""
    features = make_trunk_features(run, run.dataset().root, "train")
    bank = features / np.linalg.norm(features, axis=1, keepdims=True)
    save_file({"bank": bank}, run.path / NOVELTY_FILE)
    novelty = NoveltyRecord(method="knn", threshold=threshold, share=0.01, auroc={"knn": NONE}, neighbour=1, n=10)
    known = knowing(run, novelty=novelty)
    files = {**run.record.files, **digest_run_files(run.path, [NOVELTY_FILE])}
    return Run(run.path, known.record.model_copy(update={"files": files}))


def make_trunk_features(run: Run, root: Path, split: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = replace(run.dataset().samples(split), root=root)
    context = open_context()
    return compute_features(make_trunk(run, context), samples, context.progress).values


def test_features_are_those_of_the_trunk_and_the_logits_stay_what_they_are(run: Run, photos: Path) -> None:
    samples = run.dataset().samples("train")
    predictor = bw.Predictor.open(run)
    files = [samples.root / path for path in samples.paths]
    pixels = np.stack([predictor.read(file, "").pixels[0] for file in files])
    outputs = predictor.compute_outputs(pixels)
    expected = make_trunk_features(run, samples.root, "train")
    assert outputs.features == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))
    assert np.array_equal(outputs.logits, predictor.compute_logits(pixels))
    assert predictor.compute_outputs(pixels[:0]).features.shape == (0, expected.shape[1])
    (one,) = predictor.predict(files[0], features=True)
    assert one.features is not None
    assert one.features == pytest.approx(expected[0], abs=1e-4 * float(np.abs(expected).max()))


def test_the_trunk_runs_by_itself_where_the_graph_does_not_tell_its_end(
    small: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    expected = bw.Predictor.open(small).compute_outputs(pixels)
    monkeypatch.setattr(head_inputs, "_find_head_input", lambda _: "")
    found = bw.Predictor.open(small, cache=tmp_path).compute_outputs(pixels)
    assert found.features == pytest.approx(expected.features, abs=1e-5)
    assert found.logits == pytest.approx(expected.logits, abs=1e-5)


def test_pytorch_gives_the_same_features(small: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    expected = bw.Predictor.open(small).compute_outputs(pixels)

    def fail(*_: object) -> bytes:
        raise RuntimeError("no operator")

    monkeypatch.setattr("budwood.inference.pytorch_backend._export_onnx", fail)
    notes = Notes()
    found = bw.Predictor.open(small, cache=tmp_path, progress=notes).compute_outputs(pixels)
    assert any("cannot be exported to ONNX" in note for note in notes.kept)
    assert found.features == pytest.approx(expected.features, abs=1e-5)
    assert found.logits == pytest.approx(expected.logits, abs=1e-5)


def test_images_like_none_in_training_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    known = with_bank(run, threshold=1e-3)
    files = [known.dataset().root / path for path in known.dataset().samples("train").paths[:5]]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "noise.png")
    before = bw.Predictor.open(run).predict([*files, tmp_path / "noise.png"])
    found = bw.Predictor.open(known).predict([*files, tmp_path / "noise.png"])
    assert [one.refused for one in found] == [False] * 5 + [True]
    assert found[-1].answer == "none of these"
    assert found[-1].label in known.classes, "what it would be called stays known"
    assert all(one.strangeness is not None and one.strangeness >= 0 for one in found)
    assert [one.top for one in found] == [one.top for one in before], "the same network, to the bit"
    assert [(one.refused, one.strangeness, one.candidates) for one in before] == [(None, None, None)] * 6


def test_answers_follow_temperature_costs_and_sets(small: Run, photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))[:6]
    plain = bw.Predictor.open(small).predict(files, top=1)
    assert [one.label for one in plain] == [one.top[0][0] for one in plain]
    assert [one.labels for one in plain] == [(one.label,) for one in plain]
    assert [one.confidence for one in plain] == [one.top[0][1] for one in plain]
    costs = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0))  # to say sky costs nothing
    known = knowing(
        small,
        calibration=CalibrationRecord(temperature=(2.0,), before=NONE, after=NONE, noise={}),
        decisions=DecisionsRecord(rule="costs", costs=costs),
        sets=SetsRecord(coverage=0.9, limits=(0.0, 0.0, 1.0), per_class=(False,) * 3, n=10),
    )
    predictor = bw.Predictor.open(known)
    found = predictor.predict(files)
    assert {one.label for one in found} == {"sky"}
    logits = np.log(bw.Predictor.open(small).compute_probabilities(files))
    softened = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    assert all(np.allclose(one.probabilities, row, atol=1e-6) for one, row in zip(found, softened, strict=True))  # type: ignore[arg-type]
    assert predictor.compute_probabilities(files) == pytest.approx(softened, abs=1e-6)
    for one in found:
        assert one.confidence == pytest.approx(dict(zip(small.classes, one.probabilities, strict=True))["sky"])  # type: ignore[arg-type]
        assert one.candidates is not None
        assert set(one.candidates) >= {"leaf", "rock", one.top[0][0]}


def test_eight_bit_networks_have_features_too(small: Run, photos: Path) -> None:
    file = next(photos.rglob("*.png"))
    plain, notes = bw.Predictor.open(small), Notes()
    eight = bw.Predictor.open(small, int8=True, progress=notes)
    assert isinstance(eight, RunPredictor)
    if eight.part.graph != "int8.onnx":
        pytest.skip(f"8 bits were not as good here: {notes.kept}")
    (one,), (other,) = plain.predict(file, features=True), eight.predict(file, features=True)
    assert one.features is not None
    assert other.features is not None
    assert other.features == pytest.approx(one.features, abs=0.2 * float(np.abs(one.features).max()))


def test_an_eight_bit_graph_that_is_gone_is_told(small: Run) -> None:
    predictor = bw.Predictor.open(small)
    assert isinstance(predictor, RunPredictor)
    with pytest.raises(bw.StorageError, match="was removed or damaged while it was needed"):
        read_graph(replace(predictor.part, graph="gone.onnx"))


def test_what_differs_from_the_training_images_is_noted(small: Run, tmp_path: Path) -> None:
    predictor = bw.Predictor.open(small)
    grey = Image.fromarray(np.arange(0, 160, 0.1).reshape(40, 40).astype(np.uint8))
    assert predictor.predict(grey)[0].notes == ("grey, trained on colour",)
    assert predictor.predict(np.full((40, 40, 3), 9, np.uint8))[0].notes == ()
    assert predictor.predict(np.full((40, 40), 9, np.uint8))[0].notes == ("grey, trained on colour",)
    deep = Image.fromarray(np.full((40, 40), 900, np.uint16))
    assert predictor.predict(deep)[0].notes == ("more than 8 bits, trained on 8", "grey, trained on colour")
    assert predictor.predict(np.zeros((9, 8, 3), np.uint8))[0].notes == ("much smaller: 8 x 9, trained on 40 x 40",)
    assert predictor.predict(np.zeros((200, 300, 3), np.uint8))[0].notes == (
        "much larger: 300 x 200, trained on 40 x 40",
    )


def test_what_grey_training_images_of_16_bits_differ_from_is_noted(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "photos" / ("dark", "light")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 2000 + 30_000 * (number % 2), (24, 24), np.uint16)
        Image.fromarray(values).save(folder / f"{number}.png")
    run = bw.train(bw.scan(tmp_path / "photos"), bw.Recipe(**TINY), out=tmp_path / "runs")
    predictor = bw.Predictor.open(run)
    assert predictor.predict(tmp_path / "photos" / "dark" / "0.png")[0].notes == ()
    assert predictor.predict(np.zeros((24, 24, 3), np.uint8))[0].notes == (
        "8 bits, trained on 16",
        "colour, trained on grey",
    )


def test_a_run_without_a_list_of_its_images_answers_without_notes(small: Run, photos: Path, tmp_path: Path) -> None:
    moved = Run(shutil.copytree(small.path, tmp_path / "run"), small.record)
    (moved.path / "dataset.parquet").unlink()
    (one,) = bw.Predictor.open(moved).predict(np.zeros((2, 2, 3), np.uint8))
    assert one.notes == ()
    (moved.path / "dataset.parquet").write_bytes(b"PAR1")
    with pytest.raises(bw.RunError, match=r"dataset\.parquet: was changed or damaged"):
        bw.Predictor.open(moved).predict(np.zeros((2, 2, 3), np.uint8))
    digests = {name: digest for name, digest in small.record.files.items() if name != "dataset.parquet"}
    older = Run(moved.path, small.record.model_copy(update={"files": digests}))
    with pytest.raises(bw.RunError, match=r"dataset\.parquet: cannot be read"):
        bw.Predictor.open(older).predict(np.zeros((2, 2, 3), np.uint8))


def test_a_folder_is_its_images_and_a_text_one_file(small: Run, photos: Path) -> None:
    predictor = bw.Predictor.open(small)
    files = [str(file) for file in sorted((photos / "leaf").iterdir())]
    assert [one.path for one in predictor.predict(str(photos / "leaf"))] == files
    assert [one.path for one in predictor.predict([photos / "leaf", photos / "sky" / "000.png"])] == [
        *files,
        str(photos / "sky" / "000.png"),
    ]
    assert [one.path for one in predictor.predict("ab")] == ["ab"]


def test_labels_of_a_run_with_several(tmp_path: Path) -> None:
    files = fill(tmp_path / "photos", 24)
    rows = [f"{file.name},{('red', 'red|round', 'round', '')[number % 4]}" for number, file in enumerate(files)]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(["path,labels", *rows]))
    run = bw.train(bw.scan(tmp_path / "photos" / "labels.csv"), bw.Recipe(**TINY), out=tmp_path / "r")
    known = knowing(
        run,
        decisions=DecisionsRecord(rule="f1", thresholds=(0.0, 1.0)),
        sets=SetsRecord(coverage=0.9, limits=(1.0, 1.0), per_class=(False, False), n=10),
    )
    for one in make_predictor(known, open_context()).predict(files[:4]):
        assert one.labels == ("red",)
        assert one.label == "red"
        assert one.candidates == ()
        assert one.probabilities is not None
        assert one.confidence == pytest.approx(one.probabilities[0] * (1 - one.probabilities[1]))


def test_an_ensemble_has_its_own_temperature_and_sets_and_its_first_members_features(
    photos: Path, tmp_path: Path
) -> None:
    data = bw.scan(photos)
    recipes = [{**TINY, "size": size, "tta": "flip"} for size in (16, 24)]
    runs = [bw.train(data, bw.Recipe(**recipe), out=tmp_path / "runs") for recipe in recipes]
    ensemble = bw.ensemble(runs, out=tmp_path / "runs")
    files = [photos / "sky" / f"{number:03}.png" for number in range(5)]
    heaviest = bw.Predictor.open(knowing(ensemble.members()[0])).predict(files, features=True)
    plain = bw.Predictor.open(knowing(ensemble))
    sets = SetsRecord(coverage=0.9, limits=(0.0,) * 3, per_class=(False,) * 3, n=10)
    known = with_bank(ensemble.members()[0], threshold=1e-3)
    shutil.copy(known.path / NOVELTY_FILE, ensemble.path / NOVELTY_FILE)
    assert known.record.confidence
    warm = CalibrationRecord(temperature=(3.0,), before=NONE, after=NONE, noise={})
    whole = knowing(ensemble, calibration=warm, sets=sets, novelty=known.record.confidence.novelty)
    files_of_run = {**whole.record.files, **digest_run_files(whole.path, [NOVELTY_FILE])}
    whole = Run(whole.path, whole.record.model_copy(update={"files": files_of_run}))
    found = bw.Predictor.open(whole).predict([*files, b"no image"], features=True)
    for one, other in zip(found, heaviest, strict=False):
        assert one.features is not None
        assert other.features is not None
        assert one.features == pytest.approx(other.features, abs=1e-5)
        assert one.refused is not None
        assert one.candidates == whole.classes
    chances = plain.compute_probabilities(files) ** (1 / 3)
    expected = chances / chances.sum(axis=1, keepdims=True)
    assert np.allclose([one.probabilities for one in found[:-1] if one.probabilities is not None], expected, atol=1e-5)
    assert found[-1].problem.startswith("not an image")
    (sure,) = bw.Predictor.open(whole, coverage=0.5).predict(files[:1])
    assert sure.candidates is not None
    assert sure.top[0][0] in sure.candidates


def test_features_are_the_mean_over_mirror_images_as_logits_are(photos: Path, tmp_path: Path) -> None:
    run = bw.train(bw.scan(photos), bw.Recipe(**TINY, tta="flip"), out=tmp_path / "runs")
    predictor = bw.Predictor.open(run)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    turned = np.ascontiguousarray(pixels[:, :, ::-1])
    one, other = predictor.compute_outputs(pixels), predictor.compute_outputs(turned)
    assert one.features == pytest.approx(other.features, abs=1e-5)
    assert one.logits == pytest.approx(other.logits, abs=1e-5)
    mean = (predictor.compute_logits(pixels) + predictor.compute_logits(turned)) / 2
    assert one.logits == pytest.approx(mean, abs=1e-5)
