"""Attribution points at what the network looks at, as the methods' own definitions and Captum have it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from numpy.typing import NDArray
from test_stages import NETWORKS
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.evaluation.label_task import MultiLabel
from budwood.explain import saliency as methods
from budwood.explain.heatmaps import METHODS, Attribution, fill_mean_colour, scale_maps
from budwood.explain.probe import NetworkProbe, compute_stage_outputs, default_place, eval_mode, make_probe, slice_probe
from budwood.explain.saliency import compute_attribution, find_finest_place, integrate_gradients, make_eager_inference
from budwood.inference.bundle import make_prefix
from budwood.inference.engines import choose_engine
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.network_plan import StagePlan
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import keep_stages, profile_stages, trace_stages
from budwood.networks.surgery import BuiltNetwork
from budwood.networks.weights import describe_random
from budwood.progress import Silent
from subjects import SMALL, opened, plan_with, unchanged

QUICK = ("resnet18", "swin_t", "timm:vit_tiny_patch16_224", "timm:mobilenetv4_conv_small")
SIZES = {**NETWORKS, "swin_t": 32}
CORNER = (slice(0, 16), slice(16, 32))  # of images of 32 pixels: above, on the right


class Window(nn.Module):
    """Lets through what is in one corner."""

    mask: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        mask = torch.zeros(side, side)
        mask[: side // 2, side // 2 :] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """The corner; 0 elsewhere."""
        return x * self.mask


def looking_at_a_corner(channels: int = 3) -> NetworkProbe:
    """A network whose logit for `fine` rises, and for `flat` falls, with the detail in one corner alone."""
    random = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(channels, 16, 4, 4, bias=False)
    kernels = torch.randn(conv.weight.shape, generator=random)
    conv.weight.data = kernels - kernels.mean(dim=(2, 3), keepdim=True)  # brightness does not count
    head = nn.Linear(16, 3)
    head.weight.data = torch.tensor([[0.6], [-0.6], [0.0]]).repeat(1, 16)
    head.bias.data = torch.tensor([-2.0, 2.0, 0.0])
    parts = [("conv", conv), ("relu", nn.ReLU(inplace=True)), ("window", Window(8)), ("pool", nn.AdaptiveAvgPool2d(1))]
    module = nn.Sequential(OrderedDict([*parts, ("flatten", nn.Flatten()), ("head", head)])).eval()
    found = trace_stages(module, "head")
    rows = profile_stages(found, channels, 32)
    stages = tuple(StagePlan(row.name, row.shape, 0, 0, row.macs) for row in rows)
    plan = plan_with(
        name="corner", channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels, head="head", stages=stages
    )
    named = keep_stages(found, [row.name for row in rows])
    return NetworkProbe(BuiltNetwork(module, named, frozenset()), plan, ("fine", "flat", "other"), "cpu")


def noise(count: int = 3, size: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Images that are full of detail everywhere."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def raw(found: Attribution) -> NDArray[np.float32]:
    """The maps before they were divided by their largest values."""
    return found.maps * found.peaks[:, None, None]


@pytest.fixture(scope="module")
def subject(cache: Path) -> NetworkProbe:
    """A small convolutional network with batch norms."""
    return opened(cache, **SMALL)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_looks_at_a_corner(method: str, channels: int) -> None:
    found = compute_attribution(looking_at_a_corner(channels), noise(), method, ["fine"] * 3)
    within = found.maps[:, *CORNER].sum(axis=(1, 2)) / found.maps.sum(axis=(1, 2))
    assert (within > 0.9).all()
    assert found.maps.shape == (3, 32, 32)
    assert found.maps.max(axis=(1, 2)).tolist() == [1.0] * 3
    assert not found.empty.any()


def test_a_finer_place(cache: Path) -> None:
    corner = looking_at_a_corner()
    found = compute_attribution(corner, noise(), "layer-cam", [0] * 3, "relu")
    assert (found.maps[:, *CORNER].sum(axis=(1, 2)) > 0.9 * found.maps.sum(axis=(1, 2))).all()
    assert found.place == "relu"
    assert compute_attribution(corner, noise(), "layer-cam").place == find_finest_place(corner) == "window"
    fine = opened(cache, model="tf_efficientnet_lite0", size=224)
    assert (default_place(fine), find_finest_place(fine)) == ("bn2", "blocks.4")
    coarse = opened(cache, model="timm:vit_tiny_patch16_224", size=64)
    assert find_finest_place(coarse) == default_place(coarse) == "blocks.10"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_speaks_for_a_class_that_no_input_changes(method: str) -> None:
    found = compute_attribution(looking_at_a_corner(), noise(), method, ["other"] * 3)
    assert found.empty.all()
    assert not found.maps.any()
    assert not found.peaks.any()


def test_the_likeliest_class_is_explained_and_has_its_probability(subject: NetworkProbe) -> None:
    pixels = noise(5)
    found = compute_attribution(subject, pixels)
    with eval_mode(subject) as module, torch.no_grad():
        chances = module(subject.images(pixels)).softmax(dim=1)
        independent = module(subject.images(pixels)).sigmoid()
    assert np.array_equal(found.classes, chances.argmax(dim=1).numpy())
    np.testing.assert_allclose(found.probabilities, chances.max(dim=1).values.numpy(), rtol=1e-5)
    third = compute_attribution(subject, pixels, classes=[2, "c", 2, "c", 2], task=MultiLabel(3))
    assert third.classes.tolist() == [2] * 5
    np.testing.assert_allclose(third.probabilities, independent[:, 2].numpy(), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"model": "resnet18", "size": 64, "cut": "layer2"}])
def test_grad_cam_is_captums(cache: Path, options: dict[str, Any]) -> None:
    small = opened(cache, **({} if "model" in options else SMALL) | options)
    place, size = default_place(small), small.plan.size
    pixels, classes = noise(3, size), torch.tensor([2, 0, 1])
    found = compute_attribution(small, pixels, "grad-cam", classes.tolist())
    layer = small.module.get_submodule(place)
    with eval_mode(small) as module:
        images = small.images(pixels).requires_grad_()
        cells = LayerGradCam(module, layer).attribute(images, classes, relu_attributions=True)
        expected = F.interpolate(cells, (size, size), mode="bilinear")[:, 0].detach().numpy()
    assert expected.any()
    np.testing.assert_allclose(raw(found), expected, atol=1e-5 * expected.max())


def test_layer_cam_of_a_linear_head_by_hand(cache: Path) -> None:
    linear = opened(cache, model="cnn", widths=[4], kernels=[3], strides=[2], pools=[1], fc=[], size=32)
    pixels = noise()
    place = default_place(linear)
    values = compute_stage_outputs(linear, linear.images(pixels), [place])[place]
    head = linear.module.get_submodule(linear.plan.head)
    assert isinstance(head, nn.Linear)
    weights = head.weight.detach()[1].reshape(1, *values.shape[1:])
    by_hand = F.relu((weights.clamp(min=0) * values).sum(dim=1, keepdim=True))
    expected = F.interpolate(by_hand, (32, 32), mode="bilinear")[:, 0].numpy()
    assert expected.any()
    found = compute_attribution(linear, pixels, "layer-cam", [1] * 3)
    np.testing.assert_allclose(raw(found), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("size", [32, 37])
def test_occlusion_is_captums(cache: Path, size: int) -> None:
    small = opened(cache, **{**SMALL, "size": size})
    pixels, classes, stride = noise(2, size), [1, 2], round(size / 14)
    found = compute_attribution(small, pixels, "occlusion", classes)
    with eval_mode(small) as module, torch.no_grad():
        falls = Occlusion(module).attribute(
            small.images(pixels),
            sliding_window_shapes=(3, 2 * stride, 2 * stride),
            strides=(3, stride, stride),
            perturbations_per_eval=64,
            baselines=small.images(fill_mean_colour(pixels)),
            target=torch.tensor(classes),
        )
    expected = falls[:, 0].clamp(min=0).numpy()
    assert expected.any()
    np.testing.assert_allclose(raw(found), expected, atol=1e-5)


def test_occlusion_by_an_engine_is_occlusion_by_pytorch(cache: Path) -> None:
    recipe = Recipe(**{"weights": "none", "optimizer": "adam", **SMALL})
    plan, small, pixels = load_plan(recipe, 3, cache), opened(cache, **SMALL), noise()
    prefix = make_prefix(NetworkSpec(recipe, plan, 3, describe_random("default", 0)), None, cache)
    engine = choose_engine(prefix, lambda: pixels, 1000, Silent())
    assert engine.name.startswith("ONNX Runtime")
    fast = compute_attribution(small, pixels, "occlusion", run=engine.run)
    slow = compute_attribution(small, pixels, "occlusion")
    np.testing.assert_allclose(raw(fast), raw(slow), atol=1e-4)
    np.testing.assert_allclose(fast.probabilities, slow.probabilities, atol=1e-4)


def test_integrated_gradients_of_a_linear_network_by_hand(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "SMOOTHING", 0.0)
    linear = opened(cache, model="mlp", fc=[], size=16)
    pixels = noise(2, 16)
    head = linear.module.get_submodule(linear.plan.head)
    assert isinstance(head, nn.Linear)
    difference = linear.images(pixels) - linear.images(fill_mean_colour(pixels))
    parts = difference * head.weight.detach()[2].reshape(1, *difference.shape[1:])
    expected = parts.sum(dim=1).clamp(min=0).numpy()
    found = compute_attribution(linear, pixels, "integrated-gradients", [2, 2])
    np.testing.assert_allclose(raw(found), expected, atol=1e-5)
    assert found.errors is not None
    assert (found.errors < 1e-4).all()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({**SMALL, "activation": "tanh"}, 1),
        ({**SMALL, "activation": "tanh"}, methods.STEPS),
        ({**SMALL, "channels": 1}, 2),
        ({"model": "resnet18"}, 3),
    ],
)
def test_integrated_gradients_are_captums(cache: Path, options: dict[str, Any], steps: int) -> None:
    small = opened(cache, **{"size": 32, **options})
    images, starts = small.images(noise()), small.images(fill_mean_colour(noise()))
    with eval_mode(small) as module:
        reference = IntegratedGradients(lambda images: module(images.clone()))
        for row, chosen in enumerate((2, 0, 1)):
            image, start = images[[row]], starts[[row]]
            expected, error = reference.attribute(
                image, start, target=chosen, n_steps=steps, return_convergence_delta=True
            )
            found, found_error = integrate_gradients(module, image, start, chosen, steps)
            scale = expected.abs().max().item()
            assert scale > 0
            np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=1e-5 * scale)
            rises = expected.abs().sum().item()
            assert found_error == pytest.approx(abs(float(error)), rel=1e-3, abs=1e-5 * rises)


def test_the_error_of_integrated_gradients_falls_with_the_steps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curved = opened(cache, **{**SMALL, "activation": "tanh"})
    errors = []
    for steps in (2, 24):
        monkeypatch.setattr(methods, "STEPS", steps)
        found = compute_attribution(curved, noise(), "integrated-gradients")
        assert found.errors is not None
        errors.append(found.errors.max())
    assert errors[1] < errors[0] / 5
    assert compute_attribution(curved, noise()).errors is None


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_every_network(model: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "STEPS", 3)
    size = SIZES[model]
    network = opened(cache, model=model, size=size)
    with unchanged(network.module):
        for method in METHODS[:3]:
            found = compute_attribution(network, noise(2, size), method, [0, 1])
            assert found.maps.shape == (2, size, size)
            assert np.isfinite(found.maps).all()
            places = {"grad-cam": default_place(network), "layer-cam": find_finest_place(network)}
            assert found.place == places.get(method)
            if not found.maps.any():  # with random weights everything may speak against a class: then the negative
                monkeypatch.setitem(methods._CAMS, method, _negative(methods._CAMS[method]))
                assert compute_attribution(network, noise(2, size), method, [0, 1]).maps.any()


def _negative(cam: methods.Cam) -> methods.Cam:
    return lambda maps, slopes: -cam(maps, slopes)


def test_two_classes_and_no_image(cache: Path) -> None:
    recipe = Recipe(**{"weights": "none", "optimizer": "adam", **SMALL})
    two = make_probe(spec_of(recipe, 2, describe_random("default", 0), cache), ("a", "b"))
    for method in METHODS:
        assert compute_attribution(two, noise(2), method).maps.shape == (2, 32, 32)
        assert compute_attribution(two, noise(0), method).maps.shape == (0, 32, 32)


def _failing(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    raise MemoryError


@pytest.mark.parametrize("freeze", [None, "none", "trunk"])
@pytest.mark.parametrize("method", METHODS)
def test_an_error_leaves_no_trace(subject: NetworkProbe, method: str, freeze: str | None) -> None:
    subject.module.eval()
    if freeze:
        set_modes(subject.module, find_frozen(subject.network.staged, freeze))  # as in the midst of training
    with unchanged(subject.module):
        answer: Callable[[Any], Any] = lambda pixels: np.zeros((len(pixels), 3), np.float32)  # noqa: E731
        with pytest.raises((RuntimeError, MemoryError)):
            compute_attribution(subject, noise(2, 4), method, run=_failing if method == "occlusion" else answer)
        compute_attribution(subject, noise(2), method)


def test_mistakes(subject: NetworkProbe, cache: Path) -> None:
    pixels = noise(2)
    with pytest.raises(RecipeError, match="no method 'gradcam'") as found:
        compute_attribution(subject, pixels, "gradcam")
    assert "Did you mean 'grad-cam'?" in found.value.hint
    with pytest.raises(RecipeError, match="no class 'd'"):
        compute_attribution(subject, pixels, classes=["a", "d"])
    with pytest.raises(RecipeError, match="no class 3: they are numbered 0 to 2") as found:
        compute_attribution(subject, pixels, classes=[0, 3])
    assert "Valid: a, b, c." in found.value.hint
    with pytest.raises(RecipeError, match="found 1 for 2 images"):
        compute_attribution(subject, pixels, classes=[0])
    with pytest.raises(RecipeError, match="'conv9' is not a stage"):
        compute_attribution(subject, pixels, place="conv9")
    with pytest.raises(RecipeError, match="'fc1' of cnn gives no map") as found:
        compute_attribution(subject, pixels, place="fc1")
    assert "Places with a map: conv1, conv2, conv3" in found.value.hint
    with pytest.raises(RecipeError, match="occlusion uses the image itself, not the stage 'conv1'"):
        compute_attribution(subject, pixels, "occlusion", place="conv1")
    with pytest.raises(RecipeError, match="no stage has a feature map"):
        compute_attribution(opened(cache, model="mlp", fc=[16], size=32), pixels)


def test_the_parts_before_and_after_the_place_make_the_network(subject: NetworkProbe) -> None:
    images = subject.images(noise())
    place = default_place(subject)
    with eval_mode(subject) as module, torch.no_grad():
        values = slice_probe(subject, None, place)(images)
        assert torch.allclose(slice_probe(subject, place, None)(values.clone()), module(images), atol=1e-6)
    np.testing.assert_allclose(make_eager_inference(subject)(noise()), module(images).detach().numpy(), atol=1e-5)


def test_values_that_are_no_number_are_nothing() -> None:
    maps, peaks, empty = scale_maps(np.array([[[np.nan, 2], [-1, 4]], [[np.inf, 0], [-1, 0]]], np.float32))
    assert maps[0].tolist() == [[0, 0.5], [0, 1]]
    assert peaks.tolist() == [4, 0]
    assert empty.tolist() == [False, True]


def test_a_plain_image_has_the_mean_colour() -> None:
    pixels = noise(2)
    pixels[1, ..., 0] //= 4
    without = fill_mean_colour(pixels)
    for before, after in zip(pixels, without, strict=True):
        assert len(np.unique(after.reshape(-1, 3), axis=0)) == 1
        np.testing.assert_allclose(after[0, 0], before.mean(axis=(0, 1)), atol=0.5)
    assert np.array_equal(pixels[0], noise(2)[0])
