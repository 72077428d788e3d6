"""`budwood calibrate` and what training keeps of its confidence, from the command line to the report."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.evaluation.intervals import Metric
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.thresholds import parse_rule
from budwood.reporting.confidence_section import describe_temperature
from budwood.runs.confidence_record import CalibrationRecord, ConfidenceRecord, NoveltyRecord
from budwood.runs.run import Run, open_run
from budwood.runs.run_record import save_record
from budwood.workflows import confidence
from budwood.workflows.confidence import ConfidenceSettings, describe_shortfalls, measure_confidence
from conftest import TINY, answers, fill, picture, run_command

TRUTH = np.arange(400, dtype=np.int32) % 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one label an image, which has a test set."""
    folder = tmp_path_factory.mktemp("single")
    for hue, name in ((1, "leaf"), (2, "sky, <b>blue</b>")):
        fill(folder / "photos" / name.replace("/", "_"), 70, hue=hue)
    bw.train(bw.scan(folder / "photos", val=0.4, test=0.2), Recipe(**TINY), out=folder / "runs", id="one")
    return folder / "runs" / "one"


@pytest.fixture(scope="module")
def trained_on_several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    lines, random = ["path,labels"], np.random.default_rng(0)
    for number in range(150):
        red, blue = random.random(2) < 0.5
        picture(number, 0 if red else 2 if blue else 1).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'; '.join(name for name, one in (('red', red), ('blue', blue)) if one)}")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    data = bw.scan(folder / "photos.csv", val=0.4, test=0.2)
    bw.train(data, Recipe(**TINY), out=folder / "runs", id="many")
    return folder / "runs" / "many"


@pytest.fixture
def single(trained: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(trained, tmp_path / "runs" / "one"))


@pytest.fixture
def several(trained_on_several: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(trained_on_several, tmp_path / "runs" / "many"))


def _confidence(run: Run) -> ConfidenceRecord:
    found = open_run(run.path).record.confidence
    assert found is not None
    return found


def _page(run: Run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


class TestTraining:
    def test_a_trained_run_is_calibrated_and_has_sets(self, single: Run) -> None:
        found = _confidence(single)
        assert found.calibration is not None
        assert found.sets is not None
        assert found.sets.coverage == 0.9
        assert found.sets.n == len(single.predictions("val").ids)
        assert found.decisions is None
        assert "How to use the confidence</h2>" in _page(single)
        assert found.model_copy(update={"novelty": None}) == measure_confidence(single.predictions("val"))

    def test_the_test_set_is_the_independent_check(self, single: Run) -> None:
        assert "the test set, once opened, is the independent check" in _page(single)
        bw.test(single)
        calibration = _confidence(single).calibration
        assert calibration is not None
        assert calibration.test is not None
        assert calibration.test["after"].n == len(open_run(single.path).predictions("test").ids)
        assert calibration.noise.keys() == {"val", "test"}
        assert "the test set is the independent check" in _page(single)
        for name in ("With the temperature, validation set", "As the network gives it, test set"):
            assert name in _page(single)

    def test_a_run_that_is_trained_further_is_calibrated_anew(self, single: Run) -> None:
        bw.calibrate(single, coverage=0.8)
        before = _confidence(single)
        bw.resume(single.path, epochs=3)
        found = _confidence(single)
        assert found.sets is not None
        assert found.sets.coverage == 0.8, "as it was asked"
        assert found.calibration != before.calibration

    def test_an_ensemble_is_calibrated(self, single: Run) -> None:
        other = bw.train(
            bw.scan(single.record.source, val=0.4, test=0.2), Recipe(**TINY, seed=2), out=single.path.parent, id="two"
        )
        made = bw.ensemble([single, other], out=single.path.parent)
        found = _confidence(made)
        assert found.model_copy(update={"novelty": None}) == measure_confidence(made.predictions("val"))
        assert "How to use the confidence</h2>" in _page(made)

    def test_each_label_has_a_temperature(self, several: Run) -> None:
        found = _confidence(several)
        assert found.calibration is not None
        assert len(found.calibration.temperature) == 2
        assert "divided by a number of its own" in _page(several)


class TestCalibrate:
    def test_coverage_changes_the_sets_alone(self, single: Run, capsys: pytest.CaptureFixture[str]) -> None:
        before, weights = _confidence(single), (single.path / "weights.safetensors").read_bytes()
        out, _ = run_command(capsys, "calibrate", single.path, "--coverage", "0.75")
        after = _confidence(single)
        assert before.sets is not None
        assert after.sets is not None
        assert after.calibration == before.calibration
        assert all(a >= b for a, b in zip(after.sets.limits, before.sets.limits, strict=True))
        assert "Prediction sets hold the true class of 75 %" in out
        assert "true class of 75 %" in _page(single)
        assert (single.path / "weights.safetensors").read_bytes() == weights
        run_command(capsys, "calibrate", single.path)
        assert _confidence(single) == after, "what is not given stays"

    def test_an_old_run_gets_one(self, single: Run, capsys: pytest.CaptureFixture[str]) -> None:
        save_record(single.path, single.record.model_copy(update={"confidence": None}))
        old = open_run(single.path)
        photo = str(old.root / old.predictions("val").paths[0])
        before = bw.predict(old, [photo])[0].top
        logits = old.task.to_probabilities(old.predictions("val").logits[:1])
        assert before[0][1] == pytest.approx(logits.max(), abs=1e-5), "no temperature"
        assert "How to use the confidence" not in (bw.report(old).path / "report.html").read_text(encoding="utf-8")
        run_command(capsys, "calibrate", single.path)
        assert _confidence(single) == single.record.confidence

    def test_a_tested_run_keeps_its_score(self, single: Run, capsys: pytest.CaptureFixture[str]) -> None:
        bw.test(single)
        scored = open_run(single.path).record.test
        out, _ = run_command(capsys, "calibrate", single.path, "--coverage", "0.8")
        assert "Test calibration error" in out
        assert open_run(single.path).record.test == scored
        found = _confidence(single).calibration
        assert found is not None
        assert found.test is not None

    def test_costs_choose_answers_and_are_taken_back(
        self, single: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one, two = single.classes
        costs = tmp_path / "costs.csv"
        costs.write_text(f'called,{one},"{two}"\n{one},0,1\n"{two}",50,0\n', encoding="utf-8")
        out, _ = run_command(capsys, "calibrate", single.path, "--costs", costs)
        assert "Answers are chosen by costs." in out
        assert "Mistakes that are not equally bad" in _page(single)
        rule = open_run(single.path).decision_rule
        called = rule.decide(rule.to_probabilities(single.predictions("val").logits))
        assert called[:, 1].mean() > 0.9, "as the other mistake is fifty times as bad"
        run_command(capsys, "calibrate", single.path, "--costs", "none")
        assert _confidence(single).decisions is None

    def test_thresholds_of_labels(self, several: Run, capsys: pytest.CaptureFixture[str]) -> None:
        out, _ = run_command(capsys, "calibrate", several.path, "--threshold", "recall=0.9")
        assert "Answers are chosen by recall=0.9." in out
        found = _confidence(several).decisions
        assert found is not None
        assert found.thresholds is not None
        rule = open_run(several.path).decision_rule
        predictions = several.predictions("val")
        called = rule.decide(rule.to_probabilities(predictions.logits))
        recall = (called & predictions.targets).sum(axis=0) / predictions.targets.sum(axis=0)
        assert (recall >= 0.9).all()
        assert "From which probability on an image has a label (recall=0.9)" in _page(several)
        document = json.loads(run_command(capsys, "calibrate", several.path, "--threshold", "f1", "--json")[0])
        assert document["confidence"]["decisions"]["rule"] == "f1"
        assert document["run"] == str(several.path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--coverage", "1"), "coverage: expected a share above 0 and below 1; found 1."),
            (("--coverage", "0"), "coverage: expected a share above 0 and below 1; found 0."),
            (("--coverage", "nan"), "coverage: expected a share above 0 and below 1; found nan."),
            (("--threshold", "f1"), "threshold: is for images with several labels (multi-label)"),
            (("--threshold", "f3"), "threshold: expected 0.5 (or another probability), f1"),
            (("--costs", "absent.csv"), "absent.csv: cannot be read"),
        ],
    )
    def test_bad_settings_change_nothing(
        self, single: Run, capsys: pytest.CaptureFixture[str], options: tuple[str, str], message: str
    ) -> None:
        before = {file: file.read_bytes() for file in single.path.rglob("*") if file.is_file()}
        _, told = run_command(capsys, "calibrate", single.path, *options, code=2)
        assert message in told
        assert all(file.read_bytes() == content for file, content in before.items())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"coverage": "0.9"}, "coverage: expected a number, found '0.9' (str)"),
            ({"coverage": [0.9]}, "coverage: expected a number"),
            ({"costs": np.eye(2)}, "costs: expected a path, found a value of type ndarray"),
            ({"refuse": "x"}, "refuse: expected a number, found 'x' (str)"),
            ({"unknown": 3}, "unknown: expected a path, found 3 (int)"),
            ({"threshold": 0.5}, "threshold: is for images with several labels"),
        ],
    )
    def test_values_of_another_type_are_told(self, single: Run, options: dict[str, Any], message: str) -> None:
        with pytest.raises((bw.ArgumentError, bw.RecipeError)) as told:
            bw.calibrate(single, **options)
        assert message in told.value.message

    def test_a_threshold_may_be_a_number(self, several: Run) -> None:
        made = bw.calibrate(several, threshold=0.25)
        assert made.decision_rule.thresholds is not None
        assert made.decision_rule.thresholds.tolist() == [0.25, 0.25]

    def test_what_sets_of_labels_promise_is_of_labels(self, several: Run, capsys: pytest.CaptureFixture[str]) -> None:
        out, _ = run_command(capsys, "calibrate", several.path)
        assert "Prediction sets hold each label that an image has in 90 % of new images of the same kind" in out
        assert "it holds each label that an image has in 90 %" in _page(several)

    def test_costs_are_for_one_label(self, several: Run, capsys: pytest.CaptureFixture[str]) -> None:
        _, told = run_command(capsys, "calibrate", several.path, "--costs", "costs.csv", code=2)
        assert "costs: are for images with one label each" in told

    def test_a_killed_calibration_leaves_the_run_whole(self, single: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        before = single.record.confidence

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(confidence, "save_record", killed)
        with pytest.raises(KeyboardInterrupt):
            bw.calibrate(single, coverage=0.6)
        assert open_run(single.path).record.confidence == before

    @pytest.mark.slow
    def test_a_process_that_is_killed_leaves_the_run_whole(self, single: Run) -> None:
        before = (single.path / "run.json").read_bytes()
        code = (
            "import os, signal, sys\n"
            "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "import budwood as bw\n"
            "bw.calibrate(sys.argv[1], coverage=0.6)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(single.path)], check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert (single.path / "run.json").read_bytes() == before
        assert bw.calibrate(single, coverage=0.7).record.confidence == _confidence(single)
        assert "true class of 70 %" in _page(single)


def _predict(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Predictions:
    ids = tuple(map(str, range(len(logits))))
    return Predictions(ids, ids, TRUTH[: len(logits)], logits)


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        ((1.0,), "too few images to fit one, or nothing to fit"),
        ((1.02,), "divided by 1.02 .* changes hardly anything"),
        ((0.96,), "divided by 0.96 .* changes hardly anything"),
        ((1.8,), "divided by 1.80 .* because it was too sure"),
        ((0.6,), "divided by 0.60 .* because it was not sure enough"),
        ((1.5, 0.7), r"0.70 \(b\) to 1.50 \(a\)"),
    ],
)
def test_the_temperature_is_told_in_words(temperature: tuple[float, ...], words: str) -> None:
    none = Metric(None, None, None, 0)
    record = CalibrationRecord(temperature=temperature, before=none, after=none, noise={"val": 0.0})
    assert re.search(words, describe_temperature(record, ("a", "b")))


def test_an_overconfident_network_is_made_honest() -> None:
    random = np.random.default_rng(0)
    logits = answers(TRUTH, 0.75, seed=1) * 3
    logits += random.normal(0, 0.2, logits.shape).astype(np.float32)
    found = measure_confidence(_predict(logits)).calibration
    assert found is not None
    assert found.before.value is not None
    assert found.after.value is not None
    assert found.temperature[0] > 2
    assert found.after.value < 0.05 < found.before.value


def test_shortfalls_are_told() -> None:
    few = measure_confidence(_predict(answers(TRUTH[:8], 0.9, seed=1)))
    assert describe_shortfalls(few, ("a", "b", "c")) == [
        "No temperature is fitted: that takes 20 validation images, and the run has 8. Confidence is as the network "
        "gives it.",
        "Prediction sets hold every class: a coverage of 90 % needs more than 8 validation images.",
    ]
    sets, random = ((), (0,), (1,)), np.random.default_rng(0)
    logits = random.normal(size=(60, 2)).astype(np.float32)
    labels = (logits[:, 0] < 0).astype(np.int32)  # the surest lack the first label, and no image has the second
    predictions = replace(_predict(logits), labels=labels, label_sets=sets)
    settings = ConfidenceSettings(rule=parse_rule("precision=0.999"))
    told = describe_shortfalls(measure_confidence(predictions, settings), ("a", "b"))
    assert told == ["Threshold precision=0.999 cannot be reached on the validation set for: a, b."]


def test_a_share_that_few_images_cannot_refuse_is_told() -> None:
    novelty = NoveltyRecord(method="knn", threshold=1.0, share=0.01, auroc={}, neighbour=1, n=49)
    told = describe_shortfalls(ConfidenceRecord(novelty=novelty), ("a", "b"))
    assert told == [
        "To refuse 1 % of known images as none of these needs more than 49 validation images: the threshold is the "
        "score of the strangest of them, and more may be refused."
    ]
    enough = novelty.model_copy(update={"share": 0.02})
    assert describe_shortfalls(ConfidenceRecord(novelty=enough), ("a", "b")) == []
