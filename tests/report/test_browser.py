"""What the case browser is given, and how it stands in the page."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from hrcam_lightning.callbacks.drawing import make_panel
from hrcam_lightning.errors import InputError
from hrcam_lightning.report.arrays import FINE, GREY
from hrcam_lightning.report.browser import Browser, MapKind, browser_html
from tests.report import pages
from tests.report.test_arrays import unpack


def _data(content: Browser) -> dict[str, Any]:
    html = browser_html(content)
    (text,) = re.findall(r'<script type="application/json" id="browser-data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def test_a_name_cannot_leave_its_script() -> None:
    html = browser_html(pages.browser(pages.case(pages.HOSTILE, facts={"</script>": "<!--"})))
    assert html.count("</script>") == 1
    assert "<img" not in html
    assert "<!--" not in html
    data = _data(pages.browser(pages.case(pages.HOSTILE, facts={"</script>": "<!--"})))
    assert data["cases"][0]["case"] == pages.HOSTILE
    assert data["cases"][0]["facts"] == {"</script>": "<!--"}


def test_arrays_come_back_from_the_page() -> None:
    data = _data(pages.browser(pages.case("one")))
    one, arrays = data["cases"][0], data["arrays"]
    np.testing.assert_allclose(unpack(arrays[one["maps"]["model"]["lesion"]]), pages.RAMP, atol=1e-9)
    np.testing.assert_allclose(unpack(arrays[one["image"]]), pages.SHADES, atol=0.5 / GREY + 1e-9)
    assert (unpack(arrays[one["masks"]["lesion"]]) == pages.case("one").masks["lesion"]).all()
    assert arrays[one["maps"]["model"]["lesion"]]["steps"] == FINE
    assert one["facts"] == {"pixel AP": 0.5}  # without what is undefined


def test_an_empty_mask_is_left_out_and_equal_maps_are_kept_once() -> None:
    nothing = {"lesion": np.zeros((pages.ROWS, pages.COLUMNS), bool)}
    data = _data(pages.browser(pages.case("one"), pages.case("two", masks=nothing)))
    assert data["cases"][1]["masks"] == {}
    assert data["cases"][0]["maps"] == data["cases"][1]["maps"]
    assert len(data["arrays"]) == 6  # image, mask, two maps, two levels


def test_thresholds_are_of_all_classes_or_by_class() -> None:
    two = {"model": {"a": pages.RAMP, "b": -pages.RAMP}}
    one = pages.case("one", maps=two, masks={}, levels={}, truth=("a",), called=(), probabilities={"a": 0.5, "b": 0.1})

    def thresholds(given: Any) -> Any:
        kind = MapKind("model", given, "logit")
        return _data(pages.browser(one, maps=[kind], classes=["a", "b"]))["kinds"][0]["thresholds"]

    assert thresholds(1.5) == {"a": 1.5, "b": 1.5}
    assert thresholds({"b": -2.0}) == {"b": -2.0}
    assert thresholds({"a": float("nan")}) == {}
    assert thresholds(None) == {}


def test_one_scale_for_all_cases_near_what_most_keep_to() -> None:
    cases = [
        pages.case(str(n), levels={}, maps={"model": {"lesion": np.linspace(-n, 2 * n, 192).reshape(12, 16)}})
        for n in range(11)
    ]
    (kind,) = _data(pages.browser(*cases, maps=[MapKind("model", 25.0, "logit")]))["kinds"]
    assert kind["scale"] == [-9.0, 18.0]  # the ninth of ten steps
    assert kind["range"] == [-10.0, 25.0]  # every value, and the threshold
    (kind,) = _data(pages.browser(*cases, maps=[MapKind("model", 0.0, "logit")]))["kinds"]
    assert kind["range"] == [-10.0, 20.0]


def test_a_rare_finding_sets_the_upper_end() -> None:
    strong = {"model": {"a": pages.RAMP, "b": -pages.RAMP}}
    weak = {"model": {"a": pages.RAMP / 8, "b": pages.RAMP / 8}}
    changes: dict[str, Any] = {"masks": {}, "levels": {}, "called": (), "probabilities": {}}
    cases = [pages.case("ill", maps=strong, truth=("a",), **changes)]
    cases += [pages.case(str(n), maps=weak, truth=(), **changes) for n in range(30)]

    def scale(*shown: Any) -> Any:
        content = pages.browser(*shown, maps=[MapKind("model", None, "logit")], classes=["a", "b"])
        return _data(content)["kinds"][0]["scale"]

    assert scale(*cases) == [-0.5, 8.0]
    assert scale(*cases[1:]) == [-0.5, 1.0]


def test_constant_maps_have_a_scale_as_well() -> None:
    center = _data(pages.browser(pages.case("one")))["kinds"][1]
    assert center["scale"] == [2.5, 3.5]
    assert center["floor"]


def test_levels_share_one_scale_and_have_no_threshold() -> None:
    kinds = _data(pages.browser(pages.case("one")))["kinds"]
    levels = [kind for kind in kinds if kind["level"]]
    assert [kind["name"] for kind in levels] == ["stride 1", "stride 2"]
    assert levels[0]["scale"] == levels[1]["scale"]
    assert levels[0]["range"] == [-2.0, 4.0]
    assert [kind["thresholds"] for kind in levels] == [{}, {}]
    assert {kind["unit"] for kind in levels} == {"logit"}


def test_volumes_are_turned_as_in_the_other_pictures() -> None:
    data = _data(pages.browser(pages.volume()))
    one = data["cases"][0]
    assert one["frame"] == {
        "axes": [0, 2, 1],
        "flips": [True, False, False],
        "spacing": [2.0, 4.0, 3.0],
        "affine": pages.AFFINE[:3].tolist(),
    }
    shown = unpack(data["arrays"][one["maps"]["model"]["lesion"]])
    assert shown.shape == (7, 5, 9)
    assert np.argwhere(shown == 8).tolist() == [[1, 3, 2]]  # (5, 2, 3) of the file


def test_a_slice_of_a_file_is_turned_upright_and_a_picture_is_not() -> None:
    import torch

    image = np.random.default_rng(0).normal(size=(6, 9))
    affine = np.diag([1.0, 2.0, 1.0, 1.0])
    for given in (affine, None):
        one = pages.case(
            "one", image=image, masks={}, levels={}, maps={"model": {"lesion": image}}, spacing=(1.0, 2.0), affine=given
        )
        data = _data(pages.browser(one))
        drawn = torch.from_numpy(image)
        panel = make_panel("", drawn[None], drawn > 9, [], drawn, given)
        shown = unpack(data["arrays"][data["cases"][0]["maps"]["model"]["lesion"]])
        np.testing.assert_allclose(shown, panel.fused, atol=np.ptp(image) / FINE)
        rows, columns = data["cases"][0]["frame"]["spacing"]
        assert rows / columns == (panel.aspect if given is not None else 0.5)


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"one: the map model of lesion is of shape \(3, 4\), but its image"):
        browser_html(pages.browser(pages.case("one", maps={"model": {"lesion": np.zeros((3, 4))}})))
    with pytest.raises(InputError, match="neither 2D nor 3D"):
        browser_html(pages.browser(pages.case("one", spacing=(1.0,))))
    with pytest.raises(InputError, match="one: the map model of lesion holds values that are not finite"):
        browser_html(pages.browser(pages.case("one", maps={"model": {"lesion": pages.RAMP * np.nan}})))
    with pytest.raises(InputError, match="twin: more than one case has this name"):
        browser_html(pages.browser(pages.case("one"), pages.case("twin"), pages.case("twin")))
