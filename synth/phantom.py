"""Cases drawn one by one: lazy, endless, in any order."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from synth.acquisition import add_noise, draw_noise
from synth.anatomy import draw_background
from synth.families import StructureLossFamily
from synth.grid import Array32, Array64, Grid
from synth.lesion import Lesion, draw_shape, place, where
from synth.reading import SpecError, plain_text
from synth.spec import NORMAL, PhantomSpec
from synth.texture import Texture

if TYPE_CHECKING:
    from synth.background import Background
    from synth.shape import Placed


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """One case and everything that is true of it.

    Attributes:
        index: its number.
        image: float32 ``(*S)``.
        masks: truth by class, bool ``(K, *S)``.
        label: 0 or 1 (binary), the class's index (multiclass; -1 for a lesion-free twin where no class is
            normal) or K zeros and ones (multilabel).
        label_text: the label in words, classes joined by ``|``, ``normal`` where there is none.
        lesions: what is known about each lesion.
        affine: voxels to mm, RAS, ``(4, 4)``.
    """

    index: int
    image: Array32
    masks: npt.NDArray[np.bool_]
    label: int | tuple[int, ...]
    label_text: str
    lesions: tuple[Lesion, ...]
    affine: Array64
    _source: Phantoms = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the case, such as ``case_000012``."""
        return f"case_{self.index:06d}"

    def twin(self) -> PhantomCase:
        """Return the same case without its lesions: same anatomy, texture and noise, to the bit."""
        return self._source.draw(self.index, lesions=False)


class Phantoms:
    """The endless sequence of cases of a specification and a seed.

    ``phantoms[i]`` depends on the specification, the seed and ``i`` alone.
    """

    def __init__(self, spec: PhantomSpec, seed: int = 0) -> None:
        """Keep the specification and the seed; nothing is drawn yet.

        Raises:
            ValueError: the seed is negative.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed} but must be at least 0")
        self.spec = spec
        self.seed = seed

    def __reduce__(self) -> tuple[type[Phantoms], tuple[PhantomSpec, int]]:
        """Pickle specification and seed only: tables are made anew where they are used."""
        return Phantoms, (self.spec, self.seed)

    @cached_property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.spec.shape, self.spec.spacing_mm)

    @cached_property
    def texture(self) -> Texture:
        """The random field of texture and noise."""
        return Texture(self.spec.texture, self.spec.noise, self.grid)

    def __getitem__(self, index: int) -> PhantomCase:
        """Draw one case.

        Raises:
            IndexError: ``index`` is negative.
            SpecError: a lesion found no room in the tissue.
        """
        return self.draw(index)

    def draw(self, index: int, *, lesions: bool = True) -> PhantomCase:
        """Draw case ``index``; without ``lesions``, its twin.

        Everything is drawn from the generator in the same order in both, so that only the change differs.

        Raises:
            IndexError: ``index`` is negative.
            SpecError: a lesion found no room in the tissue.
        """
        index = operator.index(index)
        if index < 0:
            raise IndexError(f"case {index} does not exist: cases are counted from 0 and have no end")
        rng = np.random.default_rng([self.seed, index])
        present = self._draw_classes(rng)
        background = draw_background(self.spec.anatomy, self.grid, rng)
        placed = self._draw_lesions(present, background, rng)
        texture = self.texture.draw(rng)
        noise = draw_noise(self.spec.noise, self.grid.shape, rng)

        clean = background.image + background.texture * texture
        masks = np.zeros((len(self.spec.classes), *self.grid.shape), bool)
        known: list[Lesion] = []
        for name, lesion, amplitude in placed if lesions else ():
            known.append(self._measure(name, lesion, amplitude))
            clean[lesion.box] += np.float32(known[-1].delta) * lesion.profile
            masks[self.spec.classes.index(name)][lesion.box] |= lesion.mask
        found = tuple(name for name in present if lesions)
        return PhantomCase(
            index=index,
            image=add_noise(clean, noise),
            masks=masks,
            label=self._label(found),
            label_text="|".join(found) or NORMAL,
            lesions=tuple(known),
            affine=self.grid.affine.copy(),
            _source=self,
        )

    def _draw_classes(self, rng: np.random.Generator) -> tuple[str, ...]:
        names = tuple(self.spec.lesions)
        if self.spec.task == "multilabel":
            present = rng.random(len(names)) < self.spec.prevalence
            return tuple(name for name, here in zip(names, present, strict=True) if here)
        abnormal, which = rng.random() < self.spec.prevalence, rng.integers(len(names))
        return (names[which],) if abnormal else ()

    def _draw_lesions(
        self, present: tuple[str, ...], background: Background, rng: np.random.Generator
    ) -> list[tuple[str, Placed, float]]:
        """Draw class, place and amplitude of each lesion; none touches another."""
        drawn = []
        taken = np.zeros(self.grid.shape, bool)
        for name in present:
            spec, key = self.spec.lesions[name], f"lesions.{name}"
            region = background.region(spec.tissue or "tissue")
            structure = None
            if isinstance(spec.family, StructureLossFamily):
                structure = background.structures[spec.family.structure]
            for _ in range(rng.integers(spec.count[0], spec.count[1] + 1)):
                shape = draw_shape(spec, len(self.grid.shape), key, rng)
                amplitude = float(rng.uniform(*spec.amplitude))
                free, middles = where(spec, region, taken, self.grid, key)
                if structure is not None:  # what fades ends with the structure
                    free = ~taken
                placed = place(shape, free, self.grid, key, rng, middles=middles, structure=structure)
                taken[placed.box] |= placed.outline > 0
                drawn.append((name, placed, amplitude))
        return drawn

    def _measure(self, name: str, lesion: Placed, amplitude: float) -> Lesion:
        """Turn the drawn amplitude (d′, CNR or delta) into all three, which are proportional."""
        spec = self.spec.lesions[name]
        unit = np.zeros(self.grid.shape, np.float32)
        unit[lesion.box] = lesion.profile
        of_unit = {"dprime": self.texture.dprime(unit), "cnr": 1 / self.texture.sd, "delta": 1.0}
        change = amplitude / of_unit[spec.control]
        if change > lesion.largest:
            rest = f"the structure cannot lose {change:.3g} of the {lesion.largest:.3g} that it adds"
            raise SpecError(f"is {plain_text(spec.amplitude)} but {rest}", key=f"lesions.{name}.{spec.control}")
        return Lesion(
            class_name=name,
            family=spec.family.kind,
            centre_mm=_floats(self.grid.to_mm(lesion.centre_voxel)),
            centre_voxel=_floats(lesion.centre_voxel),
            radii_mm=_floats(lesion.shape.frame.radii_mm),
            rotation=tuple(_floats(row) for row in lesion.shape.frame.rotation),
            delta=change if spec.polarity == "bright" else -change,
            cnr=change * of_unit["cnr"],
            dprime=change * of_unit["dprime"],
            voxels=int(lesion.mask.sum()),
            volume_mm3=lesion.volume_mm3,
        )

    def _label(self, found: tuple[str, ...]) -> int | tuple[int, ...]:
        if self.spec.task == "binary":
            return len(found)
        if self.spec.task == "multilabel":
            return tuple(int(name in found) for name in self.spec.classes)
        name = found[0] if found else NORMAL
        return self.spec.classes.index(name) if name in self.spec.classes else -1


def _floats(values: Array64) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
