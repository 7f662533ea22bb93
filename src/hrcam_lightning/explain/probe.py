"""Asking a network: scores, activations and gradients, the network left as it was found."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hrcam_lightning.backbones.measure import evaluating
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.target import Score, Target, class_numbers, scores_of
from hrcam_lightning.geometry import Level, Resampling, resample
from hrcam_lightning.model import LocalizationModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Change = Callable[[Tensor], Tensor]
    """What a layer's output is replaced by; of the same shape."""


@contextmanager
def undisturbed(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Evaluation mode, parameters without gradients, gradients allowed; all as before afterwards, random state too."""
    # What was made under inference mode can be given no gradient, and its mark could not be set again.
    learning = [part for part in model.parameters() if part.requires_grad and not part.is_inference()]
    devices = [images.device] if images.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        evaluating(model),
    ):
        try:
            for parameter in learning:
                parameter.requires_grad_(False)  # noqa: FBT003 - torch's stub knows no keyword
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)  # noqa: FBT003


@contextmanager
def changed(model: nn.Module, changes: dict[str, Change]) -> Iterator[None]:
    """Layers whose outputs are replaced, by name, for the time of a block."""

    def hook(name: str, change: Change) -> Callable[[nn.Module, object, object], Tensor]:
        def swap(_module: nn.Module, _inputs: object, output: object) -> Tensor:
            if not isinstance(output, Tensor):
                raise InputError(
                    f"the layer {name} returns a {type(output).__name__}, not a tensor: name a layer inside it"
                )
            return change(output)

        return swap

    with ExitStack() as hooks:
        for name, change in changes.items():
            hooks.enter_context(model.get_submodule(name).register_forward_hook(hook(name, change)))
        yield


def logits_of(output: object) -> Tensor:
    """The logits (B, K) in what a network returns.

    Raises:
        InputError: If there are none.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the network returns {shape}, but logits (batch, classes), or an object that holds them, are needed"
        )
    return logits


@dataclass
class Probe:
    """A network, a batch and a question; made by `explain`, asked by the methods.

    Attributes:
        model: In evaluation mode, its parameters without gradients.
        images: (B, C, *S).
        layers: Names, and where their cells lie.
        score: What of the logits is explained.
        target: Of which classes.
        resampling: Convention.
        chunk: How many images the network is given at once by methods that try many changes.
        autocast: In what precision the network is run, if not in that of its weights; nothing else is.
    """

    model: nn.Module
    images: Tensor
    layers: dict[str, Level]
    score: Score
    target: Target
    resampling: Resampling
    chunk: int
    autocast: torch.dtype | None = None

    def scores(self, images: Tensor, owners: Tensor | None = None) -> Tensor:
        """Scores (N, T) of images (N, C, *S).

        Args:
            images: Any number of them.
            owners: (N,), of which sample of the batch each is a changed copy; of the samples in turn if not given.
        """
        logits = self.logits(images)
        classes = class_numbers(self.target, len(self.images), logits.shape[1])
        if classes is not None and owners is not None:
            classes = classes.to(owners.device)[owners]
        return scores_of(logits, self.score, classes)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, *S); our own networks are spared the maps where they can be."""
        with torch.autocast(images.device.type, self.autocast, enabled=self.autocast is not None):
            if isinstance(self.model, LocalizationModel):
                return self.model.logits(images)
            return logits_of(self.model(images))

    def asking(self, score: Score) -> Probe:
        """The same question of another score."""
        return replace(self, score=score)

    def activations(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The scores (B, T) and the layers' outputs (B, C, *s) by name, fine to coarse, without gradients."""
        with torch.no_grad():
            scores, activations = self._forward(gradients=False)
        return scores, {name: _precise(tensor) for name, tensor in activations.items()}

    def gradients(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Activations and the gradients of a score, (B, C, *s) by layer, fine to coarse, for each of the T scores.

        One forward pass; one backward pass a score, to the layers and no farther.

        Raises:
            InputError: If a layer is not on the way to the score.
        """
        scores, activations = self._forward(gradients=True)
        detached = {name: _precise(tensor.detach()) for name, tensor in activations.items()}
        last = scores.shape[1] - 1
        for number in range(last + 1):
            found: Sequence[Tensor | None] = [None] * len(activations)
            if scores.requires_grad:
                wanted = list(activations.values())
                found = torch.autograd.grad(
                    scores[:, number].sum(), wanted, retain_graph=number < last, allow_unused=True
                )
            gradients = {}
            for name, gradient in zip(activations, found, strict=True):
                if gradient is None:
                    raise InputError(self._why_no_gradient(name))
                gradients[name] = _precise(gradient)
            yield detached, gradients

    def upsample(self, maps: Tensor, layer: str) -> Tensor:
        """Maps (B, T, *s) of a layer at image resolution."""
        return resample(maps, self.layers[layer], self.images.shape[2:], self.resampling)

    def _forward(self, *, gradients: bool) -> tuple[Tensor, dict[str, Tensor]]:
        found: dict[str, Tensor] = {}

        def keeper(name: str) -> Change:
            def keep(output: Tensor) -> Tensor:
                if name in found:
                    raise InputError(
                        f"the layer {name} is called more than once in a forward pass: name one that is called once, "
                        "such as the block around it"
                    )
                if not output.is_floating_point():
                    raise InputError(f"the layer {name} returns {output.dtype}: name one that returns real numbers")
                # The graph begins at the first layer that is asked for: nothing before it is kept. The network itself
                # may forbid gradients up to there, as one with a frozen part does. After it a copy is kept: what a
                # layer hands on as it was given, as dropout does, must not be taken for what goes on beside it.
                with torch.set_grad_enabled(gradients):
                    begins = gradients and not output.requires_grad
                    kept = output.detach().requires_grad_() if begins else output.clone()
                    found[name] = kept
                    return kept.clone()  # a following layer may work in place

            return keep

        with changed(self.model, {name: keeper(name) for name in self.layers}):
            scores = self.scores(self.images)
        for name in self.layers:
            if name not in found:
                raise InputError(f"the layer {name} is not called in a forward pass: name one that is")
            if found[name].ndim != self.images.ndim or len(found[name]) != len(self.images):
                shape = tuple(found[name].shape)
                raise InputError(
                    f"the layer {name} returns {shape}, which has no places: "
                    "name one that returns (batch, channel, cells...)"
                )
        by_size = sorted(self.layers, key=lambda name: -found[name][0, 0].numel())
        return scores, {name: found[name] for name in by_size}

    def _why_no_gradient(self, name: str) -> str:
        """Whether a layer does not matter, or cannot be differentiated."""
        with torch.no_grad():
            before = self.scores(self.images)
            with changed(self.model, {name: torch.zeros_like}):
                matters = not torch.equal(before, self.scores(self.images))
        # A network of steps may well stay on its step.
        smooth = self.scores(self.images.detach().requires_grad_()).requires_grad
        if matters or not smooth:
            return (
                f"the network cannot be differentiated from its scores to the layer {name}: use a method without "
                "gradients, such as scorecam, ablationcam or occlusion"
            )
        return f"the layer {name} is not on the way to the score: name a layer that the classes are read from"


def each_copy(probe: Probe, copies: int, ask: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Scores (B, N, T) of ``ask(samples, numbers)`` for N changed copies of every sample, `Probe.chunk` at a time."""
    pairs = torch.cartesian_prod(torch.arange(len(probe.images)), torch.arange(copies)).view(-1, 2)
    with torch.no_grad():
        parts = [ask(*part.to(probe.images.device).unbind(1)) for part in torch.split(pairs, probe.chunk)]
    scores = torch.cat(parts)
    return scores.view(len(probe.images), copies, -1)


def _precise(tensor: Tensor) -> Tensor:
    """At least float32: sums over a map lose too much in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
