"""Training a head by gradient descent: the loop, in plain sight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from budwood.errors import RecipeError
from budwood.head import Head, Split, best_row, scores
from budwood.progress import Progress
from budwood.recipe import Recipe


def descend_head(train: Split, val: Split, classes: int, recipe: Recipe, progress: Progress) -> Head:
    """Mini-batch gradient descent on the cross-entropy; the epoch with the lowest validation loss is kept.

    Raises `RecipeError` when the loss is no longer a number.
    """
    assert recipe.epochs
    assert recipe.batch
    assert recipe.seed is not None
    random = torch.Generator().manual_seed(recipe.seed)
    outputs, labels = torch.from_numpy(train.outputs), torch.from_numpy(train.labels).long()
    bound = outputs.shape[1] ** -0.5
    weight = torch.empty(classes, outputs.shape[1]).uniform_(-bound, bound, generator=random).requires_grad_()
    bias = torch.empty(classes).uniform_(-bound, bound, generator=random).requires_grad_()
    update = _optimizer([weight, bias], recipe)
    history, heads = [], []
    with progress.bar("Training the head", recipe.epochs) as step:
        for epoch in range(1, recipe.epochs + 1):
            for rows in torch.split(torch.randperm(len(labels), generator=random), recipe.batch):
                loss = cross_entropy(linear(outputs[rows], weight, bias), labels[rows])
                if not torch.isfinite(loss):
                    raise _diverged(epoch, recipe)
                update(torch.autograd.grad(loss, (weight, bias)))
            heads.append((weight.detach().numpy().copy(), bias.detach().numpy().copy()))
            history.append({"epoch": float(epoch), **scores(train, val, *heads[-1])})
            step(1)
    best = best_row(history)
    return Head(*heads[best], tuple(history), {"epoch": best + 1})


def _optimizer(parameters: list[Tensor], recipe: Recipe) -> Callable[[tuple[Tensor, ...]], None]:
    """A function that takes gradients and moves the parameters by one step.

    These are torch's functional optimizers: making an object of `torch.optim` imports the compiler, 3.5 s on two cores.
    """
    assert recipe.lr is not None
    lr, decay = recipe.lr, recipe.weight_decay or 0.0
    first = [torch.zeros_like(parameter) for parameter in parameters]
    second = [torch.zeros_like(parameter) for parameter in parameters]
    counts = [torch.tensor(0.0) for _ in parameters]
    buffers: list[Tensor | None] = [None for _ in parameters]

    def adam_step(gradients: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            adam(
                parameters,
                list(gradients),
                first,
                second,
                [],
                counts,
                foreach=False,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=decay,
                eps=1e-8,
                maximize=False,
            )

    def sgd_step(gradients: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            sgd(
                parameters,
                list(gradients),
                buffers,
                foreach=False,
                weight_decay=decay,
                momentum=recipe.momentum or 0.0,
                lr=lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    return sgd_step if recipe.optimizer == "sgd" else adam_step


def _diverged(epoch: int, recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"The loss is no longer a number in epoch {epoch}, at a learning rate of {recipe.lr}.",
        "Lower the learning rate, for example by a factor of ten.",
    )
