"""The sanity check: which layer goes when, and how maps are compared."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from hrcam_lightning.explain import explain
from hrcam_lightning.explain.sanity import layers_from_the_output, sanity_check, spearman, ssim
from tests.explain.known import noise, small


@pytest.mark.parametrize("size", [(14, 12), (6, 5, 7)])
def test_the_first_stage_is_a_head_that_knows_nothing(size: tuple[int, ...]) -> None:
    network, images, target = small(len(size)), noise(3, 2, *size), torch.tensor([2, 0, 1])
    stages = sanity_check(network, images, "cam", target=target, layers=["1"], seed=7)
    assert [stage.layer for stage in stages] == ["4", "0"]
    forgetful = copy.deepcopy(network)
    original = explain(network, images, "cam", target=target, layers=["1"])
    torch.manual_seed(7)
    for number, name in ((0, 4), (1, 0)):
        forgetful[name].reset_parameters()  # type: ignore[operator]
        maps = explain(forgetful, images, "cam", target=target, layers=["1"])
        ranks = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(original, maps, strict=True)]
        np.testing.assert_allclose(stages[number].spearman, ranks, rtol=1e-5)
        torch.testing.assert_close(stages[number].ssim, ssim(original, maps))
    # The dense layer alone decides how the same activations are summed.
    with torch.no_grad():
        activations = network[:2](images)
    weights = nn.Linear(6, 3)
    torch.manual_seed(7)
    weights.reset_parameters()
    summed = torch.einsum("bk...,bk->b...", activations, weights.weight.detach()[target])[:, None]
    torch.testing.assert_close(stages[0].spearman, spearman(original, summed))


def test_it_is_repeatable_and_leaves_all_as_it_was() -> None:
    network, images = small(2).train(), noise(2, 2, 12, 12)
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    with torch.inference_mode():
        first = sanity_check(network, images, target=1, layers=["1"])
    torch.manual_seed(3)
    again = sanity_check(network, images, target=1, layers=["1"])
    torch.random.set_rng_state(state)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    single = sanity_check(network, images[1:], target=1, layers=["1"])
    for one, other, alone in zip(first, again, single, strict=True):
        assert torch.equal(one.spearman, other.spearman)
        assert torch.equal(one.ssim, other.ssim)
        torch.testing.assert_close(one.spearman[1:], alone.spearman)
    with torch.random.fork_rng():
        sanity_check(network, images, target=1, layers=["1"])
        torch.testing.assert_close(torch.random.get_rng_state(), state)


def test_a_map_that_does_not_look_at_the_network_stays() -> None:
    stages = sanity_check(small(2), noise(2, 2, 12, 12), "edge", target=1)
    for stage in stages:
        torch.testing.assert_close(stage.spearman, torch.ones(2))
        torch.testing.assert_close(stage.ssim, torch.ones(2))


class _Tangled(nn.Module):
    """Modules in another order than they are called; one is called twice; some hold parameters but are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.twice = nn.Linear(4, 4)
        self.first = nn.Conv2d(1, 4, 1)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.offset = nn.Parameter(torch.zeros(4))
        self.idle = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.twice(self.first(images).flatten(2).transpose(1, 2)) + self.offset
        return self.head(self.twice(self.attention(tokens, tokens, tokens)[0].mean(1)))  # type: ignore[no-any-return]


def test_layers_go_in_the_reverse_of_the_order_of_their_last_calls() -> None:
    network = _Tangled()
    layers = layers_from_the_output(network, noise(2, 1, 4, 4))
    assert list(layers) == ["head", "twice", "attention", "first", ""]
    assert layers["attention"] == [network.attention, network.attention.out_proj]
    assert layers[""] == [network, network.idle]  # the offset, and what plays no part
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_rank_correlation_of_maps() -> None:
    first = noise(3, 1, 5, 4).relu()  # ties
    second = noise(3, 1, 5, 4, seed=1)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected, rtol=1e-5)
    torch.testing.assert_close(spearman(first, first.exp()), torch.ones(3))
    torch.testing.assert_close(spearman(first, -first), -torch.ones(3))


@pytest.mark.parametrize("size", [(13, 16), (11, 12, 6)])
def test_ssim_equals_its_definition(size: tuple[int, ...]) -> None:
    first, second = torch.rand(2, 1, *size), noise(2, 1, *size)
    found = ssim(first, second)
    for sample in range(2):
        a, b = (
            (maps[sample, 0].double().numpy() - float(maps[sample].min()))
            / float(maps[sample].max() - maps[sample].min())
            for maps in (first, second)
        )

        def mean(
            values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
        ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return np.asarray(gaussian_filter(values, 1.5, truncate=3.5, mode="mirror"))

        ma, mb = mean(a), mean(b)
        va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        value = ((2 * ma * mb + 1e-4) * (2 * ab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean()
        assert float(found[sample]) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("size", [(3, 20), (1, 8), (2, 3, 4), (1, 9, 9)])
def test_ssim_takes_narrow_images(size: tuple[int, ...]) -> None:
    first = noise(2, 1, *size)
    torch.testing.assert_close(ssim(first, 3 * first + 1), torch.ones(2))
    assert (ssim(first, -first) < 0.9).all()


def test_flat_and_broken_maps_are_not_hidden() -> None:
    first, second = noise(3, 1, 12, 12), noise(3, 1, 12, 12, seed=1)
    second[0] = 4
    second[1, 0, 3, 3] = float("nan")
    assert spearman(first, second).isnan().tolist() == [True, True, False]
    assert ssim(first, second).isnan().tolist() == [False, True, False]
    first[2, 0, 0, 0] = float("inf")
    assert spearman(first, second)[2].isnan()
    assert ssim(first, second)[2].isnan()
