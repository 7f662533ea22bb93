"""The maps that a page shows, from a batch of volumes of several classes."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.callbacks.explainers import Explainer
from hrcam_lightning.explain import explain
from hrcam_lightning.pooling import MeanPooling
from hrcam_lightning.report.maps import MOST, VALUES, MapCollector, affordable, level_names
from hrcam_lightning.task import LocalizationTask

CLASSES = ["mass", "nodule", "normal"]
AFFINE = np.diag([1.0, 2, 3, 1])


@pytest.fixture
def task() -> LocalizationTask:
    torch.manual_seed(0)
    made = LocalizationTask(
        "multiclass", CLASSES, 1, 3, backbone=partial(ConvPyramid, width=4, depth=3), pooling=MeanPooling,
        view_averaging=False,
    )  # fmt: skip
    made.configure_model()
    made.network.decoder.bias.data = torch.tensor([0.5, -0.25, 2.0])
    made.thresholds.copy_(torch.tensor([1.0, 2.0, torch.nan]))
    return made.eval()


def _batch(names: list[str], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(names), 3, 8, 8, 4, dtype=torch.bool)
    for place in range(len(names)):
        mask[place, 0, 2:4, 3, place] = True
    return {
        "image": torch.randn(len(names), 1, 8, 8, 4, generator=generator),
        "label": torch.zeros(len(names), dtype=torch.long),
        "mask": mask,
        "case": names,
        "affine": [AFFINE] * len(names),
    }


@torch.no_grad()
def test_only_the_wanted_cases_are_kept_and_all_are_rated(task: LocalizationTask) -> None:
    collector = MapCollector(["d", "b", "a", "c"], 2, [Explainer("gradcam"), Explainer("center")], with_levels=True)
    batches = [_batch(["a", "b"], 1), _batch(["c", "d"], 2)]
    for batch in batches:
        outputs = {"output": task(batch["image"])}
        collector.on_test_batch_end(SimpleNamespace(), task, outputs, batch, 0)  # type: ignore[arg-type]
    assert sorted(collector.seen) == ["b", "d"]
    assert sorted(collector.probabilities) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(collector.thresholds, [1.5, 1.75, np.nan])  # of the evidence, which has the bias
    for case, batch in zip(("b", "d"), batches, strict=True):
        image, seen = batch["image"][1:], collector.seen[case]
        output = task(image)
        np.testing.assert_allclose(collector.probabilities[case], output.logits.softmax(-1)[0], atol=1e-6)
        np.testing.assert_allclose(seen.maps["model"], output.maps[0] + output.bias[:, None, None, None], atol=1e-5)
        np.testing.assert_allclose(seen.maps["gradcam"], explain(task.network, image, "gradcam")[0], atol=1e-5)
        np.testing.assert_allclose(seen.maps["center"], explain(task.network, image, "center")[0], atol=1e-6)
        np.testing.assert_array_equal(seen.image, image[0, 0])
        np.testing.assert_array_equal(seen.masks, batch["mask"][1])
        assert list(seen.spacing) == [1, 2, 3]
        assert list(seen.levels) == ["stride 1", "stride 2", "stride 4"]
        # With the offsets, which take their means away, the levels add up to the evidence.
        levels = zip(seen.levels.values(), np.array(collector.offsets()), strict=True)
        shown = sum(level + offset[:, None, None, None] for level, offset in levels)
        np.testing.assert_allclose(shown, seen.maps["model"], atol=1e-4)


@torch.no_grad()
def test_maps_that_are_no_numbers_are_left_out(task: LocalizationTask) -> None:
    collector = MapCollector(["a", "b"], None, [Explainer("center")], with_levels=True)
    batch = _batch(["a", "b"], 1)
    collector.on_test_batch_end(SimpleNamespace(), task, {"output": task(batch["image"])}, batch, 0)  # type: ignore[arg-type]
    assert collector.drop_broken() == set()
    assert list(collector.seen["a"].maps) == ["model", "center"]
    assert len(collector.seen["a"].levels) == 3
    collector.seen["b"].maps["center"][0, 1, 1, 1] = np.inf
    assert collector.drop_broken() == {"center"}
    assert [list(one.maps) for one in collector.seen.values()] == [["model"], ["model"]]
    collector.seen["a"].maps["model"][2, 0, 0, 0] = np.nan
    assert collector.drop_broken() == {"model"}
    assert [list(one.levels) for one in collector.seen.values()] == [[], []]


@torch.no_grad()
def test_for_a_comparison_the_models_map_is_enough(task: LocalizationTask) -> None:
    collector = MapCollector(["a"], None, [], with_levels=False, others=5)
    batch = _batch(["a", "b"], 1)
    collector.on_test_batch_end(SimpleNamespace(), task, {"output": task(batch["image"])}, batch, 0)  # type: ignore[arg-type]
    assert list(collector.seen) == ["a"]
    assert list(collector.seen["a"].maps) == ["model"]
    assert collector.seen["a"].levels == {}


def test_a_page_of_demo_cases_holds_400_and_one_of_volumes_fewer() -> None:
    assert affordable(12 * 64 * 64) == MOST
    assert affordable(12 * 64**3) == VALUES // (12 * 64**3) == 6
    assert affordable(10**9) == 1


def test_levels_are_named_by_their_strides() -> None:
    def names(*strides: tuple[float, ...]) -> list[str]:
        return level_names(SimpleNamespace(levels=[SimpleNamespace(stride=stride) for stride in strides]))  # type: ignore[arg-type]

    assert names((1.0, 1.0), (2.0, 2.0)) == ["stride 1", "stride 2"]
    assert names((2.0, 2.0, 1.0), (4.0, 4.0, 2.0)) == ["stride 2 × 2 × 1", "stride 4 × 4 × 2"]
    assert names((4.0, 4.0), (4.0, 4.0), (8.0, 8.0)) == ["stride 4 (1)", "stride 4 (2)", "stride 8"]
    assert names((4.0, 4.0)) == []  # it is the map itself
