"""ROAD: the imputation against a dense solve, the score against a loop."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning.explain.judging import ranking
from hrcam_lightning.explain.road import impute, road
from tests.explain.known import noise, small

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Published for 2D; in 3D the same rule.
WEIGHTS = {2: {1: 1 / 6, 2: 1 / 12}, 3: {1: 3 / 44, 2: 3 / 88, 3: 1 / 44}}


def _dense(image: NDArray[Any], gone: NDArray[Any]) -> NDArray[Any]:
    """Every pixel an unknown, one equation each, solved as a whole."""
    pixels = list(itertools.product(*map(range, gone.shape)))
    matrix, right = np.zeros((len(pixels), len(pixels))), np.zeros((len(pixels), len(image)))
    for row, pixel in enumerate(pixels):
        matrix[row, row] = 1
        if not gone[pixel]:
            right[row] = image.reshape(len(image), -1)[:, row]
            continue
        near = [
            (column, WEIGHTS[gone.ndim][steps])
            for column, other in enumerate(pixels)
            if max(distance := [abs(a - b) for a, b in zip(pixel, other, strict=True)]) == 1
            if (steps := sum(distance))
        ]
        for column, weight in near:
            matrix[row, column] = -weight / sum(share for _, share in near)
    return np.linalg.solve(matrix, right).T.reshape(image.shape)


def test_weights_sum_to_one() -> None:
    assert 4 * (WEIGHTS[2][1] + WEIGHTS[2][2]) == pytest.approx(1)
    assert 6 * WEIGHTS[3][1] + 12 * WEIGHTS[3][2] + 8 * WEIGHTS[3][3] == pytest.approx(1)


@pytest.mark.parametrize("size", [(9, 7), (4, 5, 3), (1, 6)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_the_imputation_equals_a_dense_solve(size: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    image, gone = rng.normal(3, 1, (2, *size)), np.zeros(size, bool)
    gone.ravel()[rng.permutation(gone.size)[: max(1, int(share * gone.size))]] = True
    found = impute(image, gone)
    np.testing.assert_allclose(found, _dense(image, gone), atol=1e-6)
    np.testing.assert_array_equal(found[:, ~gone], image[:, ~gone])


def test_one_missing_pixel_has_the_published_mean_of_its_neighbours() -> None:
    image, gone = np.array([[[1.0, 2, 3], [4, 99, 6], [7, 8, 9]]]) ** 2, np.zeros((3, 3), bool)
    gone[1, 1] = True
    assert impute(image, gone)[0, 1, 1] == pytest.approx((4 + 16 + 36 + 64) / 6 + (1 + 9 + 49 + 81) / 12)
    gone = np.roll(gone, (-1, -1), (0, 1))  # in the corner three neighbours are left, of weights 2, 2 and 1
    assert impute(image, gone)[0, 0, 0] == pytest.approx((2 * 4 + 2 * 16 + 99**2) / 5)


def test_a_ramp_is_seen_through() -> None:
    ramp, gone = np.add.outer(np.arange(20.0), 2 * np.arange(30.0))[None], np.zeros((20, 30), bool)
    gone[3:17, 4:26] = True
    np.testing.assert_allclose(impute(ramp * ~gone, gone), ramp, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 5), (3, 4, 4)])
def test_the_score_equals_a_loop(size: tuple[int, ...]) -> None:
    network, images, maps = small(len(size)), 2 + 3 * noise(2, 2, *size), noise(2, 1, *size, seed=1)
    target, shares = torch.tensor([2, 0]), (0.2, 0.7)
    found = road(network, images, maps, target, shares=shares, noise=0.1, seed=4)
    field = np.random.default_rng(4).standard_normal((2, *size))
    for sample in range(2):
        image, differences = images[sample].double().numpy(), []
        order = np.argsort(-maps[sample].numpy().ravel())
        for place, share in enumerate(shares):
            scores = []
            for first in (order, order[::-1]):
                gone = np.zeros(size, bool)
                gone.ravel()[first[: round(share * order.size)]] = True
                changed = _dense(image, gone) + 0.1 * image.std() * field * gone
                with torch.no_grad():
                    answer = network(torch.from_numpy(changed[None]).float()).softmax(1)
                scores.append(float(answer[0, target[sample]]))
            assert [float(found.morf[sample, place]), float(found.lerf[sample, place])] == pytest.approx(
                scores, rel=1e-4
            )
            differences.append((scores[1] - scores[0]) / 2)
        assert float(found.difference[sample]) == pytest.approx(np.mean(differences), abs=1e-5)


def test_at_least_one_pixel_stays() -> None:
    images = noise(1, 2, 2, 2)
    found = road(small(2), images, images[:, :1], 0, shares=[0.99])
    assert found.morf.isfinite().all()
    assert ranking(images[:, :1]).max() == 3


def test_nothing_gone_is_the_image_itself() -> None:
    image = np.ones((1, 3, 3))
    assert impute(image, np.zeros((3, 3), bool)) is not image
    np.testing.assert_array_equal(impute(image, np.zeros((3, 3), bool)), image)
