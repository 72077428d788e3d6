"""What both kinds of labels promise, held against scikit-learn; metrics of the user's own; files of version 0.1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import budwood as bw
from budwood.config.metric_registry import METRICS, describe_selection, is_loss
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel, task_of
from budwood.evaluation.metrics import ResampledMetric, define_metric
from budwood.evaluation.predictions import Predictions, load_predictions
from budwood.training.checkpoints import Checkpoints, LoopState
from budwood.training.losses import make_loss
from budwood.training.state import count_correct, target_shares
from conftest import scored_run

NAMES = ("leaf", "sky", "stone")
OWN = '''
"""A metric of the user's own."""
import numpy as np

TABLE = {}


def sure_and_correct(labels, logits):
    called = logits.argmax(axis=1) == labels if labels.ndim == 1 else ((logits > 0) == labels).all(axis=1)
    return float(called.mean() ** 2)


def of_two_classes(labels, logits):
    if len(np.unique(labels)) < 2:
        raise ValueError("one class")
    return 0.5
'''


class LabelTaskContract:
    """What every task promises; a subclass says which it is."""

    label_sets: tuple[tuple[int, ...], ...] = ()

    @pytest.fixture
    def task(self) -> LabelTask:
        return task_of(self.label_sets, 3)

    @pytest.fixture
    def numbers(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, len(self.label_sets) or 3, 90).astype(np.int32)

    @pytest.fixture
    def logits(self, task: LabelTask, numbers: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(1).normal(-0.3, 1, (90, 3))
        return (noise + 1.5 * task.to_targets(task.read_labels(numbers))).astype(np.float32)

    def test_targets_are_the_named_classes(self, task: LabelTask, numbers: np.ndarray) -> None:
        targets = task.to_targets(task.read_labels(numbers))
        assert targets.dtype == bool
        for number, row in zip(numbers.tolist(), targets, strict=True):
            names = [name for name, one in zip(NAMES, row, strict=True) if one]
            assert task.name_label(number, NAMES) == (", ".join(names) or "none of them")

    def test_what_is_called_what_it_is_is_correct(self, task: LabelTask, numbers: np.ndarray) -> None:
        labels = task.read_labels(numbers)
        sure = np.where(task.to_targets(labels), 9.0, -9.0).astype(np.float32)
        assert np.array_equal(task.decide(sure), task.to_targets(labels))
        assert task.is_correct(labels, sure).all()
        assert task.losses(labels, sure).max() < 0.01
        assert not task.is_correct(labels, -sure).any()

    def test_a_probability_is_called_as_decided(self, task: LabelTask, logits: np.ndarray) -> None:
        chances = task.to_probabilities(logits)
        assert chances.min() >= 0
        assert chances.max() <= 1
        assert np.array_equal(chances.argsort(axis=1), logits.argsort(axis=1))
        for row, decided in zip(chances, task.decide(logits), strict=True):
            names = ", ".join(name for name, one in zip(NAMES, decided, strict=True) if one)
            called, chance = task.call_image(row, NAMES)
            assert called == (names or "none of them")
            assert 0 < chance <= 1

    def test_scores_are_scikit_learns(self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray) -> None:
        labels, called = task.read_labels(numbers), task.decide(logits)
        targets = task.to_targets(labels)
        found = task.evaluate(labels, logits, NAMES)
        assert found["accuracy"]["value"] == pytest.approx(reference.accuracy_score(targets, called))
        assert found["macro_f1"]["value"] == pytest.approx(reference.f1_score(targets, called, average="macro"))
        ranked = [reference.roc_auc_score(targets[:, c], task.rank_scores(logits)[:, c]) for c in range(3)]
        assert task.score("auroc", labels, logits) == pytest.approx(np.mean(ranked))
        for name in task.metric_names:
            assert task.score(name, labels, logits) == pytest.approx(found[name]["value"])
            assert found[name]["low"] < found[name]["value"] < found[name]["high"]
            assert found[name]["n"] == 90
        assert set(found) == {*task.metric_names, "per_class"}
        assert set(found["per_class"]) == set(NAMES)
        assert sum(row["support"] for row in found["per_class"].values()) == targets.sum()

    def test_no_image_has_no_score(self, task: LabelTask) -> None:
        labels = task.read_labels(np.empty(0, np.int32))
        found = task.evaluate(labels, np.empty((0, 3), np.float32), NAMES)
        assert all(found[name]["value"] is None for name in task.metric_names)

    def test_pytorch_says_the_same(self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray) -> None:
        labels = task.read_labels(numbers)
        shares = target_shares(task, numbers, "cpu")
        assert np.array_equal(shares.numpy() > 0, task.to_targets(labels))
        answers = torch.from_numpy(logits)
        assert count_correct(task, answers, shares) == task.is_correct(labels, logits).sum()
        loss = make_loss(resolve(Recipe(optimizer="adam"), task.multilabel, 32).loss, numbers, 3, "cpu")
        assert float(loss(answers, shares)) == pytest.approx(task.losses(labels, logits).mean(), rel=1e-5)
        assert task.chance_loss == pytest.approx(float(loss(torch.zeros(90, 3), shares)), rel=1e-5)

    def test_its_loss_is_that_of_its_recipes(self, task: LabelTask) -> None:
        adapted = task.adapt_recipe(Recipe(optimizer="adam"))
        assert adapted.loss == task.default_loss
        assert task.adapt_recipe(adapted) == adapted

    def test_every_answer_is_in_a_bin(self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray) -> None:
        bins = task.bin_reliability(task.read_labels(numbers), logits)
        assert sum(one.accuracy.n for one in bins) % 90 == 0
        assert all(0 <= one.confidence <= 1 for one in bins)

    def test_its_metrics_are_of_the_table(self, task: LabelTask) -> None:
        assert task.default_metric in task.metric_names
        assert set(task.list_others(METRICS.entries)) < set(task.metric_names) <= set(METRICS.names())

    def test_predictions_and_runs_have_it(self, task: LabelTask, numbers: np.ndarray, tmp_path: Path) -> None:
        run = scored_run(tmp_path / "run", numbers, np.zeros((90, 3), np.float32), label_sets=self.label_sets)
        assert run.predictions("val").task == task
        assert type(run.task) is type(task)
        assert json.loads((run.path / "run.json").read_text())["dataset"]["several"] is task.multilabel

    def test_a_metric_of_the_users_own(
        self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray, own: str
    ) -> None:
        labels = task.read_labels(numbers)
        select = f"{own}:sure_and_correct"
        adapted = task.adapt_recipe(Recipe(optimizer="adam", select=select))
        assert adapted.select == select
        found = task.evaluate(labels, logits, NAMES, select)[select]
        accuracy = task.evaluate(labels, logits, NAMES)["accuracy"]
        assert found["value"] == pytest.approx(accuracy["value"] ** 2)
        assert found["low"] == pytest.approx(accuracy["low"] ** 2, abs=0.05)
        assert found["high"] == pytest.approx(accuracy["high"] ** 2, abs=0.05)


class TestSingleLabel(LabelTaskContract):
    def test_it_is_chosen_where_there_are_no_sets(self, task: LabelTask) -> None:
        assert task == SingleLabel(3)
        assert task.metric_names == ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")

    def test_the_images_of_a_confusion_are_all(self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray) -> None:
        matrix = np.array(task.count_confusion(numbers, logits))
        assert np.array_equal(matrix, reference.confusion_matrix(numbers, logits.argmax(axis=1)))


class TestMultiLabel(LabelTaskContract):
    label_sets = ((), (0,), (1,), (0, 2), (0, 1, 2))

    def test_it_is_chosen_where_there_are_sets(self, task: LabelTask) -> None:
        assert task == MultiLabel(3, self.label_sets)
        assert task.metric_names == ("accuracy", "macro_f1", "mean_average_precision", "log_loss")

    def test_no_image_is_called_one_class(self, task: LabelTask, numbers: np.ndarray, logits: np.ndarray) -> None:
        assert task.count_confusion(task.read_labels(numbers), logits) == []


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's own, in the working directory."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_recipe_selects_by_a_metric_of_the_users_own(photos: Path, tmp_path: Path, own: str) -> None:
    select = f"{own}:sure_and_correct"
    recipe = bw.Recipe(model="cnn", widths=(8,), fc=(8,), size=16, epochs=2, lr=0.01, select=select)
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    other = bw.train(bw.scan(photos), recipe.model_copy(update={"lr": 0.02}), out=tmp_path / "runs")
    score = run.metrics["val"][select]
    assert score["value"] == pytest.approx(run.metrics["val"]["accuracy"]["value"] ** 2)
    assert score["low"] <= score["value"] <= score["high"]
    values = [row[f"val_{select}"] for row in run.history]
    assert run.record.selected.epoch == values.index(max(values)) + 1
    assert f"highest {select} on validation" in (run.path / "report.html").read_text()
    table = bw.compare([run, other], metric=select)
    assert [row.value["value"] for row in table.rows if row.value] == pytest.approx(
        [one.metrics["val"][select]["value"] for one in (run, other)]
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "has no 'nothing'"), ("TABLE", "is no function")],
)
def test_what_is_no_metric_is_refused_before_training(photos: Path, own: str, name: str, message: str) -> None:
    with pytest.raises(bw.RecipeError, match=message):
        bw.train(bw.scan(photos), bw.Recipe(optimizer="adam", select=f"{own}:{name}"))


def test_an_unknown_metric_is_refused_by_the_recipe() -> None:
    with pytest.raises(bw.RecipeError, match=r"select: expected one of loss, last, accuracy, .*package\.module:name"):
        bw.Recipe(optimizer="adam", select="top1")


def test_a_sample_that_lacks_a_class_does_not_count(own: str) -> None:
    labels, logits = np.array([0, 0, 1] * 3, np.int32), np.zeros((9, 2), np.float32)
    found = SingleLabel(2).evaluate(labels, logits, NAMES[:2], f"{own}:of_two_classes")[f"{own}:of_two_classes"]
    assert found == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 9}


def test_own_metrics_share_the_samples_of_all(own: str) -> None:
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 3, 60).astype(np.int32), random.normal(size=(60, 3)).astype(np.float32)
    metric = define_metric(f"{own}:sure_and_correct")
    assert isinstance(metric, ResampledMetric)
    values, spread = metric.resample(SingleLabel(3), labels, [logits, logits])
    drawn = np.random.default_rng(0).integers(0, 60, (50, 60))[7]
    assert spread[7, 0] == pytest.approx((logits[drawn].argmax(axis=1) == labels[drawn]).mean() ** 2)
    assert np.array_equal(spread[:, 0], spread[:, 1])
    assert values[0] == values[1]


def test_metrics_in_words() -> None:
    assert describe_selection("loss") == "lowest validation loss"
    assert describe_selection("balanced_accuracy") == "highest balanced validation accuracy"
    assert [name for name in METRICS.names() if is_loss(name)] == ["log_loss"]
    assert not is_loss("top-5 accuracy of a source")


def test_files_have_the_names_that_version_0_1_gave_them(tmp_path: Path) -> None:
    sets = ((), (0, 1))
    ids = ("a", "b")
    Predictions(ids, ids, np.array([0, 1], np.int32), np.zeros((2, 2), np.float32), sets).save(tmp_path / "p.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "p.parquet")
    assert json.loads(table.schema.metadata[b"sets"]) == [[], [0, 1]]
    assert load_predictions(tmp_path / "p.parquet").label_sets == sets
    random = np.random.default_rng(0)
    Checkpoints(tmp_path).save(LoopState(correct=7, seen=9), {}, random)
    from safetensors import safe_open

    file = next(tmp_path.glob("*.safetensors"))
    with safe_open(file, framework="pt") as held:
        assert json.loads(held.metadata()["about"])["standing"]["right"] == 7
    found = Checkpoints(tmp_path).load(random)
    assert found is not None
    assert found[0].correct == 7
