"""Weights between the start of a training and its end, and batch norm that keeps its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice, WithPreprocessing
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.surgery import build, plan_network
from budwood.progress import Silent
from budwood.training.loop import LoopResult, fit
from budwood.training.wise_ft import Blend, blend_weights
from conftest import Notes
from subjects import untrained

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "conv_norm": True}
PRETRAINED: dict[str, Any] = {**SMALL, "weights": "run:first", "freeze": "none"}
STEPS: dict[str, Any] = {"epochs": 2, "batch": 8, "lr": 0.03, "seed": 4, "optimizer": "adam"}


def _split(n: int, seed: int = 0) -> Labelled:
    """Pictures of two kinds, told apart by brightness, of which a third have the wrong label."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 2, n)
    pixels = random.integers(0, 120, (n, 16, 16, 3)) + 100 * kinds[:, None, None, None]
    labels = np.where(random.random(n) < 0.3, 1 - kinds, kinds)
    return Labelled(ArraySource(pixels.astype(np.uint8)), labels.astype(np.int32))


TRAIN, VAL = _split(40), _split(60, seed=1)


def _part(**options: Any) -> NetworkSlice:
    return NetworkSlice(untrained(Recipe(**{**PRETRAINED, **STEPS, **options}), 2), None)


def _fit(**options: Any) -> LoopResult:
    part = _part(**options)
    return fit(part, resolve(part.spec.recipe, False, part.spec.plan.size), TRAIN, VAL, Silent())


def _answer(part: NetworkSlice, state: dict[str, Any]) -> np.ndarray:
    """The validation logits of plain PyTorch with some weights."""
    module = build(part.spec)[0].module
    module.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    whole = WithPreprocessing(module, part.spec.plan).eval()
    with torch.no_grad():
        return np.asarray(whole(torch.from_numpy(VAL.inputs.take(np.arange(len(VAL.labels))))))


def _loss(logits: np.ndarray) -> float:
    return float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(VAL.labels).long()))


def _between(start: dict[str, Any], end: dict[str, Any], share: float) -> dict[str, np.ndarray]:
    return {
        name: (1 - share) * np.asarray(start[name]) + share * end[name] if end[name].dtype.kind == "f" else end[name]
        for name in end
    }


def _start(part: NetworkSlice) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in build(part.spec)[0].module.state_dict().items()}


@pytest.mark.parametrize("own", [{}, {"ema": 0.7}, {"freeze": "upto:conv1"}], ids=["all", "average", "upper stages"])
def test_every_share_is_tried_and_the_best_on_validation_is_kept(own: dict[str, Any]) -> None:
    trained, found = _fit(**own), _fit(wise_ft="auto", **own)
    part = _part(**own)
    shares = [tenth / 10 for tenth in range(11)]
    blends = [_between(_start(part), trained.state, share) for share in shares]
    losses = [_loss(_answer(part, blend)) for blend in blends]
    best = int(np.argmin(losses))
    assert found.choices.wise_ft == shares[best]
    for name, value in blends[best].items():
        assert np.allclose(found.state[name], value, atol=1e-6), name
    assert _loss(found.logits) == pytest.approx(losses[best], rel=1e-4)
    assert (found.history, found.selected) == (trained.history, trained.selected)


def test_some_share_between_the_ends_is_best_here() -> None:
    assert 0 < (_fit(wise_ft="auto").choices.wise_ft or 0) < 1, "or the tests of shares would prove little"


def test_all_of_the_trained_weights_are_what_is_kept_without_the_option() -> None:
    plain, whole = _fit(), _fit(wise_ft=1)
    assert all(np.array_equal(plain.state[name], whole.state[name]) for name in plain.state)
    assert np.array_equal(plain.logits, whole.logits)
    assert plain.choices == whole.choices


def test_none_of_the_trained_weights_is_the_start() -> None:
    found, start = _fit(wise_ft=0), _start(_part())
    assert all(np.array_equal(found.state[name], start[name]) for name in start)
    assert np.allclose(found.logits, _answer(_part(), start), atol=1e-5)
    assert not np.allclose(found.logits, _fit().logits, atol=1e-2)


def test_the_share_is_chosen_by_the_metric_of_the_recipe() -> None:
    trained, found = _fit(select="macro_f1"), _fit(select="macro_f1", wise_ft="auto")
    from sklearn.metrics import f1_score

    shares, part = [tenth / 10 for tenth in range(10, -1, -1)], _part()
    blends = [_answer(part, _between(_start(part), trained.state, share)) for share in shares]
    scores = [f1_score(VAL.labels, logits.argmax(axis=1), average="macro") for logits in blends]
    assert found.choices.wise_ft == shares[int(np.argmax(scores))], "of equals the largest share"
    assert len(set(scores)) > 1
    last = _fit(select="last", wise_ft="auto")
    assert last.selected.epoch == 2
    assert _loss(last.logits) <= _loss(_fit(select="last").logits), "of the last epoch, by the loss"


def test_of_equals_the_largest_share_is_kept() -> None:
    ones, zeros = {"a": torch.ones(2)}, {"a": torch.zeros(2)}
    logits = np.zeros((1, 2), np.float32)
    kept = blend_weights(zeros, Blend(1.0, ones, logits), None, lambda tensors: logits, lambda _: 0.5)
    assert (kept.share, kept.chosen) == (1.0, True)
    scores = iter([0.1, 0.3, 0.3, *[0.2] * 8])
    kept = blend_weights(zeros, Blend(1.0, ones, logits), None, lambda tensors: logits, lambda _: next(scores))
    assert kept.share == 0.9
    assert kept.tensors["a"].tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(
    "own",
    [{}, {"freeze": "upto:conv1"}, {"freeze": "upto:conv1", "flip": 0.5, "views": 2}],
    ids=["pixels", "outputs of a prefix", "views"],
)
def test_answers_and_report_are_of_the_weights_that_are_kept(own: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    data, notes = bw.scan(photos), Notes()
    first = bw.train(data, bw.Recipe(**SMALL, batch=8, epochs=1), out=tmp_path / "runs", novelty=False)
    options = {**PRETRAINED, "weights": f"run:{first.path.name}", "batch": 8, "epochs": 2, "tta": "flip", **own}
    run = bw.train(data, bw.Recipe(**options, wise_ft=0.4), out=tmp_path / "runs", progress=notes, novelty=False)
    predictions = run.predictions("val")
    answers = bw.predict(run, [run.dataset().root / path for path in predictions.paths])
    logits = predictions.logits.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for answer, row in zip(answers, expected, strict=True):
        assert dict(answer.top)[run.classes[int(row.argmax())]] == pytest.approx(float(row.max()), abs=2e-3)
    assert run.record.choices.wise_ft == 0.4
    assert "Kept 40% of the trained weights and 60% of those at the start (wise_ft)." in notes.kept
    told = (
        "The weights that were kept, statistics of batch norm included, are 40% those of this epoch and 60% those that "
        "training started from (WiSE-FT), as the recipe says; the scores are of these weights."
    )
    assert told in (run.path / "report.html").read_text()


def test_batch_norm_that_keeps_its_statistics_is_that_of_eval_in_pytorch() -> None:
    options: dict[str, Any] = {"epochs": 1, "lr": 0.01}
    found, part = _fit(**options, trained_norm="eval"), _part(**options)
    plain = build(part.spec)[0].module
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    whole, steps = WithPreprocessing(plain, part.spec.plan).train(), torch.optim.Adam(plain.parameters(), 0.01)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    order = np.random.default_rng(4).permutation(40)
    for first in range(0, 40, 8):
        rows = order[first : first + 8]
        steps.zero_grad()
        logits = whole(torch.from_numpy(TRAIN.inputs.take(rows)))
        nn.functional.cross_entropy(logits, torch.from_numpy(TRAIN.labels[rows]).long()).backward()  # type: ignore[no-untyped-call]
        steps.step()
    for name, value in plain.state_dict().items():
        assert np.allclose(found.state[name], value.numpy(), atol=1e-4), name
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert np.array_equal(found.state[f"conv1.1.{name}"], start[f"conv1.1.{name}"].numpy())
    assert not np.allclose(found.state["conv1.1.weight"], start["conv1.1.weight"].numpy(), atol=1e-3)
    assert not np.allclose(_fit(**options).state["conv1.1.running_mean"], start["conv1.1.running_mean"].numpy(), 1e-3)


def test_the_batch_norm_of_a_new_head_uses_batches_all_the_same() -> None:
    recipe = Recipe(**PRETRAINED, batch_norm=True, trained_norm="eval")
    network = build(untrained(recipe, 2))[0]
    frozen = find_frozen(network.staged, "upto:conv1", "train", "eval")
    set_modes(network.module, frozen)
    modes = {name: part.training for name, part in network.module.named_modules() if "BatchNorm" in type(part).__name__}
    assert {name for name, training in modes.items() if not training} == set(frozen.still_norms)
    assert modes["conv1.1"], "frozen, with frozen_norm = train"
    assert modes["head.0"], "it is new, and has no statistics to keep"
    assert not modes["conv2.1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "alexnet", "freeze": "none"}, "trained_norm: alexnet has no batch norm"),
        (
            {"model": "resnet18", "size": 64, "freeze": "upto:layer4"},
            "trained_norm: there is no batch norm before the head that freeze = 'upto:layer4' leaves to be trained",
        ),
    ],
)
def test_a_network_without_batch_norm_to_keep_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan_network(Recipe(**options, trained_norm="eval"), 3)


def test_the_report_says_that_statistics_were_kept(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    first = bw.train(data, bw.Recipe(**SMALL, batch=8, epochs=1), out=tmp_path / "runs", novelty=False)
    options = {**PRETRAINED, "weights": f"run:{first.path.name}", "batch": 8, "epochs": 1, "trained_norm": "eval"}
    run = bw.train(data, bw.Recipe(**options), out=tmp_path / "runs", novelty=False)
    assert (
        "parameters were trained; batch norm before the head kept its statistics."
        in (run.path / "report.html").read_text()
    )
