"""What chance decides of a case, before anything is made of it: classes, anatomy, places, texture, noise, cue, site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from synth.acquisition import draw_noise
from synth.anatomy import draw_background
from synth.cue import SiteCue
from synth.families import StructureLossFamily
from synth.lesion import apart, draw_shape, place, where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synth.background import Background
    from synth.grid import Array32, Array64, Grid
    from synth.parts import LesionSpec
    from synth.shape import Placed
    from synth.spec import PhantomSpec
    from synth.texture import Texture


class Drawn(NamedTuple):
    """A lesion or distractor in its place; ``amplitude`` is in what its class sets (d′, CNR or delta)."""

    key: str
    spec: LesionSpec
    placed: Placed
    amplitude: float

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return self.key.partition(".")[2]


@dataclass(frozen=True, eq=False)
class Parts:
    """What a case is made of.

    Attributes:
        present: its classes.
        background: its anatomy.
        lesions, distractors: what lies in it.
        texture: float32 ``(*S)``.
        noise: fields of the noise ``(*S)``.
        agrees: whether the cue agrees with the label.
        elsewhere: the site, where no cue decides it.
        rest: the generator of the case, from which its bias field is drawn next and last.
    """

    present: tuple[str, ...]
    background: Background
    lesions: Sequence[Drawn]
    distractors: Sequence[Drawn]
    texture: Array32
    noise: tuple[Array32 | Array64, ...]
    agrees: bool
    elsewhere: str
    rest: np.random.Generator


def draw_parts(
    spec: PhantomSpec, grid: Grid, texture: Texture, rng: np.random.Generator, present: tuple[str, ...] | None = None
) -> Parts:
    """Draw a case, always in the same order, so that its twins differ in nothing but the change.

    Args:
        spec: what to draw.
        grid: where the voxels lie.
        texture: the random field.
        rng: the generator of the case.
        present: its classes, instead of those drawn.

    Raises:
        SpecError: a lesion found no room in the tissue.
    """
    own = draw_classes(spec, rng)
    present = own if present is None else present
    background = draw_background(spec.anatomy, grid, rng)
    taken = np.zeros(grid.shape, bool)
    lesions = draw_lesions({name: spec.lesions[name] for name in present}, background, taken, grid, rng)
    field = texture.draw(rng)
    noise = draw_noise(spec.noise, grid.shape, rng)
    others = {name: other for name, other in (spec.distractors or {}).items() if rng.random() < other.prevalence}
    distractors = draw_lesions(others, background, taken, grid, rng, group="distractors")
    agrees = spec.cue is not None and bool(rng.random() < spec.cue.dose)
    return Parts(present, background, lesions, distractors, field, noise, agrees, _draw_site(spec, rng), rng)


def draw_classes(spec: PhantomSpec, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw the classes of a case."""
    names = tuple(spec.lesions)
    if spec.task == "multilabel":
        present = rng.random(len(names)) < spec.prevalence
        return tuple(name for name, here in zip(names, present, strict=True) if here)
    abnormal, which = rng.random() < spec.prevalence, rng.integers(len(names))
    return (names[which],) if abnormal else ()


def draw_lesions(
    specs: Mapping[str, LesionSpec],
    background: Background,
    taken: npt.NDArray[np.bool_],
    grid: Grid,
    rng: np.random.Generator,
    group: str = "lesions",
) -> list[Drawn]:
    """Draw place and amplitude of each lesion; none touches another, and ``taken`` gains their supports.

    Raises:
        SpecError: a lesion found no room in the tissue.
    """
    drawn = []
    for name, spec in specs.items():
        key = f"{group}.{name}"
        region = background.region(spec.tissue or "tissue")
        structure = None
        if isinstance(spec.family, StructureLossFamily):
            structure = background.structures[spec.family.structure]
        for _ in range(rng.integers(spec.count[0], spec.count[1] + 1)):
            shape = draw_shape(spec, len(grid.shape), key, rng)
            amplitude = float(rng.uniform(*spec.amplitude))
            free, middles = where(spec, region, taken, grid, key)
            if structure is not None:  # what fades ends with the structure
                free = apart(spec, taken, grid)
            placed = place(shape, free, grid, key, rng, middles=middles, structure=structure)
            taken[placed.box] |= placed.outline > 0
            drawn.append(Drawn(key, spec, placed, amplitude))
    return drawn


def _draw_site(spec: PhantomSpec, rng: np.random.Generator) -> str:
    """Draw the site, but not one that is a cue: it is taken where the cue is, and nowhere else."""
    if not spec.sites:
        return ""
    own = spec.cue.site if isinstance(spec.cue, SiteCue) else None
    others = [name for name in spec.sites if name != own]
    return others[rng.integers(len(others))]
