"""The page in a real browser: the list, its filters, the address, the keyboard, colours and widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning.report.page import Section
from tests.report import pages, screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: nox -s browser")
pytestmark = pytest.mark.browser


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
    assert screen.names(page) == ["c missed", "e normal", pages.HOSTILE]
    page.get_by_role("checkbox", name="correct normal").uncheck()
    page.get_by_role("checkbox", name="missed").uncheck()
    assert count.inner_text() == "6 of 6 cases"
    page.get_by_label("Size from, in mm").fill("3")
    assert screen.names(page) == ["a hit", "b beside"]
    page.get_by_label("d′ to").fill("8")
    assert screen.names(page) == ["a hit"]
    page.get_by_role("button", name="Clear filters").click()
    assert count.inner_text() == "6 of 6 cases"
    page.get_by_label("Name contains").fill("MISS")
    assert screen.names(page) == ["c missed"]
    page.get_by_label("Name contains").fill("")
    page.get_by_label("Has").select_option("none")
    assert screen.names(page) == ["d alarm", "e normal", pages.HOSTILE]
    page.get_by_label("Called").select_option("some")
    assert screen.names(page) == ["d alarm"]
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
        found[order] = [name[0] for name in screen.names(page)]
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
    assert screen.names(page)[-1] == pages.HOSTILE
    page.locator("#list a").last.click()
    screen.go(page, pages.HOSTILE)
    assert page.locator("img, #viewer b").count() == 0
    again = show(pages.several(), page.evaluate("location.hash"))
    screen.go(again, pages.HOSTILE)


def test_the_address_opens_a_case_and_back_returns(show: Callable[..., Page]) -> None:
    page = show(pages.several(), "#case=c%20missed")
    screen.go(page, "c missed")
    assert page.inner_text("#place") == "3 of 6"
    page.locator("#list a", has_text="e normal").click()
    screen.go(page, "e normal")
    assert page.evaluate("location.hash") == "#case=e%20normal"
    page.go_back()
    screen.go(page, "c missed")
    assert page.locator("#list [aria-current]").all_inner_texts()[0].startswith("○\nc missed")
    page.evaluate("location.hash = '#case=nobody'")
    assert page.inner_text("#problem") == "There is no case “nobody” in this report."


def test_arrow_keys_go_through_the_filtered_list(show: Callable[..., Page]) -> None:
    page = show(pages.several())
    for outcome in ("missed", "false alarm", "correct normal"):
        page.get_by_role("checkbox", name=outcome).check()
    page.locator("h2").click()
    screen.go(page, "c missed")  # the first that is left
    assert page.inner_text("#place") == "1 of 4"
    assert page.evaluate("location.hash") == "#case=c%20missed"
    page.keyboard.press("ArrowRight")
    screen.go(page, "d alarm")
    page.keyboard.press("ArrowLeft")
    screen.go(page, "c missed")
    page.keyboard.press("ArrowLeft")
    screen.go(page, pages.HOSTILE)  # round the end
    page.locator("#list a").first.focus()
    page.keyboard.press("ArrowDown")
    screen.go(page, "d alarm")
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    screen.settle(page)
    screen.go(page, "d alarm")
    assert page.inner_text("#threshold-value") != "2.00 logit"


def test_without_truth_nothing_asks_for_it(show: Callable[..., Page]) -> None:
    one = pages.case("one", truth=None, outcome="", masks={}, size_mm=None, dprime=None, facts={}, levels={})
    page = show(pages.browser(one))
    for name in ("#outcomes", "#truth-filter", "#size-filter", "#dprime-filter", "#outline-label", "#case-outcome"):
        assert page.locator(name).is_hidden(), name
    assert page.locator("#levels-strip").is_hidden()
    assert page.locator("#probabilities .truth-column").is_hidden()
    assert page.locator("#probabilities tbody tr").inner_text().split() == ["lesion", "0.900", "yes"]
    assert page.inner_text("#count") == "1 of 1 cases"
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.6), atol=1)


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
    screen.go(page, "flat 2")
    assert page.inner_text("#place") == "6 of 6"
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.6), atol=1)


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
    screen.slide(page, "#opacity", 0.6)
    page.wait_for_timeout(100)
    assert page.locator("#viewer").get_attribute("data-case") == "flat 0"  # its maps are not painted on another image
    page.keyboard.press("ArrowRight")
    screen.go(page, "flat 1")
    page.wait_for_timeout(400)
    assert page.locator("#planes canvas").count() == 1
    np.testing.assert_allclose(screen.pixels(page), screen.expected(2.0, 0.6), atol=1)


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
