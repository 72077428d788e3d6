"""Stages of any network: cutting the forward pass in two changes nothing, wherever it is cut."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.network_plan import Tap, TrunkPlan
from budwood.networks.pooling import count_pooled_features, list_places
from budwood.networks.registry import TRUNK, find_network
from budwood.networks.stages import Staged, keep_stages, list_parameters, profile_stages, slice_stages, trace_stages
from budwood.networks.surgery import BuiltNetwork, replace_head
from budwood.networks.taps import plan_taps

# A network of every kind that people use, with the side of the images that it is tried on.
NETWORKS = {
    "alexnet": 64,
    "vgg11": 32,
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "densenet121": 64,
    "squeezenet1_1": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 64,
    "googlenet": 64,
    "shufflenet_v2_x0_5": 64,
    "regnet_y_400mf": 64,
    "swin_t": 64,
    "vit_b_32": 64,
    "tf_efficientnet_lite0": 64,
    "timm:resnet18": 64,
    "timm:vit_tiny_patch16_224": 64,
    "timm:deit_tiny_distilled_patch16_224": 64,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:convnext_atto": 64,
    "timm:mobilenetv4_conv_small": 64,
    "timm:mixer_s32_224": 224,
    "timm:xcit_nano_12_p16_224": 64,
    "timm:edgenext_xx_small": 64,
    "timm:pvt_v2_b0": 64,
    "timm:mobilevit_xxs": 64,
    "timm:repvgg_a0": 64,
    "timm:hrnet_w18_small": 64,
}
# One of every way in which networks differ: branches, layers without biases, heads that are convolutions, attention
# over tokens, values that are split and shuffled. The others are slow.
QUICK = (
    "resnet18",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "tf_efficientnet_lite0",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:convnext_atto",
    "timm:edgenext_xx_small",
)
CLASSES = 3
RATE = 0.01
OPTIONS = {"fc": (8,), "activation": "relu", "batch_norm": False, "dropout": 0.0}
Case = tuple[nn.Module, Staged, int]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def case(request: pytest.FixtureRequest) -> Case:
    """A network with random weights, its stages, and the side of its images."""
    size = NETWORKS[request.param]
    net = find_network(request.param)
    torch.manual_seed(0)
    module = net.make(3, size)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_var is not None:
            part.running_var.uniform_(0.5, 2)  # so that frozen statistics are not the trivial ones
    found = trace_stages(module, net.head)
    found = keep_stages(found, [row.name for row in profile_stages(found, 3, size)])
    return module, found, size


def _images(size: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_prefix_then_rest_is_the_whole_at_every_boundary(case: Case) -> None:
    module, found, size = case
    module.eval()
    images = _images(size)
    places = [*found.stages, *([TRUNK] if found.trunk is not None else [])]
    assert len(places) >= 4
    with torch.inference_mode():
        expected = module(images.clone())
        for place in places:
            middle = slice_stages(found, None, place).eval()(images.clone())
            logits = slice_stages(found, place, None).eval()(middle.clone())
            assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max(), place


def test_every_parameter_belongs_to_one_stage(case: Case) -> None:
    _, found, size = case
    rows = profile_stages(found, 3, size)
    named = [name for row in rows for name in row.parameters]
    assert len(named) == len(set(named))
    assert set(named) == set(list_parameters(found, found.node(None)))
    assert all(row.macs >= 0 for row in rows)


def test_cut_and_frozen_at_every_stage_only_what_is_trained_moves(case: Case) -> None:
    _, found, size = case
    shapes = {row.name: row.shape for row in profile_stages(found, 3, size)}
    before = "none"
    for stage in found.stages:
        recipe = Recipe(model="resnet18", weights="none", cut=stage, freeze=before)
        made = _grafted(found, recipe, shapes[stage], stage)
        assert made.module(_images(size)).shape == (2, CLASSES)
        _only_trained_moves(made, recipe, size)
        before = f"upto:{stage}"


def test_frozen_up_to_stages_of_the_uncut_network(case: Case) -> None:
    module, found, size = case
    end = list(found.stages)[-1] if found.trunk is None else TRUNK  # several heads are replaced by one
    shape = next(row.shape for row in profile_stages(found, 3, size) if row.name == end)
    mine = keep_stages(trace_stages(copy.deepcopy(module), found.head), list(found.stages))
    made = _grafted(mine, Recipe(model="resnet18", weights="none"), shape, None)
    names = list(found.stages)
    for stage in (names[0], names[len(names) // 2], end):
        freeze = "trunk" if stage == end else f"upto:{stage}"
        _only_trained_moves(made, Recipe(model="resnet18", weights="none", freeze=freeze), size)


def test_a_tap_in_the_middle_of_the_uncut_network(case: Case) -> None:
    module, found, size = case
    end = list(found.stages)[-1] if found.trunk is None else TRUNK
    shapes = {row.name: row.shape for row in profile_stages(found, 3, size)}
    stage = list(found.stages)[(len(found.stages) - 2) // 2]
    taps = plan_taps([stage], found, shapes, end, "own" if len(shapes[end]) == 1 else "avg")
    plain, tapped = (
        _grafted(
            keep_stages(trace_stages(copy.deepcopy(module), found.head), list(found.stages)),
            Recipe(model="resnet18", weights="none"),
            shapes[end],
            None,
            some,
        )
        for some in ((), taps)
    )
    images = _images(size, 2)
    with torch.no_grad():
        seen, trunk = (slice_stages(one.staged, None, TRUNK).eval()(images) for one in (tapped, plain))
        output = slice_stages(plain.staged, None, stage).eval()(images)
    mean = output.mean(list_places(shapes[stage])) if len(shapes[stage]) > 1 else output
    torch.testing.assert_close(seen, torch.cat([mean, trunk], dim=1))
    assert list(tapped.staged.stages)[-1] == stage
    assert tapped.staged.named.keys() == plain.staged.stages.keys()


def _grafted(
    found: Staged, recipe: Recipe, shape: tuple[int, ...], cut: str | None, taps: tuple[Tap, ...] = ()
) -> BuiltNetwork:
    """A network of the same parts, cut after a stage, with a new head."""
    pool = "own" if len(shape) == 1 else "avg"
    features = count_pooled_features(shape, pool) + sum(tap.features for tap in taps)
    plan = TrunkPlan(cut, pool, features, shape, taps)
    return replace_head(found, replace(find_network("mlp", OPTIONS), head=found.head), recipe, plan, CLASSES)


def _only_trained_moves(made: BuiltNetwork, recipe: Recipe, size: int) -> None:
    """A step moves what is trained and leaves every frozen tensor, statistics included, bit by bit."""
    frozen = find_frozen(made.staged, recipe.freeze)
    set_modes(made.module, frozen)
    named = dict(made.module.named_parameters())
    trained = [parameter for parameter in named.values() if parameter.requires_grad]
    assert len(trained) == len(named) - len(frozen.parameters) > 0
    made.module.zero_grad()
    before = {name: tensor.clone() for name, tensor in made.module.state_dict().items()}
    loss = nn.functional.cross_entropy(made.module(_images(size, 4)), torch.tensor([0, 1, 2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(trained, lr=RATE).step()
    after = made.module.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    owned = {name for name in before if name.rpartition(".")[0] in frozen.modules}
    assert frozen.parameters | owned <= still
    pushed = {n for n, p in named.items() if p.grad is not None and _moves(p.grad, before[n])}
    assert f"{made.staged.head}.bias" in pushed
    assert not pushed & (still | frozen.parameters)


def _moves(gradient: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a step along a gradient is more than rounding."""
    return bool((RATE * gradient.abs() > 1e-6 * value.abs()).any() and gradient.abs().max() > 1e-12)


def test_a_network_whose_path_depends_on_values_is_refused() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.fc(x) if x.sum() > 0 else self.fc(-x))

    with pytest.raises(RecipeError, match="cannot be divided into stages"):
        trace_stages(Fickle(), "fc")


def test_tracing_leaves_the_modes_of_a_network() -> None:
    net = find_network("resnet18")
    module = net.make(3, 64)
    module.get_submodule("layer1").eval()
    modes = [part.training for part in module.modules()]
    profile_stages(trace_stages(module, net.head), 3, 64)
    assert [part.training for part in module.modules()] == modes


def test_multiply_adds_are_those_that_are_published() -> None:
    published = {
        "resnet18": 1.814e9,
        "densenet121": 2.834e9,
        "mobilenet_v2": 0.301e9,
        "vgg16": 15.47e9,
        "vit_b_16": 17.56e9,
    }
    for name, expected in published.items():  # torchvision's own figures, in its weights' `_ops`
        net = find_network(name)
        with torch.device("meta"):
            module = net.make(3, 224)
        total = sum(row.macs for row in profile_stages(trace_stages(module, net.head), 3, 224))
        assert total == pytest.approx(expected, rel=2e-3), name
