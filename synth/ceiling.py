"""What the best possible reader scores on the cases of a specification or a set: the ceiling of every method.

Where the anatomy is uniform, the noise Gaussian and one class of lesion is all there is, the reader sees the images
themselves and is exact. Elsewhere it is an upper bound: it is told the anatomy of the case, and sees the lesion in
texture and Gaussian noise that fill the field. From that a reader could make what the image shows (fade the texture
outside the tissue, top up the noise, take the magnitude with a second channel), so none does better from the image
alone. Where neither holds (several lesions, scanners, cues, what else there is), it is told the lesions as well, save
whether they are there (:mod:`synth.known`): a looser bound, and without places to score.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

from synth.dataset import GENERATOR_VERSION
from synth.files import DatasetError, read_nifti, write_whole
from synth.known import known
from synth.lesion import where
from synth.observer import Observer
from synth.parts import UniformAnatomy
from synth.phantom import Phantoms
from synth.records import OnCase, csv_bytes, ignore
from synth.scores import Estimate, Rated, against_the_rest, area, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synth.background import Background
    from synth.grid import Array32, Array64
    from synth.observer import Bools
    from synth.spec import PhantomSpec
    from synth.verify import StoredSet

    Room = tuple[Bools | None, Bools | None]

Kind = Literal["exact", "upper_bound", "known_exactly"]
SPLIT = "test"
CEILING, READINGS = "ceiling.json", "ceiling.csv"
TEMPLATES = 128
FAMILIES = ("ellipsoid", "gaussian", "ring")


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


def kind_of(spec: PhantomSpec) -> Kind:
    """Return how the reader of a specification stands to all others: exact, or a bound from above."""
    lesions = spec.lesions.values()
    single = spec.task != "multilabel" and all(lesion.count == (1, 1) for lesion in lesions)
    # Textures and what fades are not one profile at a place; foci and spicules lie in more ways than a bank holds.
    covered = single and all(lesion.family.kind in FAMILIES for lesion in lesions)
    gaussian = not (spec.texture.lumpy or spec.texture.clustered_lumpy) and spec.noise.kind != "poisson"
    bare = not (spec.acquisition or spec.sites or spec.cue or spec.distractors)
    if not (covered and gaussian and bare):
        return "known_exactly"
    exact = isinstance(spec.anatomy, UniformAnatomy) and spec.noise.kind == "gaussian" and len(spec.lesions) == 1
    return "exact" if exact else "upper_bound"


def drawn(phantoms: Phantoms, indices: Sequence[int]) -> Iterator[Seen | Rated]:
    """Yield cases of a specification and a seed."""
    if kind_of(phantoms.spec) == "known_exactly":
        return known(phantoms, indices)
    return scanned(phantoms, indices)


def scanned(phantoms: Phantoms, indices: Sequence[int]) -> Iterator[Seen]:
    """Yield cases of a specification and a seed, for the reader that scans them for one lesion."""
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


def stored(found: StoredSet, cases: int | None = None) -> Iterator[Seen | Rated]:
    """Yield the first ``cases`` (all if None) of the test split of a set on disk.

    Where the reader is exact, they are the files. Where it is a bound, what it is told is not on disk, and
    drawn anew from the set's specification and seed.

    Raises:
        DatasetError: a file is missing or broken, or the set is from another version of the generator.
    """
    rows = [(index, row) for index, row in enumerate(found.cases) if row["split"] == SPLIT][:cases]
    if not rows:
        raise DatasetError(f"{found.folder} has no case in its {SPLIT} split")
    phantoms = Phantoms(found.spec, found.info["seed"])
    if kind_of(found.spec) != "exact":
        generator = f"synth {GENERATOR_VERSION}"
        if found.info["generator"] != generator:
            made = f"{found.folder} was made by {found.info['generator']}, not {generator}"
            raise DatasetError(f"{made}: its cases cannot be drawn anew")
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


class Observed(NamedTuple):
    """What the reader makes of cases.

    Attributes:
        scores: plain data: name, kind, numbers (of cases, and of those with each class), and the scores by class, each
            with its 95 % interval.
        rating: log odds of each class ``(N, K)``.
        located: ``rating`` and log of the probability that the lesion, if there is one, covers the voxel pointed at
            ``(N, K)``; None where the reader is told places.
        hit: whether that voxel is in its mask ``(N, K)``; None where the reader is told places.
    """

    scores: dict[str, Any]
    rating: Array64
    located: Array64 | None
    hit: Bools | None


def observe(
    spec: PhantomSpec,
    cases: Iterator[Seen | Rated],
    *,
    total: int,
    seed: int = 0,
    templates: int = TEMPLATES,
    on_case: OnCase = ignore,
) -> Observed:
    """Read cases and score the reading.

    For each class, against all other cases: ``image_auroc`` by the posterior probability of the class;
    ``pointing``, how often the voxel most likely to lie in the lesion's mask does; ``lroc``, the area under the
    localisation ROC curve, by the rating that maximises it, the ratio of the likelihoods of a lesion that covers that
    voxel and of none: the likelihood ratio of the class times the probability that its lesion, if there is one, covers
    the voxel (Khurd and Gindi, IEEE Trans Med Imaging 24:1626, 2005). A score without cases is None, and so are
    pointing and lroc where the reader is told places; ends of an interval are None where no resample differs.

    Args:
        spec: what the cases were drawn from.
        cases: the cases.
        total: their number.
        seed: of the bank of shapes and of the bootstrap.
        templates: number of shapes in the bank of each class, where there is one.
        on_case: told the number of cases read and their total.

    Raises:
        SpecError: a lesion finds no room.
    """
    kind = kind_of(spec)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    readers = {} if kind == "known_exactly" else _readers(spec, templates, rng)
    readings = []
    for done, case in enumerate(islice(cases, total), 1):
        readings.append(_scan(case, readers) if isinstance(case, Seen) else case)
        on_case(done, total)
    ratings = np.array([reading.ratios for reading in readings])
    if spec.task != "multilabel":
        ratings = against_the_rest(ratings, spec.prevalence)
    present = np.array([[name in reading.present for name in spec.lesions] for reading in readings])
    located, hits = None, None
    if readers:
        peaks = np.array([reading.peaks for reading in readings], np.float64)
        located = ratings + np.log(np.maximum(peaks, np.finfo(np.float64).tiny))
        hits = np.array([reading.hits for reading in readings], bool)
    scores: dict[str, dict[str, Estimate | None]] = {}
    for number, name in enumerate(spec.lesions):
        here, rating = present[:, number], ratings[:, number]
        own = scores[name] = {"image_auroc": area(rating, here, np.ones(here.sum()), rng)}
        own |= {"pointing": None, "lroc": None}
        if located is not None and hits is not None:
            hit = hits[here, number]
            own |= {"pointing": share(hit, rng), "lroc": area(located[:, number], here, hit.astype(np.float64), rng)}
    plain = {
        name: {key: value.plain() if value else None for key, value in own.items()} for name, own in scores.items()
    }
    counts = dict(zip(spec.lesions, present.sum(axis=0).tolist(), strict=True))
    summary = {"spec": spec.name, "kind": kind, "cases": len(readings), "cases_with": counts, "seed": seed,
               "templates": templates if readers else None, "classes": plain}  # fmt: skip
    return Observed(summary, ratings, located, hits)


def ceiling(spec: PhantomSpec, cases: Iterator[Seen | Rated], *, total: int, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the scores alone of :func:`observe`, whose arguments it takes."""
    return observe(spec, cases, total=total, **settings).scores


def write_ceiling(found: StoredSet, observed: Observed) -> None:
    """Write what the reader made of the test split of a set beside its tables.

    ``ceiling.csv`` has a row a case and class; ``ceiling.json`` the scores, the split and the hash of the set, by which
    whoever reads it knows whether it is of this set. It is written last.

    Raises:
        OSError: a file could not be written.
    """
    names = [row["case"] for row in found.cases if row["split"] == SPLIT]
    rows = [
        (case, name, float(observed.rating[n, k]), *_of_places(observed, n, k))
        for n, case in enumerate(names)
        for k, name in enumerate(found.spec.lesions)
    ]
    write_whole(found.folder / READINGS, csv_bytes(("case", "class", "rating", "located", "hit"), rows))
    index = {"hash": found.info["hash"], "split": SPLIT, **observed.scores}
    write_whole(found.folder / CEILING, f"{json.dumps(index, indent=2)}\n".encode())


def _of_places(observed: Observed, case: int, number: int) -> tuple[object, object]:
    if observed.located is None or observed.hit is None:
        return "", ""
    return float(observed.located[case, number]), int(observed.hit[case, number])


def _readers(spec: PhantomSpec, templates: int, rng: np.random.Generator) -> dict[str, Observer]:
    phantoms = Phantoms(spec)
    return {
        name: Observer.of(lesion, phantoms.texture, phantoms.grid, f"lesions.{name}", templates, rng)
        for name, lesion in spec.lesions.items()
    }


def _scan(case: Seen, readers: Mapping[str, Observer]) -> Rated:
    readings = [reader.read(case.residual, *case.rooms[name]) for name, reader in readers.items()]
    places = [_surest(reading.inside) for reading in readings]
    return Rated(
        () if case.class_name is None else (case.class_name,),
        [reading.log_ratio for reading in readings],
        [float(reading.inside.flat[place]) for reading, place in zip(readings, places, strict=True)],
        [case.mask is not None and bool(case.mask.flat[place]) for place in places],
    )


def _surest(inside: Array32) -> int:
    """Return the voxel most likely to lie in the lesion.

    Where a lesion is plain, one shape of the bank takes all, and all of its voxels are as likely: of these the one
    deepest inside is taken, where the bank's shape not being quite the lesion's matters least.
    """
    likely = inside >= inside.max() - 1e-3
    return int(ndimage.distance_transform_edt(np.pad(likely, 1))[(slice(1, -1),) * inside.ndim].argmax())
