"""What is painted in a real browser: image, map, outline, planes, and what the sliders do to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning.report.browser import MapKind
from tests.report import pages, screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: nox -s browser")
pytestmark = pytest.mark.browser


def test_pixels_are_the_image_and_the_map_from_its_fitted_threshold_on(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    np.testing.assert_allclose(screen.pixels(page), screen.expected(pages.THRESHOLD, 0.6), atol=1)
    assert page.inner_text("#threshold-value") == "2.00 logit"
    assert not np.allclose(screen.pixels(page), screen.expected(3.0, 0.6), atol=1)


def test_sliders_change_pixels_and_a_button_returns_to_the_fitted_value(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    assert page.get_by_role("button", name="Fitted: 2.00").is_disabled()
    screen.slide(page, "#threshold", 6.5)
    np.testing.assert_allclose(screen.pixels(page), screen.expected(6.5, 0.6), atol=1)
    assert page.inner_text("#threshold-value") == "6.50 logit"
    assert page.locator("#threshold").get_attribute("aria-valuetext") == "6.50 logit"
    screen.slide(page, "#opacity", 0.25)
    np.testing.assert_allclose(screen.pixels(page), screen.expected(6.5, 0.25), atol=1)
    page.keyboard.press("ArrowRight")
    screen.go(page, "b beside")
    np.testing.assert_allclose(screen.pixels(page), screen.expected(6.5, 0.25), atol=1)  # kept from case to case
    page.get_by_role("button", name="Fitted: 2.00").click()
    screen.settle(page)
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.25), atol=1)
    screen.slide(page, "#opacity", 0)
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.0), atol=1)


def test_each_map_and_level_has_its_own_scale_and_threshold(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    tiles = page.locator(".tile").all_inner_texts()
    assert [tile.split("\n")[0] for tile in tiles] == ["image", "model", "center (floor)", "stride 1", "stride 2"]
    assert tiles[1].split("\n")[1] == "peak 8.00 logit"
    model = screen.pixels(page, ".tile canvas", 1)
    np.testing.assert_allclose(screen.pixels(page, ".tile canvas", 0), screen.expected(9.0, 0.6), atol=1)
    np.testing.assert_allclose(model, screen.expected(2.0, 0.6), atol=1)
    level = screen.pixels(page, ".tile canvas", 3)
    page.get_by_role("button", name="stride 1").click()
    screen.settle(page)
    np.testing.assert_array_equal(screen.pixels(page), level)
    assert page.get_by_role("button", name="stride 1").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="model").get_attribute("aria-pressed") == "false"
    assert page.inner_text("#threshold-value") == "−2.00 logit"  # none was fitted: all is shown
    screen.slide(page, "#threshold", 3.0)
    assert not np.array_equal(screen.pixels(page, ".tile canvas", 3), level)
    np.testing.assert_array_equal(screen.pixels(page, ".tile canvas", 1), model)
    page.get_by_role("button", name="Show all").click()
    screen.settle(page)
    np.testing.assert_array_equal(screen.pixels(page, ".tile canvas", 3), level)


def test_colours_end_with_the_scale(show: Callable[..., Page]) -> None:
    # What nine of ten keep to is the scale: -0.8 to 4.
    others = [pages.case(str(n), maps={"model": {"lesion": pages.RAMP.clip(-0.8, 4.0)}}) for n in range(10)]
    page = show(pages.browser(pages.case("one"), *others, maps=[MapKind("model", -4.0, "logit")]))
    screen.slide(page, "#opacity", 1)
    row = screen.pixels(page)[0]
    assert (row[:5] == row[0]).all()  # -4 to -0.8
    assert (row[10:] == row[15]).all()  # 4 to 8
    assert row[0].tolist() == [0, 0, 4]  # the ends of inferno
    assert row[15].tolist() == [252, 255, 164]
    assert len(np.unique(row[4:11], axis=0)) == 7


def test_a_normal_case_looks_normal(show: Callable[..., Page]) -> None:
    page = show(pages.several(), "#case=e%20normal")
    np.testing.assert_allclose(screen.pixels(page), screen.expected(9.0, 0.0), atol=1)
    assert page.locator(".picture path.truth").count() == 0


def test_the_outline_follows_the_truth_and_can_be_put_away(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    outline = page.locator("#planes path.truth")
    assert outline.get_attribute("d") == "M12 2H15M12 5H15M12 2V5M15 2V5"
    assert page.locator("#planes path.peak").get_attribute("d") == "M15.5 0.5h0"
    page.locator("#outline").uncheck()
    page.locator("#peak").uncheck()
    screen.settle(page)
    assert page.locator(".picture path").count() == 0


def test_the_value_under_the_pointer_is_told(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    assert page.inner_text("#readout").startswith("peak: row 0, column 15 · model 8.00 logit")
    box = page.locator("#planes canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 10.5 / 16, box["y"] + box["height"] * 11.5 / 12)
    assert page.inner_text("#readout") == "row 11, column 10 · model 4.00 logit · image 1.00"


def test_the_peak_is_marked_where_the_map_has_it(show: Callable[..., Page]) -> None:
    almost = pages.RAMP.copy()
    almost[7, 4] = 8.001  # the whole last column shares its step
    page = show(pages.browser(pages.case("one", maps={"model": {"lesion": almost}})))
    assert page.locator("#planes path.peak").get_attribute("d") == "M4.5 7.5h0"
    assert page.inner_text("#readout").startswith("peak: row 7, column 4 · model 8.00 logit")
    found = np.zeros(pages.VOXELS)
    found[1, 1, 1], found[5, 2, 3] = 8.001, 8.0
    page = show(pages.browser(replace(pages.volume(), maps={"model": {"lesion": found}})))
    page.get_by_role("button", name="Go to the peak").click()
    screen.settle(page)
    assert page.inner_text("#readout").startswith("crosshair: voxel (1, 1, 1)")


def test_without_any_map_the_image_and_its_facts_are_there(show: Callable[..., Page]) -> None:
    bare = [replace(one, maps={}, levels={}) for one in (pages.case("one"), pages.volume("two"))]
    page = show(pages.browser(*bare, maps=[]))
    np.testing.assert_allclose(screen.pixels(page), screen.expected(9.0, 0.0), atol=1)
    assert page.locator("#planes path.truth").count() == 1
    assert page.locator("#planes path.peak").count() == 0
    assert "0.5" in page.inner_text("#facts")
    assert page.inner_text("#readout") == ""
    assert [page.locator(name).is_visible() for name in ("#threshold", "#opacity", "#map", "#peak", "#outline")] == [
        False, False, False, False, True,
    ]  # fmt: skip
    page.locator("#outline").uncheck()
    assert page.locator("#planes path.truth").count() == 0
    page.keyboard.press("ArrowRight")
    screen.go(page, "two")
    assert page.inner_text("#readout").startswith("crosshair: voxel")
    assert page.get_by_role("button", name="Go to the peak").is_disabled()
    assert page.get_by_role("button", name="Go to the lesion").is_enabled()


def test_classes_have_maps_masks_and_thresholds_of_their_own(show: Callable[..., Page]) -> None:
    both = {"model": {"mass": pages.RAMP, "nodule": pages.RAMP[:, ::-1]}}
    one = pages.case(
        "one", truth=("nodule",), called=("mass", "nodule"), probabilities={"mass": 0.6, "nodule": 0.7}, maps=both,
        masks={"nodule": pages.block(slice(0, 1), slice(0, 2))}, levels={},
    )  # fmt: skip
    kind = MapKind("model", {"mass": 2.0, "nodule": 5.0}, "logit")
    page = show(pages.browser(one, maps=[kind], classes=["mass", "nodule"]))
    assert page.locator("#class").input_value() == "nodule"
    assert page.inner_text("#threshold-value") == "5.00 logit"
    assert page.locator("#planes path.truth").count() == 1
    page.locator("#class").select_option("mass")
    screen.settle(page)
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.6), atol=1)
    assert page.locator("#planes path.truth").count() == 0
    rows = page.locator("#probabilities tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [["mass", "0.600", "yes", "no"], ["nodule", "0.700", "yes", "yes"]]
    page.get_by_label("Has").select_option("mass")
    assert page.inner_text("#count") == "0 of 1 cases"


def test_three_planes_are_turned_as_in_the_other_pictures(show: Callable[..., Page]) -> None:
    import nibabel as nib

    one = pages.volume()
    page = show(pages.browser(one, maps=[pages.MODEL]))
    screen.slide(page, "#opacity", 0)
    turn = nib.orientations.io_orientation(pages.AFFINE)  # type: ignore[no-untyped-call]
    upright = nib.orientations.apply_orientation(one.image, turn)  # type: ignore[no-untyped-call]
    grey = 255 * upright / upright.max()
    for normal, where in enumerate((5, 1, 7)):  # the middle of the lesion, (1, 7, 1) of the file
        drawn = np.flipud(np.swapaxes(grey.take(where, normal), 0, 1))
        np.testing.assert_allclose(screen.pixels(page, number=normal)[..., 0], drawn, atol=1.6)
    assert page.locator(".plane label").all_inner_texts() == ["sagittal, slice 1", "coronal, slice 1", "axial, slice 7"]
    assert page.inner_text("#readout").startswith("crosshair: voxel (1, 7, 1), x 8.0, y −16.0, z 26.0 mm")
    assert page.locator(".picture .letter").all_inner_texts() == ["P", "A", "L", "R", "L", "R"]
    boxes = [box.bounding_box() for box in page.locator("#planes canvas").all()]
    sizes = [(box["width"], box["height"]) for box in boxes if box is not None]
    for (width, height), millimetres in zip(sizes, [(20, 27), (14, 27), (14, 20)], strict=True):
        assert width / height == pytest.approx(millimetres[0] / millimetres[1], rel=0.02)
        assert width / millimetres[0] == pytest.approx(sizes[0][0] / 20, rel=0.02)


def test_a_click_links_the_planes(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.volume(), maps=[pages.MODEL]))
    labels = page.locator(".plane label")
    assert page.locator("#planes path.truth").count() == 3
    page.get_by_role("button", name="Go to the peak").click()
    screen.settle(page)
    assert page.locator("#planes path.truth").count() == 0  # none of the three slices has the lesion
    assert labels.all_inner_texts() == ["sagittal, slice 5", "coronal, slice 3", "axial, slice 2"]
    assert "model 8.00 logit" in page.inner_text("#readout")
    assert page.locator("#planes path.peak").count() == 3
    box = page.locator("#planes canvas").nth(2).bounding_box()
    assert box is not None
    before = screen.pixels(page, number=0)
    page.mouse.click(box["x"] + box["width"] * 4.5 / 7, box["y"] + box["height"] * 0.5 / 5)
    screen.settle(page)
    assert labels.all_inner_texts() == ["sagittal, slice 2", "coronal, slice 4", "axial, slice 2"]
    assert page.inner_text("#readout").startswith("voxel (2, 2, 4), x 6.0, y −4.0, z 11.0 mm")
    assert not np.array_equal(screen.pixels(page, number=0), before)
    assert page.locator("#planes path.cross").nth(2).get_attribute("d") == "M0 0.5H7M4.5 0V5"
    page.get_by_label("axial").focus()
    page.keyboard.press("ArrowRight")
    screen.settle(page)
    assert labels.all_inner_texts()[2] == "axial, slice 3"
    page.get_by_role("button", name="Go to the lesion").click()
    screen.settle(page)
    assert labels.all_inner_texts() == ["sagittal, slice 1", "coronal, slice 1", "axial, slice 7"]


def test_cases_of_different_shapes_follow_each_other(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.volume("a volume"), pages.case("b flat"), maps=[pages.MODEL]))
    assert page.locator("#planes canvas").count() == 3
    page.keyboard.press("ArrowRight")
    screen.go(page, "b flat")
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.6), atol=1)
