"""Backgrounds: what a case looks like before texture, lesions and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from synth.background import Background
from synth.head import draw_pose, render_head
from synth.parts import HeadAnatomy, UniformAnatomy

if TYPE_CHECKING:
    from synth.grid import Grid


def draw_background(spec: UniformAnatomy | HeadAnatomy, grid: Grid, rng: np.random.Generator) -> Background:
    """Draw an anatomy: its pose and size from ``rng``, then its picture."""
    if isinstance(spec, UniformAnatomy):
        return Background(
            image=np.full(grid.shape, spec.tissue, np.float32),
            texture=np.ones(grid.shape, np.float32),
            tissue=np.ones(grid.shape, bool),
        )
    return render_head(spec, draw_pose(spec, grid, rng), grid)
