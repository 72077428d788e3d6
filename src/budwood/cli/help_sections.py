"""The help of commands with many options: those that matter first, the others in sections under `--help-all`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

# The options that matter first, by the names of their values, for each command that has many.
FIRST: Final[Mapping[str, tuple[str, ...]]] = {
    "inspect": ("html", "table", "fail_on", "val", "test", "exclude", "corrections"),
    "lr-find": ("model", "size", "freeze", "optimizer", "batch", "html"),
    "models": ("freeze", "cut", "head", "size", "classes", "layers"),
    "study": ("dry_run", "quick", "settings", "limit", "count", "opens", "out"),
    "train": ("time", "model", "size", "freeze", "epochs", "lr", "batch", "optimizer", "dry_run", "out"),
    "tune": ("trials", "limit", "metric", "model", "size", "freeze", "optimizer", "epochs", "count", "out"),
}
COMMON: Final = "Of most commands"
OTHER: Final = "Other"
AUGMENTATION: Final = "Augmentation"
LOSS: Final = "Loss, and classes of unequal size"
SCHEDULE: Final = "Schedule of the learning rate"
# The options of each section, by the names of their values.
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Data": (
        "val",
        "test",
        "exclude",
        "corrections",
        "leaks",
        "images_per_class",
        "val_images_per_class",
        "test_images_per_class",
        "label_from",
        "image_column",
        "label_column",
        "label_separator",
        "spelling",
        "split_folders",
    ),
    "Network": (
        "model",
        "weights",
        "freeze",
        "frozen_norm",
        "trained_norm",
        "cut",
        "pool",
        "taps",
        "head",
        "dropout",
        "batch_norm",
        "init",
        "classes",
        "layers",
    ),
    "What the network sees": ("size", "size_start", "channels", "resize", "interpolation", "tta"),
    "Small networks of Budwood's own": (
        "fc",
        "activation",
        "widths",
        "kernels",
        "strides",
        "pools",
        "padding",
        "blocks",
        "conv_norm",
        "norm_momentum",
        "norm_affine",
    ),
    "Training": (
        "time",
        "epochs",
        "batch",
        "accumulate",
        "optimizer",
        "lr",
        "momentum",
        "nesterov",
        "weight_decay",
        "decay",
        "decay_norms",
        "layer_decay",
        "clip",
        "ema",
        "regularisation",
        "precision",
        "phases",
        "probe",
        "wise_ft",
    ),
    "Which epoch is kept": ("select", "metrics", "patience"),
    SCHEDULE: ("schedule", "warmup"),
    LOSS: ("loss", "label_smoothing", "class_weights", "balanced_sampling", "logit_adjustment"),
    AUGMENTATION: ("mixup", "cutmix", "transform", "fill", "views", "policy"),
    "Search and execution": (
        "trials",
        "sampler",
        "metric",
        "limit",
        "count",
        "ray",
        "storage",
        "opens",
        "quick",
        "dry_run",
        "order",
        "track",
        "callbacks",
    ),
    "Recipe and results": ("file", "settings", "out", "name", "html", "table", "fail_on"),
    OTHER: (),
    COMMON: ("device", "seed", "seeds", "as_json", "debug", "help", "help_all"),
}
_WHOLE: Final = "budwood.whole_help"


def make_help_all_option() -> click.Option:
    """Make --help-all, which shows the options of all sections."""

    def show(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            ctx.meta[_WHOLE] = True
            click.echo(ctx.get_help())
            ctx.exit()

    return click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show all options, in sections, and exit.",
    )


def write_options(ctx: click.Context, formatter: click.HelpFormatter, options: Sequence[click.Option]) -> None:
    """Write the options of a command into its help.

    Args:
        ctx: The context of the call.
        formatter: What the help is written with.
        options: All options of the command.
    """
    first = FIRST.get(ctx.command.name or "", ())
    if first and ctx.meta.get(_WHOLE):
        sections = list(arrange_options(options))
    elif first:
        sections = list(pick_first(options, first))
    else:
        sections = [("Options", options)]
    for title, listed in sections:
        records = [record for option in listed if (record := option.get_help_record(ctx))]
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
    left = len(options) - sum(len(listed) for _, listed in sections)
    if left:
        formatter.write_paragraph()
        formatter.write_text(f"{left} more options, in sections: {write_help_command(ctx)}")


def write_help_command(ctx: click.Context) -> str:
    """Write the command that shows all options of a command.

    Args:
        ctx: The context of a call of the command.

    Returns:
        The command with --help-all, or with --help where that shows all.
    """
    return f"{ctx.command_path} --help{'-all' if ctx.command.name in FIRST else ''}"


def pick_first(options: Sequence[click.Option], first: Sequence[str]) -> Iterator[tuple[str, Sequence[click.Option]]]:
    """Pick the options that matter first, and those of most commands.

    Args:
        options: The options of a command.
        first: Names of the values of those that matter first, in the order in which they are shown.

    Yields:
        The title of each of the two sections, with its options.
    """
    named = {_name(option): option for option in options}
    yield "What matters first", [named[name] for name in first if name in named]
    yield COMMON, [named[name] for name in SECTIONS[COMMON] if name in named and name not in first]


def arrange_options(options: Sequence[click.Option]) -> Iterator[tuple[str, Sequence[click.Option]]]:
    """Arrange options in sections.

    Args:
        options: The options of a command.

    Yields:
        The title of each section that has any, with its options in the order of the section.
    """
    for title, names in SECTIONS.items():
        listed = [option for option in options if _find_section(_name(option)) == title]
        if listed:
            yield title, sorted(listed, key=lambda option: [*names, _name(option)].index(_name(option)))


def _name(option: click.Option) -> str:
    """The name of an option's value; that of --help differs between versions of Click."""
    return "help" if "--help" in option.opts else str(option.name)


def _find_section(name: str) -> str:
    """The section of an option; of one that belongs to a part, such as a loss, that of the part."""
    for title, names in SECTIONS.items():
        if name in names:
            return title
    from budwood.config.options import LOSS_OPTIONS, UNCHANGED

    if name in UNCHANGED:
        return AUGMENTATION
    if any(name in own for own in LOSS_OPTIONS.values()):
        return LOSS
    return SCHEDULE if name.startswith("schedule_") else OTHER
