"""Networks of the user's own: registered with timm or named by their factory; edited, they are other networks."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from torch import nn

import budwood
from budwood.config.recipe import Recipe
from budwood.data.scanning import scan
from budwood.errors import RecipeError, WeightsError
from budwood.inference.bundle import make_prefix
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.weights import describe_random
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import digest_job
from budwood.workflows.predict import predict
from budwood.workflows.train import train_recipe
from conftest import Notes

REGISTERED = """
from timm.models import register_model
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, width=WIDTH):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, 2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2)
        self.conv3 = nn.Conv2d(2 * width, 16, 3, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.conv3(self.conv2(self.conv1(x))))))


@register_model
def budwood_test_small(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **options):
    return Small(**options)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is worked in; its modules, and the names that they register with timm, are forgotten again."""
    from timm.models import _registry

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for table in (_registry._model_entrypoints, _registry._model_to_module, _registry._model_default_cfgs):
        table.pop("budwood_test_small", None)


def imported(name: str) -> ModuleType:
    """A module as its file is now."""
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.filterwarnings("ignore:Overwriting")
def test_an_edited_network_that_is_registered_with_timm_is_planned_anew(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(model="budwood_test_small", weights="none", freeze="none", optimizer="adam", size=32)
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "4"))
    imported("registering")
    assert timm.is_model("budwood_test_small")
    first = load_plan(recipe, 3, tmp_path / "cache")
    assert load_plan(recipe, 3, tmp_path / "cache") == first
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "8"))
    imported("registering")
    second = load_plan(recipe, 3, tmp_path / "cache")
    assert [row.shape[0] for row in (first.stages[0], second.stages[0])] == [4, 8]


def test_a_network_of_timm_without_a_pretrained_configuration_has_the_usual_one(folder: Path, tmp_path: Path) -> None:
    (folder / "registering.py").write_text(REGISTERED.replace("WIDTH", "4"))
    imported("registering")
    plan = load_plan(Recipe(model="budwood_test_small", weights="none", optimizer="adam"), 3, tmp_path / "cache")
    assert (plan.size, plan.source, plan.head) == (224, "timm", "fc")
    assert plan.parameters.trainable == 16 * 3 + 3 + sum(row.parameters for row in plan.places)


FACTORY = """
from torch import nn
from parts import block


def net(classes):
    layers = [block(3, WIDTH), block(WIDTH, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)]
    return nn.Sequential(*layers)


class Net(nn.Sequential):
    def __init__(self, num_classes, in_chans=3, size=48):
        super().__init__(block(in_chans, 8), block(8, 8), nn.Flatten(), nn.Linear(8 * (size // 4) ** 2, num_classes))


def flat(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32**2, 8), nn.ReLU(), nn.Linear(8, classes))


def fails(classes):
    raise ValueError("not today")


def gives_text(classes):
    return "a network"


def gives_ten(classes):
    return net(10)


def two_heads(classes):
    return nn.ModuleDict({"a": nn.Linear(4, classes), "b": nn.Linear(4, classes)})


def depends_on_values(classes):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, classes)

        def forward(self, x):
            return self.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))

    return Odd()
"""
PARTS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, padding=1), nn.ReLU())
"""
PLAIN = {"weights": "none", "freeze": "none", "optimizer": "adam", "size": 32}


@pytest.fixture
def mine(folder: Path) -> Path:
    """A module of factories, with another one that it imports from."""
    (folder / "nets.py").write_text(FACTORY.replace("WIDTH", "4"))
    (folder / "parts.py").write_text(PARTS)
    imported("parts")
    imported("nets")
    return folder


def test_a_factory_is_named_by_its_path_and_divided_into_stages(mine: Path, tmp_path: Path) -> None:
    plan = load_plan(Recipe(model="nets:net", freeze="upto:0", optimizer="adam", size=32), 3, tmp_path / "cache")
    assert (plan.source, plan.name, plan.head, plan.prefix) == ("nets", "net", "4", "0")
    assert [row.shape for row in plan.stages][:2] == [(4, 16, 16), (16, 8, 8)]
    assert plan.stages[-1].shape == (3,)
    cut = load_plan(Recipe(model="nets:net", cut="0", head="mlp:5", optimizer="adam", size=32), 3, tmp_path / "cache")
    assert (cut.pool, cut.features, [row.name for row in cut.removed]) == ("avg", 4, ["1", "2", "3"])


def test_a_class_may_be_a_factory_and_be_told_channels_and_size(mine: Path, tmp_path: Path) -> None:
    plan = load_plan(Recipe(model="nets:Net", freeze="none", optimizer="adam", channels=1), 3, tmp_path / "cache")
    assert (plan.size, plan.channels, plan.features) == (48, 1, 8 * 12**2)
    sized = load_plan(Recipe(model="nets:Net", freeze="none", optimizer="adam", size=32), 3, tmp_path / "cache")
    assert sized.features == 8 * 8**2
    grey = load_plan(Recipe(model="nets:net", freeze="none", optimizer="adam", channels=1, size=32), 3, tmp_path)
    assert grey.stages[0].parameters == 4 * 9 + 4
    with pytest.raises(RecipeError, match="channels: nets:flat has no convolution"):
        load_plan(Recipe(model="nets:flat", freeze="none", optimizer="adam", channels=1, size=32), 3, tmp_path)


@pytest.mark.parametrize("file", ["nets.py", "parts.py"])
def test_an_edited_factory_has_another_plan_and_other_keys(file: str, mine: Path, tmp_path: Path) -> None:
    recipe = Recipe(model="nets:net", **{**PLAIN, "freeze": "upto:0"})
    weights = describe_random("default", 0)
    first = make_prefix(spec_of(recipe, 3, weights, tmp_path / "cache"), "0", tmp_path / "cache")
    again = make_prefix(spec_of(recipe, 3, weights, tmp_path / "cache"), "0", tmp_path / "cache")
    assert again == first
    (mine / file).write_text((mine / file).read_text() + "\n# changed\n")
    imported("parts")
    imported("nets")
    second = make_prefix(spec_of(recipe, 3, weights, tmp_path / "cache"), "0", tmp_path / "cache")
    assert second.spec.plan.code != first.spec.plan.code
    assert second.key != first.key


def test_a_study_trains_an_edited_network_again(mine: Path) -> None:
    recipe, images = Recipe(model="nets:net", **PLAIN), DataSpec(data="photos")
    first = digest_job(recipe, images, "f", None, None)
    assert digest_job(recipe, images, "f", None, None) == first
    (mine / "nets.py").write_text(FACTORY.replace("WIDTH", "8"))
    assert digest_job(recipe, images, "f", None, None) != first


def test_a_remembered_plan_of_a_factory_imports_nothing_of_it(mine: Path, tmp_path: Path) -> None:
    load_plan(Recipe(model="nets:net", **PLAIN), 3, tmp_path / "cache")
    code = (
        "import sys; from pathlib import Path; from budwood.networks.plan import load_plan; "
        "from budwood.config.recipe import Recipe; "
        f"load_plan(Recipe(model='nets:net', **{PLAIN!r}), 3, Path(sys.argv[1])); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'nets', 'parts')))"
    )
    sources = {**os.environ, "PYTHONPATH": str(Path(budwood.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cache")], check=False, cwd=mine, env=sources)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nets:fails", r"nets:fails could not be made for .* classes \(ValueError: not today\)"),
        ("nets:gives_text", "gives a str, expected a torch.nn.Module"),
        ("nets:gives_ten", "expected one layer that gives the logits; with 7 and 11 classes nothing differs"),
        ("nets:two_heads", "with 7 and 11 classes differ a.bias, a.weight, b.bias, b.weight"),
        ("nets:depends_on_values", "cannot be divided into stages"),
        ("nets:absent", "the module nets has no 'absent'"),
        ("no_such_nets:net", "there is no module 'no_such_nets'"),
    ],
)
def test_what_is_no_factory_of_a_network_is_told_in_one_message(
    model: str, message: str, mine: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_plan(Recipe(model=model, **PLAIN), 3, tmp_path / "cache")


def test_a_factory_of_the_users_has_no_imagenet_weights() -> None:
    assert Recipe(model="nets:net").weights == "none"
    assert Recipe(model="timm:resnet18").weights == "imagenet"


def test_a_network_of_the_users_own_is_trained_and_answers(mine: Path, photos: Path, tmp_path: Path) -> None:
    recipe = Recipe(model="nets:net", **PLAIN, epochs=1, batch=8)
    run = train_recipe(scan(photos), recipe, out=tmp_path / "runs")
    assert run.record.network.name == "net"
    images = sorted(photos.rglob("*.png"))[:2]
    said = Notes()
    assert [len(answer.top) for answer in predict(run, images, progress=said)] == [2, 2]
    assert said.kept == [f"The network is code of your own: nets:net is imported from {mine / 'nets.py'}."]
    (mine / "nets.py").write_text(FACTORY.replace("WIDTH", "8"))
    imported("nets")
    with pytest.raises(WeightsError, match="does not fit net of nets, whose code may have been changed"):
        predict(run, images)
    (mine / "nets.py").write_text(FACTORY.replace("WIDTH", "4"))
    imported("nets")
    started = Recipe(**{**PLAIN, "model": "nets:net", "weights": str(run.path / "weights.safetensors")}, epochs=1)
    assert train_recipe(scan(photos), started, out=tmp_path / "runs").record.network.weights.kind == "file"


def test_a_network_that_is_made_already_keeps_its_values_and_gets_a_new_last_layer(
    photos: Path, tmp_path: Path
) -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9))
    before = {name: value.clone() for name, value in made.named_parameters()}
    recipe = Recipe(model=made, size=32, freeze="trunk", optimizer="adam", epochs=1, batch=8)
    run = train_recipe(scan(photos), recipe, out=tmp_path / "runs")
    assert run.record.network.name == "Sequential"
    trained = run.network()
    assert torch.equal(dict(trained.named_parameters())["0.weight"], before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in made.named_parameters()), "the user's own stays"
    assert predict(run, sorted(photos.rglob("*.png"))[:1])[0].top
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9))
    assert load_plan(Recipe(model=other), 2, tmp_path).code != load_plan(recipe, 2, tmp_path).code
    with pytest.raises(
        RecipeError, match=r"model: .*<Sequential> was defined in the script, the notebook or the session"
    ):
        predict(run.path, sorted(photos.rglob("*.png"))[:1])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(7, 3)),
            r"cannot process images \[1, 3, size, size\] of 224, .*RuntimeError",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 28**2, 3), nn.ReLU()), "output is not that of a linear layer"),
    ],
)
def test_a_made_network_without_a_last_linear_layer_is_refused(model: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_plan(Recipe(model=model), 3, tmp_path / "cache")


def test_a_made_network_is_seen_at_the_size_at_which_it_runs(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28**2, 8), nn.ReLU(), nn.Linear(8, 3))
    assert load_plan(Recipe(model=flat), 5, tmp_path / "cache").size == 28


def test_a_name_of_a_made_network_and_a_module_of_python_are_refused(mine: Path, tmp_path: Path) -> None:
    (mine / "nets.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    imported("nets")
    with pytest.raises(RecipeError, match="nets:net is a network, expected a function or class that makes one"):
        load_plan(Recipe(model="nets:net"), 3, tmp_path / "cache")
    with pytest.raises(RecipeError, match="model: 'antigravity:net' names the module antigravity of Python"):
        load_plan(Recipe(model="antigravity:net"), 3, tmp_path / "cache")
    assert "antigravity" not in sys.modules
