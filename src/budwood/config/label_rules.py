"""What a recipe becomes for images with one label each, or with several."""

from __future__ import annotations

from budwood.config.losses import DEFAULT_LOSS, LOSSES, CustomLoss, Loss
from budwood.config.metric_registry import METRICS
from budwood.config.options import OF_ONE_LABEL
from budwood.config.recipe import Recipe, make_recipe_error
from budwood.config.registry import is_entry_point


def adapt_to_labels(recipe: Recipe, multilabel: bool) -> Recipe:
    """Adapt a recipe to images with one label each, or with several.

    With several labels every class is a yes or no of its own: the loss is binary cross-entropy, focal, or a user's own,
    and the head is trained in steps instead of solved.

    Args:
        recipe: The recipe as it was asked for.
        multilabel: Whether images have several labels or none.

    Returns:
        The recipe that applies.

    Raises:
        RecipeError: An option has no meaning for such labels.
    """
    kind = CustomLoss if is_entry_point(recipe.loss or "") else LOSSES.get(recipe.loss or DEFAULT_LOSS[multilabel])
    if not multilabel:
        if not kind.single_label:
            message = f"loss: {recipe.loss} is for multi-label data; these images have one label each"
            raise make_recipe_error([message])
        if recipe.select in METRICS and not METRICS.get(recipe.select or "").single_label:
            message = f"select: {recipe.select} is for multi-label data; these images have one label each"
            raise make_recipe_error([message])
        return recipe
    wrong = _find_meaningless(recipe, kind)
    if wrong:
        raise make_recipe_error(wrong)
    loss = recipe.loss if recipe.loss and kind.multilabel else DEFAULT_LOSS[True]
    if recipe.optimizer != "lbfgs" and recipe.loss == loss:
        return recipe
    table = recipe.table()
    if recipe.optimizer == "lbfgs":
        table = {name: value for name, value in table.items() if name not in ("optimizer", "regularisation")}
    return Recipe(**{**table, "loss": loss})


def _find_meaningless(recipe: Recipe, loss: type[Loss]) -> list[str]:
    """What of a recipe has no meaning where images have several labels; the usual loss is replaced without a word."""
    wrong = [
        f"{name}: not used for multi-label data (images with several labels)"
        for name in OF_ONE_LABEL
        if getattr(recipe, name)
    ]
    if recipe.class_weights and loss is CustomLoss:
        wrong.append(
            "class_weights: for multi-label data not used by a loss of your own, which gives one value an image"
        )
    if recipe.probe:
        wrong.append("probe: not used for multi-label data, where the head is not solved exactly")
    if recipe.regularisation not in (None, "auto"):
        wrong.append("regularisation: not used for multi-label data, where the head is not solved exactly")
    if not loss.multilabel and recipe.loss != DEFAULT_LOSS[False]:
        usable = " or ".join(name for name in LOSSES.entries if LOSSES.get(name).multilabel)
        wrong.append(f"loss: multi-label data (images with several labels) use {usable}")
    if recipe.select and recipe.select in METRICS and not METRICS.get(recipe.select).multilabel:
        wrong.append(f"select: {recipe.select} is not defined for multi-label data")
    return wrong
