"""The grammar of surgery: every row of the studies that names an architecture, and every way to ask wrongly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.networks.freezing import Frozen, find_frozen, set_modes
from budwood.networks.surgery import build, initialize, make_head, plan_network
from budwood.training.optimizers import parameter_groups
from subjects import untrained


def _plan(classes: int, **options: Any) -> dict[str, Any]:
    return plan_network(Recipe(**options), classes).record()


def _total(plan: dict[str, Any]) -> int:
    return int(plan["parameters"]["trainable"] + plan["parameters"]["frozen"])


def _stage(plan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in plan["stages"] if row["name"] == name)


# Study 1: AlexNet and ResNet-34 on Caltech-101


def test_alexnet_freezing_as_study_1_names_it() -> None:
    convolutions = 2_469_696  # of AlexNet's features, as torchvision counts them
    connected = 54_534_144  # of its two hidden fully connected layers, 9216 x 4096 and 4096 x 4096 with biases
    head = 4096 * 101 + 101
    everything = _plan(101, model="alexnet", freeze="trunk")
    assert everything["parameters"] == {"trainable": head, "frozen": convolutions + connected}
    assert _plan(101, model="alexnet", freeze="features.*")["parameters"] == {
        "trainable": connected + head,
        "frozen": convolutions,
    }
    no_fc = _plan(101, model="alexnet", freeze=["classifier.1.*", "classifier.4.*"])
    assert no_fc["parameters"] == {"trainable": convolutions + head, "frozen": connected}
    assert no_fc["prefix"] is None
    assert _plan(101, model="alexnet", weights="none")["parameters"]["frozen"] == 0


def test_resnet34_with_dropout_before_the_head() -> None:
    plan = _plan(101, model="resnet34", freeze="trunk", dropout=0.5)
    assert plan["parameters"] == {"trainable": 512 * 101 + 101, "frozen": 21_797_672 - 513_000}
    recipe = Recipe(model="resnet34", dropout=0.5)
    made, _, _ = build(untrained(recipe, 101))
    head = made.module.get_submodule("fc")
    assert [type(part) for part in head.children()] == [nn.Dropout, nn.Linear]


# Study 2: the network of PyTorch's CIFAR-10 tutorial, small VGGs, and VGG-16 on Caltech-256


def test_the_network_of_pytorchs_tutorial() -> None:
    tutorial: dict[str, Any] = {"widths": [6, 16], "kernels": 5, "strides": 1, "pools": 2, "fc": [120, 84], "size": 32}
    recipe = Recipe(model="cnn", **tutorial)
    assert _total(_plan(10, model="cnn", **tutorial)) == 62_006
    made = build(untrained(recipe, 10))[0].module
    theirs = nn.Sequential(  # written down from the tutorial's class Net
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    leaves = [part for part in made.modules() if not list(part.children())]
    assert list(map(repr, leaves)) == list(map(repr, theirs))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), made.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.eval()(images), theirs.eval()(images))


def test_batch_norm_between_the_convolutions_of_a_block() -> None:
    kinds = {
        "between": "Conv2d BatchNorm2d ReLU Conv2d ReLU MaxPool2d",
        True: "Conv2d BatchNorm2d ReLU Conv2d BatchNorm2d ReLU MaxPool2d",
        False: "Conv2d ReLU Conv2d ReLU MaxPool2d",
    }
    for norm, expected in kinds.items():
        recipe = Recipe(model="vgg-small", blocks=[[64, 64], [128, 128]], conv_norm=norm, size=32)
        made = build(untrained(recipe, 10))[0].module
        for block in ("block1", "block2"):
            parts = list(made.get_submodule(block).children())
            assert " ".join(type(part).__name__ for part in parts) == expected
    one = Recipe(model="vgg-small", blocks=[[8], [8, 8, 8]], conv_norm="between", norm_momentum=0.3, size=32)
    norms = [part for part in build(untrained(one, 2))[0].module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("blocks", "side"),
    [
        (((64, 64), (128, 128)), 8),
        (((64, 64), (128, 128), (256, 256)), 4),
        (((64, 64), (128, 128), (256, 256, 256), (512, 512, 512)), 2),
    ],
    ids=["A", "B", "C"],
)
def test_the_small_vggs(blocks: tuple[tuple[int, ...], ...], side: int) -> None:
    plan = _plan(10, model="vgg-small", blocks=blocks, dropout=0.4, init="xavier_uniform", batch=125)
    shapes = [row["shape"] for row in plan["stages"] if row["name"].startswith("block")]
    assert shapes == [[block[-1], 32 // 2 ** (n + 1), 32 // 2 ** (n + 1)] for n, block in enumerate(blocks)]
    assert _stage(plan, "flatten")["shape"] == [blocks[-1][-1] * side * side]
    before, convolutions = 3, 0
    for width in (width for block in blocks for width in block):
        convolutions += 9 * before * width + 2 * width  # a 3 x 3 convolution without bias, and its batch norm
        before = width
    flat = before * side * side
    assert _total(plan) == convolutions + flat * 512 + 512 + 512 * 10 + 10


def test_vgg16_with_a_last_layer_of_4096_to_256() -> None:
    plan = _plan(256, model="vgg16", optimizer="sgd", lr=0.001)
    assert plan["features"] == 4096
    assert _stage(plan, "classifier.6")["parameters"] == 4096 * 256 + 256


@pytest.mark.parametrize(("cut", "inputs"), [("features.16", 200_704), ("features.23", 100_352)])
def test_vgg16_cut_after_blocks_3_and_4(cut: str, inputs: int) -> None:
    plan = _plan(256, model="vgg16", cut=cut, pool="flatten", head="mlp:1024")
    side = {200_704: [256, 28, 28], 100_352: [512, 14, 14]}[inputs]
    assert plan["features"] == inputs
    assert _stage(plan, cut)["shape"] == side
    assert plan["parameters"]["trainable"] == inputs * 1024 + 1024 + 1024 * 256 + 256


# Study 3: from a perceptron to ResNet-18 on CIFAR-100


def test_the_perceptron_3072_4096_4096_100() -> None:
    plan = _plan(100, model="mlp")
    assert [row["shape"] for row in plan["stages"]] == [[3072], [4096], [4096], [4096], [100]]
    assert _total(plan) == 3072 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 100 + 100


@pytest.mark.parametrize(
    "widths", [(32, 32, 32, 64), (128, 128, 128, 256), (256, 256, 256, 512), (512, 512, 512, 1024)]
)
def test_the_plain_convolutional_networks(widths: tuple[int, ...]) -> None:
    plan = _plan(100, model="cnn", widths=widths)
    sides = [14, 12, 10, 4]  # 5 x 5 with stride 2, three times 3 x 3, max-pool 2, without padding
    assert [row["shape"] for row in plan["stages"][:4]] == [[w, s, s] for w, s in zip(widths, sides, strict=True)]
    a, b, c, d = widths
    convolutions = 25 * 3 * a + a + 9 * (a * b + b * c + c * d) + b + c + d
    assert _total(plan) == convolutions + 16 * d * 4096 + 4096 + 4096 * 100 + 100


def test_the_improved_convolutional_networks() -> None:
    widths = (128, 128, 128, 256)
    normed = _plan(100, model="cnn", widths=widths, conv_norm=True)
    plain = _plan(100, model="cnn", widths=widths)
    assert _total(normed) == _total(plain) + sum(widths)  # two parameters of a norm for one of a bias
    wide = _plan(100, model="cnn", widths=widths, conv_norm=True, fc=8192)
    assert wide["features"] == 8192
    recipe = Recipe(model="cnn", widths=widths, conv_norm=True, dropout=0.5, norm_momentum=0.3, norm_affine=False)
    made, _, _ = build(untrained(recipe, 100))
    kinds = [type(part) for part in made.module.get_submodule("head").children()]
    assert kinds == [nn.Dropout, nn.Linear]
    norms = [part for part in made.module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [(norm.momentum, norm.affine) for norm in norms] == [(0.3, False)] * 4
    tuned = _plan(100, model="cnn", widths=(64, 128), kernels=(3, 5), strides=(1, 2), pools=(2, 1), padding=2, fc=())
    assert [row["shape"] for row in tuned["stages"][:2]] == [[64, 17, 17], [128, 9, 9]]


# Study 4: ResNet-18 on CIFAR-10


def test_resnet18_frozen_as_study_4_froze_it() -> None:
    stem, layer1, head = 9_408 + 128, 147_968, 512 * 10 + 10
    whole = 11_689_512 - 513_000 + head
    upto = _plan(10, model="resnet18", freeze="upto:layer1")
    assert upto["parameters"] == {"trainable": whole - stem - layer1, "frozen": stem + layer1}
    assert upto["prefix"] == "layer1"
    assert _plan(10, model="resnet18", freeze="layer1")["parameters"] == upto["parameters"]
    assert _plan(10, model="resnet18", freeze="trunk")["parameters"] == {"trainable": head, "frozen": whole - head}
    assert _plan(10, model="resnet18", freeze="none")["parameters"] == {"trainable": whole, "frozen": 0}
    dropped = _plan(10, model="resnet18", weights="none", dropout=0.3, epochs=50)
    assert dropped["parameters"] == {"trainable": whole, "frozen": 0}


# Study 5: DenseNet-121 on eight scenes


@pytest.mark.parametrize(
    ("cut", "head", "published"),
    [
        (None, "linear", 7e6),
        ("transition3", "linear", 5e6),
        ("transition2", "linear", 1.5e6),
        ("transition1", "linear", 380e3),
        ("transition3", "mlp:1024", 5e6),
        ("transition2", "mlp:1024", 1.5e6),
        ("transition1", "mlp:1024", 520e3),
    ],
)
def test_densenet121_with_blocks_removed(cut: str | None, head: str, published: float) -> None:
    plan = _plan(8, model="densenet121", cut=cut, head=head, freeze="none")
    assert _total(plan) == pytest.approx(published, rel=0.15)  # published to one digit
    assert plan["cut"] == (f"features.{cut}" if cut else None)


# The grammar


def test_what_is_asked_wrongly_names_the_stages() -> None:
    stages = "Its stages: conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool."
    wrong = {
        "cut: 'layer9' is not a stage of this network": {"cut": "layer9"},
        "freeze: 'layer9' is not a stage of this network": {"freeze": "upto:layer9"},
        "freeze: 'stem' is not a stage of this network": {"freeze": "stem"},
        r"freeze: 'layr\*' is neither a stage nor a pattern of parameter names": {"freeze": "layr*"},
    }
    for message, options in wrong.items():
        with pytest.raises(RecipeError, match=message) as caught:
            _plan(10, model="resnet18", **options)
        assert caught.value.hint == stages


def test_a_network_without_any_stage_is_refused() -> None:
    with pytest.raises(RecipeError, match="crossvit_9_240 has no stages"):
        _plan(3, model="timm:crossvit_9_240")


def test_two_heads_become_one() -> None:
    plan = _plan(3, model="timm:deit_tiny_distilled_patch16_224", size=64)
    assert plan["shape"] == [18, 192]
    assert plan["features"] == 192
    assert plan["parameters"]["trainable"] == 192 * 3 + 3


def test_a_short_name_must_mean_one_stage() -> None:
    assert _plan(2, model="vgg16", cut="features.16")["cut"] == "features.16"
    with pytest.raises(RecipeError, match=r"cut: '1' could be features.1 or classifier.1"):
        _plan(2, model="vgg16", cut="1")


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(RecipeError, match="leaves nothing to train"):
        _plan(10, model="resnet18", freeze="*")


@pytest.mark.parametrize("size", [16, 100])
def test_a_size_that_a_network_cannot_take_is_refused_with_its_reason(size: int) -> None:
    model = {16: "alexnet", 100: "maxvit_t"}[size]
    with pytest.raises(
        RecipeError, match=rf"size: {model} cannot process {size} x {size} pixels with 3 channels \(.+\)"
    ) as caught:
        _plan(10, model=model, size=size)
    assert caught.value.hint == "Its own size is 224."


def test_pooling_of_each_kind_gives_what_it_says() -> None:
    images = torch.rand(2, 3, 64, 64)
    values = {}
    for pool in ("avg", "max", "avgmax", "flatten"):
        recipe = Recipe(model="resnet18", weights="none", cut="layer2", pool=pool, size=64)
        made, _, _ = build(untrained(recipe, 2))
        made.module.eval()
        made.module.fc = nn.Identity()
        values[pool] = made.module(images)
    assert values["flatten"].shape == (2, 128 * 64)
    maps = values["flatten"].reshape(2, 128, 64)
    assert torch.allclose(values["avg"], maps.mean(dim=2), atol=1e-6)
    assert torch.allclose(values["max"], maps.amax(dim=2), atol=1e-6)
    assert torch.allclose(values["avgmax"], (values["avg"] + values["max"]) / 2, atol=1e-6)


def test_tokens_are_pooled_over_tokens_or_by_the_class_token() -> None:
    images = torch.rand(2, 3, 64, 64)
    values = {}
    for pool in ("avg", "token", "flatten"):
        recipe = Recipe(model="timm:vit_tiny_patch16_224", weights="none", cut="blocks.2", pool=pool, size=64)
        made, _, _ = build(untrained(recipe, 2))
        made.module.eval()
        made.module.head = nn.Identity()
        values[pool] = made.module(images)
    tokens = values["flatten"].reshape(2, 17, 192)
    assert torch.allclose(values["token"], tokens[:, 0])
    assert torch.allclose(values["avg"], tokens.mean(dim=1), atol=1e-6)


def test_channels_that_stand_last_are_pooled_over_places() -> None:
    recipe = Recipe(model="swin_t", weights="none", cut="features.3", size=64)
    plan = plan_network(recipe, 2)
    assert (plan.shape, plan.features) == ((8, 8, 192), 192)


def test_pooling_where_it_has_no_meaning_is_refused() -> None:
    with pytest.raises(RecipeError, match="pool: this network gives a vector of 512 already"):
        _plan(2, model="resnet18", pool="max")
    with pytest.raises(RecipeError, match="no class token"):
        _plan(2, model="resnet18", cut="layer2", pool="token")


def test_heads_of_each_kind() -> None:
    linear = make_head(8, 3, Recipe())
    assert isinstance(linear, nn.Linear)
    assert (linear.in_features, linear.out_features) == (8, 3)
    both = make_head(8, 3, Recipe(dropout=0.2, batch_norm=True))
    assert [type(part) for part in both.children()] == [nn.BatchNorm1d, nn.Dropout, nn.Linear]
    deep = make_head(8, 3, Recipe(head="mlp:16,4", dropout=0.2, batch_norm=True))
    kinds = [[type(part) for part in block.children()] for block in list(deep.children())[:-1]]
    assert kinds == [[nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]] * 2
    assert deep(torch.rand(5, 8)).shape == (5, 3)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("xavier_uniform", (2 / (300 + 200)) ** 0.5),
        ("xavier_normal", (2 / (300 + 200)) ** 0.5),
        ("kaiming_uniform", (2 / 200) ** 0.5),
        ("kaiming_normal", (2 / 200) ** 0.5),
        ("orthogonal", (1 / 300) ** 0.5),
    ],
)
def test_initial_weights_have_the_published_spread(init: str, deviation: float) -> None:
    layer = nn.Linear(200, 300)
    torch.manual_seed(0)
    initialize(layer, init)
    assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.05)
    assert not layer.bias.any()


def test_a_seed_decides_random_weights_and_leaves_the_users_own_random_state() -> None:
    recipe = Recipe(model="cnn", widths=(8,), fc=(8,), seed=3)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first, again = (build(untrained(recipe, 2))[0].module.state_dict() for _ in range(2))
    other = build(untrained(Recipe(model="cnn", widths=(8,), fc=(8,), seed=4), 2))[0].module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert torch.equal(torch.rand(1), expected)


def _parts(**options: Any) -> tuple[Any, Frozen, Recipe]:
    recipe = Recipe(model="resnet18", size=64, **options)
    made, _, _ = build(untrained(recipe, 3))
    return made, find_frozen(made.staged, recipe.freeze), recipe


def test_frozen_norms_and_dropout_are_in_evaluation_mode_inside_a_partly_trained_network() -> None:
    made, frozen, _ = _parts(freeze="layer2.*")
    set_modes(made.module, frozen)
    modes = {name: part.training for name, part in made.module.named_modules()}
    assert modes["layer1.0.bn1"]
    assert modes["layer3"]
    assert not modes["layer2.0.bn1"]
    assert not modes["layer2.1.relu"]
    assert frozen.prefix is None


def test_frozen_norms_can_stay_in_training_mode_alone() -> None:
    made, _, recipe = _parts(freeze="upto:layer2", frozen_norm="train")
    frozen = find_frozen(made.staged, recipe.freeze, "train")
    set_modes(made.module, frozen)
    modes = {name: part.training for name, part in made.module.named_modules()}
    assert modes["bn1"]
    assert modes["layer2.0.downsample.1"]
    assert not modes["layer2.0.relu"]
    assert not made.module.get_parameter("layer2.0.bn1.weight").requires_grad
    assert frozen.prefix == "conv1", "what comes before the first batch norm can be computed once"
    assert _plan(3, model="resnet18", size=64, freeze="trunk", frozen_norm="train")["prefix"] == "conv1"
    with pytest.raises(RecipeError, match="frozen_norm: alexnet has no batch norm"):
        _plan(3, model="alexnet", frozen_norm="train")
    with pytest.raises(RecipeError, match="frozen_norm: there is no batch norm in what freeze = 'upto:conv1' freezes"):
        _plan(3, model="resnet18", size=64, freeze="upto:conv1", frozen_norm="train")


def test_a_patterns_own_dropout_is_frozen_with_it() -> None:
    recipe = Recipe(model="alexnet", freeze=["features.*", "classifier.*[0-5]*"])
    made, _, _ = build(untrained(recipe, 3))
    set_modes(made.module, find_frozen(made.staged, recipe.freeze))
    modes = {name: part.training for name, part in made.module.named_modules()}
    assert not modes["classifier.0"]
    assert not modes["classifier.3"]
    assert modes["classifier.6"]


@pytest.mark.parametrize(
    ("freeze", "prefix"),
    [
        (["features.*"], "avgpool"),
        (["features.*", "classifier.1.*"], "avgpool"),  # the dropout before it was not frozen
        (["features.*", "classifier.[01].*", "classifier.0*"], None),
        ("upto:classifier.1", "classifier.2"),
        ("upto:classifier.3", "classifier.3"),
        ("trunk", "trunk"),
    ],
)
def test_what_is_computed_once_ends_before_an_active_dropout(freeze: Any, prefix: str | None) -> None:
    if prefix is None:
        with pytest.raises(RecipeError, match="is neither a stage nor a pattern of parameter names"):
            _plan(3, model="alexnet", freeze=freeze)
    else:
        assert _plan(3, model="alexnet", freeze=freeze)["prefix"] == prefix


def test_the_optimizer_gets_only_what_is_trained_with_rates_by_stage() -> None:
    made, frozen, recipe = _parts(freeze="upto:layer2", layer_decay=0.5, lr=0.1, weight_decay=0.01, decay_norms=False)
    groups = parameter_groups(made.staged, frozen, resolve(recipe, False, 32).steps)
    named = {name: group for group in groups for name in group["names"]}
    assert set(named) == {name for name, _ in made.module.named_parameters()} - frozen.parameters
    assert not any(name.startswith(("conv1", "bn1", "layer1", "layer2")) for name in named)
    assert (named["fc.weight"]["lr"], named["layer4.0.conv1.weight"]["lr"]) == (0.1, 0.05)
    assert named["layer3.1.conv2.weight"]["lr"] == 0.025
    assert named["layer3.1.conv2.weight"]["weight_decay"] == 0.01
    light = ("fc.bias", "layer4.1.bn2.weight", "layer4.1.bn2.bias")
    assert {named[name]["weight_decay"] for name in light} == {0.0}
    assert all(len(group["params"]) == len(group["names"]) for group in groups)


def test_one_and_more_channels() -> None:
    grey = _plan(10, model="resnet18", channels=1)
    assert _stage(grey, "conv1")["parameters"] == 9_408 // 3
    assert grey["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]
    assert _stage(_plan(10, model="timm:convnext_atto", channels=1), "stem")["parameters"] < 40 * 16 + 200
    with pytest.raises(RecipeError, match="googlenet normalises three channels itself and cannot take 1"):
        _plan(10, model="googlenet", channels=1)
