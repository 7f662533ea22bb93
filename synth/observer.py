"""The best possible reader of a lesion in a stationary Gaussian field.

The reader knows everything about the generator, but neither whether there is a lesion nor its place, size,
orientation and strength. Given one shape at one place whose detectability is x, the prewhitened matched filter's
output z (mean 0 and variance 1 without a lesion, mean x with it) is all that matters, and the likelihood ratio is
exp(x·z - x²/2). The rest is averaging over what the generator would have drawn: strengths by quadrature, places by
FFT, shapes by a bank drawn from the generator itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft

from synth.lesion import draw_shape, place
from synth.reading import SpecError

if TYPE_CHECKING:
    from synth.grid import Array32, Array64, Grid
    from synth.parts import LesionSpec
    from synth.shape import Placed
    from synth.texture import Texture

Bools = npt.NDArray[np.bool_]
Spectrum = npt.NDArray[np.complexfloating]  # in single precision


class Reading(NamedTuple):
    """What the reader makes of one case and one class of lesion.

    Attributes:
        log_ratio: log of the marginal likelihood ratio, lesion against none.
        inside: probability that a voxel lies in the lesion's mask, given that there is a lesion, float32 ``(*S)``.
    """

    log_ratio: float
    inside: Array32


@dataclass(frozen=True)
class Template:
    """One shape at one sub-voxel shift, moved to voxel 0 of the circular field.

    Attributes:
        filter: conjugate spectrum of the prewhitened profile, scaled to give z.
        mask: spectrum of the half-maximum mask.
        support: conjugate spectrum of where the outline is not 0.
        fits: the centre voxels for which the support does not leave the field.
        strengths: nodes of the quadrature over x, the detectability ``(Q,)``.
        weights: their weights ``(Q,)``, which sum to 1.
    """

    filter: Spectrum
    mask: Spectrum
    support: Spectrum
    fits: tuple[slice, ...]
    strengths: Array64
    weights: Array64


def make_template(spec: LesionSpec, placed: Placed, texture: Texture, grid: Grid) -> Template:
    """Prepare the filter for a lesion drawn from ``spec``; its place matters up to whole voxels only."""
    centre = np.floor(placed.centre_voxel + 0.5).astype(int)

    def spectrum(values: npt.NDArray[np.float32 | np.bool_]) -> Spectrum:
        field = np.zeros(grid.shape, np.float32)
        field[placed.box] = values
        result: Spectrum = fft.rfftn(np.roll(field, -centre, range(len(centre))))
        return result

    profile = np.zeros(grid.shape, np.float32)
    profile[placed.box] = placed.profile
    of_unit = texture.dprime(profile)
    sign = 1 if spec.polarity == "bright" else -1
    scale = {"dprime": 1.0, "cnr": texture.sd * of_unit, "delta": of_unit}[spec.control]
    strengths, weights = quadrature(spec.amplitude[0] * scale, spec.amplitude[1] * scale)
    bounds = zip(centre, placed.box, grid.shape, strict=True)
    whitened = sign * np.conj(spectrum(placed.profile)) / texture.total_power / of_unit
    return Template(
        filter=whitened.astype(np.complex64),
        mask=spectrum(placed.mask),
        support=np.conj(spectrum(placed.outline > 0)),
        fits=tuple(slice(int(c - box.start), int(n - (box.stop - 1 - c))) for c, box, n in bounds),
        strengths=strengths,
        weights=weights,
    )


def quadrature(low: float, high: float) -> tuple[Array64, Array64]:
    """Return Gauss-Legendre nodes and weights of the mean over a range of exp(x·z - x²/2), a bell of width 1."""
    if low == high:
        return np.array([low]), np.ones(1)
    nodes, weights = np.polynomial.legendre.leggauss(6 + int(np.ceil(high - low)))
    return low + (high - low) * (nodes + 1) / 2, weights / 2


class Observer:
    """The ideal reader of one class of lesion.

    It averages over a bank of shapes and sub-voxel shifts; with more of them it comes closer to the ideal, from
    below.
    """

    def __init__(self, templates: list[Template], grid: Grid, key: str = "lesions") -> None:
        """Keep the bank; ``key`` is what errors name.

        Raises:
            ValueError: the bank is empty.
        """
        if not templates:
            raise ValueError("the bank holds no template")
        self.templates = templates
        self._shape = grid.shape
        self._key = f"{key}.radius_mm"

    @classmethod
    def of(
        cls, spec: LesionSpec, texture: Texture, grid: Grid, key: str, templates: int, rng: np.random.Generator
    ) -> Observer:
        """Return the reader of ``spec``, whose dotted key is ``key``, with a bank of ``templates`` shapes.

        Shapes and sub-voxel shifts are drawn as the generator draws them.

        Raises:
            SpecError: a lesion finds no room in the field.
        """
        bank = []
        for _ in range(templates):
            shape = draw_shape(spec, len(grid.shape), key, rng)
            placed = place(shape, np.ones(grid.shape, bool), grid, key, rng)
            bank.append(make_template(spec, placed, texture, grid))
        return cls(bank, grid, key)

    def read(self, residual: Array32, tissue: Bools | None = None, middles: Bools | None = None) -> Reading:
        """Read a case.

        Args:
            residual: what is left of the image without its background: texture, noise and perhaps a lesion,
                float32 ``(*S)``.
            tissue: where a whole lesion must lie ``(*S)``; everywhere if None.
            middles: where its middle must lie ``(*S)``; anywhere in the tissue if None.

        Raises:
            SpecError: no lesion of the bank fits the tissue.
        """
        spectrum = fft.rfftn(residual.astype(np.float32, copy=False))
        middles = tissue if middles is None else middles
        outside = None if tissue is None else fft.rfftn((~tissue).astype(np.float32))
        # All sums are over exp(… - reference), lest a clear lesion overflow.
        reference, total, used = -np.inf, 0.0, 0
        inside = np.zeros(spectrum.shape, np.complex64)
        for template in self.templates:
            places = self._places(template, middles, outside)
            number = int(np.count_nonzero(places))
            if not number:
                continue
            used += 1
            z = self._inverse(spectrum * template.filter)
            clear = float(z[places].max())
            np.minimum(z, np.float32(clear), out=z)  # what does not count must not overflow
            best = float(np.clip(clear, template.strengths[0], template.strengths[-1]))
            top = best * clear - best**2 / 2
            if top > reference:
                shrink = np.exp(reference - top)
                reference, total, inside = top, total * shrink, inside * np.float32(shrink)
            ratio = self._ratio(z, template, reference)
            ratio *= places / np.float32(number)
            total += float(ratio.sum(dtype=np.float64))
            inside += fft.rfftn(ratio) * template.mask
        if not used:
            raise SpecError("leaves no room in the tissue of a case for any of its lesions", key=self._key)
        return Reading(reference + float(np.log(total / used)), self._inverse(inside) / np.float32(total))

    def _places(self, template: Template, middles: Bools | None, outside: Spectrum | None) -> Bools:
        """Return the centre voxels ``(*S)`` that the generator allows."""
        places = np.zeros(self._shape, bool)
        places[template.fits] = True
        if middles is not None:
            places &= middles
        if outside is not None:
            places &= self._inverse(outside * template.support) < 0.5
        return places

    def _ratio(self, z: Array32, template: Template, reference: float) -> Array32:
        ratio = np.zeros_like(z)
        for strength, weight in zip(template.strengths, template.weights, strict=True):
            ratio += np.float32(weight) * np.exp(np.float32(strength) * z - np.float32(strength**2 / 2 + reference))
        return ratio

    def _inverse(self, spectrum: Spectrum) -> Array32:
        return fft.irfftn(spectrum, s=self._shape, overwrite_x=True).astype(np.float32, copy=False)
