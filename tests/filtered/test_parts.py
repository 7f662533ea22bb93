"""Folds, filters, strengths, Dice and intervals against arithmetic done by hand or by brute force."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import Dataset

from hrcam_lightning.backbones import ConvPyramid, TappedBackbone
from hrcam_lightning.errors import InputError
from hrcam_lightning.explain.null import otsu
from hrcam_lightning.filtered.dice import GRID, best, dice_at, dice_curves, four
from hrcam_lightning.filtered.facts import Facts, read_facts
from hrcam_lightning.filtered.filters import FilteredDataset, Kind, Negatives, Rule, moved
from hrcam_lightning.filtered.folds import folds_of
from hrcam_lightning.filtered.intervals import resampled, weighted_accuracy, weighted_auroc
from hrcam_lightning.filtered.maps import CaseMaps, scale_of
from hrcam_lightning.filtered.training import key_of, shaping
from hrcam_lightning.metrics import overlaps
from hrcam_lightning.metrics.crossed import percentile_estimate

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.data import Batch
    from hrcam_lightning.data.module import Sample

NAMES = ["a", "b", "c", "d"]
LABELS = np.array([1, 0, 1, 0])
RAW = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
TRUTH = np.zeros((4, 6, 5), dtype=bool)
TRUTH[0, 1:3, 1:3] = TRUTH[2, 4:, 3:] = True


class _Cases(Dataset[Any]):
    def __getitem__(self, index: int) -> Sample:
        image = torch.full((2, 6, 5), 10.0 + index)
        image[1] *= -1
        return {"image": image, "mask": torch.from_numpy(TRUTH[index : index + 1]), "case": NAMES[index]}


def _maps(folder: Path) -> CaseMaps:
    path = folder / "maps.npy"
    np.save(path, RAW)
    return CaseMaps([(path, row) for row in range(4)], [scale_of(path, LABELS)] * 4)


def _facts() -> Facts:
    return Facts(NAMES, LABELS, NAMES, TRUTH.sum((1, 2)), (2, 6, 5), np.array([1.0, 2.0]), "")


def _rule(area: int | None = 7, negatives: Negatives = "own") -> Rule:
    return Rule(0.5, area, "mean", torch.tensor([1.0, 2.0]), negatives)


def test_folds_hold_out_each_case_once_with_its_subject_and_both_labels() -> None:
    subjects = [f"s{number // 2}" for number in range(40)]
    labels = np.array([number % 2 if number < 20 else 0 for number in range(40)])
    fold = folds_of(subjects, labels, 3)
    for subject in set(subjects):
        assert len({home for home, one in zip(fold.tolist(), subjects, strict=True) if one == subject}) == 1
    assert sorted(np.bincount(fold[labels == 1])) == [3, 3, 4]
    assert sorted(np.bincount(fold) // 2) == [6, 7, 7]
    order = np.random.default_rng(1).permutation(40)
    again = folds_of([subjects[n] for n in order], labels[order], 3)
    np.testing.assert_array_equal(again, fold[order])
    with pytest.raises(InputError, match="there are 10 with and 10 without"):
        folds_of(subjects, labels, 11)
    with pytest.raises(InputError, match="folds is 1"):
        folds_of(subjects, labels, 1)


def test_strength_is_0_at_the_middle_of_maps_and_1_at_the_peak_of_positive_ones(tmp_path: Path) -> None:
    maps = _maps(tmp_path)
    low = np.median([np.median(one) for one in RAW])
    high = np.median([RAW[0].max(), RAW[2].max()])
    np.testing.assert_allclose(maps.strength(1), np.clip((RAW[1] - low) / (high - low), 0, 1), rtol=1e-5)
    own = maps.own_strength(3)
    assert own.max() == 1
    assert (own == 0).mean() >= 0.5
    np.save(tmp_path / "flat.npy", np.ones_like(RAW))
    with pytest.raises(InputError, match="are flat"):
        scale_of(tmp_path / "flat.npy", LABELS)
    np.save(tmp_path / "nan.npy", np.where(np.arange(5) == 2, np.nan, RAW))
    with pytest.raises(InputError, match="diverged"):
        scale_of(tmp_path / "nan.npy", LABELS)


def test_filters_show_what_they_are_named_after(tmp_path: Path) -> None:
    maps, cases = _maps(tmp_path), _Cases()
    inside = np.sort(RAW[1], axis=None)[-7]
    wanted: dict[str, Any] = {
        "original": np.ones((6, 5)),
        "inside": RAW[1] >= inside,
        "outside": RAW[1] < inside,
        "soft": np.clip((RAW[1] - np.median(RAW[1])) / (RAW[1].max() - np.median(RAW[1])), 0, 1),
    }
    for kind, shown in wanted.items():
        image = FilteredDataset(cases, _facts(), maps, _rule(), kind)[1]["image"]  # type: ignore[arg-type]
        expected = np.stack([shown * 11.0 + (1 - shown) * 1.0, shown * -11.0 + (1 - shown) * 2.0])
        np.testing.assert_allclose(image, expected, rtol=1e-5, err_msg=kind)
    by_threshold = FilteredDataset(cases, _facts(), maps, _rule(None), "inside")
    np.testing.assert_array_equal(by_threshold.shown(1, cases[1]), maps.strength(1) >= 0.5)
    soft = FilteredDataset(cases, _facts(), maps, _rule(None), "soft")
    np.testing.assert_array_equal(soft.shown(1, cases[1]), maps.strength(1))


def test_blurred_fill_keeps_what_is_shown_and_the_mean_of_a_flat_image() -> None:
    image = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    shown = torch.zeros(9, 9)
    shown[2:5] = 1
    found = Rule(0.5, 1, "blur", torch.zeros(1), "own").apply(image, shown)
    torch.testing.assert_close(found[:, 2:5], image[:, 2:5], atol=0, rtol=0)
    assert (found - image)[:, 5:].abs().max() > 0.05
    assert found[:, 6:].std() < image[:, 6:].std() / 2
    torch.testing.assert_close(
        Rule(0.5, 1, "blur", torch.zeros(1), "own").apply(torch.ones(1, 9, 9), shown), torch.ones(1, 9, 9)
    )


def test_truth_of_a_negative_is_the_mask_of_a_positive_and_its_area_tells_nothing(tmp_path: Path) -> None:
    maps, cases = _maps(tmp_path), _Cases()
    inside = FilteredDataset(cases, _facts(), maps, _rule(), "truth_inside")
    outside = FilteredDataset(cases, _facts(), maps, _rule(), "truth_outside")
    for index in range(4):
        donor = index if LABELS[index] else inside.donor(index)
        assert LABELS[donor] == 1
        np.testing.assert_array_equal(inside.shown(index, cases[index]), TRUTH[donor])
        np.testing.assert_array_equal(outside.shown(index, cases[index]), ~TRUTH[donor])


def test_a_negative_may_be_given_the_map_of_a_positive(tmp_path: Path) -> None:
    maps, cases = _maps(tmp_path), _Cases()
    for kind in ("inside", "soft"):
        own, given = (FilteredDataset(cases, _facts(), maps, _rule(7, one), kind) for one in ("own", "positive"))
        for index in range(4):
            source = index if LABELS[index] else given.donor(index)
            np.testing.assert_array_equal(given.shown(index, cases[index]), own.shown(source, cases[source]))
    assert not np.array_equal(own.shown(1, cases[1]), given.shown(1, cases[1]))


def test_random_masks_have_the_area_of_the_maps_and_lie_elsewhere(tmp_path: Path) -> None:
    maps, cases = _maps(tmp_path), _Cases()
    for area in (1, 7, None):
        own, inside, outside = (
            FilteredDataset(cases, _facts(), maps, _rule(area), kind)
            for kind in get_args(Kind)
            if kind in ("inside", "random_inside", "random_outside")
        )
        for index in range(4):
            sample = cases[index]
            mask, shifted = own.shown(index, sample), inside.shown(index, sample)
            assert mask.sum() == shifted.sum()
            assert area is None or mask.sum() == area
            np.testing.assert_array_equal(outside.shown(index, sample), shifted == 0)
    block = np.zeros((20, 16), dtype=bool)
    block[3:6, 2:4] = True
    places = []
    for number in range(40):
        found = moved(block, str(number))
        np.testing.assert_array_equal(found, moved(block, str(number)))
        shape = [np.roll(found, shift, axis).any(1 - axis).sum() for axis in (0, 1) for shift in (0,)]
        assert (shape, int(found.sum())) == ([3, 2], 6)
        places.append(tuple(np.argwhere(found)[0]))
    assert len(set(places)) > 30


def test_a_flat_map_gives_each_case_a_mask_of_the_same_area_that_is_no_corner(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((1, 8, 8), np.float32))
    mask = CaseMaps([(tmp_path / "flat.npy", 0)], []).highest(0, 16)
    assert mask.sum() == 16
    assert mask[2:].any()
    assert not CaseMaps([(tmp_path / "flat.npy", 0)], []).own_strength(0).any()


def test_dice_is_that_of_the_metrics_and_empty_masks_have_none() -> None:
    strength, truth = np.clip(RAW[0], 0, 1), TRUTH[0]
    limits = np.array([0.1, 0.5, 1.0])
    maps, masks = torch.from_numpy(strength).expand(1, 3, 6, 5), torch.from_numpy(truth).expand(1, 3, 6, 5)
    expected = overlaps(maps, masks, torch.from_numpy(limits).float())["dice"][0]
    np.testing.assert_allclose(dice_at(strength, truth, limits), expected, rtol=1e-6)
    assert np.isnan(dice_at(strength, TRUTH[1], limits)).all()
    assert dice_at(np.zeros_like(strength), truth, limits).tolist() == [0, 0, 0]


def test_otsu_is_the_threshold_that_brute_force_finds() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(0.3, 0.12, 300), rng.normal(0.7, 0.12, 60)]).clip(0, 1).astype(np.float32)
    truth = np.arange(360) >= 300

    def between(limit: float) -> float:
        upper, lower = values[values >= limit], values[values < limit]
        return float(len(upper) * len(lower) * (upper.mean() - lower.mean()) ** 2)

    limit = max(map(float, np.unique(values)[1:]), key=between)
    assert otsu(values) == pytest.approx(limit, abs=0.01)
    assert between(otsu(values)) == pytest.approx(between(limit), rel=1e-3)
    curves = dice_curves([(values, truth)], 0.6)
    assert curves[0, 1] == pytest.approx(dice_at(values, truth, np.array([limit]))[0], abs=0.02)
    assert curves[0, 0] == dice_at(values, truth, np.array([0.6]))[0]
    assert abs(curves[0, 1] - curves[0, 0]) > 0.02


def test_the_validation_threshold_is_chosen_on_validation_cases_and_the_oracle_on_those_scored() -> None:
    truth = np.arange(10) < 3
    weak = np.where(truth, 0.3, 0.05).astype(np.float32)
    strong = np.where(truth, 0.9, 0.4).astype(np.float32)
    scored, tuned = dice_curves([(strong, truth)], 0.2), dice_curves([(weak, truth), (weak, ~truth & False)], 0.2)
    found, limits = four(scored, tuned)
    assert limits["validation"] == pytest.approx(0.06)
    assert limits["oracle"] == pytest.approx(0.41)
    assert found["oracle"].tolist() == [1]
    assert found["validation"].tolist() == found["fixed"].tolist() == [2 * 3 / 13]
    assert best(np.full((2, 102), np.nan)) == 0
    assert GRID[0] > 0


def test_scores_of_weighted_cases_are_those_of_repeated_ones() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=30), rng.integers(0, 2, 30).astype(float)
    counts = rng.integers(0, 4, (1, 30)).astype(float)
    rows = np.repeat(np.arange(30), counts[0].astype(int))
    assert weighted_auroc(logits, labels, counts)[0] == pytest.approx(roc_auc_score(labels[rows], logits[rows]))
    accuracy = ((logits > 0) == (labels == 1))[rows].mean()
    assert weighted_accuracy(logits, labels, counts)[0] == pytest.approx(accuracy)


def test_intervals_know_of_cases_and_of_trainings() -> None:
    rng = np.random.default_rng(3)
    labels = (np.arange(200) % 2).astype(float)
    same = np.tile(labels + rng.normal(size=200), (3, 1))
    apart = same + np.array([[0.0], [0.0], [1.0]]) * rng.normal(size=200) * 3
    shifted = same + 5.0
    alone = np.arange(200)
    draws = resampled(weighted_auroc, np.stack([same, apart, shifted]), labels, alone)
    value = [percentile_estimate(row, 200) for row in draws]
    assert value[0].value == pytest.approx(roc_auc_score(labels, same[0]))
    assert value[1].value == pytest.approx(np.mean([roc_auc_score(labels, one) for one in apart]))
    assert value[1].high - value[1].low > 1.3 * (value[0].high - value[0].low)
    error = np.sqrt(value[0].value * (1 - value[0].value) / 100)  # a rough one, of the smaller class
    assert value[0].high - value[0].low == pytest.approx(2 * 1.96 * error * 0.8, rel=0.25)
    gap = percentile_estimate(draws[2] - draws[0], 200)
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    pairs = percentile_estimate(resampled(weighted_auroc, same[None], labels, alone // 20)[0], 200)
    assert pairs.value == value[0].value
    assert (pairs.low, pairs.high) != (value[0].low, value[0].high)
    portioned = resampled(weighted_accuracy, np.zeros((1, 1, 3)), np.array([0.0, 1.0, 0.0]), np.arange(3), 50)
    assert portioned[0, 0] == pytest.approx(2 / 3)


def test_facts_are_those_of_the_cases_and_change_with_every_pixel() -> None:
    def batches(value: float) -> list[Batch]:
        images = torch.zeros(2, 1, 4, 4)
        images[0, 0, 0, 0] = value
        masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
        masks[0, 0, :2] = True
        label = torch.tensor([1, 0])
        return [
            {"image": images, "label": label, "mask": masks, "case": ["a", "b"], "affine": [None, None], "frame": []}
        ]

    facts = read_facts(batches(8.0), "train")
    assert (facts.names, facts.labels.tolist(), facts.areas.tolist()) == (["a", "b"], [1, 0], [8, 0])
    assert facts.mean.tolist() == [0.25]
    assert facts.digest == read_facts(batches(8.0), "train").digest != read_facts(batches(9.0), "train").digest
    one_kind = batches(1.0)
    one_kind[0]["label"] = torch.tensor([1, 1])
    with pytest.raises(InputError, match="val cases all have the label 1"):
        read_facts(one_kind, "val")
    other = batches(1.0)
    other[0]["image"] = torch.zeros(2, 1, 4, 5)
    with pytest.raises(InputError, match="images of one shape"):
        read_facts([*batches(1.0), *other], "train")


def test_a_training_is_known_again_by_what_shapes_it() -> None:
    settings = {"max_epochs": 3, "default_root_dir": "a", "logger": False, "devices": 1}
    assert shaping(settings) == {"max_epochs": 3}
    assert key_of(shaping(settings)) == key_of(shaping({**settings, "default_root_dir": "b"}))
    assert key_of(shaping(settings)) != key_of(shaping({**settings, "max_epochs": 4}))
    assert key_of(torch.optim.SGD) != key_of(torch.optim.Adam)
    assert key_of(partial(ConvPyramid, width=2)) != key_of(partial(ConvPyramid, width=4))


@pytest.mark.parametrize(
    "backbone",
    [
        lambda channels, dims: ConvPyramid(channels, dims, width=8),
        partial(TappedBackbone, network=torch.nn.Conv2d(1, 1, 1), layers=["0"]),
        {"network": object()},
    ],
    ids=["lambda", "network", "object"],
)
def test_settings_that_cannot_be_told_apart_are_refused(backbone: object) -> None:
    with pytest.raises(InputError, match=r"cannot tell .* from another of that name: give a class, a function of"):
        key_of({"backbone": backbone})
