"""Specifications small enough to draw by the thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synth import PhantomSpec

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS: dict[int, dict[str, Any]] = {
    2: {"shape": [32, 28], "spacing_mm": [1.0, 1.25]},
    3: {"shape": [18, 16, 12], "spacing_mm": [1.0, 1.0, 1.5]},
}
LESION = {"radius_mm": [2.2, 3], "cnr": [2, 4], "elongation": [1, 1.3]}


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def dimensions(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def make_spec() -> Callable[..., PhantomSpec]:
    """Return a function that makes a uniform specification of 2 or 3 axes, with the given keys replaced."""

    def make(dimensions: int = 2, **replaced: object) -> PhantomSpec:
        values: dict[str, object] = {
            "name": "test",
            "task": "binary",
            **FIELDS[dimensions],
            "texture": {"components": [{"sd": 0.04, "length_mm": 1.5}]},
            "noise": {"sd": 0.03},
            "lesions": {"lesion": LESION},
            **replaced,
        }
        return PhantomSpec.from_dict(values)

    return make
