"""An ensemble is a run like any other: complete, honest, tested once, and the mean of what its members say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.selection import assign_fold, limit
from budwood.data.value_range import ValueRange
from budwood.evaluation.ensembles import select_greedily
from budwood.explain.embeddings import compute_run_features
from budwood.reporting.ensemble_text import describe_ensemble
from budwood.runs.explanation_record import JudgedLabels
from budwood.runs.run import Run, open_run
from budwood.runs.run_record import save_record
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from budwood.workflows.report import render_report
from conftest import TINY, fill

OPTIONS: tuple[dict[str, Any], ...] = ({}, {"seed": 1, "size": 24, "epochs": 3}, {"seed": 2, "channels": 1, "lr": 0.02})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and three runs that see them in different sizes and colours."""
    folder = tmp_path_factory.mktemp("members")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    data = bw.scan(folder / "photos")
    for number, options in enumerate(OPTIONS):
        bw.train(data, Recipe(**{**TINY, **options}), out=folder / "runs", id=f"r{number}")
    bw.ensemble(folder / "runs", out=folder / "runs", id="mean")
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder of these runs and of their ensemble, to be changed."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs on images that have several labels each, or none."""
    folder = tmp_path_factory.mktemp("several")
    paths = fill(folder / "images", 24, hue=0)
    labels = ["cat; dog", "cat", "dog", ""]
    lines = [f"images/{path.name},{labels[number % 4]}" for number, path in enumerate(paths)]
    (folder / "table.csv").write_text("\n".join(["path,labels", *lines]), encoding="utf-8")
    data = bw.scan(folder / "table.csv")
    for seed in (0, 1):
        bw.train(data, Recipe(**{**TINY, "seed": seed}), out=folder / "runs", id=f"r{seed}")
    return folder


def _members(folder: Path) -> list[Run]:
    return [open_run(folder / f"r{number}") for number in range(3)]


def _say(run: Run, split: str = "val") -> dict[str, list[float]]:
    """The probabilities of each image by its id."""
    found = run.predictions(split)
    return dict(zip(found.ids, found.task.to_probabilities(found.logits).tolist(), strict=True))


class TestMean:
    def test_is_of_the_members_probabilities_with_the_metrics_of_any_run(self, made: Path) -> None:
        run, said = open_run(made / "runs" / "mean"), [_say(one) for one in _members(made / "runs")]
        mean = {id: np.mean([one[id] for one in said], axis=0) for id in said[0]}
        found = _say(run)
        assert found.keys() == mean.keys()
        for id, values in found.items():
            assert values == pytest.approx(mean[id], abs=1e-6)
        predictions = run.predictions("val")
        scores = predictions.task.evaluate(predictions.truth, predictions.logits, run.classes)
        for name, metric in scores.figures.items():
            assert run.record.val.figures[name] == metric
        assert {"accuracy", "macro_f1", "balanced_accuracy", "log_loss"} <= set(run.metrics["val"])
        assert (run.record.state, run.record.test, list(run.history)) == ("done", None, [])

    def test_of_several_labels_is_of_each_class_by_itself(self, several: Path) -> None:
        members = [open_run(several / "runs" / f"r{seed}") for seed in (0, 1)]
        run = bw.ensemble(members, out=several / "runs", id="mean")
        said = [_say(one) for one in members]
        for id, values in _say(run).items():
            assert values == pytest.approx(np.mean([one[id] for one in said], axis=0), abs=1e-6)
        image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
        each = [bw.Predictor.open(one).compute_probabilities(image) for one in members]
        assert bw.Predictor.open(run).compute_probabilities(image) == pytest.approx(np.mean(each, axis=0), abs=1e-6)
        assert "of each class by itself" in (run.path / "report.html").read_text(encoding="utf-8")
        chosen = bw.ensemble(members, "validation", out=several / "runs", id="chosen")
        mean, *alone = (float(one.record.val.figures["log_loss"].value or 0) for one in (chosen, *members))
        assert 0 < mean <= min(alone) + 1e-6

    def test_every_image_is_read_for_each_member_in_its_own_way(self, made: Path) -> None:
        file = made / "photos" / "sky" / "003.png"
        members = [bw.Predictor.open(one) for one in _members(made / "runs")]
        ensemble = bw.Predictor.open(made / "runs" / "mean")
        for image in (file, file.read_bytes(), np.full((50, 40, 3), 90, np.uint8)):
            mean = np.mean([one.compute_probabilities(image) for one in members], axis=0)
            assert ensemble.compute_probabilities(image) == pytest.approx(mean, abs=1e-6)
        named = bw.predict(made / "runs" / "mean", [file])[0]
        assert dict(named.top)["sky"] == pytest.approx(float(ensemble.compute_probabilities(file)[0, 1]), abs=1e-5)
        broken = ensemble.predict([b"no image", file])
        assert broken[0].problem
        assert broken[1].top[0][0] in ("leaf", "sky")

    def test_int8_is_of_every_member(self, made: Path) -> None:
        found = bw.predict(made / "runs" / "mean", [made / "photos" / "sky"], int8=True)
        full = bw.predict(made / "runs" / "mean", [made / "photos" / "sky"])
        assert [one.top[0][1] for one in found] == pytest.approx([one.top[0][1] for one in full], abs=0.05)


class TestNetwork:
    def test_is_a_plain_module_of_values_from_0_to_1(self, made: Path) -> None:
        run = open_run(made / "runs" / "mean")
        network, record = run.network(), run.record.network
        assert not network.training
        assert (record.size, record.channels, record.mean, record.std) == (24, 3, (0, 0, 0), (1, 1, 1))
        assert any(name.startswith("members.0.") for name, _ in network.named_parameters())
        pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
        with torch.no_grad():
            said = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
        expected = bw.Predictor.open(run).compute_logits(pixels)
        assert said == pytest.approx(expected, abs=0.02), "smaller members see it scaled, by another library"
        assert record.parameters.total == sum(one.record.network.parameters.total for one in run.members())

    def test_of_members_of_one_size_agrees_with_the_predictor(self, several: Path) -> None:
        run = bw.ensemble(several / "runs", out=several / "runs", id="same")
        pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
        with torch.no_grad():
            said = run.network()(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
        assert said == pytest.approx(bw.Predictor.open(run).compute_logits(pixels), abs=1e-4)

    def test_is_refused_where_no_one_picture_suits_all(self, made: Path, tmp_path: Path) -> None:
        data = bw.scan(made / "photos")
        other = bw.train(data, Recipe(**{**TINY, "resize": "squash"}), out=tmp_path, id="squash")
        run = bw.ensemble([made / "runs" / "r0", other], out=tmp_path, id="both")
        with pytest.raises(bw.RunError, match=r"square in different ways \(resize crop and squash\)"):
            run.network()
        assert len(bw.predict(run, [made / "photos" / "sky" / "000.png"])[0].top) == 2


class TestFolder:
    def test_is_complete_in_itself(self, made: Path, tmp_path: Path) -> None:
        image = np.full((30, 30, 3), 120, np.uint8)
        before = bw.Predictor.open(made / "runs" / "mean").compute_probabilities(image)
        shutil.copytree(made / "runs" / "mean", tmp_path / "elsewhere" / "mean")
        moved = open_run(tmp_path / "elsewhere" / "mean")
        assert bw.Predictor.open(moved, cache=tmp_path / "cache").compute_probabilities(image) == pytest.approx(before)
        assert [one.record.id for one in moved.members()] == ["r0", "r1", "r2"]
        assert [one.recipe for one in moved.members()] == [one.recipe for one in _members(made / "runs")]
        sealed = list(moved.path.rglob("sealed.parquet"))
        assert sealed == [moved.path / "sealed.parquet"], "no member has the labels of the test split"

    def test_its_record_has_what_made_it_and_a_trained_run_has_nothing_new(self, made: Path) -> None:
        table = json.loads((made / "runs" / "mean" / "run.json").read_text(encoding="utf-8"))
        assert table["schema_version"] == 1
        assert table["ensemble"]["rule"] == "equal"
        assert [one["run"] for one in table["ensemble"]["members"]] == ["r0", "r1", "r2"]
        assert sum(one["weight"] for one in table["ensemble"]["members"]) == pytest.approx(1)
        assert "ensemble" not in json.loads((made / "runs" / "r0" / "run.json").read_text(encoding="utf-8"))

    def test_a_member_that_was_exchanged_or_damaged_is_told(self, runs: Path) -> None:
        run = open_run(runs / "mean")
        shutil.rmtree(run.path / "members" / "1")
        with pytest.raises(bw.RunError, match=r"1: is missing or incomplete, one of the networks of the ensemble"):
            bw.Predictor.open(run)
        shutil.copytree(run.path / "members" / "0", run.path / "members" / "1")
        with pytest.raises(bw.RunError, match="is not the network that the ensemble was made of"):
            bw.Predictor.open(run)
        file = run.path / "members" / "0" / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(bw.RunError, match=r"weights\.safetensors: was changed or damaged"):
            open_run(run.path / "members" / "0").network()

    def test_nothing_is_left_of_one_that_fails(self, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("budwood.workflows.ensemble.write_reports", full)
        before = sorted(runs.iterdir())
        with pytest.raises(bw.StorageError, match="no space left"):
            bw.ensemble([runs / "r0", runs / "r1"], out=runs)
        assert sorted(runs.iterdir()) == before

    def test_a_name_that_is_taken_is_refused(self, runs: Path) -> None:
        with pytest.raises(bw.RunError, match="is there already"):
            bw.ensemble([runs / "r0", runs / "r1"], out=runs, id="mean")


class TestSealedTest:
    def test_is_opened_once_for_the_whole(self, runs: Path) -> None:
        run = bw.test(runs / "mean")
        assert run.opened().looks == 1
        assert bw.test(run).opened().looks == 1
        assert len((runs / "test-looks.csv").read_text().splitlines()) == 1
        tested = [bw.test(one) for one in _members(runs)]
        said = [_say(one, "test") for one in tested]
        for id, values in _say(run, "test").items():
            assert values == pytest.approx(np.mean([one[id] for one in said], axis=0), abs=1e-6)
        again = bw.ensemble(tested, out=runs, id="later")
        assert bw.test(again).opened().looks == 5, "another run, another look"
        assert "look 2" in (again.path / "report.html").read_text(encoding="utf-8"), "that of a member before"

    def test_is_refused_to_a_member_alone(self, runs: Path) -> None:
        with pytest.raises(bw.RunError, match="is a member of an ensemble") as caught:
            bw.test(runs / "mean" / "members" / "0")
        assert "budwood test" in caught.value.hint
        assert not list(runs.rglob("test-looks.csv"))


class TestWeightsByValidation:
    def test_are_the_shares_of_a_greedy_selection(self, runs: Path) -> None:
        members = _members(runs)
        found = [one.predictions("val") for one in members]
        picks = select_greedily([one.task.true_probabilities(one.truth, one.logits) for one in found])
        run = bw.ensemble(members, "validation", out=runs)
        record = run.record.ensemble
        assert record
        assert record.picks == tuple(picks.picks.tolist())
        kept = {one.run: one.weight for one in record.members}
        assert kept == pytest.approx({f"r{n}": w for n, w in enumerate(picks.weights.tolist()) if w})
        assert run.record.val.figures["log_loss"].value == pytest.approx(picks.loss, abs=1e-6)
        assert sorted(path.name for path in (run.path / "members").iterdir()) == [str(n) for n in range(len(kept))]

    def test_make_the_validation_score_too_optimistic_as_report_and_table_say(self, runs: Path) -> None:
        run = bw.ensemble(_members(runs), "validation", out=runs)
        page = (run.path / "report.html").read_text(encoding="utf-8")
        assert "The weights were chosen on the validation set, so the validation score is too optimistic" in page
        assert "greedy selection with replacement" in page
        findings = bw.compare([*_members(runs), run]).findings
        (finding,) = [one for one in findings if one.code == "R020"]
        assert "chosen on the validation set" in finding.message
        plain = bw.compare([*_members(runs), runs / "mean"]).findings
        assert not [one for one in plain if one.code == "R020"]

    def test_once_the_test_set_is_opened_its_score_counts(self, runs: Path) -> None:
        run = bw.test(bw.ensemble(_members(runs), "validation", out=runs))
        assert "is too optimistic: go by the test score" in (run.path / "report.html").read_text(encoding="utf-8")

    def test_of_one_run_alone_say_that_no_other_helps(self, runs: Path) -> None:
        run = open_run(runs / "mean")
        made = run.record.ensemble
        assert made
        alone = made.model_copy(update={"members": made.members[:1], "rule": "validation", "picks": (1, 0, 0)})
        said = describe_ensemble(run.record.model_copy(update={"ensemble": alone}))
        assert "of 1 network, which had a lower loss on the validation set alone than with any other of 3 runs" in said
        some = made.model_copy(update={"members": made.members[:2], "rule": "validation", "picks": (3, 0, 1)})
        said = describe_ensemble(run.record.model_copy(update={"ensemble": some}))
        assert "weighted by the share of 4 picks of a greedy selection with replacement from 3 runs" in said
        assert "left out, because never picked: r1." in said

    def test_an_unknown_rule_is_refused(self, runs: Path) -> None:
        with pytest.raises(bw.RecipeError, match="weights: there is no rule 'greedy'"):
            bw.ensemble(_members(runs), "greedy", out=runs)  # type: ignore[arg-type]


class TestEnsembleOfEnsembles:
    def test_is_taken_for_its_members(self, runs: Path) -> None:
        run = bw.ensemble([runs / "mean", runs / "r1"], out=runs)
        record = run.record.ensemble
        assert record
        assert [(one.run, round(one.weight, 4)) for one in record.members] == [
            ("r1", 0.6667),
            ("r0", 0.1667),
            ("r2", 0.1667),
        ]
        said = [_say(open_run(runs / "mean")), _say(open_run(runs / "r1"))]
        for id, values in _say(run).items():
            assert values == pytest.approx(np.mean([one[id] for one in said], axis=0), abs=1e-6)


def _other_classes(made: Path, out: Path) -> Run:
    photos = shutil.copytree(made / "photos", out / "photos")
    (photos / "sky").rename(photos / "sea")
    return bw.train(bw.scan(photos), Recipe(**TINY), out=out, id="other")


def _other_images(made: Path, out: Path) -> Run:
    photos = shutil.copytree(made / "photos", out / "photos")
    (photos / "sky" / "000.png").unlink()
    return bw.train(bw.scan(photos), Recipe(**TINY), out=out, id="other")


def _fewer_validation_images(made: Path, out: Path) -> Run:
    data = limit(bw.scan(made / "photos"), None, 2)
    return bw.train(data, Recipe(**TINY), out=out, id="other")


def _unfinished(made: Path, out: Path) -> Run:
    folder = shutil.copytree(made / "runs" / "r1", out / "other")
    record = open_run(folder).record.model_copy(update={"state": "stopped"})
    save_record(folder, record)
    return Run(folder, record)


def _other_range(made: Path, out: Path) -> Run:
    folder = shutil.copytree(made / "runs" / "r1", out / "other")
    record = open_run(folder).record
    data = record.dataset.model_copy(update={"value_range": ValueRange(0, 4095)})
    save_record(folder, record.model_copy(update={"dataset": data}))
    return open_run(folder)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_other_range, r"scales values of more than 8 bits otherwise \(0 to 4,095 instead of none\)"),
        (_other_classes, r"other: cannot be joined with .*r0: it has other classes \(leaf, sea instead of leaf, sky\)"),
        (_other_images, r"other: cannot be joined with .*r0: it was trained on other images or another split"),
        (_fewer_validation_images, r"it has another validation set \(2 of its 2 images are shared\)"),
        (_unfinished, r"other: is not a finished run, so it cannot be part of an ensemble"),
    ],
)
def test_runs_that_do_not_agree_are_refused_by_name(
    made: Path, tmp_path: Path, other: Callable[[Path, Path], Run], message: str
) -> None:
    run = other(made, tmp_path)
    with pytest.raises(bw.RunError, match=message) as caught:
        bw.ensemble([made / "runs" / "r0", run], out=tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_too_few_and_repeated_runs_are_refused(runs: Path) -> None:
    with pytest.raises(bw.RunError, match=r"needs two or more finished runs \(found: .*r0\)"):
        bw.ensemble([runs / "r0"], out=runs)
    with pytest.raises(bw.RunError, match=r"r0: is given twice\."):
        bw.ensemble(["r0", runs / "r0"], out=runs)
    shutil.copytree(runs / "r0", runs.parent / "copy")
    with pytest.raises(bw.RunError, match=r"copy: is given twice \(.*r0 is the same run\)"):
        bw.ensemble(["r0", runs.parent / "copy"], out=runs)


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda run: bw.resume(run, epochs=3), "more training"),
        (lambda run: run.head(), "its linear head"),
        (
            lambda run: bw.train(
                bw.scan(run.root), Recipe(**{**TINY, "weights": f"run:{run.path.name}"}), out=run.path.parent
            ),
            "a trunk",
        ),
    ],
)
def test_what_needs_one_network_names_the_members(runs: Path, ask: Callable[[Run], object], what: str) -> None:
    with pytest.raises(bw.RunError, match=f"is an ensemble of 3 networks, so there is no one network to give {what}"):
        ask(open_run(runs / "mean"))


class TestReport:
    def test_shows_every_member_beside_the_ensemble_with_a_paired_test(self, made: Path) -> None:
        page = render_report(open_run(made / "runs" / "mean"))
        assert "<h2>Members</h2>" in page
        for text in ("r0", "r1", "r2", "0.33", "ensemble minus member", "McNemar", "Holm correction for 3 comparisons"):
            assert text in page
        assert "budwood ensemble r0 r1 r2 --weights equal" in page
        assert "Repeat this run" in page
        assert "<h2>Recipe</h2>" not in page
        assert "too optimistic" not in page.replace("score too optimistic", ""), "no weight was chosen"

    def test_is_written_again(self, runs: Path) -> None:
        (runs / "mean" / "report.html").unlink()
        assert "<h2>Members</h2>" in (bw.report(runs / "mean").path / "report.html").read_text(encoding="utf-8")


def test_a_comparison_tells_an_ensemble_from_the_runs(made: Path) -> None:
    table = bw.compare([*_members(made / "runs"), made / "runs" / "mean"])
    labels = [row.label for row in table.rows]
    assert labels[-1] == "ensemble of 3 runs"
    assert not [label for label in labels[:-1] if "ensemble" in label]
    row = table.rows[-1]
    assert row.parameters
    assert row.parameters.total == sum(one.record.network.parameters.total for one in _members(made / "runs"))
    assert row.training_seconds == pytest.approx(sum(one.training_seconds or 0 for one in table.rows[:-1]))
    assert table.base["model"] == "cnn", "what all members share is shared"
    assert "ensemble of 3 runs" in table.csv()


class TestFolds:
    @pytest.fixture(scope="class")
    @staticmethod
    def folds(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        out, data = tmp_path_factory.mktemp("folds"), bw.scan(made / "photos")
        for fold in range(3):
            bw.train(assign_fold(data, fold, 3), Recipe(**{**TINY, "seed": fold}), out=out, id=f"f{fold}")
        bw.ensemble([f"f{fold}" for fold in range(3)], out=out, id="all")
        return out

    def test_answer_for_an_image_by_the_one_that_was_not_trained_on_it(self, folds: Path) -> None:
        run = open_run(folds / "all")
        held_out = {id: values for fold in range(3) for id, values in _say(open_run(folds / f"f{fold}")).items()}
        found = _say(run)
        assert found.keys() == held_out.keys()
        for id, values in found.items():
            assert values == pytest.approx(held_out[id], abs=1e-6)
        assert run.record.val.accuracy.n == len(held_out)
        data = run.dataset()
        assert set(data.samples("val").ids) == held_out.keys()
        assert run.record.dataset.split == "3 folds"
        assert sum(run.record.dataset.counts.val.values()) == len(held_out)

    def test_answer_for_new_and_test_images_all_together(self, folds: Path, tmp_path: Path) -> None:
        out = shutil.copytree(folds, tmp_path / "runs")
        image = np.full((30, 30, 3), 120, np.uint8)
        each = [bw.Predictor.open(out / f"f{fold}").compute_probabilities(image) for fold in range(3)]
        whole, mean = bw.Predictor.open(out / "all"), np.mean(each, axis=0)
        calibrated = whole.rules.decision.to_probabilities(np.log(mean).astype(np.float32))
        assert whole.compute_probabilities(image) == pytest.approx(calibrated, abs=1e-6)
        run = bw.test(out / "all")
        said = [_say(bw.test(out / f"f{fold}"), "test") for fold in range(3)]
        for id, values in _say(run, "test").items():
            assert values == pytest.approx(np.mean([one[id] for one in said], axis=0), abs=1e-6)

    def test_are_told_as_a_cross_validation(self, folds: Path) -> None:
        page = (folds / "all" / "report.html").read_text(encoding="utf-8")
        assert "Cross-validated accuracy" in page
        assert "so the validation score is the cross-validated score" in page
        assert "fold 2 of 3" in page
        assert "ensemble minus member" not in page

    def test_cannot_be_incomplete_weighted_by_validation_or_joined_again(self, folds: Path, made: Path) -> None:
        with pytest.raises(bw.RunError, match=r"folds are not complete \(fold 1 of 3: 1 run, .*held out by none"):
            bw.ensemble(["f0", "f1"], out=folds)
        with pytest.raises(bw.RecipeError, match="folds cannot be weighted by validation"):
            bw.ensemble(["f0", "f1", "f2"], "validation", out=folds)
        with pytest.raises(bw.RunError, match="is an ensemble of folds, which cannot be part of another"):
            bw.ensemble(["f0", "f1", "f2", "all"], out=folds)
        with pytest.raises(
            bw.RunError, match=r"f0: cannot be joined .* it is a fold of a cross-validation \(fold 1 of 3"
        ):
            bw.ensemble([made / "runs" / "r0", folds / "f0"], out=folds)
        with pytest.raises(bw.RunError, match=r"r0: cannot be joined .* it is no fold of a cross-validation"):
            bw.ensemble([folds / "f0", made / "runs" / "r0"], out=folds)


def test_the_copy_of_a_run_of_an_earlier_version_gets_digests(made: Path, tmp_path: Path) -> None:
    for name in ("r0", "r1"):
        shutil.copytree(made / "runs" / name, tmp_path / name)
        run = open_run(tmp_path / name)
        save_record(run.path, run.record.model_copy(update={"files": {}}))
    run = bw.ensemble(["r0", "r1"], out=tmp_path, id="mean")
    assert all(one.record.files["weights.safetensors"] for one in run.members())
    assert replace(run).members()


class TestExplain:
    def test_goes_into_the_report_with_every_part(self, runs: Path) -> None:
        run = open_run(runs / "mean")
        explanation, page = explain_run(run, open_context())
        record, text = explanation.record, page.read_text(encoding="utf-8")
        assert record.images
        assert set(record.images.methods) == {"layer-cam", "grad-cam"}
        called = [row.called for row in record.images.rows]
        answers = bw.predict(run, [run.root / row.path for row in record.images.rows])
        assert called == [answer.top[0][0] for answer in answers]
        assert record.filters
        assert all(row.layer.startswith("members.0.") for row in record.filters.rows)
        assert record.stages
        assert all(row.name.startswith("members.0.") for row in record.stages.rows)
        assert record.embedding
        assert record.mistakes
        assert isinstance(record.labels, JudgedLabels)
        assert record.labels.trunk.startswith("Of the ensemble's first member, r0: ")
        assert "Where the network looks" in text
        assert "<h2>Members</h2>" in text

    def test_a_heatmap_is_the_mean_of_the_members_by_their_part_in_the_probability(self, several: Path) -> None:
        run = bw.ensemble(several / "runs", out=several / "runs", id="seen")
        files, members = [several / "images" / "000.png", several / "images" / "001.png"], run.members()
        for method in ("layer-cam", "integrated-gradients"):
            found = bw.explain.attribution(run, files, method, classes=["cat", "dog"])
            each = [bw.explain.attribution(one, files, method, classes=["cat", "dog"]) for one in members]
            shares = np.stack([one.probabilities for one in each])
            mean = np.sum(
                (shares / shares.sum(axis=0))[:, :, None, None] * np.stack([one.maps for one in each]), axis=0
            )
            peaks = mean.max(axis=(1, 2), keepdims=True)
            assert found.maps == pytest.approx(mean / np.where(peaks > 0, peaks, 1), abs=1e-4)
            assert found.probabilities == pytest.approx(shares.mean(axis=0), abs=1e-4)

    def test_occlusion_sees_the_ensemble_alone(self, made: Path) -> None:
        run = open_run(made / "runs" / "mean")
        found = bw.explain.attribution(run, [made / "photos" / "sky" / "001.png"], "occlusion")
        assert found.maps.shape == (1, 24, 24)
        assert found.place is None

    def test_a_layer_of_a_member_has_its_name_in_front(self, made: Path) -> None:
        run, files = open_run(made / "runs" / "mean"), [made / "photos" / "sky" / "001.png"]
        first = open_run(made / "runs" / "r0")
        layer = bw.explain.filters(first).layer
        assert np.array_equal(bw.explain.filters(run, f"members.0.{layer}").weights, bw.explain.filters(first).weights)
        stage = bw.explain.strip(first, files[0]).stages[0].name
        maps = bw.explain.feature_maps(run, files, f"members.0.{stage}")
        assert maps.values == pytest.approx(bw.explain.feature_maps(first, files, stage).values)
        seen = bw.explain.seen_through(run, files[0], f"members.1.{layer}", [0])
        assert len(seen) == 1
        found = bw.explain.attribution(run, files, "layer-cam", classes=["sky"], place=f"members.1.{stage}")
        assert found.place == f"members.1.{stage}"
        own = bw.explain.attribution(open_run(made / "runs" / "r1"), files, "layer-cam", classes=["sky"], place=stage)
        assert found.maps == pytest.approx(own.maps, abs=1e-4), "which has the size of the whole"
        assert bw.explain.sanity(run, files, place=f"members.1.{stage}").likeness

    def test_what_needs_one_network_is_refused(self, made: Path) -> None:
        run, files = open_run(made / "runs" / "mean"), [made / "photos" / "sky" / "001.png"]
        with pytest.raises(bw.RunError, match=r"layer: expected .* with its member in front, found 'stem'") as caught:
            bw.explain.filters(run, "stem")
        assert "members.0 to members.2" in caught.value.hint
        with pytest.raises(bw.RunError, match=r"found 'members\.7\.stem'"):
            bw.explain.filters(run, "members.7.stem")
        for ask in (lambda: bw.explain.filters(run), lambda: bw.explain.strip(run, files[0])):
            with pytest.raises(bw.RunError, match="no one network to give its layers"):
                ask()
        with pytest.raises(bw.RunError, match="no one network to give pictures of its classes"):
            explain_run(run, open_context(), parts=["classes"])

    def test_images_are_alike_that_are_so_for_all_members(self, made: Path) -> None:
        run, context = open_run(made / "runs" / "mean"), open_context()
        images = run.dataset().samples("train")
        found = compute_run_features(run, images, context)
        cosines = []
        for one in run.members():
            features = compute_run_features(one, images, context)
            length = np.linalg.norm(features, axis=1, keepdims=True)
            unit = features / np.where(length > 0, length, 1)
            cosines.append(unit @ unit.T)
        assert found @ found.T == pytest.approx(np.mean(cosines, axis=0), abs=1e-5)
        (near,) = bw.explain.neighbours(run, [made / "photos" / "sky" / "001.png"], 3)
        assert len(near.ids) == 3

    def test_of_folds_names_the_images_that_trained_its_members(self, made: Path, tmp_path: Path) -> None:
        data = bw.scan(made / "photos")
        for fold in range(2):
            bw.train(assign_fold(data, fold, 2), Recipe(**TINY), out=tmp_path, id=f"f{fold}")
        run = bw.ensemble(["f0", "f1"], out=tmp_path, id="folds")
        explanation, _ = explain_run(run, open_context())
        assert explanation.record.images
        assert all(row.near for row in explanation.record.images.rows)
