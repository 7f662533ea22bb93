"""The page in a real browser: what is seen, and what a hand or a key does to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hrcam_lightning.report.arrays import FINE, GREY
from hrcam_lightning.report.browser import COLOURS, MapKind
from hrcam_lightning.report.page import Section
from tests.report import pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Dialog, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: nox -s browser")
pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOWN = "(name) => document.getElementById('viewer').dataset.case === name"
PIXELS = """([selector, number]) => {
  const canvas = document.querySelectorAll(selector)[number];
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, ...data.data];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with playwright.sync_playwright() as play:
        found = next(filter(None, map(shutil.which, NAMES)), play.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium on the PATH, and none of playwright's own: nox -s browser")
        browser = play.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Chromium, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page; whatever it complains of, or asks of a network, fails the test."""
    complaints: list[str] = []
    contexts = []

    def complain(what: str) -> None:
        complaints.append(what)

    def refuse(dialog: Dialog) -> None:
        complain(dialog.message)
        dialog.dismiss()

    def open_page(
        content: Any, fragment: str = "", size: tuple[int, int] = (1280, 1000), scheme: Any = "light", **changes: Any
    ) -> Page:
        path = pages.write(tmp_path, content, **changes)
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complain(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda asked: complain(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
        page.goto(f"{path.as_uri()}{fragment}")
        if content is not None:
            page.wait_for_selector("#viewer[data-case]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _pixels(page: Page, selector: str = "#planes canvas", number: int = 0) -> np.ndarray[Any, Any]:
    """(H, W, 3) of a canvas."""
    height, width, *values = page.evaluate(PIXELS, [selector, number])
    pixels = np.array(values).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return np.asarray(pixels[..., :3])


def _slide(page: Page, name: str, value: float) -> None:
    page.locator(name).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )
    _settle(page)


def _settle(page: Page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")


def _go(page: Page, name: str) -> None:
    page.wait_for_function(SHOWN, arg=name)
    assert page.inner_text("#case-name") == name


def _names(page: Page) -> list[str]:
    return page.locator("#list .name").all_inner_texts()


def _expected(threshold: float, opacity: float) -> np.ndarray[Any, Any]:
    """(H, W, 3): grey levels of the image, and over them the colours of what reaches the threshold."""
    import matplotlib as mpl

    grey = np.rint(pages.SHADES * GREY)[..., None] * 255 / GREY
    place = np.rint((pages.RAMP + 4) / 12 * FINE) / FINE
    colour = np.rint(mpl.colormaps[COLOURS](place)[..., :3] * 255)
    over = np.where(threshold <= pages.RAMP, opacity, 0.0)[..., None]
    return np.asarray(grey + over * (colour - grey))


def test_pixels_are_the_image_and_the_map_from_its_fitted_threshold_on(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    np.testing.assert_allclose(_pixels(page), _expected(pages.THRESHOLD, 0.6), atol=1)
    assert page.inner_text("#threshold-value") == "2.00 logit"
    assert not np.allclose(_pixels(page), _expected(3.0, 0.6), atol=1)


def test_sliders_change_pixels_and_a_button_returns_to_the_fitted_value(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    assert page.get_by_role("button", name="Fitted: 2.00").is_disabled()
    _slide(page, "#threshold", 6.5)
    np.testing.assert_allclose(_pixels(page), _expected(6.5, 0.6), atol=1)
    assert page.inner_text("#threshold-value") == "6.50 logit"
    assert page.locator("#threshold").get_attribute("aria-valuetext") == "6.50 logit"
    _slide(page, "#opacity", 0.25)
    np.testing.assert_allclose(_pixels(page), _expected(6.5, 0.25), atol=1)
    page.keyboard.press("ArrowRight")
    _go(page, "b beside")
    np.testing.assert_allclose(_pixels(page), _expected(6.5, 0.25), atol=1)  # kept from case to case
    page.get_by_role("button", name="Fitted: 2.00").click()
    _settle(page)
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.25), atol=1)
    _slide(page, "#opacity", 0)
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.0), atol=1)


def test_each_map_and_level_has_its_own_scale_and_threshold(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    tiles = page.locator(".tile").all_inner_texts()
    assert [tile.split("\n")[0] for tile in tiles] == ["image", "model", "center (floor)", "stride 1", "stride 2"]
    assert tiles[1].split("\n")[1] == "peak 8.00 logit"
    model = _pixels(page, ".tile canvas", 1)
    np.testing.assert_allclose(_pixels(page, ".tile canvas", 0), _expected(9.0, 0.6), atol=1)
    np.testing.assert_allclose(model, _expected(2.0, 0.6), atol=1)
    level = _pixels(page, ".tile canvas", 3)
    page.get_by_role("button", name="stride 1").click()
    _settle(page)
    np.testing.assert_array_equal(_pixels(page), level)
    assert page.get_by_role("button", name="stride 1").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="model").get_attribute("aria-pressed") == "false"
    assert page.inner_text("#threshold-value") == "−2.00 logit"  # none was fitted: all is shown
    _slide(page, "#threshold", 3.0)
    assert not np.array_equal(_pixels(page, ".tile canvas", 3), level)
    np.testing.assert_array_equal(_pixels(page, ".tile canvas", 1), model)
    page.get_by_role("button", name="Show all").click()
    _settle(page)
    np.testing.assert_array_equal(_pixels(page, ".tile canvas", 3), level)


def test_colours_end_with_the_scale(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.case("one"), maps=[MapKind("model", -4.0, "logit", scale=(-0.8, 4.0))]))
    _slide(page, "#opacity", 1)
    row = _pixels(page)[0]
    assert (row[:5] == row[0]).all()  # -4 to -0.8
    assert (row[10:] == row[15]).all()  # 4 to 8
    assert row[0].tolist() == [0, 0, 4]  # the ends of inferno
    assert row[15].tolist() == [252, 255, 164]
    assert len(np.unique(row[4:11], axis=0)) == 7


def test_a_normal_case_looks_normal(show: Callable[..., Page]) -> None:
    page = show(pages.several(), "#case=e%20normal")
    np.testing.assert_allclose(_pixels(page), _expected(9.0, 0.0), atol=1)
    assert page.locator(".picture path.truth").count() == 0


def test_filters_change_the_list_and_its_count(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    count = page.locator("#count")
    assert count.inner_text() == "6 of 6 cases"
    assert [label.replace("\n", " ") for label in page.locator("#outcomes label").all_inner_texts()] == [
        "● hit 1", "◐ beside 1", "○ missed 1", "▲ false alarm 1", "– correct normal 2",
    ]  # fmt: skip
    page.get_by_role("checkbox", name="correct normal").check()
    assert count.inner_text() == "2 of 6 cases"
    page.get_by_role("checkbox", name="missed").check()
    assert _names(page) == ["c missed", "e normal", pages.HOSTILE]
    page.get_by_role("checkbox", name="correct normal").uncheck()
    page.get_by_role("checkbox", name="missed").uncheck()
    assert count.inner_text() == "6 of 6 cases"
    page.get_by_label("Size from, in mm").fill("3")
    assert _names(page) == ["a hit", "b beside"]
    page.get_by_label("d′ to").fill("8")
    assert _names(page) == ["a hit"]
    page.get_by_role("button", name="Clear filters").click()
    assert count.inner_text() == "6 of 6 cases"
    page.get_by_label("Name contains").fill("MISS")
    assert _names(page) == ["c missed"]
    page.get_by_label("Name contains").fill("")
    page.get_by_label("Has").select_option("none")
    assert _names(page) == ["d alarm", "e normal", pages.HOSTILE]
    page.get_by_label("Called").select_option("some")
    assert _names(page) == ["d alarm"]
    page.get_by_label("Name contains").fill("nobody")
    assert count.inner_text() == "0 of 6 cases"
    assert page.get_by_role("button", name="Next case").is_disabled()
    assert page.inner_text("#case-name") == "d alarm"  # stays
    assert page.inner_text("#place") == "not in the list"


def test_the_list_is_sorted(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    found = {}
    for order in ("name", "high", "low", "size", "dprime", ""):
        page.get_by_label("Sort by").select_option(order)
        found[order] = [name[0] for name in _names(page)]
    assert found == {
        "name": ["<", "a", "b", "c", "d", "e"],
        "high": ["a", "b", "d", "c", "e", "<"],
        "low": ["e", "<", "c", "d", "b", "a"],
        "size": ["c", "a", "b", "d", "e", "<"],
        "dprime": ["c", "a", "b", "d", "e", "<"],
        "": ["a", "b", "c", "d", "e", "<"],
    }


def test_a_name_with_markup_is_text_and_its_link_opens_it(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    assert _names(page)[-1] == pages.HOSTILE
    page.locator("#list a").last.click()
    _go(page, pages.HOSTILE)
    assert page.locator("img, #viewer b").count() == 0
    again = show(pages.several(), page.evaluate("location.hash"))
    _go(again, pages.HOSTILE)


def test_the_address_opens_a_case_and_back_returns(show: Callable[..., Page]) -> None:
    page = show(pages.several(), "#case=c%20missed")
    _go(page, "c missed")
    assert page.inner_text("#place") == "3 of 6"
    page.locator("#list a", has_text="e normal").click()
    _go(page, "e normal")
    assert page.evaluate("location.hash") == "#case=e%20normal"
    page.go_back()
    _go(page, "c missed")
    assert page.locator("#list [aria-current]").all_inner_texts()[0].startswith("○\nc missed")
    page.evaluate("location.hash = '#case=nobody'")
    assert page.inner_text("#problem") == "There is no case “nobody” in this report."


def test_arrow_keys_go_through_the_filtered_list(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    for outcome in ("missed", "false alarm", "correct normal"):
        page.get_by_role("checkbox", name=outcome).check()
    page.locator("h2").click()
    _go(page, "c missed")  # the first that is left
    assert page.inner_text("#place") == "1 of 4"
    assert page.evaluate("location.hash") == "#case=c%20missed"
    page.keyboard.press("ArrowRight")
    _go(page, "d alarm")
    page.keyboard.press("ArrowLeft")
    _go(page, "c missed")
    page.keyboard.press("ArrowLeft")
    _go(page, pages.HOSTILE)  # round the end
    page.locator("#list a").first.focus()
    page.keyboard.press("ArrowDown")
    _go(page, "d alarm")
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    _settle(page)
    _go(page, "d alarm")
    assert page.inner_text("#threshold-value") != "2.00 logit"


def test_the_outline_follows_the_truth_and_can_be_put_away(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    outline = page.locator("#planes path.truth")
    assert outline.get_attribute("d") == "M12 2H15M12 5H15M12 2V5M15 2V5"
    assert page.locator("#planes path.peak").get_attribute("d") == "M15.5 0.5h0"
    page.locator("#outline").uncheck()
    page.locator("#peak").uncheck()
    _settle(page)
    assert page.locator(".picture path").count() == 0


def test_the_value_under_the_pointer_is_told(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    assert page.inner_text("#readout").startswith("peak: row 0, column 15 · model 8.00 logit")
    box = page.locator("#planes canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 10.5 / 16, box["y"] + box["height"] * 11.5 / 12)
    assert page.inner_text("#readout") == "row 11, column 10 · model 4.00 logit · image 1.00"


def test_classes_have_maps_masks_and_thresholds_of_their_own(show: Callable[..., Page]) -> None:
    both = {"model": {"mass": pages.RAMP, "nodule": pages.RAMP[:, ::-1]}}
    one = pages.case(
        "one", truth=("nodule",), called=("mass", "nodule"), probabilities={"mass": 0.6, "nodule": 0.7}, maps=both,
        masks={"nodule": pages.block(slice(0, 1), slice(0, 2))}, levels={},
    )  # fmt: skip
    kind = MapKind("model", {"mass": 2.0, "nodule": 5.0}, "logit", scale=pages.SCALE)
    page = show(pages.browser(one, maps=[kind], classes=["mass", "nodule"]))
    assert page.locator("#class").input_value() == "nodule"
    assert page.inner_text("#threshold-value") == "5.00 logit"
    assert page.locator("#planes path.truth").count() == 1
    page.locator("#class").select_option("mass")
    _settle(page)
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.6), atol=1)
    assert page.locator("#planes path.truth").count() == 0
    rows = page.locator("#probabilities tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [["mass", "0.600", "yes", "no"], ["nodule", "0.700", "yes", "yes"]]
    page.get_by_label("Has").select_option("mass")
    assert page.inner_text("#count") == "0 of 1 cases"


def test_without_truth_nothing_asks_for_it(show: Callable[..., Page]) -> None:
    one = pages.case("one", truth=None, outcome="", masks={}, size_mm=None, dprime=None, facts={}, levels={})
    page = show(pages.browser(one))
    for name in ("#outcomes", "#truth-filter", "#size-filter", "#dprime-filter", "#outline-label", "#case-outcome"):
        assert page.locator(name).is_hidden(), name
    assert page.locator("#levels-strip").is_hidden()
    assert page.locator("#probabilities .truth-column").is_hidden()
    assert page.locator("#probabilities tbody tr").inner_text().split() == ["lesion", "0.900", "yes"]
    assert page.inner_text("#count") == "1 of 1 cases"
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.6), atol=1)


def test_three_planes_are_turned_as_in_the_other_pictures(show: Callable[..., Page]) -> None:
    import nibabel as nib

    one = pages.volume()
    page = show(pages.browser(one, maps=[pages.MODEL]))
    _slide(page, "#opacity", 0)
    turn = nib.orientations.io_orientation(pages.AFFINE)  # type: ignore[no-untyped-call]
    upright = nib.orientations.apply_orientation(one.image, turn)  # type: ignore[no-untyped-call]
    grey = 255 * upright / upright.max()
    for normal, where in enumerate((5, 1, 7)):  # the middle of the lesion, (1, 7, 1) of the file
        drawn = np.flipud(np.swapaxes(grey.take(where, normal), 0, 1))
        np.testing.assert_allclose(_pixels(page, number=normal)[..., 0], drawn, atol=1.6)
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
    _settle(page)
    assert page.locator("#planes path.truth").count() == 0  # none of the three slices has the lesion
    assert labels.all_inner_texts() == ["sagittal, slice 5", "coronal, slice 3", "axial, slice 2"]
    assert "model 8.00 logit" in page.inner_text("#readout")
    assert page.locator("#planes path.peak").count() == 3
    box = page.locator("#planes canvas").nth(2).bounding_box()
    assert box is not None
    before = _pixels(page, number=0)
    page.mouse.click(box["x"] + box["width"] * 4.5 / 7, box["y"] + box["height"] * 0.5 / 5)
    _settle(page)
    assert labels.all_inner_texts() == ["sagittal, slice 2", "coronal, slice 4", "axial, slice 2"]
    assert page.inner_text("#readout").startswith("voxel (2, 2, 4), x 6.0, y −4.0, z 11.0 mm")
    assert not np.array_equal(_pixels(page, number=0), before)
    assert page.locator("#planes path.cross").nth(2).get_attribute("d") == "M0 0.5H7M4.5 0V5"
    page.get_by_label("axial").focus()
    page.keyboard.press("ArrowRight")
    _settle(page)
    assert labels.all_inner_texts()[2] == "axial, slice 3"
    page.get_by_role("button", name="Go to the lesion").click()
    _settle(page)
    assert labels.all_inner_texts() == ["sagittal, slice 1", "coronal, slice 1", "axial, slice 7"]


def test_cases_of_different_shapes_follow_each_other(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.volume("a volume"), pages.case("b flat"), maps=[pages.MODEL]))
    assert page.locator("#planes canvas").count() == 3
    page.keyboard.press("ArrowRight")
    _go(page, "b flat")
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.6), atol=1)


def test_quick_fingers_end_at_the_last_case(show: Callable[..., Page]) -> None:
    content = [one for n in range(3) for one in (pages.volume(f"volume {n}"), pages.case(f"flat {n}"))]
    page = show(pages.browser(*content, maps=[pages.MODEL]))
    page.evaluate(
        """async () => {
          for (let n = 0; n < 11; n++) {
            dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
            await new Promise((done) => setTimeout(done, n % 3));
            for (const id of ["opacity", "outline"]) document.getElementById(id).dispatchEvent(new Event("input"));
          }
        }"""
    )
    _go(page, "flat 2")
    assert page.inner_text("#place") == "6 of 6"
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.6), atol=1)


def test_a_case_that_is_slow_to_unpack_comes_too_late(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.case("flat 0"), pages.volume("volume"), pages.case("flat 1"), maps=[pages.MODEL]))
    page.evaluate(
        """() => {
          const plain = Response.prototype.arrayBuffer, delays = [300];  // of the next array alone, an image
          Response.prototype.arrayBuffer = async function () {
            await new Promise((done) => setTimeout(done, delays.shift() ?? 0));
            return plain.call(this);
          };
        }"""
    )
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(50)
    _slide(page, "#opacity", 0.6)
    page.wait_for_timeout(100)
    assert page.locator("#viewer").get_attribute("data-case") == "flat 0"  # its maps are not painted on another image
    page.keyboard.press("ArrowRight")
    _go(page, "flat 1")
    page.wait_for_timeout(400)
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(_pixels(page), _expected(2.0, 0.6), atol=1)


def test_dark_and_light_follow_the_reader(show: Callable[..., Page]) -> None:
    found = {}
    for scheme in ("light", "dark"):
        page = show(pages.several(), scheme=scheme)
        found[scheme] = page.evaluate(
            "(({ color, backgroundColor }) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
    assert found == {
        "light": ["rgb(251, 251, 249)", "rgb(29, 33, 38)"],
        "dark": ["rgb(20, 23, 26)", "rgb(228, 230, 232)"],
    }


def test_a_phone_scrolls_down_only(show: Callable[..., Page]) -> None:
    wide = Section("Scores", f"<table><tr>{'<td>0.123456789</td>' * 30}</tr></table>", "scores")
    long = pages.case("a_very_long_name_without_any_place_to_break_it" * 4, facts={"x" * 80: "y" * 90})
    for content in (pages.browser(long), pages.browser(pages.volume(), maps=[pages.MODEL])):
        page = show(content, size=(390, 844), sections=[wide], title="T" * 90)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        box = page.locator("#planes canvas").first.bounding_box()
        assert box is not None
        assert box["width"] > 130


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(show: Callable[..., Page]) -> None:
    page = show(pages.browser(pages.volume(), maps=[pages.MODEL]))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")].filter((one) => !one.labels?.length &&
             !one.ariaLabel && !one.textContent.trim()).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert page.get_by_role("link", name="hit volume P 0.90 · 3.40 mm · d′ 7.5").count() == 1
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert {"find", "sort", "previous", "next", "map", "threshold", "opacity", "outline", "to-peak"} <= set(reached)


def test_scripts_run_one_after_another(show: Callable[..., Page]) -> None:
    scripts = ["const first = 'one </script>';", "document.title = first + ' two';"]
    page = show(None, scripts=scripts)
    page.wait_for_function("() => document.title === 'one </script> two'")
