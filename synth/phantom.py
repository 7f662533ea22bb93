"""Cases drawn one by one: lazy, endless, in any order."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from synth.acquisition import add_noise, draw_bias, draw_noise, pass_through, transfer
from synth.anatomy import draw_background
from synth.cue import SiteCue, cue_mask
from synth.families import StructureLossFamily
from synth.grid import Array32, Array64, Grid
from synth.lesion import Lesion, draw_shape, place, where
from synth.reading import SpecError, plain_text
from synth.spec import NORMAL, PhantomSpec
from synth.texture import Texture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synth.background import Background
    from synth.parts import LesionSpec
    from synth.shape import Placed


# No lesion may be brighter than this; bone and skin are at about 1, and darkness ends at 0.
BRIGHTEST = 2.0
# Dotted key, class, place and amplitude of a lesion.
Drawn = tuple[str, "LesionSpec", "Placed", float]


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
        site: where it was acquired; empty where there are no sites.
        cue: where the spurious cue is, bool ``(*S)``; None where there is none.
        distractors: what is known about each distractor.
    """

    index: int
    image: Array32
    masks: npt.NDArray[np.bool_]
    label: int | tuple[int, ...]
    label_text: str
    lesions: tuple[Lesion, ...]
    affine: Array64
    site: str
    cue: npt.NDArray[np.bool_] | None
    distractors: tuple[Lesion, ...]
    _source: Phantoms = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the case, such as ``case_000012``."""
        return f"case_{self.index:06d}"

    def twin(self, remove: Literal["lesion", "cue"] = "lesion") -> PhantomCase:
        """Return the same case without its lesions, or without its cue: all else is the same, to the bit.

        Where the cue is a site, its twin comes from another site. Behind a scanner that blurs or rings, the
        twins of what is removed differ as far as that carries.
        """
        return self._source.draw(self.index, lesions=remove != "lesion", cue=remove != "cue")


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
    def textures(self) -> dict[str, Texture]:
        """The random field of texture and noise, by the site that sees it."""
        spec = self.spec
        return {site: Texture(spec.texture, spec.noise, self.grid, it) for site, it in spec.scanners.items()}

    @cached_property
    def _transfers(self) -> dict[str, npt.NDArray[np.complex64]]:
        return {site: transfer(scanner, self.grid) for site, scanner in self.spec.scanners.items()}

    @property
    def texture(self) -> Texture:
        """The random field of texture and noise, as the first site sees it."""
        return next(iter(self.textures.values()))

    @cached_property
    def reversed(self) -> Phantoms:
        """The same phantoms with the cue's dose reversed: those of the split ``reversed``."""
        return Phantoms(self.spec.reversed(), self.seed)

    def __getitem__(self, index: int) -> PhantomCase:
        """Draw one case.

        Raises:
            IndexError: ``index`` is negative.
            SpecError: a lesion found no room in the tissue.
        """
        return self.draw(index)

    def draw(self, index: int, *, lesions: bool = True, cue: bool = True) -> PhantomCase:
        """Draw case ``index``; without ``lesions`` or without ``cue``, a twin of it.

        Everything is drawn from the generator in the same order in all of them, so that only the change differs.

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
        taken = np.zeros(self.grid.shape, bool)
        drawn = self._draw_lesions({name: self.spec.lesions[name] for name in present}, background, taken, rng)
        texture = self.texture.draw(rng)
        noise = draw_noise(self.spec.noise, self.grid.shape, rng)
        distractors = self._draw_distractors(background, taken, rng)
        agrees = self.spec.cue is not None and self._draw_cue(present, rng)
        site = self._draw_site(rng, cued=agrees and cue)
        scanner = self.spec.scanners[site]
        bias = draw_bias(scanner, self.grid, rng)

        clean = background.image + background.texture * texture
        masks = np.zeros((len(self.spec.classes), *self.grid.shape), bool)
        known: list[Lesion] = []
        for key, spec, lesion, amplitude in drawn if lesions else ():
            known.append(self._measure(key, spec, lesion, amplitude, site))
            clean[lesion.box] += np.float32(known[-1].delta) * lesion.profile
            masks[self.spec.classes.index(known[-1].class_name)][lesion.box] |= lesion.mask
        others = [self._measure(key, spec, lesion, amplitude, site) for key, spec, lesion, amplitude in distractors]
        for other, (_, _, lesion, _) in zip(others, distractors, strict=True):
            clean[lesion.box] += np.float32(other.delta) * lesion.profile
        seen = clean if bias is None else clean * bias
        if scanner.transfers:
            seen = pass_through(seen, self._transfers[site])
        where_cue = None
        if agrees and cue:
            seen, where_cue = self._add_cue(seen)
        found = tuple(name for name in present if lesions)
        return PhantomCase(
            index=index,
            image=add_noise(self.spec.noise, seen, noise, self.spec.anatomy.level),
            masks=masks,
            label=self._label(found),
            label_text="|".join(found) or NORMAL,
            lesions=tuple(known),
            affine=self.grid.affine.copy(),
            site=site,
            cue=where_cue,
            distractors=tuple(others),
            _source=self,
        )

    def background(self, index: int) -> Background:
        """Draw the background of case ``index`` alone, before texture, lesions and noise."""
        rng = np.random.default_rng([self.seed, index])
        self._draw_classes(rng)
        return draw_background(self.spec.anatomy, self.grid, rng)

    def check(self) -> None:
        """Try the smallest and the largest lesion of each class, at its greatest amplitude, in one anatomy.

        Raises:
            SpecError: it does not fit its tissue, or would leave the range of intensities.
        """
        rng = np.random.default_rng(self.seed)
        background = draw_background(self.spec.anatomy, self.grid, rng)
        for group, specs in (("lesions", self.spec.lesions), ("distractors", self.spec.distractors or {})):
            for name, spec in specs.items():
                for radius in spec.radius_mm:
                    extreme = replace(spec, radius_mm=(radius, radius), count=(1, 1))
                    taken = np.zeros(self.grid.shape, bool)
                    for key, _, lesion, _ in self._draw_lesions({name: extreme}, background, taken, rng, group):
                        for site in self.spec.scanners:
                            self._measure(key, spec, lesion, spec.amplitude[1], site)

    def _draw_cue(self, present: tuple[str, ...], rng: np.random.Generator) -> bool:
        """Draw whether the cue is there: as its class is, with the probability of its dose."""
        assert self.spec.cue is not None
        tied = self.spec.cue.tied_to or next(iter(self.spec.lesions))
        return bool((rng.random() < self.spec.cue.dose) == (tied in present))

    def _draw_site(self, rng: np.random.Generator, *, cued: bool) -> str:
        """Draw the site; one that is a cue is taken where the cue is, and nowhere else."""
        if not self.spec.sites:
            return ""
        cue = self.spec.cue
        own = cue.site if isinstance(cue, SiteCue) else None
        others = [name for name in self.spec.sites if name != own]
        drawn = others[rng.integers(len(others))]
        return own if own is not None and cued else drawn

    def _add_cue(self, seen: Array32) -> tuple[Array32, npt.NDArray[np.bool_]]:
        """Return the picture with the cue, and where it is."""
        if self.spec.cue is None or isinstance(self.spec.cue, SiteCue):
            return seen, np.ones(self.grid.shape, bool)
        change = self.spec.cue.change(self.grid)
        return seen + change, cue_mask(change)

    def _draw_distractors(
        self, background: Background, taken: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> list[Drawn]:
        specs = self.spec.distractors or {}
        here = {name: spec for name, spec in specs.items() if rng.random() < spec.prevalence}
        return self._draw_lesions(here, background, taken, rng, group="distractors")

    def _draw_classes(self, rng: np.random.Generator) -> tuple[str, ...]:
        names = tuple(self.spec.lesions)
        if self.spec.task == "multilabel":
            present = rng.random(len(names)) < self.spec.prevalence
            return tuple(name for name, here in zip(names, present, strict=True) if here)
        abnormal, which = rng.random() < self.spec.prevalence, rng.integers(len(names))
        return (names[which],) if abnormal else ()

    def _draw_lesions(
        self,
        specs: Mapping[str, LesionSpec],
        background: Background,
        taken: npt.NDArray[np.bool_],
        rng: np.random.Generator,
        group: str = "lesions",
    ) -> list[Drawn]:
        """Draw place and amplitude of each lesion; none touches another, and ``taken`` gains their supports."""
        drawn = []
        for name, spec in specs.items():
            key = f"{group}.{name}"
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
                drawn.append((key, spec, placed, amplitude))
        return drawn

    def _measure(self, key: str, spec: LesionSpec, lesion: Placed, amplitude: float, site: str) -> Lesion:
        """Turn the drawn amplitude (d′, CNR or delta) into all three, which are proportional."""
        texture = self.textures[site]
        unit = np.zeros(self.grid.shape, np.float32)
        unit[lesion.box] = lesion.profile
        of_unit = {"dprime": texture.dprime(unit), "cnr": 1 / texture.sd, "delta": 1.0}
        change = amplitude / of_unit[spec.control]
        level, dark = self.spec.anatomy.level, spec.polarity == "dark"
        for largest, rest in (
            (lesion.largest, "of what the structure adds"),
            (level if dark else BRIGHTEST - level, f"of the range between tissue and {0 if dark else BRIGHTEST:g}"),
        ):
            if change > largest:
                problem = f"is {plain_text(spec.amplitude)} but asks for a change of {change:.3g}: {largest:.3g} is all"
                raise SpecError(f"{problem} {rest}", key=f"{key}.{spec.control}")
        return Lesion(
            class_name=key.partition(".")[2],
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
