"""What is explained of the logits: gradients by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from hrcam_lightning.explain import explain
from hrcam_lightning.explain.target import scores_of
from tests.explain.networks import SIZES, batch, curved

if TYPE_CHECKING:
    from hrcam_lightning.explain.target import Score

ALL = [0, 1, 2]
LINEAR = ["hirescam", "gradcam", "respondcam"]
"""Linear in the gradient as long as the sign is kept: the map of a score follows from the maps of the logits."""


def _maps(
    size: tuple[int, ...], method: str, score: Score, target: Tensor | int | None = None, classes: int = 3
) -> Tensor:
    """Maps in float64, (B, T, cells)."""
    maps = explain(
        curved(size, classes), batch(size), method, layers=["stages.1"], score=score, target=target, relu=False
    )
    return maps.double().flatten(2)


def _close(maps: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", LINEAR)
def test_softmax(size: tuple[int, ...], method: str) -> None:
    """``∂p_c/∂s_j = p_c (1[c = j] − p_j)``."""
    of_logits = _maps(size, method, "logit")
    p = curved(size)(batch(size)).detach().softmax(1)
    expected = torch.stack(
        [p[:, c, None] * (of_logits[:, c] - sum(p[:, j, None] * of_logits[:, j] for j in ALL)) for c in ALL], 1
    )
    _close(_maps(size, method, "softmax"), expected)
    target = torch.tensor([2, 0, 1])
    _close(_maps(size, method, "softmax", target)[:, 0], expected[torch.arange(3), target])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", LINEAR)
def test_sigmoid(size: tuple[int, ...], method: str) -> None:
    """``∂p_c/∂s_c = p_c (1 − p_c)``, and no other class matters."""
    p = curved(size)(batch(size)).detach().sigmoid()
    _close(_maps(size, method, "sigmoid"), (p * (1 - p))[..., None] * _maps(size, method, "logit"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", LINEAR)
def test_margin(size: tuple[int, ...], method: str) -> None:
    """The class less the highest of the others: the runner-up of the winner, the winner of all others."""
    of_logits, logits = _maps(size, method, "logit"), curved(size)(batch(size))
    rivals = [[max((row[j], j) for j in ALL if j != c)[1] for c in ALL] for row in logits.tolist()]
    assert len({tuple(row) for row in rivals}) > 1  # not the same in all samples
    expected = torch.stack([torch.stack([of_logits[b, c] - of_logits[b, rivals[b][c]] for c in ALL]) for b in range(3)])
    _close(_maps(size, method, "margin"), expected)
    target = torch.tensor([2, 0, 1])
    _close(_maps(size, method, "margin", target)[:, 0], expected[torch.arange(3), target])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", LINEAR)
def test_a_single_logit_speaks_for_class_1_and_against_class_0(size: tuple[int, ...], method: str) -> None:
    logit = curved(size, 1)(batch(size)).detach()
    plain = _maps(size, method, "logit", classes=1)
    p = logit.sigmoid()
    slope = (p * (1 - p))[..., None]
    assert plain.shape[1] == 1
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64).view(3, 1, 1)
    mixed = torch.tensor([1, 0, 1])
    linear: list[Score] = ["logit", "margin"]
    for score in linear:
        _close(_maps(size, method, score, classes=1), plain)
        _close(_maps(size, method, score, 1, classes=1), plain)
        _close(_maps(size, method, score, 0, classes=1), -plain)
        _close(_maps(size, method, score, mixed, classes=1), signs * plain)
    curves: list[Score] = ["softmax", "sigmoid"]
    for score in curves:
        _close(_maps(size, method, score, classes=1), slope * plain)
        _close(_maps(size, method, score, 0, classes=1), -slope * plain)
        _close(_maps(size, method, score, mixed, classes=1), signs * slope * plain)


def test_scores_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [3.0, 1.0, 1.0]], dtype=torch.float64)
    e = torch.e
    z = 1 + e**2 + e**-1
    expected: dict[Score, list[float]] = {
        "logit": [0, 2, -1],
        "softmax": [1 / z, e**2 / z, e**-1 / z],
        "sigmoid": [0.5, 1 / (1 + e**-2), 1 / (1 + e)],
        "margin": [-2, 2, -3],
    }
    for score, row in expected.items():
        torch.testing.assert_close(scores_of(logits, score, None)[0], torch.tensor(row, dtype=torch.float64))
        one_each = scores_of(logits, score, torch.tensor([2, 0]))
        assert one_each.shape == (2, 1)
        assert one_each[0].item() == pytest.approx(row[2])
    assert scores_of(logits, "margin", None)[1].tolist() == [2, -2, -2]


@pytest.mark.parametrize("method", ["ablationcam", "occlusion"])
def test_methods_without_gradients_ask_for_the_same_score(method: str) -> None:
    """Occlusion is linear in the score: of the margin it is the difference of two classes' maps."""
    size = SIZES[0]
    model, images = curved(size), batch(size)
    options = {"layers": ["stages.1"]} if method == "ablationcam" else {}
    p = explain(model, images, method, score="softmax", **options)  # type: ignore[arg-type]
    if method == "occlusion":
        # Probabilities sum to 1, whatever is hidden.
        torch.testing.assert_close(p.sum(1), torch.zeros(3, *size), atol=1e-6, rtol=0)
        two = curved(size, 2)
        logits = explain(two, images, method)
        margins = explain(two, images, method, score="margin")
        torch.testing.assert_close(margins[:, 0], logits[:, 0] - logits[:, 1], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(margins[:, 1], -margins[:, 0])
    assert not torch.allclose(p, explain(model, images, method, **options))  # type: ignore[arg-type]
    target = torch.tensor([2, 0, 1])
    one_each = explain(model, images, method, score="softmax", target=target, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(one_each[:, 0], p[torch.arange(3), target])
