"""The folder of `--format timm`: what `timm.create_model("local-dir:FOLDER", pretrained=True)` loads.

timm holds networks of its own library with one linear head. Everything else that a run may be is refused, with the
formats that hold it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.config.options import Interpolation, Resize
from budwood.errors import RunError
from budwood.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG: Final = "config.json"
TIMM_WEIGHTS: Final = "model.safetensors"
CROP_MODES: Final[dict[Resize, str]] = {"crop": "center", "squash": "squash", "pad": "border"}
INTERPOLATIONS: Final[dict[Interpolation, str]] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    "nearest": "nearest",
    "area": "box",
}
OTHER_FORMATS: Final = "The formats onnx, openvino, torch and web hold every network."


def write_timm_folder(run: Run, folder: Path) -> None:
    """Write a run's network into a folder in the form of timm and the Hugging Face Hub.

    Args:
        run: A finished run.
        folder: An empty folder; receives `config.json` and `model.safetensors`.

    Raises:
        RunError: timm cannot hold the network.
        WeightsError: The run's weights cannot be read.
        OSError: The folder cannot be written.
    """
    from safetensors.torch import save_file
    from timm.models._hub import save_config_for_hf

    model = make_timm_model(run)
    recipe, network = run.recipe, run.record.network
    data: dict[str, Any] = {
        "input_size": (network.channels, network.size, network.size),
        "mean": network.mean,
        "std": network.std,
        "interpolation": INTERPOLATIONS[recipe.resizing.interpolation],
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[recipe.resize],
    }
    save_config_for_hf(
        model,
        str(folder / CONFIG),
        model_config={"label_names": list(run.classes), "budwood": _describe_rule(run)},
        data_config=data,
    )
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / TIMM_WEIGHTS)


def make_timm_model(run: Run) -> nn.Module:
    """Make timm's own module of a run's network, with the run's weights.

    Args:
        run: A finished run.

    Returns:
        The module in evaluation mode; its logits are those of `run.network()`.

    Raises:
        RunError: timm cannot hold the network.
        WeightsError: The run's weights cannot be read.
    """
    why = explain_refusal(run)
    if why:
        raise refuse(run, why)
    import timm

    network = run.record.network
    model: Any = timm.create_model(
        network.name, pretrained=False, num_classes=len(run.classes), in_chans=network.channels
    )
    for claim in ("tag", "license"):  # of timm's own weights, which the run need not have started from
        model.pretrained_cfg.pop(claim, None)
    if network.size != model.pretrained_cfg["input_size"][-1] and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(network.size, network.size))
    state = _name_head_plainly(run.network().state_dict(), network.head)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        why = f"timm's {network.name} has other layers than the run's, which is of {network.source}"
        raise refuse(run, why) from error
    return model.eval()  # type: ignore[no-any-return]


def explain_refusal(run: Run) -> str:
    """Say why timm cannot hold a run's network, as far as its record tells.

    Args:
        run: A finished run.

    Returns:
        A clause; empty where nothing speaks against it.
    """
    made = run.record.ensemble
    if made:
        return f"it is an ensemble of {len(made.members)} networks"
    recipe, network = run.recipe, run.record.network
    if network.cut is not None:
        return f"its network is cut after {network.cut}"
    if network.taps:
        return f"its head sees earlier stages, too ({', '.join(tap.name for tap in network.taps)})"
    if network.pool != "own":
        return f"its trunk ends in a pooling of the recipe's, {network.pool}"
    if recipe.hidden or recipe.batch_norm:
        norm = ", with batch norm" if recipe.batch_norm else ""
        return f"its head is no single linear layer (it is {recipe.head}{norm})"
    if network.source not in ("timm", "torchvision") or not _ships_with_timm(network.name):
        return f"{network.name} is no network of timm's"
    return ""


def refuse(run: Run, why: str) -> RunError:
    """Make the error for a network that timm cannot hold.

    Args:
        run: The run.
        why: A clause that says why.

    Returns:
        The error, for the caller to raise.
    """
    return RunError(f"{run.path}: cannot be exported to the format timm: {why}.", OTHER_FORMATS)


def _ships_with_timm(name: str) -> bool:
    """Whether timm has a network of that name which is not registered by a user's own code."""
    import timm

    from budwood.networks.registry import code_of

    return bool(timm.is_model(name)) and not code_of(f"timm:{name}")


def _name_head_plainly(state: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Tensors of a network, where a last layer behind dropout is called what it is called without."""
    behind = [name for name in state if name.startswith(f"{head}.") and name.count(".") == head.count(".") + 2]
    renamed = {name: f"{head}.{name.rpartition('.')[2]}" for name in behind}
    return {renamed.get(name, name): tensor for name, tensor in state.items()}


def _describe_rule(run: Run) -> dict[str, Any]:
    """How logits become answers, which timm's own fields cannot say."""
    rule = run.decision_rule
    optional = {"thresholds": rule.thresholds, "costs": rule.costs, "set_limits": rule.set_limits}
    given = {name: values.tolist() for name, values in optional.items() if values is not None}
    task = "multi-label" if run.task.multilabel else "single-label"
    return {"task": task, "temperature": rule.temperature.tolist(), **given}
