"""One colour scale: white is no evidence, lesions fill it, and neither the bias nor rare lesions upset it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from PIL import Image

from hrcam_lightning import LocalizationModel, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.callbacks import scale
from hrcam_lightning.callbacks.drawing import draw_panels
from hrcam_lightning.callbacks.planes import overlay_volume
from hrcam_lightning.callbacks.scale import MapScale, ScaleFinder
from hrcam_lightning.cli import main
from hrcam_lightning.decoders import CAM, HRCAM
from hrcam_lightning.model import LocalizationOutput
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling, Pooling
from tests.command_line import CASES, SMALL, again

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from torch import Tensor

    from hrcam_lightning.callbacks.drawing import Array, Limits, Panel, Pixels


def _model(pooling: Pooling) -> LocalizationModel:
    backbone = ConvPyramid(1, 2, width=4, depth=3)
    model = LocalizationModel(backbone, HRCAM(backbone.levels, 2), pooling).eval()
    with torch.no_grad():
        model.decoder.bias.copy_(torch.tensor([-40.0, 25.0]))
    return model


def _flat() -> LocalizationModel:
    """One level with the image's own cells, so that its map is the fused one."""
    backbone = ConvPyramid(1, 2, width=4, depth=1)
    return LocalizationModel(backbone, CAM(backbone.levels, 1), MeanPooling())


def _output(peaks: list[float]) -> LocalizationOutput:
    maps = torch.zeros(len(peaks), 1, 4, 4)
    maps[:, 0, 1, 2] = torch.tensor(peaks)
    return LocalizationOutput(torch.zeros(len(peaks), 1), maps, (maps,), torch.zeros(1))


def _limit(peaks: list[float], labels: list[int]) -> float:
    finder = ScaleFinder()
    finder.update([str(n) for n in range(len(peaks))], torch.tensor(labels)[:, None], _output(peaks), _flat())
    found = finder.compute()
    assert found is not None
    return found.limit


@pytest.mark.parametrize("pooling", [MeanPooling(), MaxPooling(), LogSumExpPooling()])
def test_the_evidence_of_a_uniform_image_is_its_logit(pooling: Pooling) -> None:
    maps = torch.tensor([[3.0, -2.0]]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    bias = torch.tensor([-1.0, 4.0])
    output = LocalizationOutput(pooling(maps) + bias, maps, (), bias)
    torch.testing.assert_close(output.evidence[..., 2, 2], output.logits)
    assert output.evidence[0, :, 0, 0].tolist() == [2, 2]


@pytest.mark.parametrize("pooling", [MeanPooling(), LogSumExpPooling()])
def test_the_levels_as_shown_add_up_to_the_evidence_and_none_holds_the_bias(pooling: Pooling) -> None:
    model, images = _model(pooling), torch.randn(6, 1, 16, 24)
    with torch.no_grad():
        output = model(images)
    finder = ScaleFinder()
    finder.update([*"abcdef"], torch.ones(6, 2), output, model)
    found = finder.compute()
    assert found is not None
    offsets = torch.tensor(found.offsets)
    shown = [
        model.upsample(level, number, (16, 24)) + offsets[number].view(-1, 1, 1)
        for number, level in enumerate(output.level_maps)
    ]
    torch.testing.assert_close(torch.stack(shown).sum(0), output.evidence, rtol=0, atol=1e-4)
    # Every level has the same share of what the maps hold on average.
    share = output.evidence.mean((0, 2, 3)) / 3
    for level in shown:
        torch.testing.assert_close(level.mean((0, 2, 3)), share, rtol=0, atol=1e-4)


def test_the_scale_is_that_of_the_cases_with_a_finding() -> None:
    lesions = [float(n) for n in range(1, 12)]  # nine in ten are up to 10
    assert _limit(lesions, [1] * 11) == 10
    assert _limit([*lesions, *[-500.0] * 80], [*[1] * 11, *[0] * 80]) == 10
    assert _limit([-2.9, 0.1, 0.2], [1, 0, 0]) == 3  # evidence against counts as well
    assert _limit([50.0, 50.0], [0, 0]) == 50
    assert _limit([float("nan"), 5.2], [1, 1]) == 5


@pytest.mark.parametrize(
    ("strength", "limit"), [(13.4, 15), (32.8, 30), (0.0241, 0.02), (980.0, 1000), (6.0, 7), (0.0, 10)]
)
def test_scales_end_at_few_numbers(strength: float, limit: float) -> None:
    assert _limit([strength], [1]) == limit


def test_only_the_map_of_a_cases_own_finding_counts() -> None:
    maps = torch.zeros(2, 2, 4, 4)
    maps[0, 0], maps[0, 1], maps[1, 1] = 90, 2, 2
    finder = ScaleFinder()
    backbone = ConvPyramid(1, 2, width=4, depth=1)
    model = LocalizationModel(backbone, CAM(backbone.levels, 2), MeanPooling())
    output = LocalizationOutput(torch.zeros(2, 2), maps, (maps,), torch.zeros(2))
    finder.update(["a", "b"], torch.tensor([[0, 1], [0, 1]]), output, model)
    assert finder.compute() == MapScale(2.0, [[0.0, 0.0]])


def test_processes_that_share_the_cases_find_the_scale_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = [1.0, -7.3, 20.0, 4.0, 2.0]
    whole, first, second = ScaleFinder(), ScaleFinder(), ScaleFinder()
    for finder, rows in ((whole, [0, 1, 2, 3, 4]), (first, [0, 2, 4]), (second, [1, 3, 0])):  # one case twice
        names, values = [f"case {row}" for row in rows], [peaks[row] for row in rows]
        finder.update(names, torch.ones(len(rows), 1), _output(values), _flat())
    one = whole.compute()
    monkeypatch.setattr(scale, "gather", lambda _: [first._cases, second._cases])
    assert second.compute() == one


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Panel], Limits]]:
    """What is drawn, and on which scale; an overlay shows no panel."""
    kept: list[tuple[Sequence[Panel], Limits]] = []

    def sheet(rows: Sequence[Panel], limits: Limits) -> Figure:
        kept.append((rows, limits))
        return draw_panels(rows, limits)

    def over(image: Array, fused: Array, limits: Limits) -> Pixels:
        kept.append(([], limits))
        return cast("Pixels", overlay_volume(image, fused, limits))

    monkeypatch.setattr("hrcam_lightning.callbacks.panels.draw_panels", sheet)
    monkeypatch.setattr("hrcam_lightning.callbacks.prediction_files.overlay_volume", over)
    return kept


def test_test_and_predict_draw_on_the_checkpoints_scale(
    fitted: Path, tiny_set: Path, drawn: list[tuple[Sequence[Panel], Limits]]
) -> None:
    path = fitted / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    kept = checkpoint["callbacks"]["FusedMapPanels"]["scale"]
    assert kept["limit"] > 0
    assert np.shape(kept["offsets"]) == (3, 1)
    kept["limit"] = 123.0
    torch.save(checkpoint, path)
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(fitted.parent / "a.png")
    (fitted.parent / "new.csv").write_text("image\na.png\n")
    test, predict = again("test", fitted, tiny_set / "cases.csv"), again("predict", fitted, fitted.parent / "new.csv")
    main(test)
    main(predict)
    assert {limits for _, limits in drawn} == {(-123, 123)}
    drawn.clear()
    main([*test, "--fused_maps.limits", "[-2,4]"])
    main([*predict, "--fused_maps.limits", "[-2,4]"])
    assert {limits for _, limits in drawn} == {(-2, 4)}
    # A checkpoint of an earlier version brings no scale: the cases' own, and a fixed one for predictions.
    del checkpoint["callbacks"]["FusedMapPanels"]
    torch.save(checkpoint, path)
    drawn.clear()
    main(test)
    (own,) = {limits for _, limits in drawn}
    assert own[1] < 123
    main(predict)
    assert drawn[-1][1] == (-10, 10)


def test_a_large_bias_leaves_the_pictures_as_they_are(
    tmp_path: Path,
    tiny_set: Path,
    drawn: list[tuple[Sequence[Panel], Limits]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With mean pooling a level may stand 1000 logits off, and the bias with it: nothing of it is evidence."""
    monkeypatch.chdir(tmp_path)
    mean = ["--model.pooling", "MeanPooling", "--model.consistency", "0"]
    run = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "1", *mean]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run])
    validate = again("validate", tmp_path / "run", tiny_set / "cases.csv", *mean)
    main(validate)
    before, limits = drawn[-1]
    read = LocalizationTask.forward

    def off(task: LocalizationTask, images: Tensor) -> LocalizationOutput:
        output = read(task, images)
        first, *others = output.level_maps
        return LocalizationOutput(output.logits, output.maps + 1000, (first + 1000, *others), output.bias - 1000)

    monkeypatch.setattr(LocalizationTask, "forward", off)
    main(validate)
    after, same = drawn[-1]
    assert same == limits
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose([new.fused, *new.levels], [old.fused, *old.levels], rtol=0, atol=1e-3)
        assert np.abs(old.fused).max() > 1e-2
