"""Pictures: one scale for all, upright, pixel by pixel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning.callbacks.drawing import draw_panels, make_panel, overlay, pixels
from hrcam_lightning.callbacks.panels import FusedMapPanels

if TYPE_CHECKING:
    from pathlib import Path

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def test_nifti_is_shown_upright_and_pictures_as_they_are() -> None:
    image = torch.arange(6.0).view(1, 2, 3)  # axis 0 to the right, axis 1 up
    empty = torch.zeros(2, 3, dtype=torch.bool)
    volume = make_panel("a", image, empty, [], image[0], AFFINE)
    assert volume.image.tolist() == [[2, 5], [1, 4], [0, 3]]
    assert volume.aspect == 2
    picture = make_panel("a", image, empty, [], image[0], None)
    assert picture.image.tolist() == image[0].tolist()
    assert picture.aspect == 1


def test_a_volume_shows_the_slice_of_the_lesion_else_of_the_peak() -> None:
    image = torch.arange(4.0).expand(1, 5, 5, 4)
    truth = torch.zeros(5, 5, 4, dtype=torch.bool)
    fused = torch.zeros(5, 5, 4)
    fused[2, 2, 3] = 1
    assert make_panel("a", image, truth, [], fused, None).image.max() == 3
    truth[1, 1:3, 1] = truth[0, 0, 2] = True
    panel = make_panel("a", image, truth, [fused], fused, None)
    assert panel.image.max() == 1
    assert panel.truth.sum() == 2
    assert len(panel.levels) == 1


def test_the_colour_of_a_value_does_not_depend_on_its_neighbours() -> None:
    """No picture is stretched to its own maximum: a weak map stays pale beside a strong one."""
    image = torch.zeros(1, 8, 8)
    empty = torch.zeros(8, 8, dtype=torch.bool)
    weak = torch.full((8, 8), 1.0)
    strong = weak.clone()
    strong[0, 0] = 9
    sheets = [
        pixels(draw_panels([make_panel("a", image, empty, [], fused, None)], (-10, 10))) for fused in (weak, strong)
    ]
    different = (sheets[0] != sheets[1]).any(-1)
    assert 0 < different.mean() < 0.02


def test_the_overlay_has_the_images_pixels() -> None:
    image = np.array([[0.0, 5.0], [10.0, 10.0]])
    fused = np.array([[0.0, 0.0], [10.0, -30.0]])
    drawn = overlay(image, fused, (-10.0, 10.0))
    assert drawn.shape == (2, 2, 3)
    assert drawn[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(drawn[0, 1], 127, atol=1)
    red, blue = drawn[1, 0].astype(int), drawn[1, 1].astype(int)
    assert red[0] > red[2] + 30
    assert blue[2] > blue[0] + 30


def test_a_flat_image_is_drawn() -> None:
    assert overlay(np.ones((3, 3)), np.zeros((3, 3)), (-1.0, 1.0)).max() == 0


@pytest.mark.parametrize("cases", [1, 3])
def test_a_sheet_has_a_row_a_case(cases: int) -> None:
    panel = make_panel("a", torch.rand(1, 8, 8), torch.ones(8, 8).bool(), [torch.rand(8, 8)], torch.rand(8, 8), None)
    sheet = pixels(draw_panels([panel] * cases, (-1, 1)))
    assert sheet.shape[0] == pytest.approx(100 * (1.5 * cases + 0.3), abs=2)


def test_a_resumed_training_removes_the_sheets_from_its_own_epoch_on(tmp_path: Path) -> None:
    numbers = ("005", "101", "500", "999", "1000", "1001", "12000")
    (tmp_path / "maps").mkdir()
    for name in (*(f"epoch_{number}" for number in numbers), "epoch_best", "figure"):
        (tmp_path / "maps" / f"{name}.png").touch()

    def left(epoch: int) -> list[str]:
        trainer: Any = SimpleNamespace(
            is_global_zero=True, fast_dev_run=False, default_root_dir=str(tmp_path), current_epoch=epoch
        )
        FusedMapPanels().on_train_start(trainer, None)  # type: ignore[arg-type]
        return sorted(path.stem.removeprefix("epoch_") for path in (tmp_path / "maps").iterdir())

    assert left(1000) == ["005", "101", "500", "999", "best", "figure"]
    assert left(101) == ["005", "best", "figure"]
    assert left(0) == ["best", "figure"]
