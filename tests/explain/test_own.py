"""Explainers of the user's own, by dotted name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from hrcam_lightning.callbacks.explainers import Explainer
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import explain

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
import torch

def gradient(network, images, *, seed=1.0):
    images.requires_grad_(True)
    logits = network(images)
    maps = [torch.autograd.grad(score, images, retain_graph=True)[0].sum(1) for score in logits.sum(0)]
    return seed * torch.stack(maps, 1)

def small(network, images):
    return images[:, :, :2]

def nothing(network, images):
    return None

value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of the user's, under a name that no other test has imported."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("dims", [2, 3])
def test_a_function_of_ones_own_is_asked_for_all_classes(dims: int, module: str) -> None:
    size = (3, 4, 2)[:dims]
    dense = nn.Linear(torch.Size(size).numel(), 2)
    network = nn.Sequential(nn.Flatten(), dense)
    images = torch.randn(5, 1, *size)
    with torch.inference_mode():  # as in `hrcam test`; the gradient of a linear network is its weight
        maps = explain(network, images, f"{module}.gradient", seed=2.0)
        one = explain(network, images, f"{module}.gradient", target=torch.tensor([0, 1, 1, 0, 1]))
    weight = dense.weight.detach().view(1, 2, *size)
    torch.testing.assert_close(maps, 2 * weight.expand(5, -1, *size))
    torch.testing.assert_close(one, weight[0, [0, 1, 1, 0, 1]][:, None])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_row_of_the_table_may_be_ones_own_and_may_have_random_weights(module: str) -> None:
    dense = nn.Linear(6, 1)
    network = nn.Sequential(nn.Flatten(), dense)
    images = torch.randn(2, 1, 2, 3)
    row = Explainer({"method": f"{module}.gradient", "seed": 3.0, "name": "mine"})
    assert (row.name, row.floor) == ("mine", False)
    weight = dense.weight.detach().view(1, 1, 2, 3)
    torch.testing.assert_close(row.maps(network, images), 3 * weight.expand(2, -1, -1, -1))
    random = explain(network, images, "random_weights", of=f"{module}.gradient")
    assert not torch.allclose(random, weight)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("no_such_file.gradient", {}, "there is no module no_such_file on Python's path; .*export PYTHONPATH=."),
        ("{}.gradiant", {}, "has no function gradiant"),
        ("{}.value", {}, "has no function value"),
        ("{}.gradient", {"gamma": 2}, "gradient has no option gamma: its options are seed"),
        ("{}.gradient", {"layers": ["0"]}, "looks at no layer: leave layers out"),
        ("{}.small", {}, r"small returned \(2, 1, 2, 3\), but a tensor \(2, 1, 4, 3\) is needed"),
        ("{}.nothing", {}, "nothing returned a NoneType, but a tensor"),
        ("gradcam.", {}, "there is no explainer 'gradcam.'; nearest are gradcam"),
    ],
)
def test_one_sentence_says_what_is_wrong(name: str, options: dict[str, Any], sentence: str, module: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    with pytest.raises(InputError, match=sentence):
        explain(network, torch.zeros(2, 1, 4, 3), name.format(module), **options)


def test_a_library_that_the_users_file_lacks_is_their_error(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        explain(nn.Flatten(), torch.zeros(1, 1, 2, 2), f"{module}_broken.gradient")
