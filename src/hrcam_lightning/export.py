"""A trained network as one file that runs without this package."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from hrcam_lightning.model import LocalizationModel


class LogitsAndMaps(nn.Module):
    """The network as a function of tensors alone: images (B, C, *S) to logits (B, K) and maps (B, K, *S).

    ``torch.onnx`` and other tracers take it as well.

    Args:
        model: The network.
    """

    def __init__(self, model: LocalizationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and maps (B, K, *S), as of `LocalizationOutput`."""
        output = self.model(images)
        return output.logits, output.maps


def export(model: LocalizationModel, size: tuple[int, ...]) -> ExportedProgram:
    """Export the network in evaluation mode with ``torch.export``, for images of one size and any batch.

    ``torch.export.save(export(model, (64, 64)), "model.pt2")`` writes it, and
    ``torch.export.load("model.pt2").module()(images)`` runs it where torch alone is installed.

    It is the network itself, one pass without view averaging, also where the task averages its maps over views.
    The program runs on the CPU; ``torch.export.passes.move_to_device_pass`` moves it.

    Args:
        model: The network, for example `LocalizationTask.network`; left as it is.
        size: Image size ``S``.

    Returns:
        A program from images (B, C, *S) float32 to logits (B, K) and maps (B, K, *S).
    """
    # A copy in plain memory format: saving warns of any other.
    plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = torch.zeros(2, model.backbone.channels, *size)  # two: a batch of one would be taken for a constant
    batch = {0: torch.export.Dim("batch")}
    return torch.export.export(LogitsAndMaps(plain).eval(), (images,), dynamic_shapes=(batch,), strict=False)
