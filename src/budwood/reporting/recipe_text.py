"""A recipe in words."""

from __future__ import annotations

from typing import Final

from budwood.config.augmentations import OwnValue
from budwood.config.metric_registry import LAST, LOSS, describe_selection
from budwood.config.optimizers import LBFGS, OPTIMIZERS
from budwood.config.own_objects import explain_unportable
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import list_own
from budwood.runs.run_record import NetworkRecord, RunRecord, WeightsRecord
from budwood.text import counted
from budwood.training.training_record import Selected

VIEWED: Final = {
    "none": "",
    "flip": "Predictions average the logits of an image and its mirror image",
    "flips": "Predictions average the logits of an image and its flips in both directions",
}


RESIZES: Final = {
    "crop": "cropped to the central square",
    "pad": "padded to a square",
    "squash": "stretched to a square",
}


STEPS: Final = {
    "check": "Checking the data",
    "scan": "Scanning the data",
    "probe": "Solving the head first",
    "prefix": "Computing frozen layers",
    "head": "Training the head",
    "rate": "Finding a learning rate",
    "train": "Training the network",
    "evaluate": "Evaluating",
    "report": "Writing the report",
    "save": "Saving",
    "novelty": "Measuring what tells strangers",
}


def describe_recipe(record: RunRecord) -> str:
    """Describe in plain sentences what a run was asked to do.

    Args:
        record: Record of the run.

    Returns:
        Sentences on the images, the network, its frozen part, the training and the test-time augmentation.
    """
    recipe, network = record.recipe, record.network
    came = _describe_weights(network.weights)
    sight = "" if recipe.channels == 3 else " and converted to greyscale"
    by = f" ({recipe.interpolation} interpolation)" if recipe.interpolation else ""
    sentences = [
        f"Each image was {RESIZES[recipe.resize]} and scaled to {recipe.size} x {recipe.size} pixels{by}{sight}",
        f"The network is {network.name} ({network.source}){_describe_cut(network)}{_describe_taps(network)}; {came}",
        _describe_frozen(record),
        _describe_probe(record),
        _describe_training(record),
        _describe_blend(record),
        _describe_own_code(record),
        _describe_resumed(record),
        VIEWED[recipe.tta],
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _describe_cut(network: NetworkRecord) -> str:
    if network.cut is None:
        return ""
    shape = " x ".join(map(str, network.shape))
    return f", cut off after {network.cut} ({shape}, pooled by {network.pool})"


def _describe_taps(network: NetworkRecord) -> str:
    if not network.taps:
        return ""
    *others, last = [f"{tap.name} ({tap.features:,})" for tap in network.taps]
    names = f"{', '.join(others)} and {last}" if others else last
    return f", whose head sees the means of {names} beside the {network.blocks[-1]:,} features of the trunk"


def _describe_weights(weights: WeightsRecord) -> str:
    came = {
        "imagenet": f"it started from ImageNet weights ({weights.file})",
        "file": f"it started from the weights in {weights.file}",
        "run": f"it started from the weights of {weights.about}",
        "none": f"it started from {weights.about} weights",
    }[weights.kind]
    return f"{came}. {weights.set_aside}".rstrip(". ") if weights.kind in ("file", "run") else came


def _describe_frozen(record: RunRecord) -> str:
    trainable, frozen = record.network.parameters.trainable, record.network.parameters.frozen
    kept = "; batch norm before the head kept its statistics" if record.recipe.trained_norm == "eval" else ""
    if not frozen:
        return f"All {trainable:,} parameters were trained{kept}"
    stage = record.prefix.stage
    once = f"; the features of the frozen layers up to {stage} were computed once for each image" if stage else ""
    live = "; batch norm of the frozen layers used the statistics of each batch and went on averaging them"
    norm = live if record.recipe.frozen_norm == "train" else ""
    trained = f"{frozen:,} parameters were frozen (not changed by training) and {trainable:,} were trained"
    return f"{trained}{once}{norm}{kept}"


def _describe_probe(record: RunRecord) -> str:
    """How good the solved head was that training started from."""
    figures = record.choices.probe
    if figures is None:
        return ""
    return (
        "The head was solved on the frozen trunk first, and training started from there "
        f"(validation loss {figures['val_loss']:.3g}, accuracy {figures['val_accuracy']:.1%})"
    )


def _describe_blend(record: RunRecord) -> str:
    """The share of the trained weights in those that were kept, and who chose it."""
    share = record.choices.wise_ft
    if share is None:
        return ""
    who = "as validation prefers" if record.recipe.wise_ft == "auto" else "as the recipe says"
    return (
        f"The weights that were kept, statistics of batch norm included, are {share:.0%} those of this epoch and "
        f"{1 - share:.0%} those that training started from (WiSE-FT), {who}; the scores are of these weights"
    )


def _describe_training(record: RunRecord) -> str:
    recipe, chosen = record.recipe, record.selected
    what = f"A {'linear head' if recipe.head == 'linear' else 'head of ' + recipe.head}"
    what = f"{what} on {record.network.features:,} features was {_describe_optimizer(recipe.optimizer)}"
    if recipe.phases:
        return f"{what} in {counted(len(recipe.phases), 'phase')}{_describe_phases(recipe)}; {_name_epoch(chosen)}"
    if chosen.epoch is not None:
        epochs = _describe_length(recipe)
        rate = recipe.lr if record.choices.lr is None else record.choices.lr
        how = f" for {epochs} with a batch size of {recipe.batch} and a learning rate of {rate:g}"
        how += " (found automatically)" if recipe.lr == "auto" else ""
        how += _describe_decay(recipe)
        together = (
            ", together with the layers of the network that were not frozen" if record.network.trunk_trained else ""
        )
        return f"{what}{how}{together}; {_name_epoch(chosen)}, {_describe_choice(recipe.select or LOSS)}"
    by = f" by its {describe_selection(recipe.select)}" if recipe.select else ""
    auto = f"chosen on the validation set{by}" if recipe.regularisation == "auto" else "as given"
    return f"{what}; the strength of its L2 penalty is {chosen.regularisation:.2g}, {auto}"


def _name_epoch(chosen: Selected) -> str:
    """What was kept of a training."""
    return f"epoch {chosen.epoch} was kept" if chosen.epoch else "the start was kept, with the solved head"


def _describe_decay(recipe: Recipe) -> str:
    """The weight decay, where it is decoupled by choice."""
    if recipe.decay != "decoupled":
        return ""
    return (
        f", with a decoupled weight decay of {recipe.weight_decay:g} (taken off the weights, not put in the gradient)"
    )


def _describe_choice(select: str) -> str:
    """Why an epoch was kept."""
    if select == LAST:
        return "the last epoch, as the recipe says, whatever validation says of it"
    return f"because it has the {describe_selection(select)}"


def _describe_optimizer(name: str) -> str:
    if name not in OPTIMIZERS:
        return f"trained with an optimizer of your own ({name})"
    kind = OPTIMIZERS.get(name)
    return "solved to convergence (L-BFGS)" if kind is LBFGS else f"trained by gradient descent ({kind.__name__})"


def _describe_length(recipe: Recipe) -> str:
    """How long training was to be, at most."""
    epochs, seconds = recipe.epochs, recipe.time
    if epochs is None:
        return f"{seconds:,.0f} seconds in total"
    count = counted(epochs, "epoch")
    return count if seconds is None else f"{count} or {seconds:,.0f} seconds"


def _describe_own_code(record: RunRecord) -> str:
    """The user's own code, each with its options and file."""
    options = iter(list_own(record.recipe.transform))  # in the order of the parts
    told = []
    for option, part in record.parts.items():
        keywords = next(options).keywords if option.startswith("transform") else {}
        given = [f"{name} {_format_option(value)}" for name, value in keywords.items()]
        about = ", ".join([*given, *filter(None, [part.file])])
        told.append(f"{option} {part.name}" + (f" ({about})" if about else ""))
    lost = explain_unportable({option: part.name for option, part in record.parts.items()})
    return f"Code of your own was used: {'; '.join(told)}{'. ' + lost if lost else ''}" if told else ""


def _format_option(value: OwnValue) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _describe_resumed(record: RunRecord) -> str:
    times = len(record.resumed)
    return f"Training was interrupted or extended, and then continued, {_count_times(times)}" if times else ""


def _count_times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _describe_phases(recipe: Recipe) -> str:
    told = [
        f"{'nothing' if phase.freeze == 'none' else phase.freeze} frozen "
        f"for {counted(phase.epochs, 'epoch')} with a learning rate of {phase.lr:g}"
        for phase in recipe.phases or ()
    ]
    limit = "" if recipe.time is None else f", at most {recipe.time:,.0f} seconds in total"
    return f" with a batch size of {recipe.batch}: {', then '.join(told)}{limit}"


def describe_choices(record: RunRecord) -> dict[str, object]:
    """Describe what was chosen for a run: the machine, and what training found.

    Args:
        record: Record of the run.

    Returns:
        Values by name, for a table.
    """
    choices = record.choices.table()
    if figures := record.choices.probe:
        told = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items() if name != "epoch"]
        choices["probe"] = ", ".join(told)
    return choices
