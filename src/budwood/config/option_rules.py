"""Rules for which options apply together.

What a network, an optimizer, a schedule or a loss does not use is refused, and what is not given is filled in. Options
are plain values by name, before a `Recipe` is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeGuard

from budwood.config.metric_registry import LAST
from budwood.config.optimizers import OPTIMIZERS
from budwood.config.options import (
    FINE_TUNING,
    FINER,
    LOSS_OPTIONS,
    NORM_OPTIONS,
    OPTIMIZER_OPTIONS,
    OWN_OPTIMIZER,
    SCHEDULE_OPTIONS,
    SMALL_NETWORK_OPTIONS,
    SOLVED_OPTIONS,
    TRUNK_OPTIONS,
    Options,
)
from budwood.config.own_networks import is_users_code
from budwood.config.registry import is_entry_point
from budwood.config.tuning_rules import refuse_tuning

DEFAULT_MODEL: Final = "tf_efficientnet_lite0"
PHASE_OPTIONS: Final = ("freeze", "epochs", "lr")  # what every phase has of its own
PER_CONVOLUTION: Final = ("kernels", "strides", "pools")
FEW: Final = 3  # optimizers that are named one by one
SOLVED_LOSS: Final = "cross_entropy"  # the loss of a head that is solved


def refused_options(options: Options) -> dict[str, str]:
    """Find the options that the network, optimizer, schedule or loss does not use.

    Args:
        options: The options that are given, by name.

    Returns:
        For each refused option the sentence that says why.
    """
    model, optimizer = options.get("model", DEFAULT_MODEL), _default_optimizer(options)
    refused = {}
    used = {
        name: {*options, *(NORM_OPTIONS if name != "mlp" else ())} for name, options in SMALL_NETWORK_OPTIONS.items()
    }
    for name in sorted({option for names in used.values() for option in names} & options.keys()):
        if name not in used.get(str(model), ()):
            users = " and ".join(model for model, names in used.items() if name in names)
            refused[name] = f"{name}: {model!r} does not use it; it is an option of {users}"
    if _is_optimizer(optimizer):
        known = _fill_optimizer_options(options)
        every = {*TRUNK_OPTIONS, *(name for names in OPTIMIZER_OPTIONS.values() for name in names), *FINER}
        for name in sorted((every - known.keys()) & options.keys()):
            refused[name] = _explain_refusal(name, optimizer, options, known)
    refused |= refuse_tuning(options, _default_freeze(options), _default_weights(options))
    if options.get("phases"):
        own = {name: f"{name}: every phase has its own" for name in PHASE_OPTIONS if name in options}
        refused |= own
    if options.get("optimizer") == "lbfgs" and (why := beyond_solving(options)):
        refused["optimizer"] = (
            f"optimizer: lbfgs solves a linear head on a frozen trunk, not {why}; use adam or another"
        )
    if optimizer == "lbfgs" and options.get("loss", SOLVED_LOSS) != SOLVED_LOSS:
        refused["loss"] = (
            f"loss: lbfgs minimises {SOLVED_LOSS}, found {options['loss']!r}; use adam or another optimizer for it"
        )
    if optimizer == "lbfgs" and options.get("select") == LAST:
        refused["select"] = (
            "select: lbfgs solves the head and has no last epoch; name a metric, or use adam or another optimizer"
        )
    return refused


def _explain_refusal(name: str, optimizer: str, options: Options, known: Options) -> str:
    """The sentence that refuses an option which the optimizer, the schedule or the loss does not use."""
    if optimizer != "lbfgs" and name in FINER:
        choosers = {"loss": LOSS_OPTIONS, "schedule": SCHEDULE_OPTIONS}
        chooser = next(chooser for chooser, table in choosers.items() if any(name in each for each in table.values()))
        users = " and ".join(value for value, names in choosers[chooser].items() if name in names)
        return f"{name}: {chooser} {known.get(chooser)!r} does not use it; it is an option of {users}"
    if name in TRUNK_OPTIONS:
        return f"{name}: not used when only a linear head is trained; it needs more trained layers"
    optimizers = [user for user, names in OPTIMIZER_OPTIONS.items() if name in names]
    *others, last = optimizers
    named = f"{', '.join(others)} and {last}" if others else last
    listed = named if len(optimizers) <= FEW else "optimizers that train in steps, such as adam"
    return f"{name}: optimizer {optimizer!r} does not use it; it is an option of {listed}"


def beyond_solving(options: Options) -> str:
    """Describe what of a recipe rules out solving the head, so that it must be trained in steps.

    Args:
        options: Options by name.

    Returns:
        Some words for a message, such as "dropout"; empty where the head can be solved.
    """
    if options.get("phases"):
        return "a training in phases"
    if _default_freeze(options) != "trunk":
        return f"a network with freeze = {_default_freeze(options)!r}"
    if options.get("frozen_norm") == "train":
        return "frozen layers whose batch norm changes in every step (frozen_norm = train)"
    if options.get("head", "linear") != "linear":
        return f"the head {options['head']!r}"
    if options.get("init", "default") != "default":
        return f"new weights that start {options['init']}"
    return "dropout" if options.get("dropout") else "batch norm" if options.get("batch_norm") else ""


def _default_freeze(options: Options) -> object:
    """What is frozen: the trunk when it has weights from somewhere, unless the recipe says otherwise."""
    return options.get("freeze", "none" if _default_weights(options) == "none" else "trunk")


def _default_weights(options: Options) -> object:
    model = options.get("model")
    return options.get("weights", "none" if model in SMALL_NETWORK_OPTIONS or is_users_code(model) else "imagenet")


def _default_optimizer(options: Options) -> object:
    """The optimizer: the one that solves, where the head can be solved and nothing is said about steps."""
    if "momentum" in options:
        return options.get("optimizer", "sgd")
    return options.get("optimizer", "adam" if beyond_solving(options) or list_step_options(options) else "lbfgs")


def list_step_options(options: Options) -> list[str]:
    """List the options that are given and have a meaning only where training takes steps.

    Args:
        options: The options that are given, by name.

    Returns:
        Their names, in the order in which they are given.
    """
    of_steps = {*OPTIMIZER_OPTIONS["adam"], *OPTIMIZER_OPTIONS["sgd"], *FINER} - SOLVED_OPTIONS.keys()
    if options.get("loss", SOLVED_LOSS) != SOLVED_LOSS:
        of_steps.add("loss")
    if options.get("select") == LAST:
        of_steps.add("select")
    return [name for name in options if name in of_steps]


def explain_steps(options: Options) -> str:
    """Explain why a head that could be solved is trained in steps.

    Args:
        options: The options that are given, by name.

    Returns:
        A sentence that names the options which ask for steps; empty where the head is solved, cannot be, or the
        optimizer is given.
    """
    named = list_step_options(options)
    if "optimizer" in options or beyond_solving(options) or not named:
        return ""
    name = str(_default_optimizer(options))
    trains, them = ("trains", "it") if len(named) == 1 else ("train", "them")
    flags = " and ".join(f"--{option.replace('_', '-')}" for option in named)
    kind = OPTIMIZERS.get(name).__name__
    return f"{flags} {trains} the head in steps with {kind}; without {them} the head is solved exactly."


def _is_optimizer(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and (name in OPTIMIZERS or is_entry_point(name))


def _fill_optimizer_options(options: Options) -> dict[str, object]:
    """The options of the recipe's optimizer with the values that stand in for them."""
    optimizer = _default_optimizer(options)
    known = dict(OPTIMIZER_OPTIONS.get(str(optimizer), OWN_OPTIMIZER))
    if optimizer == "lbfgs":
        return known
    known |= {name: options[name] for name in ("schedule", "loss") if name in options}
    known |= SCHEDULE_OPTIONS.get(str(known["schedule"]), {})
    known |= LOSS_OPTIONS.get(str(known["loss"]), {})
    if "time" in options:
        known["epochs"] = None
    if beyond_solving(options):
        known |= TRUNK_OPTIONS
        rate = known["lr"]
        tuned = _default_freeze(options) != "trunk" and _default_weights(options) != "none"
        known |= {"lr": rate * FINE_TUNING} if tuned and isinstance(rate, float) else {}
    return known


def complete(options: Options) -> dict[str, object]:
    """Fill in the options that are not given.

    Args:
        options: The options that are given, by name.

    Returns:
        These options with the values of the network, the optimizer, the schedule and the loss where none is given.
    """
    model, optimizer = options.get("model"), _default_optimizer(options)
    stand_ins = {"weights": _default_weights(options), "freeze": _default_freeze(options), "optimizer": optimizer}
    if _is_optimizer(optimizer):
        stand_ins |= _fill_optimizer_options(options)
    if isinstance(model, str) and model in SMALL_NETWORK_OPTIONS:
        stand_ins |= {**SMALL_NETWORK_OPTIONS[model], **(NORM_OPTIONS if model != "mlp" else {})}
    completed = {**stand_ins, **options}
    last = phases[-1] if isinstance(phases := options.get("phases"), list | tuple) and phases else None
    if isinstance(last, Mapping):
        completed |= {name: last[name] for name in ("freeze", "lr") if name in last} | {"epochs": None}
    return {**completed, **_repeat_per_convolution(completed)} if model == "cnn" else completed


def _repeat_per_convolution(options: Options) -> dict[str, object]:
    """Kernels, strides and pools with one number for each of the widths of a `cnn`."""
    widths = options["widths"]
    count = len(widths) if isinstance(widths, tuple | list) else 0
    own = {"kernels": (5, *(3,) * (count - 1)), "strides": (2, *(1,) * (count - 1)), "pools": (*(1,) * (count - 1), 2)}
    given = {name: value for name in own if isinstance(value := options[name], tuple | list)}
    return {name: tuple(value) * count if len(value) == 1 else value or own[name] for name, value in given.items()}
