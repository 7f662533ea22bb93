"""What the best possible reader scores on the cases of a specification or a set: the ceiling of every method.

Where the anatomy is uniform, the noise Gaussian and one class of lesion is all there is, the reader sees the images
themselves and is exact. Elsewhere it is an upper bound: it is told the anatomy of the case, and sees the lesion in
texture and Gaussian noise that fill the field. From that a reader could make what the image shows (fade the texture
outside the tissue, top up the noise, take the magnitude with a second channel), so none does better from the image
alone. Where neither holds (textures that are not Gaussian, scanners, cues), there is no reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from synth.dataset import GENERATOR_VERSION
from synth.files import DatasetError, read_nifti
from synth.lesion import where
from synth.observer import Observer
from synth.parts import UniformAnatomy
from synth.phantom import Phantoms
from synth.reading import plain, require
from synth.records import OnCase, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synth.background import Background
    from synth.grid import Array32, Array64
    from synth.observer import Bools
    from synth.spec import PhantomSpec
    from synth.verify import StoredSet

    Room = tuple[Bools | None, Bools | None]

Kind = Literal["exact", "upper_bound"]
SPLIT = "test"
TEMPLATES = 128
FAMILIES = ("ellipsoid", "gaussian", "ring")
RESAMPLES = 1000


class Seen(NamedTuple):
    """A case as the reader is given it.

    Attributes:
        residual: image without background, float32 ``(*S)``.
        rooms: by class, where lesions may lie and where their middles may, bool ``(*S)`` each; anywhere if None.
        class_name: the lesion's class; None for a normal case.
        mask: the truth, bool ``(*S)``; None for a normal case.
    """

    residual: Array32
    rooms: Mapping[str, Room]
    class_name: str | None
    mask: Bools | None


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % bootstrap interval, over ``n`` cases."""

    value: float
    low: float
    high: float
    n: int


def kind_of(spec: PhantomSpec) -> Kind:
    """Return whether the reader is exact for a specification or bounds every reader from above.

    Raises:
        SpecError: it is neither.
    """
    one = "the observer reads cases of one lesion or none"
    require(spec.task != "multilabel", "task", spec.task, f"not be multilabel: {one}")
    for name, lesion in spec.lesions.items():
        require(lesion.count == (1, 1), f"lesions.{name}.count", lesion.count, f"be 1: {one}")
        # Textures and what fades are not one profile at a place; foci and spicules lie in more ways than a bank holds.
        covered = lesion.family.kind in FAMILIES
        require(
            covered, f"lesions.{name}.family", lesion.family.kind, f"be one of {', '.join(FAMILIES)} for the observer"
        )
    for key in ("lumpy", "clustered_lumpy"):
        rule = "be left out: the observer reads Gaussian texture (components, power_law)"
        require(getattr(spec.texture, key) is None, f"texture.{key}", plain(getattr(spec.texture, key)), rule)
    rule = "be gaussian or rician for the observer"
    require(spec.noise.kind != "poisson", "noise.kind", spec.noise.kind, rule)
    for key in ("acquisition", "sites", "cue", "distractors"):
        rule = "be left out: the observer reads the object itself, and lesions alone"
        require(not getattr(spec, key), key, plain(getattr(spec, key)), rule)
    exact = isinstance(spec.anatomy, UniformAnatomy) and spec.noise.kind == "gaussian" and len(spec.lesions) == 1
    return "exact" if exact else "upper_bound"


def drawn(phantoms: Phantoms, indices: Sequence[int]) -> Iterator[Seen]:
    """Yield cases of a specification and a seed."""
    spec, seed = phantoms.spec, phantoms.seed
    if kind_of(spec) == "exact":
        for index in indices:
            case, background = phantoms[index], phantoms.background(index)
            names = [lesion.class_name for lesion in case.lesions]
            mask = np.logical_or.reduce(case.masks)
            yield _seen(case.image - background.image, _rooms(phantoms, background), names, mask)
        return
    # Of one seed, Gaussian and Rician cases differ in nothing but the picture made of the same parts.
    gaussian = Phantoms(replace(spec, noise=replace(spec.noise, kind="gaussian")), seed)
    for index in indices:
        case, background = gaussian[index], gaussian.background(index)
        rng = np.random.default_rng([seed, index, 1])
        field = gaussian.texture.draw(rng) + np.float32(spec.noise.sd) * rng.standard_normal(spec.shape, np.float32)
        names = [lesion.class_name for lesion in case.lesions]
        residual, mask = case.image - case.twin().image + field, np.logical_or.reduce(case.masks)
        yield _seen(residual, _rooms(phantoms, background), names, mask)


def stored(found: StoredSet, cases: int | None = None) -> Iterator[Seen]:
    """Yield the first ``cases`` (all if None) of the test split of a set on disk.

    Where the reader is exact, they are the files. Where it is an upper bound, what it is told is not on disk, and
    drawn anew from the set's specification and seed.

    Raises:
        DatasetError: a file is missing or broken, or the set is from another version of the generator.
    """
    rows = [(index, row) for index, row in enumerate(found.cases) if row["split"] == SPLIT][:cases]
    if not rows:
        raise DatasetError(f"{found.folder} has no case in its {SPLIT} split")
    phantoms = Phantoms(found.spec, found.info["seed"])
    if kind_of(found.spec) == "upper_bound":
        generator = f"synth {GENERATOR_VERSION}"
        if found.info["generator"] != generator:
            made = f"{found.folder} was made by {found.info['generator']}, not {generator}"
            raise DatasetError(f"{made}: its anatomy cannot be drawn anew")
        yield from drawn(phantoms, [index for index, _ in rows])
        return
    for index, row in rows:
        image, _ = read_nifti(found.folder / row["image"])
        background = phantoms.background(index)
        residual = image.reshape(found.spec.shape).astype(np.float32) - background.image
        masks = {name: read_nifti(path)[0].reshape(found.spec.shape) != 0 for name, path in found.masks(row).items()}
        yield _seen(residual, _rooms(phantoms, background), list(masks), np.logical_or.reduce([*masks.values()]))


def _rooms(phantoms: Phantoms, background: Background) -> dict[str, Room]:
    """Return where the generator may place each class of lesion in a case."""
    rooms: dict[str, Room] = {}
    for name, lesion in phantoms.spec.lesions.items():
        region = background.region(lesion.tissue or "tissue")
        free, middles = where(lesion, region, np.zeros_like(region), phantoms.grid, f"lesions.{name}")
        rooms[name] = None if free.all() else free, None if middles.all() else middles
    return rooms


def _seen(residual: Array32, rooms: Mapping[str, Room], names: Sequence[str], mask: Bools | None) -> Seen:
    return Seen(residual, rooms, names[0], mask) if names else Seen(residual, rooms, None, None)


def ceiling(
    spec: PhantomSpec,
    cases: Iterator[Seen],
    *,
    total: int,
    seed: int = 0,
    templates: int = TEMPLATES,
    on_case: OnCase = ignore,
) -> dict[str, Any]:
    """Read cases and score the reading.

    For each class, against all other cases: ``image_auroc`` by the posterior probability of the class;
    ``pointing``, how often the voxel most likely to lie in the lesion's mask does; ``lroc``, the area under the
    localisation ROC curve, by the rating that maximises it, the posterior probability that the lesion covers that
    voxel (Khurd and Gindi, IEEE Trans Med Imaging 24:1626, 2005). A score without cases is None.

    Args:
        spec: what the cases were drawn from.
        cases: the cases.
        total: their number.
        seed: of the bank of shapes and of the bootstrap.
        templates: number of shapes in the bank of each class.
        on_case: told the number of cases read and their total.

    Returns:
        Plain data: name, kind, numbers, and the scores by class, each with its 95 % interval.

    Raises:
        SpecError: the reader does not cover the specification, or a lesion finds no room.
    """
    kind = kind_of(spec)
    phantoms = Phantoms(spec)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    readers = {
        name: Observer.of(lesion, phantoms.texture, phantoms.grid, f"lesions.{name}", templates, rng)
        for name, lesion in spec.lesions.items()
    }
    truth: list[str | None] = []
    ratios, peaks, hits = [], [], []
    for done, case in enumerate(islice(cases, total), 1):
        readings = [reader.read(case.residual, *case.rooms[name]) for name, reader in readers.items()]
        places = [int(reading.inside.argmax()) for reading in readings]
        truth.append(case.class_name)
        ratios.append([reading.log_ratio for reading in readings])
        peaks.append([float(reading.inside.flat[place]) for reading, place in zip(readings, places, strict=True)])
        hits.append([case.mask is not None and bool(case.mask.flat[place]) for place in places])
        on_case(done, total)
    ratings = _against_the_rest(np.array(ratios), spec.prevalence)
    joint = ratings + np.log(np.maximum(peaks, np.finfo(np.float64).tiny))
    scores = {}
    for number, name in enumerate(readers):
        present = np.array([known == name for known in truth])
        hit = np.array(hits)[present, number]
        scores[name] = {
            "image_auroc": _area(ratings[:, number], present, np.ones(len(hit)), rng),
            "pointing": _share(hit, rng),
            "lroc": _area(joint[:, number], present, hit.astype(np.float64), rng),
        }
    plain = {name: {key: vars(value) if value else None for key, value in own.items()} for name, own in scores.items()}
    return {"spec": spec.name, "kind": kind, "cases": len(truth), "seed": seed, "templates": templates,
            "classes": plain}  # fmt: skip


def _against_the_rest(ratios: Array64, prevalence: float) -> Array64:
    """Return the log odds of each class up to a constant ``(N, K)`` from its log likelihood ratio to normal."""
    classes = ratios.shape[1]
    with np.errstate(divide="ignore"):
        normal, lesion = np.log([1 - prevalence, prevalence / classes])
    odds = np.empty_like(ratios)
    for number in range(classes):
        others = np.delete(ratios, number, axis=1) + lesion
        rest = np.logaddexp.reduce(np.column_stack([np.full(len(ratios), normal), others]), axis=1)
        odds[:, number] = ratios[:, number] - np.where(np.isfinite(rest), rest, 0)
    return odds


def _area(ratings: Array64, present: Bools, credit: Array64, rng: np.random.Generator) -> Estimate | None:
    """Return the mean credit of the cases with the class that are rated above one without; ties count half."""
    high, low = ratings[present, np.newaxis], ratings[~present]
    if not high.size or not low.size:
        return None
    wins = credit[:, np.newaxis] * ((high > low) + 0.5 * (high == low))
    first, second = (_resample(len(axis), rng) for axis in (high, low))
    return _estimate(float(wins.mean()), ((first @ wins) * second).sum(axis=1) / wins.size, len(ratings))


def _share(hit: Bools, rng: np.random.Generator) -> Estimate | None:
    if not hit.size:
        return None
    return _estimate(float(hit.mean()), _resample(len(hit), rng) @ hit / len(hit), len(hit))


def _resample(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how often each of ``n`` cases is in each bootstrap resample ``(R, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)


def _estimate(value: float, resampled: Array64, n: int) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
