"""Training a network, or what of it is not frozen: the loop, in plain sight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError, diverged
from budwood.evaluation.label_task import task_of
from budwood.inference.input_sources import InputSource
from budwood.inference.pytorch_backend import NetworkSlice, compile_module
from budwood.networks.freezing import set_modes
from budwood.progress import Progress
from budwood.training.checkpoints import Checkpoints, LoopState, load_optimizer_tensors, optimizer_tensors
from budwood.training.ema import WeightAverage
from budwood.training.history import EpochCallback
from budwood.training.losses import Loss, draw_epoch_order, make_loss
from budwood.training.norms import (
    Stages,
    group_by_stage,
    make_history_columns,
    measure_gradient_norms,
    measure_weight_norms,
)
from budwood.training.schedules import compute_rate_factor, find_best_epoch
from budwood.training.state import (
    Labelled,
    OnDevice,
    TrainingState,
    count_correct,
    forward_batch,
    group_batches,
    iterate_batches,
    place_on_device,
    predict_logits,
    prepare_training,
)
from budwood.training.training_record import Choices, Selected

COMPILE_PAYS: Final = 600.0  # seconds of training that must be left for torch.compile to be worth its minute or two
OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class LoopResult:
    """A trained network: its tensors by name, the validation logits float32 [n, classes], one row of history an epoch,
    the epoch that was kept, what was chosen for the machine, and what was set aside of the weights."""

    state: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: Selected
    choices: Choices
    aside: str


@dataclass(frozen=True)
class LoopHooks:
    """What `fit` does beside learning: where checkpoints go, what is called after every epoch, and how many seconds
    are left to it, evaluation included (None: as many as it takes)."""

    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    on_epoch_end: EpochCallback = lambda history: None
    left: Callable[[], float | None] = lambda: None


def fit(
    part: NetworkSlice,
    train: Labelled,
    val: Labelled,
    progress: Progress,
    start: Mapping[str, NDArray[Any]] | None = None,
    keeping: LoopHooks | None = None,
    views: Sequence[InputSource] = (),
) -> LoopResult:
    """Train a recipe's network; the epoch that validation prefers is kept.

    `part.stop` is the place of the frozen prefix whose outputs `train` and `val` hold; None when they hold pixels.
    `start` has the tensors to start from, where they are not the recipe's weights. `views` has other views of the
    validation images, over which logits are averaged. Training goes on from a checkpoint where there is one.
    Raises `RecipeError` when the loss is no longer a number or one image is too much for memory.
    """
    recipe, keeping = part.spec.recipe, keeping or LoopHooks()
    assert recipe.batch
    assert recipe.accumulate
    model = prepare_training(part, start)
    shown = [val, *(Labelled(view, val.labels, val.label_sets) for view in views)]
    train, *shown = (place_on_device(split, model.device) for split in (train, *shown))
    average = WeightAverage(model.trained, recipe.ema) if recipe.ema else None
    loss_of_batch = make_loss(recipe, train.labels, part.spec.classes, model.device)
    random = np.random.default_rng(recipe.seed)
    steps_an_epoch = count_steps(recipe, len(train.labels))
    stages = group_by_stage(model.network)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed or 0)
        at = _restore_checkpoint(keeping.checkpoints, model, average, random) or LoopState()
        clock = Clock(at.seconds, keeping.left())
        with _show_bar(part, at, len(train.labels), clock, progress) as advance:
            while not is_finished(at, recipe, clock):
                set_modes(model.network.module, model.frozen)
                if at.step == 0:
                    at.order = draw_epoch_order(recipe, train.labels, random)
                losses_so_far = [row["val_loss"] for row in at.history]
                groups = list(group_batches(iterate_batches(at.order, recipe.batch), recipe.accumulate))
                for group in groups[at.step :]:
                    done = (at.epoch - 1) * steps_an_epoch + at.step
                    reserve = _estimate_evaluation(at, len(val.labels) * len(shown))
                    epochs = clock.epochs(done / steps_an_epoch, recipe.epochs, reserve)
                    at.factor = compute_rate_factor(recipe, done, steps_an_epoch, losses_so_far, epochs)
                    model.set_rates(at.factor)
                    loss, correct = compute_gradients(model, train, group, loss_of_batch, random, at, progress)
                    if not math.isfinite(loss):
                        raise diverged(at.epoch, at.step + 1, float(recipe.lr or 0.0) * at.factor)
                    at.gradients = [
                        a + b for a, b in zip_longest(at.gradients, measure_gradient_norms(stages), fillvalue=0.0)
                    ]
                    if recipe.clip:
                        nn.utils.clip_grad_norm_(model.trained, recipe.clip)
                    model.optimizer.step()
                    if average:
                        average.update()
                    at.losses, at.correct = at.losses + loss, at.correct + correct
                    at.step, at.seen, at.seconds = at.step + 1, at.seen + sum(map(len, group)), clock.seconds
                    advance()
                    if keeping.checkpoints.due:
                        keeping.checkpoints.keep(at, collect_step_tensors(model, average), random)
                    if clock.is_over(reserve):
                        break
                model = _compile_if_it_pays(model, at, clock, progress)
                _end_epoch(at, model, stages, average, shown, progress)
                at.seconds = clock.seconds
                if keeping.checkpoints.due or at.epoch == 2:
                    keeping.checkpoints.keep(at, collect_step_tensors(model, average), random)
                keeping.on_epoch_end(at.history)
        keeping.checkpoints.keep(at, collect_step_tensors(model, average), random)
    if len(at.history) < (recipe.epochs or math.inf):
        progress.note(_explain_end(at, recipe))
    state = {**model.network.module.state_dict(), **at.best}
    return LoopResult(
        state={name: tensor.detach().cpu().numpy() for name, tensor in state.items()},
        logits=at.best_logits,
        history=tuple(at.history),
        selected=Selected(epoch=at.best_epoch),
        choices=_describe_choices(model, at, train),
        aside=model.aside,
    )


def _compile_if_it_pays(model: TrainingState, at: LoopState, clock: Clock, progress: Progress) -> TrainingState:
    """On a GPU, the network compiled after the first epoch where enough is left to do.

    On a CPU compiled steps were no faster than eager ones (BENCHMARKS.md).
    """
    epochs = clock.epochs(at.epoch, model.part.spec.recipe.epochs, 0.0)
    left = clock.seconds / at.epoch * (epochs - at.epoch)
    if model.device != "cuda" or model.compiled or left < COMPILE_PAYS:
        return model
    progress.note(f"About {left / 60:.0f} minutes are left: the network is compiled.")
    return replace(model, module=compile_module(model.module, progress), compiled=True)


def count_steps(recipe: Recipe, images: int) -> int:
    """Optimizer steps of one epoch."""
    count = len(list(iterate_batches(np.arange(images), recipe.batch or 1)))
    return -(-count // (recipe.accumulate or 1))


def compute_gradients(
    model: TrainingState,
    train: Labelled,
    group: Sequence[NDArray[np.int64]],
    loss_of_batch: Loss,
    random: np.random.Generator,
    at: LoopState,
    progress: Progress,
) -> tuple[float, int]:
    """The summed loss (nats) and the correct answers of the batches of one step, whose gradients are left in place.

    Where memory runs out the step is done again with batches in twice as many parts, and so are all that follow.
    """
    images = sum(map(len, group))
    task = task_of(train.label_sets, model.part.spec.classes)
    while True:
        model.optimizer.zero_grad(set_to_none=True)
        losses, correct = 0.0, 0
        try:
            for rows in group:
                for piece in iterate_batches(rows, -(-(model.part.spec.recipe.batch or 1) // at.parts)):
                    logits, shares, truth = forward_batch(model, train, piece, random)
                    loss = loss_of_batch(logits, shares)
                    (loss * (len(piece) / images)).backward()  # type: ignore[no-untyped-call]
                    losses += float(loss.detach()) * len(piece)
                    correct += count_correct(task, logits, truth)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        else:
            return losses, correct
        _halve(at, model, progress)


def _halve(at: LoopState, model: TrainingState, progress: Progress) -> None:
    """Twice as many parts a batch from here on; raises `RecipeError` when a part would be less than two images."""
    at.parts *= 2
    size = -(-(model.part.spec.recipe.batch or 1) // at.parts)
    _free(model)
    if size < 2:
        raise _make_memory_error("2 images", model)
    progress.note(f"Memory ran out: from here on a batch is computed in {at.parts} parts of {size} images.")


def _free(model: TrainingState) -> None:
    """Hand back what a step that failed has taken."""
    model.optimizer.zero_grad(set_to_none=True)
    if model.device == "cuda":
        torch.cuda.empty_cache()


def _make_memory_error(count: str, model: TrainingState) -> RecipeError:
    return RecipeError(
        f"batch: not even {count} at a time fit into the memory of the device ({model.device}).",
        "Choose a smaller size or network, or freeze more of it.",
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch could not get memory, on a device or on the CPU, which has no exception of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in OUT_OF_MEMORY)


def _end_epoch(
    at: LoopState,
    model: TrainingState,
    stages: Stages,
    average: WeightAverage | None,
    val: Sequence[Labelled],
    progress: Progress,
) -> None:
    """Evaluate, add a row to the history, and keep the network if it is the best so far."""
    recipe, started = model.part.spec.recipe, time.monotonic()
    with average.in_place() if average else nullcontext():
        seen_by_view = [_evaluate_split(at, model, view, progress) for view in val]
        logits = np.asarray(np.mean(seen_by_view, axis=0), np.float32)
        row = {"epoch": float(at.epoch), "lr": float(recipe.lr or 0.0) * at.factor}
        means = make_history_columns([total / at.step for total in at.gradients], stages)
        at.history.append(row | _measure_epoch(recipe, at, logits, val[0]) | measure_weight_norms(stages) | means)
        if find_best_epoch(at.history, recipe) == at.epoch:
            state = collect_network_tensors(model)
            at.best = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
            at.best_epoch, at.best_logits = at.epoch, logits
    at.evaluating = time.monotonic() - started
    at.epoch, at.step, at.losses, at.correct, at.seen, at.gradients = at.epoch + 1, 0, 0.0, 0, 0, []


def is_finished(at: LoopState, recipe: Recipe, clock: Clock) -> bool:
    """Whether training has nothing more to do: all epochs, no better one for long enough, or no time left."""
    patience = recipe.patience and len(at.history) - at.best_epoch >= recipe.patience
    late = bool(at.history) and clock.is_over(at.evaluating or 0.0)
    return bool(patience) or late or (recipe.epochs is not None and at.epoch > recipe.epochs)


class Clock:
    """Seconds of training, those before an interruption included, against what it may take."""

    def __init__(self, spent: float, budget: float | None) -> None:
        self._spent, self.budget, self._started = spent, budget, time.monotonic()

    @property
    def seconds(self) -> float:
        """What was spent so far."""
        return self._spent + time.monotonic() - self._started

    def is_over(self, reserve: float) -> bool:
        """Whether no more than `reserve` seconds are left."""
        return self.budget is not None and self.seconds + reserve >= self.budget

    def epochs(self, done: float, wanted: int | None, reserve: float) -> float:
        """How many epochs there will be: as many as wanted, or as the time will do for if it goes on as so far."""
        limit = math.inf if wanted is None else float(wanted)
        if self.budget is None or not done:
            return limit
        return min(limit, done * max((self.budget - reserve) / self.seconds, 1.0))


@contextmanager
def _show_bar(
    part: NetworkSlice, at: LoopState, images: int, clock: Clock, progress: Progress
) -> Iterator[Callable[[], None]]:
    """A bar in images, or in seconds where only the time is limited; the yielded function moves it to where `at` is."""
    epochs, shown = part.spec.recipe.epochs, 0
    total = epochs * images if epochs else math.ceil(clock.budget or 0)
    with progress.bar(f"Training {part.spec.plan.name}", total) as advance:

        def move() -> None:
            nonlocal shown
            here = (at.epoch - 1) * images + at.seen if epochs else int(clock.seconds)
            advance(here - shown)
            shown = here

        move()
        yield move


def _estimate_evaluation(at: LoopState, images: int) -> float:
    """Seconds that an evaluation takes: as the latest did, else as training on so many images, which takes longer."""
    if at.evaluating is not None:
        return at.evaluating
    return at.seconds / at.seen * images if at.seen else 0.0


def _explain_end(at: LoopState, recipe: Recipe) -> str:
    """Why training ended before its last epoch."""
    epoch = len(at.history)
    if recipe.patience and epoch - at.best_epoch >= recipe.patience:
        return f"Stopped after epoch {epoch}: none was better than epoch {at.best_epoch} since."
    return f"Stopped in epoch {epoch}: the time was over."


def _restore_checkpoint(
    checkpoints: Checkpoints, model: TrainingState, average: WeightAverage | None, random: np.random.Generator
) -> LoopState | None:
    """Where a checkpoint stood, with the network, the optimizer, the average and all random states as they were."""
    found = checkpoints.found(random)
    if found is None:
        return None
    standing, tensors = found
    by_part: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}, "average": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        by_part[part][rest] = tensor
    with torch.no_grad():
        for name, tensor in collect_network_tensors(model).items():
            tensor.copy_(by_part["network"][name])
        for number, value in enumerate(average.values if average else []):
            value.copy_(by_part["average"][str(number)])
    load_optimizer_tensors(model.optimizer, by_part["optimizer"])
    return standing


def collect_step_tensors(model: TrainingState, average: WeightAverage | None) -> dict[str, Tensor]:
    """Every tensor that a step changes, by name: the network's, the optimizer's, the average's."""
    parts = {
        "network": collect_network_tensors(model),
        "optimizer": optimizer_tensors(model.optimizer),
        "average": {str(number): value for number, value in enumerate(average.values if average else [])},
    }
    return {f"{part}/{name}": tensor for part, held in parts.items() for name, tensor in held.items()}


def collect_network_tensors(model: TrainingState) -> dict[str, Tensor]:
    """The network's tensors by name, but for those that are frozen."""
    frozen = model.frozen
    return {
        name: tensor
        for name, tensor in model.network.module.state_dict().items()
        if name not in frozen.parameters and name.rpartition(".")[0] not in frozen.modules
    }


def _describe_choices(model: TrainingState, at: LoopState, train: Labelled) -> Choices:
    """What was chosen for this machine."""
    batch = model.part.spec.recipe.batch or 1
    whole = f"{batch} images"
    return Choices(
        device=model.device,
        training=f"PyTorch {torch.__version__.partition('+')[0]}, channels last",
        precision="bfloat16 (autocast)" if model.halved else "float32",
        batch=whole if at.parts == 1 else f"{whole} in parts of {-(-batch // at.parts)}, as memory ran out",
        data="on the device" if isinstance(train.inputs, OnDevice) else "read from memory for every step",
        freed_memory="kept between steps" if model.keeps_memory else "handed back",
        training_threads=torch.get_num_threads(),
        compiled=model.compiled,
    )


def _evaluate_split(at: LoopState, model: TrainingState, split: Labelled, progress: Progress) -> NDArray[np.float32]:
    """The logits of a split, in as many parts as memory asks for."""
    while True:
        try:
            return predict_logits(model, split, at.at_once)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        at.at_once //= 2
        _free(model)
        if at.at_once < 1:
            raise _make_memory_error("1 image", model)
        progress.note(f"Memory ran out: from here on {at.at_once} images are evaluated at a time.")


def _measure_epoch(recipe: Recipe, at: LoopState, logits: NDArray[np.float32], val: Labelled) -> dict[str, float]:
    """Figures of one epoch: training's are means over its steps, as they were made; validation's are after it."""
    names = sorted({"accuracy", recipe.select or "loss"} - {"loss"})
    task = task_of(val.label_sets, logits.shape[1])
    labels = task.read_labels(val.labels)
    return {
        "train_loss": at.losses / at.seen,
        "train_accuracy": at.correct / at.seen,
        "val_loss": float(task.losses(labels, logits).mean()),
        **{f"val_{name}": task.score(name, labels, logits) for name in names},
    }
