"""Arrays go into the page and come out again."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrcam_lightning.errors import InputError
from hrcam_lightning.report.arrays import COARSE, FINE, Floats, Packed, Store, pack, squeeze


def unpack(packed: Packed) -> Floats:
    """As the page does it."""
    coded = np.frombuffer(zlib.decompress(base64.b64decode(packed["bytes"])), np.uint8).reshape(packed["shape"])
    total = coded.astype(int)
    for axis in reversed(range(total.ndim)):
        total = total.cumsum(axis) % (packed["steps"] + 1)
    return np.asarray(packed["low"] + (packed["high"] - packed["low"]) * total / packed["steps"])


@given(
    shape=st.sampled_from([(5, 7), (1, 1), (4, 3, 6), (2, 1, 9)]),
    steps=st.sampled_from([FINE, COARSE, 1]),
    scale=st.sampled_from([1e-6, 1.0, 3e4]),
    seed=st.integers(0, 9),
)
def test_a_value_comes_back_within_half_a_step(shape: tuple[int, ...], steps: int, scale: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(5, scale, shape)
    packed = pack(values, "", steps)
    assert packed["steps"] == steps
    half = (values.max() - values.min()) / steps / 2
    np.testing.assert_allclose(unpack(packed), values, rtol=0, atol=half * (1 + 1e-6) + 1e-8 * abs(values).max())


def test_the_ends_come_back_as_they_are() -> None:
    packed = pack(np.array([[-3.5, 1.25], [0.0, 9.125]], np.float32), "")
    assert (packed["low"], packed["high"]) == (-3.5, 9.125)
    assert unpack(packed)[0, 0] == -3.5
    assert unpack(packed)[1, 1] == 9.125


def test_the_peak_is_that_of_the_values_and_not_of_the_steps() -> None:
    values = np.linspace(0.0, 1.0, 24).reshape(2, 3, 4)
    values[0, 1, 2], values[1, 2, 0] = 8.0, 8.001  # one step
    packed = pack(values, "")
    coded = unpack(packed)
    assert coded[0, 1, 2] == coded[1, 2, 0] == coded.max()
    assert packed["peak"] == np.ravel_multi_index((1, 2, 0), values.shape)


def test_masks_and_constant_arrays_come_back_exactly() -> None:
    mask = np.eye(6, dtype=bool)[:, ::-1]
    assert (unpack(pack(mask, "", 1)) == mask).all()
    assert (unpack(pack(np.full((3, 4), -2.5), "")) == -2.5).all()
    assert (unpack(pack(np.ones((3, 4), bool), "", 1)) == 1).all()


def test_a_smooth_map_takes_less_than_its_bytes_would() -> None:
    y, x = np.mgrid[:64, :64]
    values = np.exp(-((y - 30) ** 2 + (x - 20) ** 2) / 200)
    plain = squeeze(np.rint(values * 255).astype(np.uint8).tobytes())
    assert len(pack(values, "")["bytes"]) < 0.75 * len(plain)


def test_noise_takes_no_more_bits_than_its_steps() -> None:
    noise = np.random.default_rng(0).uniform(size=(64, 64))
    sizes = {steps: len(pack(noise, "", steps)["bytes"]) * 3 / 4 / noise.size for steps in (FINE, COARSE)}
    assert sizes[FINE] == pytest.approx(8 / 8, rel=0.03)
    assert sizes[COARSE] == pytest.approx(6 / 8, rel=0.03)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    with pytest.raises(InputError, match="case 3: the map model holds values that are not finite"):
        pack(np.array([[0.0, value]]), "case 3: the map model")


def test_equal_arrays_are_kept_once() -> None:
    store = Store()
    places = [store.add(pack(np.full((2, 2), value), "")) for value in (1.0, 2.0, 1.0)]
    assert places == [0, 1, 0]
    assert len(store.arrays) == 2
