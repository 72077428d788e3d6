"""`--device`: where a command computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from budwood.hardware import DEVICE_VARIABLE, use_device

Command = TypeVar("Command", bound=Callable[..., Any])
_DEVICE: Final = re.compile(r"auto|cpu|gpu|mps|cuda(:\d+)?")


class Device(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """The type of `--device`: auto, cpu, cuda, cuda:N, mps, or gpu for whichever kind there is; N alone is cuda:N."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check that a device is here.

        Args:
            value: What was given.
            param: The option.
            ctx: The context of the call.

        Returns:
            `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        """
        word = str(value).strip().lower()
        word = f"cuda:{word}" if word.isdecimal() else word
        if not _DEVICE.fullmatch(word):
            self.fail(f"expected auto, cpu, cuda, cuda:N or mps, found {value!r}.", param, ctx)
        if word in ("auto", "cpu"):
            return word
        there = list_accelerators(word)
        if word == "gpu" and there:
            return there[0]
        if word.partition(":")[0] not in there:
            self.fail(f"PyTorch sees no {word} on this machine. Leave --device out, or say --device cpu.", param, ctx)
        return word


def list_accelerators(device: str) -> list[str]:
    """List the kinds of devices other than the processor that PyTorch sees, which loads it.

    Args:
        device: The device that is asked about: for `cuda:N` that GPU alone counts.

    Returns:
        `cuda` and `mps` (Apple), as far as there are any.
    """
    with use_device(device):
        import torch

        cuda = torch.cuda.device_count() > 0
    return [*(["cuda"] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]


def add_device_option(command: Command) -> Command:
    """Add --device, which holds while the command runs, to a command.

    Args:
        command: The function of the command, which is not told of it.

    Returns:
        The function with the option.
    """

    def begin(ctx: click.Context, _option: click.Parameter, device: str | None) -> None:
        if device and not ctx.resilient_parsing:
            ctx.with_resource(use_device(device))

    option = click.option(
        "--device",
        type=Device(),
        metavar="DEVICE",
        envvar=DEVICE_VARIABLE,
        expose_value=False,
        callback=begin,
        help=f"Compute on cpu, cuda, cuda:N (one of several GPUs) or mps; the variable {DEVICE_VARIABLE} says so for "
        "all commands. [auto: the fastest that is there]",
    )
    return option(command)


def refuse_device(reason: str) -> None:
    """Refuse --device where it has no effect.

    Args:
        reason: Why it has none.

    Raises:
        click.UsageError: It is on the command line.
    """
    if click.get_current_context().get_parameter_source("device") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--device: {reason}")
