"""Cases drawn one by one: lazy, endless, in any order."""

from __future__ import annotations

import operator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from synth.acquisition import add_noise, draw_bias, pass_through, transfer
from synth.anatomy import draw_background
from synth.chance import draw_classes, draw_lesions, draw_parts
from synth.cue import SiteCue, cue_mask
from synth.grid import Array32, Array64, Grid
from synth.lesion import Lesion
from synth.reading import SpecError, plain_text
from synth.spec import NORMAL, PhantomSpec
from synth.texture import Texture

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synth.background import Background
    from synth.chance import Drawn, Parts
    from synth.shape import Placed


# No lesion may be brighter than this; bone and skin are at about 1, and darkness ends at 0.
BRIGHTEST = 2.0


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
        distractor: where they are, bool ``(*S)``; None where there is none.
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
    distractor: npt.NDArray[np.bool_] | None
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

    @cached_property
    def _cue(self) -> Array32 | None:
        """What the cue adds to the picture ``(*S)``; None if it is a site, or there is none."""
        return None if self.spec.cue is None or isinstance(self.spec.cue, SiteCue) else self.spec.cue.change(self.grid)

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
        parts = self.parts(index)
        cued = self.cued(parts, parts.present) and cue
        site = self.site(parts, cued)
        shown = [(self.measure(one, site), one.placed) for one in (parts.lesions if lesions else ())]
        others = [(self.measure(one, site), one.placed) for one in parts.distractors]
        seen = self.clean(parts, [*shown, *others], cued)
        by_class = ((placed for lesion, placed in shown if lesion.class_name == name) for name in self.spec.classes)
        masks = np.stack([self._union(own) for own in by_class])
        found = parts.present if lesions else ()
        return PhantomCase(
            index=index,
            image=add_noise(self.spec.noise, seen, parts.noise, self.spec.anatomy.level),
            masks=masks,
            label=self._label(found),
            label_text="|".join(found) or NORMAL,
            lesions=tuple(lesion for lesion, _ in shown),
            affine=self.grid.affine.copy(),
            site=site,
            cue=self._cue_mask() if cued else None,
            distractors=tuple(other for other, _ in others),
            distractor=self._union(placed for _, placed in others) if others else None,
            _source=self,
        )

    def label(self, index: int) -> int | tuple[int, ...]:
        """Return the label of case ``index`` without drawing the rest of it."""
        return self._label(draw_classes(self.spec, np.random.default_rng([self.seed, index])))

    def parts(self, index: int, present: tuple[str, ...] | None = None) -> Parts:
        """Draw what case ``index`` is made of; with the classes ``present``, what it would be made of with them.

        Raises:
            SpecError: a lesion found no room in the tissue.
        """
        rng = np.random.default_rng([self.seed, index])
        return draw_parts(self.spec, self.grid, self.texture, rng, present)

    def cued(self, parts: Parts, present: tuple[str, ...]) -> bool:
        """Return whether the cue is there, in a case of those parts with the classes ``present``."""
        return self.spec.cue is not None and parts.agrees == (self.spec.cued_class in present)

    def site(self, parts: Parts, cued: bool) -> str:
        """Return the site of a case: the cue, if it is one and there."""
        return self.spec.cue.site if cued and isinstance(self.spec.cue, SiteCue) else parts.elsewhere

    def bias(self, parts: Parts, site: str) -> Array32 | None:
        """Return the bias field of a case ``(*S)``, the same each time; None if there is none."""
        scanner = self.spec.scanners[site]
        return draw_bias(scanner, self.grid, deepcopy(parts.rest)) if scanner.bias else None

    def clean(self, parts: Parts, changes: Iterable[tuple[Lesion, Placed]], cued: bool) -> Array32:
        """Return what the scanner sees of a case with those changes, noise apart ``(*S)``."""
        site = self.site(parts, cued)
        scanner, bias = self.spec.scanners[site], self.bias(parts, site)
        seen = parts.background.image + parts.background.texture * parts.texture
        for lesion, placed in changes:
            seen[placed.box] += np.float32(lesion.delta) * placed.profile
        if bias is not None:
            seen = seen * bias
        if scanner.transfers:
            seen = pass_through(seen, self._transfers[site])
        return seen + self._cue if cued and self._cue is not None else seen

    def background(self, index: int) -> Background:
        """Draw the background of case ``index`` alone, before texture, lesions and noise."""
        rng = np.random.default_rng([self.seed, index])
        draw_classes(self.spec, rng)
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
                    for one in draw_lesions({name: extreme}, background, taken, self.grid, rng, group):
                        for site in self.spec.scanners:
                            self.measure(one._replace(amplitude=spec.amplitude[1]), site)

    def _union(self, all_placed: Iterable[Placed]) -> npt.NDArray[np.bool_]:
        """Return the mask of several lesions ``(*S)``."""
        mask = np.zeros(self.grid.shape, bool)
        for placed in all_placed:
            mask[placed.box] |= placed.mask
        return mask

    def _cue_mask(self) -> npt.NDArray[np.bool_]:
        return np.ones(self.grid.shape, bool) if self._cue is None else cue_mask(self._cue)

    def measure(self, drawn: Drawn, site: str) -> Lesion:
        """Turn the drawn amplitude (d′, CNR or delta) into all three, which are proportional.

        Raises:
            SpecError: it would leave the range of intensities.
        """
        key, spec, lesion, amplitude = drawn
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
            class_name=drawn.class_name,
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
