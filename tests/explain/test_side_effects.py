"""Afterwards the network is as it was, whatever happened, and whatever mode it was asked in."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from hrcam_lightning import InputError
from hrcam_lightning.explain import explain
from tests.explain.small import ANY_NETWORK, LOOKING, images, layers_of, maps, near, network

if TYPE_CHECKING:
    from collections.abc import Callable


def _used(dims: int = 2) -> nn.Sequential:
    """In the middle of its life: partly frozen and in evaluation mode, gradients being accumulated, a user's hooks."""
    model = network(dims).train()
    torch.manual_seed(3)  # dropout's
    model[0][1].eval()  # type: ignore[index]
    for parameter in model[0][0].parameters():  # type: ignore[index]
        parameter.requires_grad_(requires_grad=False)
    model(images(2, dims)).square().sum().backward()
    model[0][4].register_forward_hook(lambda _module, _inputs, _output: None)  # type: ignore[index]
    model[0][4].register_full_backward_hook(lambda _module, _inputs, _outputs: None)  # type: ignore[index]
    model.register_forward_pre_hook(lambda _module, _inputs: None)
    return model


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything that a method could leave behind."""
    state: dict[str, Any] = {
        "random": (torch.get_rng_state(), random.getstate(), str(np.random.get_state())),  # noqa: NPY002 - it is not ours to touch
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "switches": (torch.backends.cudnn.enabled, torch.are_deterministic_algorithms_enabled()),
    }
    for name, module in model.named_modules():
        state[f"{name}: training"] = module.training
        state[f"{name}: hooks"] = {
            key: dict(value) for key, value in vars(module).items() if "hooks" in key and isinstance(value, dict)
        }
        state[f"{name}: attributes"] = sorted(vars(module))
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            grad = None if tensor.grad is None else tensor.grad.clone()
            state[f"{kind} {name}"] = (tensor.detach().clone(), tensor.requires_grad, grad, tensor._version, id(tensor))
    return state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _changed(model: nn.Module, before: dict[str, Any]) -> list[str]:
    after = _state(model)
    assert after.keys() == before.keys()
    return [key for key in before if not _same(before[key], after[key])]


def _give(name: str) -> dict[str, Any]:
    """Several layers where a method takes them."""
    fusing = name in LOOKING and name not in ("cam", "fullgrad", "occlusion", "random_weights")
    return {"layers": ["0.2", "0.6", "0.10"]} if fusing else {}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_the_network_is_left_as_it_was_found(name: str, dims: int) -> None:
    model, pictures = _used(dims), images(2, dims).requires_grad_()
    pictures.grad = torch.ones_like(pictures)
    given, before = pictures.detach().clone(), _state(model)
    assert any(value[2] is not None for key, value in before.items() if key.startswith("parameter"))
    maps(model, pictures, name)
    maps(model, pictures, name, target=1, **_give(name))
    assert _changed(model, before) == []
    assert torch.equal(pictures, given)
    assert torch.equal(pictures.grad, torch.ones_like(pictures))
    assert pictures.requires_grad


class _Fails(nn.Module):
    """Passes on what it gets, until it is called for the n-th time."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = [calls]

    def forward(self, values: Tensor) -> Tensor:
        self.left[0] -= 1
        if not self.left[0]:
            raise IndexError("in the middle")
        return values * (1 + 0 * torch.rand(()))  # draws, as dropout would


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_the_random_state_is_left_alone_by_a_network_that_draws(name: str) -> None:
    model = _used()
    model.insert(2, _Fails(0))
    before = torch.get_rng_state()
    maps(model, images(2), name)
    assert torch.equal(torch.get_rng_state(), before)


class _FailsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004
        raise IndexError("in the middle")


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_the_network_is_left_as_it_was_found_by_an_error_in_the_middle(name: str, calls: int) -> None:
    model = _used()
    fails = _Fails(0)
    model.insert(2, fails)
    asked = {"layers": ["0.2", "0.6", "0.10"]} if _give(name) else {}
    maps(model, images(2), name, chunk=1, **asked)
    passes = -fails.left[0]
    if passes < calls or name == "random_weights":  # whose copy counts for itself
        return
    fails.left[0] = calls
    before = _state(model)
    with pytest.raises(IndexError, match="in the middle"):
        maps(model, images(2), name, chunk=1, **asked)
    assert _changed(model, before) == []


@pytest.mark.parametrize("name", ["gradcam", "layercam", "refinecam", "fullgrad", "random_weights"])
def test_the_network_is_left_as_it_was_found_by_an_error_in_the_backward_pass(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _used()

        def forward(self, values: Tensor) -> Tensor:
            result: Tensor = _FailsBackwards.apply(self.inner(values))  # type: ignore[no-untyped-call]
            return result

    model = Model()
    before = _state(model)
    with pytest.raises(IndexError, match="in the middle"):
        explain(model, images(2), name)
    assert _changed(model, before) == []


def test_the_network_is_left_as_it_was_found_by_bad_input() -> None:
    model = _used()
    before = _state(model)
    for bad in ({"layers": ["0.9", "none"]}, {"layers": ["0.9", "3"]}, {"target": 9}, {"layers": ["1"], "fusion": "x"}):
        with pytest.raises(InputError):
            explain(model, images(2), "gradcam", **bad)
    with pytest.raises(InputError):
        explain(model, images(2), "cam", layers=["0.2"])  # found out in the middle
    assert _changed(model, before) == []


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_a_map_in_the_middle_of_a_training_step_leaves_its_backward_pass_as_it_was(name: str) -> None:
    found = []
    for explaining in (False, True):
        model, pictures = _used(), images(2)
        first = model(pictures).square().sum()
        if explaining:
            maps(model, pictures, name, **_give(name))
        loss = first + model(2 * pictures).square().sum()
        if explaining:
            maps(model, pictures, name, target=1)
        loss.backward()
        found.append([None if part.grad is None else part.grad.clone() for part in model.parameters()])
    assert sum(part is not None for part in found[0]) > 4
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_it_works_where_gradients_are_forbidden(name: str, dims: int, mode: Callable[[], Any]) -> None:
    """Peers row 5."""
    model, pictures, target = network(dims), images(2, dims), torch.tensor([1, 3])
    expected = maps(model, pictures, name, target=target)
    with mode():
        here = pictures * 1  # under inference mode a tensor that can be given no gradient
        assert here.is_inference() == (mode is torch.inference_mode)
        found = maps(model, here, name, target=target * 1)
        asked_for_all = maps(model, here, name, **_give(name))
        assert not torch.is_grad_enabled()
    near(found, expected)
    assert torch.equal(maps(model, here, name, target=target), found)  # and such images outside, too
    assert asked_for_all.shape[:2] == (2, 4)
    assert not found.requires_grad


class _Explaining(LightningModule):
    """Explains in `validation_step`, `test_step` and in the validation inside of `fit`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.names, self.found = network(), names, dict[str, Tensor]()

    def validation_step(self, batch: Tensor) -> None:
        assert not torch.is_grad_enabled()
        self.found = {name: maps(self.inner, batch * 1, name) for name in self.names}

    test_step = validation_step

    def training_step(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.inner(batch).square().sum()
        maps(self.inner, batch, "gradcam")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_it_works_inside_lightning(inference_mode: bool, tmp_path: Path) -> None:
    """Peers row 5: `validate` and `test` forbid gradients by inference mode or by no_grad, `fit` by no_grad."""
    module = _Explaining(LOOKING)
    pictures = images(2)
    expected = {name: maps(module.inner, pictures, name) for name in LOOKING}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, inference_mode=inference_mode, default_root_dir=tmp_path,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(list(pictures), batch_size=2)  # type: ignore[arg-type, var-annotated]
    for run in (trainer.validate, trainer.test):
        module.found = {}
        run(module, loader, verbose=False)
        for name in LOOKING:
            near(module.found[name], expected[name])
    module.found = {}
    trainer.fit(module.train(), loader, loader)
    assert module.found.keys() == set(LOOKING)


def _resident() -> int:
    """Pages in memory, of which a graph that is kept would take many."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_a_thousand_calls_leave_no_hook_and_no_memory_behind() -> None:
    """A call's activations are 100 kB: a thousand kept would be 100 MB."""
    model, pictures = network(), images(1, size=(48, 48))
    quick = [name for name in LOOKING if name not in ("scorecam", "ablationcam", "polycam", "occlusion")]

    def ask(times: int) -> tuple[int, int, int]:
        for number in range(times):
            name = quick[number % len(quick)]
            fused = {"layers": ["0.2", "0.6"]} if name in ("gradcam", "layercam", "zoomcam") else {}
            maps(model, pictures, name, target=number % 4, **fused)
        gc.collect()
        objects = gc.get_objects()
        return len(objects), sum(issubclass(type(one), Tensor) for one in objects), _resident()

    before = _state(model)
    objects, tensors, pages = ask(60)
    more_objects, more_tensors, more_pages = ask(1000)
    assert more_tensors == tensors
    assert more_objects - objects < 300
    assert (more_pages - pages) * 4096 < 20e6
    assert _changed(model, before) == []


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "polycam", "occlusion"])
def test_many_passes_leave_no_tensor_behind(name: str) -> None:
    model, pictures = network(), images(1, size=(8, 8))

    def ask(times: int) -> int:
        for _ in range(times):
            maps(model, pictures, name, target=1)
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    assert ask(2) == ask(20)


def test_layers_of_the_tests_are_the_activations() -> None:
    assert layers_of(network()) == ["0.2", "0.6", "0.10"]
