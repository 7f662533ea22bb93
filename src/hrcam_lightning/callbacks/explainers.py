"""Which explainers stand beside the model's own map, and their maps of a batch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain import FLOORS, NAMES, explain
from hrcam_lightning.explain.methods import check_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

MODEL = "model"
FAMILIES = (
    "predicted", "lesion", "normal", "cue", "oracle", "displacement_px", "ceiling", "efficiency", "label",
    "probability",
)  # fmt: skip
"""What names of the model's own figures begin with, before a stroke: an explainer's would be taken for them."""
_SETTINGS = ("layers", "score", "resampling", "chunk")  # of `explain`; all classes are asked for, always


class Explainer:
    """A row of the table: a method of `explain` and its settings.

    Args:
        wish: Name of a method, or a mapping with ``method``, settings of `explain`, and a ``name`` for the row.

    Raises:
        InputError: If it is neither, or there is no such method, or it has no such option.
    """

    def __init__(self, wish: str | dict[str, Any]) -> None:
        settings = {"method": wish} if isinstance(wish, str) else dict(wish)
        method = settings.pop("method", None)
        if method is None:
            raise InputError(f"explainers: {wish!r} names no method; there are {', '.join(NAMES)}")
        try:
            check_options(method, {name: value for name, value in settings.items() if name not in ("name", *_SETTINGS)})
        except InputError as error:
            raise InputError(f"explainers: {error}") from None
        self.method: str = method
        self.name = str(settings.pop("name", method))
        self.settings = settings
        self.floor = method in FLOORS
        self.key = json.dumps([method, settings], sort_keys=True, default=str)

    def maps(self, network: nn.Module, images: Tensor) -> Tensor:
        """Maps of all classes, (B, K, *S)."""
        return explain(network, images, self.method, **self.settings)


def explainers_of(wishes: Sequence[str | dict[str, Any]]) -> list[Explainer]:
    """The explainers beside the model, which is always there.

    Raises:
        InputError: If one is unknown, two have one name, or one has that of figures of the model.
    """
    made = [Explainer(wish) for wish in wishes if wish != MODEL]
    names = [MODEL, *(one.name for one in made)]
    twice = next((name for name in names if names.count(name) > 1), None)
    taken = next((name for name in names if name in FAMILIES), None)
    if taken:
        raise InputError(f"explainers: {taken} is what figures of the model are called: give the row another name")
    if twice:
        advice = "give one of them another name, as {method: ..., name: ...}"
        raise InputError(f"explainers: two rows are called {twice}: {advice}")
    return made
