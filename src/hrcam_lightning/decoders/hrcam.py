"""CAM and HR-CAM: a linear read-out of one level, or of many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from hrcam_lightning.decoders.decoder import Decoder, score
from hrcam_lightning.errors import InputError
from hrcam_lightning.neighbours import add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hrcam_lightning.geometry import Level


class HRCAM(Decoder):
    """Class maps summed over levels (Shinde et al., MICCAI 2019: HR-CAM).

    ``M_c = Σ_l Up(Σ_k w_k^{l,c} A_k^l)``: the features of every level are mixed by one set of weights a class,
    brought to image resolution and added. Mixing comes before resampling: the two commute, and K maps a level are
    resampled instead of all its channels.

    In the paper the weights are those of a dense layer on the pooled features of a frozen network; here they are
    trained together with the network.

    Args:
        levels: The backbone's levels.
        num_classes: Number of maps K.
        taps: Which levels to read, by index; all of them if not given.
        neighbours: Those of them of which a cell's neighbours are read with it, see `hrcam_lightning.neighbours`. Not
            in the paper; none if not given. Their weights begin at 0.

    Raises:
        InputError: If a tap is not a level of the backbone, or is named twice, or neighbours are not among the taps.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        taps: Sequence[int] | None = None,
        neighbours: Sequence[int] = (),
    ) -> None:
        super().__init__()
        chosen = list(range(len(levels))) if taps is None else list(taps)
        if not chosen or any(not -len(levels) <= tap < len(levels) for tap in chosen):
            raise InputError(f"taps is {chosen}, but the backbone has levels 0 to {len(levels) - 1}")
        self.taps = [tap % len(levels) for tap in chosen]
        if len(set(self.taps)) < len(self.taps):
            raise InputError(f"taps is {chosen}, which names a level twice")
        self.levels = tuple(levels[tap] for tap in self.taps)
        # The scale of one dense layer over the concatenated features, which is what this is.
        bound = 1 / math.sqrt(sum(level.channels for level in self.levels))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(num_classes, level.channels).uniform_(-bound, bound)) for level in self.levels
        )
        self.neighbours = [tap % len(levels) for tap in neighbours if -len(levels) <= tap < len(levels)]
        if len(set(self.neighbours)) < len(neighbours) or not set(self.neighbours) <= set(self.taps):
            raise InputError(f"neighbours is {list(neighbours)}: name levels that are read ({self.taps}), each once")
        terms = 1 + len(levels[0].stride)
        self.beside = nn.ParameterDict(
            {str(tap): nn.Parameter(torch.zeros(terms, num_classes, levels[tap].channels)) for tap in self.neighbours}
        )
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Score maps (B, K, *S_l), one for each tapped level."""
        return [self._map(features[tap], tap, weight) for tap, weight in zip(self.taps, self.weights, strict=True)]

    def _map(self, feature: Tensor, tap: int, weight: Tensor) -> Tensor:
        """Score map of a level. Channels are mixed first, so that neighbours are looked up in a few maps."""
        if tap not in self.neighbours:
            return score(feature, weight)
        mixed = score(feature, torch.cat([weight[None], self.beside[str(tap)]]).flatten(0, 1))
        return add_up(mixed.chunk(feature.ndim, 1))


class CAM(HRCAM):
    """Class activation map of the deepest level (Zhou et al., CVPR 2016).

    Args:
        levels: The backbone's levels.
        num_classes: Number of maps K.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int) -> None:
        super().__init__(levels, num_classes, taps=[-1])
