"""The reader who is told everything of a case but whether a class is there: a bound where no scan of places is ideal.

It is told place, shape and strength of the class's lesions (in a case without them, of those that the generator
would have drawn), and the anatomy, the other findings, distractors, site, bias field and lumps of the texture. What is
left is a known change in Gaussian texture and noise, and whether the cue is there. The log likelihood ratio of the
change is normal, with mean ± d′²/2 and variance d′², and the cue adds the log odds of its dose.

No reader of the images does better, for from what this one sees the image could be made:

- The change c lies in texture and noise all over the field: fading them by the texture's weight w and topping up the
  noise leaves w·c in the texture of the image. So it is shown c / w, which differs from c where structures fade only.
- Behind a scanner, in a field full of texture, the d′ is that of what the scanner passes. Elsewhere it sees the object
  itself, in the scanner's noise over the scanner's largest gain: what the scanner does could be done to that.
- Rician noise is the magnitude of the Gaussian one it sees with a second channel.
- Poisson noise depends on the picture: it is told the texture as well, and left with the counts of known means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from synth.acquisition import mean_counts, transfer
from synth.parts import UniformAnatomy
from synth.scores import Rated
from synth.texture import Texture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synth.chance import Parts
    from synth.grid import Array32, Array64
    from synth.lesion import Lesion
    from synth.phantom import Phantoms
    from synth.shape import Placed

    Changes = list[tuple[Lesion, Placed]]

CERTAIN = 1e6  # log odds that no image outweighs


def known(phantoms: Phantoms, indices: Sequence[int]) -> Iterator[Rated]:
    """Read cases. Which classes they have is that of ``phantoms``, texture and noise are drawn anew."""
    spec = phantoms.spec
    names = tuple(spec.lesions)
    groups: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(names, ())]
    for index in indices:
        present = phantoms.parts(index).present
        rng = np.random.default_rng([phantoms.seed, index, 2])
        if spec.task == "multilabel":  # each class alone, the others told
            groups = [((name,), tuple(other for other in present if other != name)) for name in names]
        ratios = [_ratios(phantoms, index, group, others, present, rng) for group, others in groups]
        yield Rated(present, np.concatenate(ratios).tolist())


def _ratios(
    phantoms: Phantoms,
    index: int,
    group: tuple[str, ...],
    others: tuple[str, ...],
    present: tuple[str, ...],
    rng: np.random.Generator,
) -> Array64:
    """Return the log likelihood ratios of the classes of a group, of which at most one is there, against none."""
    order = phantoms.spec.lesions
    worlds = [phantoms.parts(index, tuple(n for n in order if n == name or n in others)) for name in group]
    cued = phantoms.cued(worlds[0], present)
    changes = [_changes(phantoms, parts, name, cued) for parts, name in zip(worlds, group, strict=True)]
    true = next((number for number, name in enumerate(group) if name in present), None)
    if phantoms.spec.noise.kind == "poisson":
        ratios = _of_counts(phantoms, worlds[0], changes, group, true, cued, rng)
    else:
        products = shown_products(phantoms, worlds[0], changes, cued)
        mean = (products[true] if true is not None else 0) - products.diagonal() / 2
        ratios = rng.multivariate_normal(mean, products, check_valid="ignore")
    tied, cue = phantoms.spec.cued_class, phantoms.spec.cue
    if cue is not None and tied in group:
        with np.errstate(divide="ignore"):
            odds = float(np.clip(np.log(cue.dose) - np.log1p(-cue.dose), -CERTAIN, CERTAIN))
        ratios[group.index(tied)] += odds if cued else -odds
    return ratios


def _changes(phantoms: Phantoms, parts: Parts, name: str, cued: bool) -> Changes:
    site = phantoms.site(parts, cued)
    return [(phantoms.measure(one, site), one.placed) for one in parts.lesions if one.class_name == name]


def shown_products(phantoms: Phantoms, parts: Parts, changes: Sequence[Changes], cued: bool) -> Array64:
    """Return the prewhitened products of the whole changes of each class ``(K, K)``, as this reader sees them.

    Args:
        phantoms: where the case is drawn.
        parts: anatomy, site and bias field of the case.
        changes: the lesions of each class.
        cued: whether the cue is there.
    """
    spec, site, weight = phantoms.spec, phantoms.site(parts, cued), parts.background.texture
    scanner, bias = spec.scanners[site], phantoms.bias(parts, site)
    gaussian = replace(spec.texture, lumpy=None, clustered_lumpy=None)
    if isinstance(spec.anatomy, UniformAnatomy) and bias is None:
        texture = Texture(gaussian, spec.noise, phantoms.grid, scanner)
    else:
        gain = float(np.abs(transfer(scanner, phantoms.grid)).max()) * (1 if bias is None else float(bias.max()))
        texture = Texture(gaussian, replace(spec.noise, sd=spec.noise.sd / gain), phantoms.grid)
    shown = [_whole(own, np.zeros_like(weight)) for own in changes]
    for change in shown:
        np.divide(change, weight, out=change, where=change != 0)
    return texture.products(shown)


def _whole(changes: Changes, picture: Array32) -> Array32:
    for lesion, placed in changes:
        picture[placed.box] += np.float32(lesion.delta) * placed.profile
    return picture


def _of_counts(
    phantoms: Phantoms,
    parts: Parts,
    changes: Sequence[Changes],
    group: tuple[str, ...],
    true: int | None,
    cued: bool,
    rng: np.random.Generator,
) -> Array64:
    """Return the log likelihood ratios from Poisson counts whose means are known."""
    spec, site = phantoms.spec, phantoms.site(parts, cued)
    told = [*parts.lesions, *parts.distractors]
    rest = [(phantoms.measure(one, site), one.placed) for one in told if one.key not in {f"lesions.{n}" for n in group}]
    level = spec.anatomy.level
    without = mean_counts(spec.noise, phantoms.clean(parts, rest, cued), level)
    means = [mean_counts(spec.noise, phantoms.clean(parts, [*rest, *own], cued), level) for own in changes]
    counts = rng.poisson(without if true is None else means[true])
    return np.array([np.sum(counts * np.log(mean / without) - (mean - without)) for mean in means])
