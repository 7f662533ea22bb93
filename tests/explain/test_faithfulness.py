"""Insertion, deletion, drop and increase: by hand, against loops, and where a map is flat or broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.faithfulness import deletion, drop_and_increase, insertion
from hrcam_lightning.explain.judging import filled, ranking
from hrcam_lightning.explain.road import road
from tests.explain.known import Linear, noise, small

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.explain.judging import Fill

SIZES = [(6, 5), (3, 4, 5)]


@pytest.mark.parametrize("size", [(2, 2), (1, 2, 2)])
def test_figures_by_hand(size: tuple[int, ...]) -> None:
    image = torch.tensor([1.0, 2, 3, 4]).view(1, 1, *size)
    network = Linear(torch.ones(size))
    put_in = insertion(network, image, image, 1, steps=4, fill=0, score="logit")
    assert put_in.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert put_in.scores.tolist() == [[0, 4, 7, 9, 10]]
    assert put_in.area.tolist() == [6.25]  # (0/2 + 4 + 7 + 9 + 10/2) / 4
    taken_out = deletion(network, image, image, 1, steps=4, fill=0, score="logit")
    assert taken_out.scores.tolist() == [[10, 6, 3, 1, 0]]
    assert taken_out.area.tolist() == [3.75]
    # Another constant, and the worst order.
    taken_out = deletion(network, image, -image, 1, steps=2, fill=2.5, score="logit")
    assert taken_out.scores.tolist() == [[10, 12, 10]]
    assert taken_out.area.tolist() == [11]


@pytest.mark.parametrize(
    ("first_weight", "drop", "increase"),
    # The mask is 0, 1/3, 2/3, 1: behind it the score is 2/3 + 2 + 4 = 20/3, whatever the first weight.
    [(1, 1 / 3, 0), (-5, 0, 1), (-10, float("nan"), 1), (20 / 3 - 9, 0, 0)],
)
def test_drop_and_increase_by_hand(first_weight: float, drop: float, increase: float) -> None:
    image = torch.tensor([[[[1.0, 2], [3, 4]]]])
    network = Linear(torch.tensor([[first_weight, 1.0], [1, 1]]))
    for maps in (image, 10 * image - 7):  # the mask is brought to 0..1 image by image
        found = drop_and_increase(network, image, maps, 1, score="logit")
        assert found.drop.tolist() == pytest.approx([drop], abs=1e-6, nan_ok=True)
        if first_weight != 20 / 3 - 9:  # there equal but for rounding
            assert found.increase.tolist() == [increase]


def test_a_score_that_stays_is_no_increase() -> None:
    image = torch.tensor([[[[0.0, 3], [3, 3]]]])  # the mask hides what is 0 already
    found = drop_and_increase(Linear(torch.ones(2, 2)), image, image, 1, score="logit")
    assert (found.drop.tolist(), found.increase.tolist()) == ([0], [0])


@pytest.mark.parametrize("size", SIZES)
def test_a_perfect_order_beats_a_random_one_and_that_its_inverse(size: tuple[int, ...]) -> None:
    images, weights = 5 + noise(1, 1, *size), noise(*size, seed=1)
    network, perfect = Linear(weights), (images - 2) * weights
    total, empty = float((images * weights).sum()), float((2 * weights).sum())
    more: dict[str, Any] = {"steps": weights.numel(), "fill": 2.0, "score": "logit"}
    best = float(insertion(network, images, perfect, 1, **more).area)
    worst = float(insertion(network, images, -perfect, 1, **more).area)
    many = noise(200, 1, *size, seed=2)
    chance = insertion(network, images.expand_as(many), many, 1, **more).area
    assert best + worst == pytest.approx(total + empty, rel=1e-4)  # one curve is the other, turned
    assert best > chance.max()
    assert worst < chance.min()
    error = float(chance.std()) / 200**0.5
    assert float(chance.mean()) == pytest.approx((total + empty) / 2, abs=4 * error)
    # What is put in last was taken out first.
    assert float(deletion(network, images, perfect, 1, **more).area) == pytest.approx(worst, rel=1e-4)
    # What stands for a missing pixel is here the mean of those around it.
    perfect = (images - images.mean()) * weights
    best, worst = (float(road(network, images, maps, 1, score="logit").difference) for maps in (perfect, -perfect))
    chance = road(network, images.expand_as(many), many, 1, score="logit", shares=(0.2, 0.6)).difference
    assert best == pytest.approx(-worst, rel=1e-4)
    assert worst < chance.min() < chance.max() < best
    assert float(chance.mean()) == pytest.approx(0, abs=4 * float(chance.std()) / 200**0.5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", ["blur", 0.25])
def test_curves_equal_a_loop(size: tuple[int, ...], fill: Fill) -> None:
    network, images, maps = small(len(size)), noise(2, 2, *size), noise(2, 1, *size, seed=1)
    target, steps = torch.tensor([2, 0]), 7
    put_in = insertion(network, images, maps, target, steps=steps, fill=fill, blur=2)
    taken_out = deletion(network, images, maps, target, steps=steps, fill=fill, blur=2)
    for sample in range(2):
        image = images[sample].numpy()
        empty = np.full_like(image, 0.25)
        if fill == "blur":
            inside = gaussian_filter(np.ones(size), 2, truncate=1, mode="constant")
            empty = np.stack([gaussian_filter(one.astype(float), 2, truncate=1, mode="constant") for one in image])
            empty = (empty / inside).astype(np.float32)
        order = np.argsort(-maps[sample].numpy().ravel())
        rows: dict[bool, list[float]] = {True: [], False: []}
        for step in range(steps + 1):
            chosen = np.zeros(size, bool)
            chosen.ravel()[order[: round(step / steps * order.size)]] = True
            for begins_empty, row in rows.items():
                mixed = np.where(chosen == begins_empty, image, empty)
                with torch.no_grad():
                    row.append(float(network(torch.from_numpy(mixed)[None]).softmax(1)[0, target[sample]]))
        for curve, row in ((put_in, rows[True]), (taken_out, rows[False])):
            np.testing.assert_allclose(curve.scores[sample], row, rtol=1e-4)
            np.testing.assert_allclose(curve.area[sample], np.trapezoid(row, dx=1 / steps), rtol=1e-4)


def _all(images: Tensor, maps: Tensor, target: int | Tensor, chunk: int = 32, seed: int = 0) -> Tensor:
    """Every figure of a network of three classes, (B, 5)."""
    network = small(images.ndim - 2).train()
    masked = drop_and_increase(network, images, maps, target, chunk=chunk)
    areas = [judge(network, images, maps, target, chunk=chunk, seed=seed).area for judge in (insertion, deletion)]
    removed = road(network, images, maps, target, chunk=chunk, seed=seed, shares=(0.3, 0.8))
    return torch.stack([*areas, masked.drop, masked.increase, removed.difference], 1)


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_gives_what_single_calls_give_in_any_chunks(size: tuple[int, ...]) -> None:
    images, maps, target = noise(3, 2, *size), noise(3, 1, *size, seed=1), torch.tensor([2, 0, 1])
    maps[1] = maps[1].relu()  # ties
    state = torch.random.get_rng_state()
    together = _all(images, maps, target, chunk=5)
    assert together.isfinite().all()
    torch.manual_seed(99)
    singles = [_all(images[n : n + 1], maps[n : n + 1], int(target[n])) for n in range(3)]
    torch.testing.assert_close(together, torch.cat(singles))
    torch.random.set_rng_state(state)
    assert not torch.equal(_all(images, maps, target, seed=1), together)  # of ties, and of the noise


def test_the_network_and_the_random_state_are_left_as_they_were() -> None:
    network, images, maps = small(2).train(), noise(2, 2, 6, 5), noise(2, 1, 6, 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, numpy_state = torch.random.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002 - that it stays
    with torch.inference_mode():
        made = [judge(network, images, maps, 1) for judge in (insertion, deletion, drop_and_increase, road)]
    assert all(not part.isnan().any() for figures in made for part in figures)
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert repr(np.random.get_state()) == numpy_state  # noqa: NPY002


def test_equal_values_follow_a_random_order_of_the_seed_alone() -> None:
    flat = torch.zeros(2, 1, 8, 8)
    orders = ranking(flat)
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders, ranking(flat + 3))
    assert not torch.equal(orders, ranking(flat, seed=1))
    assert sorted(orders[0].tolist()) == list(range(64))
    # No side of the image comes first.
    places = torch.stack([ranking(flat[:1], seed=n)[0].view(8, 8).float() for n in range(100)]).mean(0)
    assert places.mean(0).max() < 36
    assert places.mean(1).max() < 36
    # Among the highest and the lowest values, the same order.
    half = flat[:1].clone()
    half[..., :4] = 1
    high = half.flatten() == 1
    ranks = ranking(half)[0]
    assert torch.equal(ranks[high].argsort(), orders[0][high].argsort())
    assert ranks[high].max() == 31


def test_a_flat_map_scores_what_a_random_order_scores_and_hides_all_as_a_mask() -> None:
    images, weights = 5 + noise(1, 1, 6, 5), noise(6, 5, seed=1).abs()
    network, flat = Linear(weights), torch.full((1, 1, 6, 5), 3.0)
    curve = insertion(network, images, flat, 1, steps=30, fill=0, score="logit")
    ranks = -ranking(flat).view_as(flat).float()
    assert torch.equal(curve.scores, insertion(network, images, ranks, 1, steps=30, fill=0, score="logit").scores)
    found = drop_and_increase(network, images, flat, 1, score="logit")
    assert found.drop.tolist() == [1]
    assert found.increase.tolist() == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_map_or_image_has_no_score_and_spoils_no_other(value: float) -> None:
    images, maps = noise(3, 2, 6, 5), noise(3, 1, 6, 5, seed=1)
    whole = _all(images, maps, 1)
    maps[0, 0, 0, 0] = value
    images[2, 0, 3, 3] = float("nan")
    found = _all(images, maps, 1)
    assert found[0].isnan().all()
    assert found[2].isnan().all()
    torch.testing.assert_close(found[1], whole[1])


def test_a_single_logit_speaks_for_and_against() -> None:
    images = noise(2, 1, 4, 4)
    network = Linear(noise(4, 4, seed=1))
    both = insertion(network, images, images, torch.tensor([1, 0]), fill=0)
    logits = network(images).detach()[:, 0]
    torch.testing.assert_close(both.scores[:, -1], torch.stack([logits[0].sigmoid(), (-logits[1]).sigmoid()]))
    assert both.scores[:, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("judge", "settings", "message"),
    [
        (insertion, {"steps": 0}, "steps is 0"),
        (deletion, {"fill": "grey"}, "fill is 'grey'"),
        (deletion, {"blur": 0}, "blur is 0"),
        (drop_and_increase, {"score": "odds"}, "score is 'odds'"),
        (road, {"chunk": 0}, "chunk is 0"),
        (road, {"shares": [0.5, 1]}, "between 0 and 1"),
        (road, {"shares": []}, "between 0 and 1"),
        (road, {"noise": -1}, "noise is -1"),
        (road, {"target": 3}, "0 to 2"),
        (insertion, {"maps": noise(2, 3, 6, 5)}, "a map each"),
        (insertion, {"maps": noise(1, 1, 6, 5)}, "a map each"),
    ],
)
def test_what_does_not_fit_is_refused(judge: Callable[..., object], settings: dict[str, Any], message: str) -> None:
    arguments = {"images": noise(2, 2, 6, 5), "maps": noise(2, 1, 6, 5), "target": 0, **settings}
    with pytest.raises(InputError, match=message):
        judge(small(2), **arguments)


def test_a_blur_in_half_precision_is_that_of_the_whole_image() -> None:
    images = noise(1, 1, 400, 6).bfloat16()
    exact, rough = filled(images.float(), "blur", 5), filled(images, "blur", 5)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough, exact.bfloat16())


def test_a_blur_keeps_what_is_even_up_to_the_border() -> None:
    even = torch.full((1, 1, 9, 7, 5), 3.0)
    torch.testing.assert_close(filled(even, "blur", 5), even)
