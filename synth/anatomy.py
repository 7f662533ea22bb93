"""Backgrounds: what a case looks like before texture, lesions and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from synth.background import Background
from synth.chest import ChestAnatomy, draw_chest
from synth.head import draw_folds, draw_pose, render_head
from synth.midbrain import MidbrainAnatomy, draw_midbrain
from synth.parts import HeadAnatomy, UniformAnatomy

if TYPE_CHECKING:
    from synth.grid import Grid


Anatomy = UniformAnatomy | HeadAnatomy | ChestAnatomy | MidbrainAnatomy


def draw_background(spec: Anatomy, grid: Grid, rng: np.random.Generator) -> Background:
    """Draw an anatomy: its pose and size from ``rng``, then its picture."""
    if isinstance(spec, UniformAnatomy):
        return Background(
            image=np.full(grid.shape, spec.tissue, np.float32),
            texture=np.ones(grid.shape, np.float32),
            tissue=np.ones(grid.shape, bool),
        )
    if isinstance(spec, ChestAnatomy):
        return draw_chest(spec, grid, rng)
    if isinstance(spec, MidbrainAnatomy):
        return draw_midbrain(spec, grid, rng)
    pose = draw_pose(spec, grid, rng)
    return render_head(spec, pose, grid, draw_folds(grid, rng) if spec.white is not None else None)
