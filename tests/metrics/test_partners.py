"""Known lesions find their parts: nearest first, one to one, within reach."""

from __future__ import annotations

import numpy as np
import pytest

from hrcam_lightning.metrics.partners import partners


def _pairs(centres: list[list[float]], known: list[list[float]], reach: list[float]) -> list[int]:
    axes = len((centres or known)[0])
    found = partners(
        np.array(centres, float).reshape(-1, axes), np.array(known, float).reshape(-1, axes), np.array(reach, float)
    )
    return [int(number) for number in found]


@pytest.mark.parametrize("axes", [2, 3])
def test_each_part_has_the_nearest_lesion_whatever_the_order(axes: int) -> None:
    rng = np.random.default_rng(axes)
    known = rng.uniform(0, 1000, (9, axes))
    order = rng.permutation(9)
    centres = known[order] + rng.normal(0, 0.1, (9, axes))
    assert partners(centres, known, np.full(9, 5.0)).tolist() == order.tolist()


def test_of_a_lesion_in_two_parts_the_nearer_is_its_partner() -> None:
    assert _pairs([[0, 4], [0, 1]], [[0, 0]], [10]) == [-1, 0]


def test_of_two_lesions_in_one_part_the_nearer_is_its_partner() -> None:
    assert _pairs([[0, 0]], [[0, 3], [0, -2]], [10, 10]) == [1]


def test_the_nearest_pair_comes_first_even_if_another_is_left_with_a_farther_one() -> None:
    assert _pairs([[0, 0], [0, 3]], [[0, 2], [0, 9]], [10, 10]) == [1, 0]


def test_nothing_beyond_reach_is_a_partner_and_no_reach_is_no_limit() -> None:
    assert _pairs([[0, 0], [50, 50]], [[0, 5], [50, 55]], [5, 4.9]) == [0, -1]
    assert _pairs([[0, 0]], [[0, 1e6]], [np.nan]) == [0]


def test_no_lesion_has_no_partner() -> None:
    assert _pairs([], [[0, 0]], [1]) == []
    assert _pairs([[0, 0]], [], []) == [-1]
