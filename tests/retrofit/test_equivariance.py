"""The parts of Q against brute force: everything resampled, every view undone, every pixel looked up."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hrcam_lightning import InputError, LocalizationModel
from hrcam_lightning.backbones import Backbone, ConvPyramid
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.geometry import Level, Resampling, resample, sample
from hrcam_lightning.neighbours import around, shifted
from hrcam_lightning.pooling import MeanPooling
from hrcam_lightning.retrofit.equivariance import SHARES, SHRINKAGE, Demand, Equivariance, Sampling, combine
from hrcam_lightning.retrofit.features import Floats, Reading
from hrcam_lightning.retrofit.gather import gather
from hrcam_lightning.views import draw_view

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BOTH: list[Resampling] = ["receptive_field", "half_pixel"]
SIZES = [(16, 16), (9, 8, 9)]


def _reading(
    size: tuple[int, ...], resampling: Resampling = "receptive_field", neighbours: Sequence[int] = ()
) -> Reading:
    torch.manual_seed(0)
    backbone = ConvPyramid(1, len(size), width=2, depth=3).eval()
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 1), MeanPooling(), resampling)
    return Reading(model, [0, 2], resampling, neighbours)


def _images(size: tuple[int, ...], cases: int = 6) -> Tensor:
    return torch.randn(cases, 1, *size, generator=torch.Generator().manual_seed(1))


def _parts(
    reading: Reading, images: Tensor, kinds: Sequence[Demand], batch: int = 6, pixels: int = 50, draws: int = 2
) -> dict[str, Floats]:
    found = Equivariance(reading, Sampling(tuple(kinds), 6, draws, pixels, seed=3))
    with torch.no_grad():
        for first in range(0, len(images), batch):
            part = images[first : first + batch]
            numbers = range(first, first + len(part))
            found.update(part, reading.features(part), list(numbers), [number % 2 == 0 for number in numbers])
    return found.matrices()


def _channels(reading: Reading, images: Tensor) -> Tensor:
    """Every channel of the levels that are read, at every pixel: (B, C, *S)."""
    features, parts = reading.features(images), []
    size = images.shape[2:]
    for tap in reading.taps:
        terms = around(partial(shifted, features[tap]), len(size)) if tap in reading.neighbours else [features[tap]]
        parts += [resample(term, reading.levels[tap], size, reading.resampling) for term in terms]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize(("cells", "size"), [((3, 4), (11, 13)), ((2, 3, 2), (7, 9, 5)), ((1, 5), (6, 5))])
def test_sampling_is_resampling_at_some_pixels(
    cells: tuple[int, ...], size: tuple[int, ...], resampling: Resampling
) -> None:
    level = Level(1, (4.0, 3.5, 2.0)[: len(size)], (1.5, -0.5, 0.0)[: len(size)])
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, *cells, generator=generator)
    pixels = torch.stack([torch.randint(n, (2, 20), generator=generator) for n in size], -1)
    whole = resample(maps, level, size, resampling)
    expected = torch.stack([whole[b][(slice(None), *pixels[b].T)] for b in range(2)])
    torch.testing.assert_close(sample(maps, level, pixels, size, resampling), expected)


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["small", "large", "view"])
@pytest.mark.parametrize("neighbours", [(), (2,)])
@torch.no_grad()
def test_q_is_the_mean_outer_product_of_differences(
    name: str,
    size: tuple[int, ...],
    resampling: Resampling,
    neighbours: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, images = _reading(size, resampling, neighbours), _images(size)
    seen: list[tuple[Tensor, Tensor]] = []  # changed image, pixels of the image
    views = []

    def spy_view(*args: object) -> object:
        views.append(draw_view(*args))  # type: ignore[arg-type]
        return views[-1]

    monkeypatch.setattr("hrcam_lightning.retrofit.equivariance.draw_view", spy_view)
    draw = "_view" if name == "view" else "_patch"
    method = getattr(Equivariance, draw)

    def spy(self: Equivariance, *args: object, **sort: Any) -> tuple[Tensor, Tensor, Tensor]:
        changed, pixels, found = method(self, *args, **sort)
        if sort.get("large", False) == (name == "large"):
            seen.append((changed, pixels))
        return changed, pixels, found

    monkeypatch.setattr(Equivariance, draw, spy)
    kinds: list[Demand] = ["flip", "rotation", "shift"] if name == "view" else ["patch"]
    got = _parts(reading, images, kinds)[name]
    assert len(seen) == 12
    total, count = torch.zeros(got.shape, dtype=torch.float64), 0
    for number, (changed, pixels) in enumerate(seen):
        image = images[number // 2 : number // 2 + 1]
        after = _channels(reading, changed)
        if name == "view":
            torch.testing.assert_close(changed, views[number].apply(image))
            after = views[number].invert(after)
            compared = torch.zeros(1, 1, *size, dtype=torch.bool)
            views[number].inside(compared).fill_(value=True)
            assert compared[0, 0][tuple(pixels.T)].all()
        else:
            assert torch.equal(changed[0, 0][tuple(pixels.T)], image[0, 0][tuple(pixels.T)])
            box = (changed != image)[0, 0].nonzero()
            sides = (box.max(0).values - box.min(0).values + 1).tolist()
            least = 4 if name == "large" else 8
            assert all(n // least <= side <= 2 * n // least for side, n in zip(sides, size, strict=True))
            assert len(box) == math.prod(sides)
        gap = (_channels(reading, image) - after)[0][(slice(None), *pixels.T)].double()
        total += gap @ gap.T
        count += len(pixels)
    np.testing.assert_allclose(got, total / count, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_patches_are_as_large_as_is_asked_for() -> None:
    """Every length between the two shares comes about, and no other."""
    reading, image = _reading((16, 40)), _images((16, 40), cases=1)
    found = Equivariance(reading, Sampling(sides=(0.1, 0.4)))
    for large, high, wide in ((False, range(1, 4), range(4, 9)), (True, range(3, 7), range(8, 17))):
        drawn = set()
        for seed in range(200):
            changed, _, _ = found._patch(image, torch.Generator().manual_seed(seed), None, large=large)
            box = (changed != image)[0, 0].nonzero()
            drawn.add(tuple((box.max(0).values - box.min(0).values + 1).tolist()))
        assert {sides[0] for sides in drawn} == set(high)
        assert {sides[1] for sides in drawn} == set(wide)


@torch.no_grad()
def test_quiet_is_the_covariance_over_the_pixels_of_normal_cases() -> None:
    reading, images = _reading((16, 16)), _images((16, 16))
    got = _parts(reading, images, ["quiet"], pixels=20_000, draws=1)["quiet"]
    flat = _channels(reading, images[::2]).transpose(0, 1).flatten(1).double()
    expected = torch.cov(flat, correction=0)
    assert np.abs(got - expected.numpy()).max() < 0.02 * float(expected.diagonal().max())


@pytest.mark.parametrize("size", SIZES)
def test_neither_batches_nor_their_order_matter_but_the_seed_does(size: tuple[int, ...]) -> None:
    reading, images = _reading(size), _images(size)
    kinds: list[Demand] = ["patch", "quiet", "flip", "rotation", "shift"]
    together, alone = _parts(reading, images, kinds), _parts(reading, images, kinds, batch=1)
    assert set(together) == set(SHARES) - {"aimed"}
    for name, matrix in together.items():
        np.testing.assert_allclose(alone[name], matrix, rtol=1e-3, atol=1e-6)
        assert np.linalg.eigvalsh(matrix).min() > -1e-8
    assert Sampling(cases=3, seed=1).chosen(10) == Sampling(cases=3, seed=1).chosen(10)
    assert Sampling(cases=3, seed=1).chosen(10) != Sampling(cases=3, seed=2).chosen(10)
    assert len(Sampling(cases=3).chosen(10)) == 3


@torch.no_grad()
def test_each_case_is_turned_about_its_own_equal_axes(tmp_path: Path) -> None:
    reading, images = _reading((9, 9, 9)), _images((9, 9, 9), cases=4)

    def part(batches: list[list[int]], steps: Sequence[tuple[float, ...]], *kinds: Demand) -> Floats:
        found = Equivariance(reading, Sampling(kinds, 4, pixels=20))
        affines = [np.diag([*step, 1.0]) for step in steps]
        read: Any = [
            {"image": images[rows], "label": torch.zeros(len(rows), 1), "affine": [affines[row] for row in rows]}
            for rows in batches
        ]
        gather(read, reading, np.memmap(tmp_path / "values", np.float32, "w+", shape=(4, reading.channels)), found)
        return found.matrices()["view"]

    # A cube, thick slices along one axis or another, and a case that cannot be turned at all.
    steps = [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (5.0, 1.0, 1.0), (1.0, 2.0, 5.0)]
    mixes: list[tuple[Demand, ...]] = [("rotation",), ("flip", "rotation", "shift")]
    for kinds in mixes:
        alone = part([[0], [1], [2], [3]], steps, *kinds)
        for batches in ([[0, 1, 2, 3]], [[0, 1], [2, 3]], [[0], [1, 2, 3]]):
            np.testing.assert_allclose(part(batches, steps, *kinds), alone, rtol=1e-4, atol=1e-7)
    # What cannot be turned is no part of the mean, also beside one that can.
    lone = Equivariance(reading, Sampling(("rotation",), 1, pixels=20))
    lone.update(images[:1], [feature[:1] for feature in reading.features(images)], [0], [True], steps[:1])
    found = part([[0, 1], [2, 3]], [steps[0], *[steps[3]] * 3], "rotation")
    np.testing.assert_allclose(found, lone.matrices()["view"], rtol=1e-4, atol=1e-7)


def test_blocks_of_differences_add_up_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, images = _reading((16, 24)), _images((16, 24))
    kinds: list[Demand] = ["patch", "quiet", "flip"]
    whole = _parts(reading, images, kinds, batch=1)  # fewer than a block
    monkeypatch.setattr("hrcam_lightning.retrofit.equivariance.BLOCK", 1)
    for name, matrix in _parts(reading, images, kinds, batch=1).items():
        np.testing.assert_allclose(matrix, whole[name], rtol=1e-4, atol=1e-7)


class _Pixels(Backbone):
    """The image itself, and the image two pixels beside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 1
        self.levels = (Level(2, (1.0, 1.0), (0.0, 0.0)),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.cat([images, images.roll(2, -1)], 1)]


def test_q_is_zero_for_what_moves_with_the_image_and_stays_where_it_changed() -> None:
    backbone = _Pixels()
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 1), MeanPooling())
    parts = _parts(Reading(model, [0], "receptive_field"), _images((16, 16)), ["patch", "flip"])
    for matrix in parts.values():
        assert matrix[0, 0] < 1e-12  # pixels are found by positions in single precision
        assert matrix[1, 1] > 0.01


@pytest.mark.parametrize(
    ("kinds", "seen"), [(["rotation"], set()), (["rotation", "flip"], {"flip"}), (["rotation", "quiet"], {"quiet"})]
)
@torch.no_grad()
def test_what_the_cases_cannot_show_is_no_part(kinds: list[Demand], seen: set[Demand]) -> None:
    """Not even by rounding, which scaling would blow up: changed images go through the network in larger batches."""
    reading, images = _reading((16, 12)), _images((16, 12))
    found = Equivariance(reading, Sampling(tuple(kinds), 6, pixels=8))
    found.update(images, reading.features(images), range(6), [True] * 6)
    assert found.seen == seen
    assert set(found.matrices()) == {"view" if kind == "flip" else kind for kind in seen}


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_patches_are_aimed_at_peaks(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small boxes about a peak of the case's own, whole within the image, against brute force."""
    reading, images = _reading(size, neighbours=[0]), _images(size)
    middle, corner = [n // 2 for n in size], [n - 1 for n in size]
    peaks = [[middle], [corner], [middle, corner]] * 2
    seen: list[tuple[Tensor, Tensor]] = []
    method = Equivariance._patch

    def spy(self: Equivariance, *args: Any, **sort: Any) -> Any:
        changed, pixels, found = method(self, *args, **sort)
        seen.append((changed, pixels))
        return changed, pixels, found

    monkeypatch.setattr(Equivariance, "_patch", spy)
    features = reading.features(images)

    def aimed(batch: int) -> Floats:
        found = Equivariance(reading, Sampling(draws=3, pixels=40, seed=3))
        for first in range(0, 6, batch):
            rows = slice(first, first + batch)
            found.aim(images[rows], [one[rows] for one in features], range(6)[rows], peaks[rows])
        return found.matrices()["aimed"]

    got = aimed(6)
    total, count, hit = torch.zeros(got.shape, dtype=torch.float64), 0, set()
    for number, (changed, pixels) in enumerate(seen):
        case = number // 3
        box = (changed[0, 0] != images[case, 0]).nonzero()
        low, high = box.min(0).values, box.max(0).values
        holds = [(low <= torch.tensor(peak)).all() and (torch.tensor(peak) <= high).all() for peak in peaks[case]]
        assert sum(map(bool, holds)) == 1
        hit.add((case, [*map(bool, holds)].index(True)))
        assert all(n // 8 <= side <= 2 * n // 8 for side, n in zip((high - low + 1).tolist(), size, strict=True))
        gap = (_channels(reading, images[case : case + 1]) - _channels(reading, changed))[0]
        assert torch.equal(changed[0, 0][tuple(pixels.T)], images[case, 0][tuple(pixels.T)])
        there = gap[(slice(None), *pixels.T)].double()
        total, count = total + there @ there.T, count + len(pixels)
    assert len(seen) == 18
    assert hit >= {(0, 0), (1, 0), (3, 0), (4, 0)}
    assert {place for case, place in hit if case in (2, 5)} == {0, 1}  # each of the findings has its turn
    np.testing.assert_allclose(got, total / count, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(aimed(1), got, rtol=1e-3, atol=1e-6)


def test_cases_with_a_finding_are_aimed_at_in_the_order_of_the_seed() -> None:
    found = [number % 3 == 0 for number in range(30)]
    aims = Sampling(aimed=4, seed=1).aims(found)
    assert aims == sorted(aims)
    assert len(set(aims)) == 4
    assert all(found[number] for number in aims)
    assert set(aims) < set(Sampling(aimed=6, seed=1).aims(found))
    assert aims != Sampling(aimed=4, seed=2).aims(found)
    assert Sampling(aimed=100).aims(found) == list(range(0, 30, 3))
    assert len(Sampling(aimed=100, cases=3).aims(found)) == 3
    assert Sampling(aimed=0).aims(found) == []
    assert Sampling(kinds=("flip",)).aims(found) == []


class _Beside(Backbone):
    """The image, a pixel further to the right than it is."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 1
        self.levels = (Level(1, (1.0, 1.0), (0.0, 0.0)),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images.roll(1, -1)]


def test_neighbours_put_evidence_back_to_its_place() -> None:
    """For ``A(x) = I(x − 1)`` the map ``A + u·∂A`` that moves best with the image has a slope of 1 along x alone."""
    backbone = _Beside()
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 1), MeanPooling())
    reading = Reading(model, [0], "receptive_field", [0])
    smooth = torch.nn.functional.avg_pool2d(_images((48, 48), cases=40), 9, 1, 4)
    smooth = torch.nn.functional.avg_pool2d(smooth, 9, 1, 4)
    found = Equivariance(reading, Sampling(("flip",), 40, 4, pixels=100))
    found.update(smooth, reading.features(smooth), range(40), [True] * 40)
    q = found.matrices()["view"]
    slopes = -np.linalg.solve(q[1:3, 1:3], q[1:3, 0])
    np.testing.assert_allclose(slopes, [0, 1], atol=0.1)
    energy = q[0, 0] + slopes @ q[1:3, 0]
    assert energy < 0.2 * q[0, 0]  # the rest is the border, where the image comes in from the other side


def test_parts_are_scaled_and_weighted() -> None:
    scale = np.array([2.0, np.inf, 0.5])
    parts = {"small": np.diag([8.0, 9.0, 1.5]), "view": np.diag([8.0, 1.0, 0.0])}
    total = combine(parts, scale)
    # (2, 0, 6) and (2, 0, 0) in units of the features: mean diagonals over the channels that vary 4 and 1
    small, view = SHARES["small"] * np.array([0.5, 0, 1.5]), SHARES["view"] * np.array([2.0, 0, 0])
    np.testing.assert_allclose(total, np.diag(small + view + SHRINKAGE * np.array([1, 0, 1])))
    # What neighbours add has the scale of its channel, and no voice in how large a part is.
    owners, joined = np.array([0, 1, 2, 0]), np.diag([8.0, 9.0, 1.5, 400.0])
    beside = combine({"small": joined}, scale[owners], owners)
    small = SHARES["small"] * np.array([0.5, 0, 1.5, 25])
    np.testing.assert_allclose(beside, np.diag(small + SHRINKAGE * np.array([1, 0, 1, 1])))
    assert not combine({"small": np.zeros((3, 3))}, scale).any()  # what holds to nothing is told from what does
    assert np.array_equal(combine({}, scale), np.zeros((3, 3)))


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("size", [(16, 16), (19, 21), (9, 12, 11)])
@pytest.mark.parametrize("neighbours", [(), (0, 2)])
@torch.no_grad()
def test_pooled_features_are_the_means_of_resampled_channels(
    neighbours: tuple[int, ...], size: tuple[int, ...], resampling: Resampling
) -> None:
    reading, images = _reading(size, resampling, neighbours), _images(size)
    pooled = reading.pooled(reading.features(images), size)
    torch.testing.assert_close(pooled, _channels(reading, images).flatten(2).mean(-1), atol=1e-5, rtol=1e-4)
    assert pooled.shape == (6, reading.channels)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cases": 0}, "view_cases is 0"),
        ({"pixels": -1}, "pixels is -1"),
        ({"kinds": ()}, "views is empty"),
        ({"aimed": -1}, "aimed_cases is -1"),
        ({"sides": (0.5, 0.25)}, r"patch_sides is \[0.5, 0.25\]"),
        ({"sides": (0.0, 0.25)}, "above 0 and up to 0.5"),
        ({"sides": (0.25, 0.75)}, "above 0 and up to 0.5"),
    ],
)
def test_a_sampling_out_of_range_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Sampling(**arguments)  # type: ignore[arg-type]
