"""Views undo themselves, cover the group, and their average obeys it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning import LocalizationModel
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import HRCAM
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling, Pooling
from hrcam_lightning.views import View, average_views, disagreement, draw_view, flip_views

if TYPE_CHECKING:
    from hrcam_lightning.views import ViewKind

VIEWS = [
    View(flips=(0,)),
    View(turns=1),
    View(turns=3, flips=(1,)),
    View(shifts=(2, -3)),
    View(flips=(0, 1), turns=3, shifts=(-1, 4)),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_undone(view: View) -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(view.invert(view.apply(x)), x)
    assert not torch.equal(view.apply(x), x)


def test_a_view_of_a_volume_is_undone() -> None:
    x = torch.randn(1, 1, 6, 5, 6)
    view = View(flips=(1,), turns=1, plane=(0, 2), shifts=(1, 0, -2))
    assert torch.equal(view.invert(view.apply(x)), x)


def test_a_pixel_goes_where_shift_turn_and_flip_send_it() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 1] = 1
    moved = View(flips=(0,), turns=1, shifts=(1, 0)).apply(x)
    # (0, 1) shifted to (1, 1), turned a quarter to (2, 1), mirrored along axis 0 to (1, 1)
    assert moved[0, 0].nonzero().tolist() == [[1, 1]]


def test_flip_views_are_all_different_and_start_with_the_identity() -> None:
    x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    views = flip_views(3)
    assert views[0] == View()
    assert len({tuple(view.apply(x).flatten().tolist()) for view in views}) == 8


def _draws(size: tuple[int, ...], kinds: list[ViewKind], shift: int, count: int = 400) -> list[View]:
    generator = torch.Generator().manual_seed(0)
    return [draw_view(size, kinds, [shift] * len(size), generator) for _ in range(count)]


def test_drawn_views_cover_what_is_allowed_and_nothing_else() -> None:
    views = _draws((8, 8), ["flip", "rotation", "shift"], 2)
    assert {view.turns for view in views} == {0, 1, 2, 3}
    assert {view.flips for view in views} == {(), (0,), (1,), (0, 1)}
    assert {shift for view in views for shift in view.shifts} == {-2, -1, 0, 1, 2}
    assert View(shifts=(0, 0)) not in views


def test_only_the_kinds_asked_for_are_drawn() -> None:
    flips = _draws((8, 8), ["flip"], 2)
    assert all(not view.turns and not any(view.shifts) and view.flips for view in flips)
    shifts = _draws((8, 8), ["shift"], 2)
    assert all(not view.turns and not view.flips and any(view.shifts) for view in shifts)


def test_only_planes_with_equal_sides_are_turned() -> None:
    views = _draws((6, 4, 6), ["rotation"], 0)
    assert {view.plane for view in views} == {(0, 2)}
    assert all(view.turns for view in views)
    assert _draws((6, 4), ["rotation"], 0, 1) == [View()]
    generator = torch.Generator().manual_seed(0)
    thick = [draw_view((8, 8, 8), ["rotation"], [0] * 3, generator, [1.0, 1.0, 3.0]) for _ in range(50)]
    assert {view.plane for view in thick} == {(0, 1)}


def test_the_seam_of_a_shift_is_left_out() -> None:
    numbers = torch.arange(40.0).view(1, 1, 8, 5)
    assert torch.equal(View(shifts=(2, 0)).inside(numbers), numbers[:, :, 3:5])
    assert torch.equal(View(shifts=(-1, 1)).inside(numbers), numbers[:, :, 2:6, 2:3])
    assert torch.equal(View(flips=(0,), turns=1).inside(numbers), numbers)
    volume = torch.randn(2, 3, 7, 8, 9)
    assert torch.equal(View(shifts=(0, 1, -2)).inside(volume), volume[:, :, :, 2:6, 3:6])


def test_what_a_shift_tears_apart_is_not_compared() -> None:
    """A local operation commutes with a shift everywhere but at the seam."""
    x = torch.randn(1, 1, 16, 16)
    blur = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    torch.nn.init.ones_(blur.weight)
    view = View(shifts=(3, -2))
    with torch.no_grad():
        gap = (blur(x) - view.invert(blur(view.apply(x)))).abs()
    assert gap.max() > 0.1
    assert view.inside(gap).max() < 1e-5


@pytest.mark.parametrize("pooling", [MeanPooling(), MaxPooling(), LogSumExpPooling()])
@pytest.mark.parametrize("size", [(12, 11), (8, 9, 10)])
@torch.no_grad()
def test_averaged_maps_are_equivariant_to_flips_and_pool_to_their_logits(
    size: tuple[int, ...], pooling: Pooling
) -> None:
    torch.manual_seed(0)
    backbone = ConvPyramid(1, len(size), width=4, depth=3)
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 2), pooling).eval()
    torch.nn.init.normal_(model.decoder.bias)
    images = torch.randn(2, 1, *size)
    views = flip_views(len(size))
    output = average_views(model, images, views)
    torch.testing.assert_close(pooling(output.maps) + output.bias, output.logits)
    mirror = views[-1]
    mirrored = average_views(model, mirror.apply(images), views)
    torch.testing.assert_close(mirror.invert(mirrored.maps), output.maps, atol=1e-5, rtol=1e-5)
    single = model(images)
    assert (mirror.invert(model(mirror.apply(images)).maps) - single.maps).abs().max() > 1e-3
    mean = torch.stack([view.invert(model(view.apply(images)).maps) for view in views]).mean(0)
    torch.testing.assert_close(output.maps, mean)


def test_disagreement_of_equal_shifted_and_half_overlapping_evidence() -> None:
    peak = torch.zeros(1, 1, 4, 4)
    peak[0, 0, 1, 1] = 50
    assert disagreement(peak, peak + 7).item() == pytest.approx(0)
    assert disagreement(peak, peak.roll(1, dims=2)).item() == pytest.approx(1)
    two = peak.clone()
    two[0, 0, 2, 2] = 50  # (1/2, 1/2) against (1, 0): (1/4 + 1/4) / (1/2 + 1)
    assert disagreement(peak, two).item() == pytest.approx(1 / 3)


def test_disagreement_looks_at_each_map_alone() -> None:
    maps, others = torch.randn(3, 2, 6, 6), torch.randn(3, 2, 6, 6)
    singles = [
        disagreement(maps[b : b + 1, k : k + 1], others[b : b + 1, k : k + 1]).item()
        for b in range(3)
        for k in range(2)
    ]
    assert disagreement(maps, others).item() == pytest.approx(sum(singles) / 6)


def test_evidence_at_the_seam_is_not_compared() -> None:
    maps, view = torch.randn(2, 1, 6, 9), View(shifts=(1, 0))
    changed = maps.clone()
    changed[:, :, 0] = 100
    assert disagreement(maps, changed).item() > 0.5
    assert disagreement(view.inside(maps), view.inside(changed)).item() == pytest.approx(0, abs=1e-6)


def test_negative_values_cannot_buy_agreement() -> None:
    """A rim of very negative values, equal in both views, must not hide that the peaks lie apart."""
    first = torch.zeros(1, 1, 8, 8)
    first[..., 0, :] = first[..., -1, :] = -100
    second = first.clone()
    first[0, 0, 3, 3] = second[0, 0, 4, 4] = 12
    assert disagreement(first, second).item() > 0.99
