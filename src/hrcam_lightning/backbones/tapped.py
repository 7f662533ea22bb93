"""Any network as a backbone: the outputs of layers that the user names."""

from __future__ import annotations

import difflib
import math
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hrcam_lightning.backbones.backbone import Backbone
from hrcam_lightning.backbones.measure import measure_levels
from hrcam_lightning.backbones.weights import load_weights
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class TappedBackbone(Backbone):
    """The outputs of some layers of any network; where their cells lie is measured.

    Layers are tapped by hooks that live for one call, and the call ends with the last of them: what comes after, such
    as a classifier, is not computed and may be of any kind. Its weights get no gradient, so that several processes
    need ``--trainer.strategy ddp_find_unused_parameters_true``.

    A tapped layer returns one tensor (B, C_l, *S_l), is called once in a forward pass, and is not followed by a layer
    that changes its output in place (refused, save under ``torch.inference_mode``, where it is copied before). An
    exported program keeps its layers' names and the mode that it was exported in; its batch and image sizes must be
    dynamic. TorchScript cannot be tapped.

    Args:
        channels: Number of image channels.
        dims: Number of spatial axes, 2 or 3.
        network: Makes the network, or is one; or a ``.pt2`` file of ``torch.export.save``, from a source you trust.
        layers: Names of layers as ``named_modules`` has them, in any order.
        weights: File of weights for the network, see `load_weights`.
        repeat: How often the network gets the image's channels: 3 gives grey images to a network of colours.

    Raises:
        InputError: If a layer does not exist or is no level, or if the weights do not fit.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        network: Callable[[], nn.Module] | str,
        layers: Sequence[str],
        weights: str | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise InputError(f"{type(self).__name__}: dims is {dims}, but images have 2 or 3 axes")
        if repeat < 1:
            raise InputError(f"{type(self).__name__}: repeat is {repeat}, but must be at least 1")
        self.channels, self.repeat = channels, repeat
        self.brings_weights = True  # of a file; or what makes the network may have loaded some, which nobody can tell
        self.network = _made(network)
        self.layers = list(layers)
        check_layers(self.network, self.layers)
        if weights is not None:
            load_weights(self.network, weights)
        names = [f"the layer {name}" for name in self.layers]
        levels = measure_levels(_Whole(self.network, self.layers), channels * repeat, dims, names)
        order = sorted(range(len(levels)), key=lambda number: math.prod(levels[number].stride))
        self.layers = [self.layers[number] for number in order]
        self.levels = tuple(levels[number] for number in order)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, levels[i].channels, *S_i) of the tapped layers, fine to coarse."""
        if self.repeat > 1:
            images = torch.cat([images] * self.repeat, 1)
        # What traces a call, to export or compile it, cannot follow one that an exception ends.
        whole = torch.compiler.is_compiling()
        with _tapped(self.network, self.layers, to_the_end=whole) as taps, suppress(_AllFound):
            self.network(images)
        return taps.features()


class _Whole(nn.Module):
    """The same without an early end, to see whether a layer is called again."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.network, self.layers = network, layers

    def forward(self, images: Tensor) -> list[Tensor]:
        with _tapped(self.network, self.layers, to_the_end=True) as taps:
            try:
                self.network(images)
            except Exception as error:
                # A classifier may well refuse images of another size than its own; nobody will ask it.
                if isinstance(error, InputError) or len(taps.found) < len(self.layers):
                    raise
        return taps.features()


class _AllFound(Exception):  # noqa: N818 - no error
    """The last layer has been called."""


class _Taps:
    """What the hooks of one call have seen."""

    def __init__(self, layers: Sequence[str], *, to_the_end: bool) -> None:
        self.layers, self.to_the_end = layers, to_the_end
        self.found: dict[str, Tensor] = {}
        self.versions: dict[str, int] = {}

    def take(self, name: str, output: object) -> None:
        if not isinstance(output, Tensor):
            raise InputError(
                f"the layer {name} returns a {type(output).__name__}, not a tensor: name a layer inside it"
            )
        if name in self.found:
            raise InputError(
                f"the layer {name} is called more than once in a forward pass: name a layer that is called once, "
                "such as the block around it"
            )
        if output.is_inference():  # where no version tells that it was changed since
            self.found[name] = output.clone()
        else:
            self.found[name], self.versions[name] = output, output._version
        if not self.to_the_end and len(self.found) == len(self.layers):
            raise _AllFound

    def features(self) -> list[Tensor]:
        for name in self.layers:
            if name not in self.found:
                raise InputError(f"the layer {name} is not called in a forward pass: name one that is")
        for name, version in self.versions.items():
            if self.found[name]._version != version:
                raise InputError(
                    f"the output of the layer {name} is changed in place by the next layer: name that one instead"
                )
        return [self.found[name] for name in self.layers]


@contextmanager
def _tapped(network: nn.Module, layers: Sequence[str], *, to_the_end: bool = False) -> Iterator[_Taps]:
    """Hooks on some layers of a network for the time of a block."""
    taps = _Taps(layers, to_the_end=to_the_end)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: taps.take(name, output)

    handles = [network.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _made(network: Callable[[], nn.Module] | str) -> nn.Module:
    if isinstance(network, str):
        if not Path(network).is_file():
            raise InputError(f"{network}: is neither a class or function that can be imported nor an exported file")
        try:
            return torch.export.unflatten(torch.export.load(network))
        except Exception as error:  # what a damaged archive raises is anything
            raise InputError(f"{network}: is no program that torch.export.save has written") from error
    made = network if isinstance(network, nn.Module) else network()
    if isinstance(made, torch.jit.ScriptModule):
        raise InputError("layers of TorchScript cannot be tapped: give the module it was made from, or export that")
    return made


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """See that a network has all layers of a list.

    Raises:
        InputError: If it has not, naming the nearest that there are; or if none is asked for, or one twice.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in layers:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or [n for n, _ in network.named_children()]
            raise InputError(f"the network has no layer {name!r}; nearest are {', '.join(close)}")
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"layers is {list(layers)}: name at least one layer, and none twice")
