"""Taps: the head sees the mean of earlier stages, as they are before what follows changes them, beside the trunk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.explain.probe import default_place, list_places
from budwood.explain.saliency import choose_place
from budwood.inference.bundle import make_prefix
from budwood.networks.freezing import find_frozen, map_parameters_to_stages
from budwood.networks.network_plan import NetworkPlan, Tap, plan_from_record
from budwood.networks.plan import hash_json, load_plan, spec_of
from budwood.networks.registry import TRUNK, find_network
from budwood.networks.stages import slice_stages, trace_stages
from budwood.networks.surgery import build, plan_network
from budwood.networks.taps import plan_taps
from budwood.networks.weights import describe_random
from budwood.studies.job_planning import hash_shared
from budwood.studies.study_tables import DataSpec
from budwood.training.optimizers import parameter_groups
from subjects import opened, untrained

RESNET: dict[str, Any] = {"model": "resnet18", "weights": "none", "size": 64}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "maps": (RESNET, ["layer1", "layer2", "layer3"]),
    "maps of a cut network": ({**RESNET, "cut": "layer3", "pool": "max"}, ["layer1", "layer3"]),
    "maps with channels last": ({"model": "swin_t", "weights": "none", "size": 64}, ["features.1", "features.3"]),
    "maps in timm": ({"model": "timm:test_efficientnet", "weights": "none", "size": 64}, ["blocks.0", "blocks.2"]),
    "tokens": ({"model": "timm:test_vit", "weights": "none", "size": 64}, ["blocks.3", "norm"]),
    "two heads": ({"model": "timm:deit_tiny_distilled_patch16_224", "weights": "none", "size": 64}, ["blocks.5"]),
    "vectors, changed in place": ({"model": "alexnet", "weights": "none", "size": 64}, ["features.0", "classifier.1"]),
    "small network": ({"model": "mlp", "size": 16, "fc": (12, 8), "epochs": 1}, ["fc1"]),
    "small convolutions": ({"model": "cnn", "size": 16, "widths": (4, 6), "fc": (5,), "epochs": 1}, ["conv1", "conv2"]),
}


def _plan(taps: object, **options: Any) -> NetworkPlan:
    return plan_network(Recipe(**{**RESNET, **options}, taps=taps), 3)


def _pool(output: Tensor, last: bool) -> Tensor:
    """The mean over places, written down a second time."""
    if output.ndim == 4:
        return output.mean(dim=(1, 2) if last else (2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output


def _hear(module: nn.Module, names: list[str], images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What parts of a plain network give for images, and what it answers."""
    heard: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda part, given, output: heard.__setitem__(name, output.clone())

    handles = [module.get_submodule(name).register_forward_hook(note(name)) for name in names]
    with torch.no_grad():
        answer = module.eval()(images)
    for handle in handles:
        handle.remove()
    return heard, answer


@pytest.mark.parametrize("case", CASES)
def test_the_head_sees_the_means_of_the_taps_and_then_the_trunk(case: str) -> None:
    options, taps = CASES[case]
    spec = untrained(Recipe(**options, taps=taps), 3)
    images = torch.randn(2, 3, spec.plan.size, spec.plan.size, generator=torch.Generator().manual_seed(5))
    made, _, _ = build(spec)
    plain, _, _ = build(untrained(Recipe(**options), 3))
    made.module.eval()
    with torch.no_grad():
        features = slice_stages(made.staged, None, TRUNK)(images.clone())
        answers = made.module(images.clone())
        trunk = slice_stages(plain.staged, None, TRUNK).eval()(images.clone())
    heard, _ = _hear(plain.module, taps, images.clone())
    expected = torch.cat([*(_pool(heard[name], "swin" in options["model"]) for name in taps), trunk], dim=1)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(answers, made.module.get_submodule(spec.plan.head)(features))
    assert spec.plan.blocks == (
        *(len(_pool(heard[name], "swin" in options["model"])[0]) for name in taps),
        len(trunk[0]),
    )
    assert spec.plan.features == sum(spec.plan.blocks) == expected.shape[1]


def test_every_tensor_keeps_its_name() -> None:
    tapped, plain = (build(untrained(Recipe(**RESNET, **more), 3))[0].module for more in ({"taps": "layer2"}, {}))
    shapes = [{name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (tapped, plain)]
    assert shapes[0].keys() == shapes[1].keys()
    assert {name for name in shapes[0] if shapes[0][name] != shapes[1][name]} == {"fc.weight"}
    assert shapes[0]["fc.weight"] == (3, 128 + 512)


def test_taps_are_written_in_any_order_and_by_the_ends_of_their_names() -> None:
    plan = _plan("blocks.3, blocks.1", model="timm:test_vit")
    assert [tap.name for tap in plan.taps] == ["blocks.1", "blocks.3"]
    assert _plan(["3", "1"], model="timm:test_vit").taps == plan.taps
    assert Recipe(taps='["layer1","layer2"]').taps == Recipe(taps="layer1,layer2").taps == ("layer1", "layer2")
    assert Recipe(taps="layer1").taps == ("layer1",)
    assert "taps" not in Recipe().table()


def test_a_plan_with_taps_is_what_its_record_says_and_one_without_can_still_be_read() -> None:
    plan = _plan("layer1,layer3")
    assert plan.taps == (Tap("layer1", (64, 16, 16), 64), Tap("layer3", (256, 4, 4), 256))
    assert plan.blocks == (64, 256, 512)
    assert plan_from_record(json.loads(json.dumps(plan.record()))) == plan
    plain = _plan(None)
    older = {name: value for name, value in plain.record().items() if name != "taps"}
    assert plan_from_record(older) == plain
    assert plain.blocks == ()


@pytest.mark.parametrize(
    ("taps", "options", "message", "hint"),
    [
        ("layer9", {}, "taps: 'layer9' is not a stage of this network", "Its stages: conv1, bn1, relu, maxpool, "),
        ("layer1,", {}, "taps: '' is not a stage of this network", "Its stages: "),
        ("1", {"model": "vgg16"}, "taps: '1' could be features.1 or classifier.1", "Its stages: features.0, "),
        ("layer2,layer2", {}, "taps: layer2 is named twice", "Name each stage once"),
        ("3,blocks.3", {"model": "timm:test_vit"}, "taps: blocks.3 is named twice", "Name each stage once"),
        (
            "layer3",
            {"cut": "layer2"},
            "taps: layer3 comes after the cut, layer2",
            "before it: conv1, .*maxpool, layer1",
        ),
        (
            "layer2",
            {"cut": "layer2"},
            "taps: layer2 gives what the head sees anyway",
            "Name earlier stages. Its stages",
        ),
        ("layer4", {}, "taps: layer4 gives what the head sees anyway", "Name earlier stages"),
        ("avgpool", {}, "taps: avgpool gives what the head sees anyway", "Name earlier stages"),
        ("head_drop", {"model": "timm:test_vit"}, "taps: head_drop gives what the head sees anyway", "Name earlier"),
        ("fc2", {"model": "mlp", "size": None}, "taps: fc2 gives what the head sees anyway", "flatten, fc1, fc2"),
    ],
)
def test_what_is_asked_wrongly_is_refused(taps: str, options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        _plan(taps, **options)
    assert re.search(hint, str(caught.value.hint))


def test_what_is_no_map_tokens_or_vector_is_refused() -> None:
    net = find_network("resnet18")
    original = trace_stages(net.make(3, 64), net.head)
    with pytest.raises(RecipeError, match="taps: layer1 gives 2 x 64 x 16 x 16 for an image: no map, tokens or vector"):
        plan_taps(["layer1"], original, {"layer1": (2, 64, 16, 16)}, TRUNK, "own")
    with pytest.raises(RecipeError, match="taps: layer1 gives one number for an image"):
        plan_taps(["layer1"], original, {"layer1": ()}, TRUNK, "own")


@pytest.mark.parametrize(("taps", "found"), [([], "too_short|at least 1 item"), (3, "found 3")])
def test_no_names_at_all_are_refused(taps: object, found: str) -> None:
    with pytest.raises(RecipeError, match=rf"taps: .*({found})"):
        Recipe(taps=taps)


def test_the_mean_of_tokens_beside_the_class_token_is_something_else() -> None:
    plan = _plan("norm", model="timm:test_vit")
    assert plan.blocks == (64, 64)


def test_what_is_frozen_is_computed_once_up_to_the_first_tap() -> None:
    for freeze, prefix in {"upto:conv1": "conv1", "upto:layer2": "layer2", "upto:layer3": "layer2"}.items():
        plan = _plan("layer2,layer3", freeze=freeze)
        plain = _plan(None, freeze=freeze)
        assert plan.prefix == prefix
        assert plan.parameters.frozen == plain.parameters.frozen
    assert _plan("layer2", freeze="trunk").prefix == TRUNK
    rows = {row.name: (row.shape, row.parameters, row.macs) for row in _plan("layer2").stages}
    assert rows["layer3"] == next((r.shape, r.parameters, r.macs) for r in _plan(None).stages if r.name == "layer3")
    with pytest.raises(RecipeError, match="freeze: 'layer9' is not a stage") as caught:
        _plan("layer2", freeze="upto:layer9")
    assert "layer3, layer4, avgpool" in str(caught.value.hint)


def test_stages_after_the_first_tap_have_rates_of_their_own() -> None:
    recipe = Recipe(**RESNET, taps="layer1,layer2", freeze="upto:layer3", layer_decay=0.5, lr=0.1)
    made, _, _ = build(untrained(recipe, 3))
    assert list(map_parameters_to_stages(made.staged))[-5:] == ["layer1", "layer2", "layer3", "layer4", "head"]
    steps = resolve(recipe, False, 64).steps
    assert steps is not None
    groups = parameter_groups(made.staged, find_frozen(made.staged, "upto:layer3"), steps)
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    assert (rates["fc.weight"], rates["layer4.0.conv1.weight"]) == (0.1, 0.05)
    assert not any(name.startswith("layer3") for name in rates)


def test_attribution_looks_where_all_that_the_head_sees_passes(tmp_path: Path) -> None:
    subject = opened(tmp_path, **RESNET, taps="layer2,layer3")
    assert [place.name for place in list_places(subject)][-3:] == ["layer1", "layer2", TRUNK]
    assert default_place(subject) == "layer2"
    message = "place: layer3 comes after the first tap, layer2, from which on the head does not see the image through"
    with pytest.raises(RecipeError, match=message) as caught:
        choose_place(subject, "grad-cam", "layer3")
    assert caught.value.hint == "Choose from conv1, bn1, relu, maxpool, layer1, layer2."


def test_keys_of_caches_know_of_taps_only_where_there_are_any(tmp_path: Path) -> None:
    weights = describe_random("default", 0)
    tapped, other, plain = (
        spec_of(Recipe(**RESNET, taps=taps), 3, weights, tmp_path) for taps in ("layer2", "layer3", None)
    )
    for stop in (TRUNK, None):
        assert len({make_prefix(spec, stop, tmp_path).key for spec in (tapped, other, plain)}) == 3
    plan = plain.plan
    parts = [weights.digest, plan.source, plan.name, plan.channels, plan.size, plan.mean, plan.std, {}, TRUNK]
    assert make_prefix(plain, TRUNK, tmp_path).key == hash_json([*parts, "bicubic", None, "own"])
    before = [spec_of(Recipe(**RESNET, taps=t, freeze="upto:layer1"), 3, weights, tmp_path) for t in ("layer2", None)]
    assert len({make_prefix(spec, "layer1", tmp_path).key for spec in before}) == 1
    assert load_plan(Recipe(**RESNET, taps="layer2"), 3, tmp_path) == tapped.plan != plain.plan


def test_jobs_of_a_study_share_features_only_with_the_same_taps() -> None:
    images = DataSpec(data="photos")
    recipes = [Recipe(**RESNET, taps=taps, freeze="trunk") for taps in (None, "layer2", "layer2,layer3", "layer2")]
    shared = [hash_shared(recipe, plan_network(recipe, 3), images) for recipe in recipes]
    assert len(set(shared)) == 3
    assert shared[1] == shared[3]
