"""Augmentation: exact cases, rigid in millimetres, masks with their images, and nothing that depends on the batch."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.data.augment import Augmentation, _Draw, _fields, augment
from hrcam_lightning.views import View

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.data import Batch

GEOMETRY = Augmentation((0, 1), rotation=20, scale=0.2, translation=0.1)
EVERYTHING = Augmentation((0,), 15, 0.1, 0.05, gain=0.2, offset=0.1, gamma=0.2, noise=0.1, bias=0.3)


def _batch(image: Tensor, mask: Tensor | None = None, affine: Any = None, first: int = 0) -> Batch:
    batch: dict[str, Any] = {"image": image, "affine": [affine] * len(image)}
    batch["case"] = [f"case{first + n}" for n in range(len(image))]
    if mask is not None:
        batch["mask"] = mask
    return cast("Batch", batch)


def _blobs(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float, count: int) -> tuple[Tensor, Tensor]:
    """Smooth blobs off the centre and the mask of where they are above a half, (count, 1, *S); radius in mm."""
    axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    centre = torch.tensor([0.2 * n * step for n, step in zip(shape, spacing, strict=True)])
    squares = (places - centre.view(-1, *[1] * len(shape))).square().sum(0)
    blob = torch.exp(-math.log(2) * squares / radius**2)
    image = blob.expand(count, 1, *shape).clone()
    return image, image > 0.5


def _affine(*spacing: float) -> Any:
    return np.diag([*spacing, *[1.0] * (4 - len(spacing))])


def test_nothing_asked_for_is_nothing_done() -> None:
    image = torch.randn(2, 1, 6, 7)
    assert torch.equal(augment(_batch(image), Augmentation(), 0, 0)["image"], image)


def test_flips_are_exact_and_happen_to_half_of_the_images() -> None:
    image, mask = torch.randn(400, 2, 3, 4), torch.rand(400, 1, 3, 4) < 0.5
    batch = _batch(image, mask)
    batch["cue"] = mask[:, 0]
    made = augment(batch, Augmentation((1,)), 0, 0)
    flipped = 0
    for n in range(400):
        here = torch.equal(made["image"][n], image[n].flip(2))
        flipped += here
        assert here or torch.equal(made["image"][n], image[n])
        assert torch.equal(made["mask"][n], mask[n].flip(2) if here else mask[n])
        assert torch.equal(made["cue"][n], made["mask"][n, 0])
    assert 160 < flipped < 240
    assert batch["image"] is image


def test_a_rotation_by_a_known_angle_is_that_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn moves voxels onto voxels: compared with torch's own, and about an axis of 3D."""
    monkeypatch.setattr("hrcam_lightning.data.augment._Draw", lambda *_: _Fixed(angle=1))
    image = torch.randn(1, 1, 8, 8)
    made = augment(_batch(image), Augmentation(rotation=90), 0, 0)["image"]
    torch.testing.assert_close(made, image.rot90(-1, (2, 3)), atol=1e-5, rtol=0)
    solid = torch.randn(1, 1, 6, 8, 8)
    made = augment(_batch(solid), Augmentation(rotation=90), 0, 0)["image"]  # about the first axis
    turned = [solid.rot90(n, (3, 4)) for n in (1, -1)]
    assert min(float((made - turn).abs().max()) for turn in turned) < 1e-5


class _Fixed(_Draw):
    def __init__(self, angle: float = 0, size: float = 0, shift: tuple[float, ...] = (0, 0, 0)) -> None:
        super().__init__(0, 0, "", 1)
        self.flipped = [False] * 3
        self.angle, self.size, self.shift = angle, size, np.array(shift)
        # cos(turn) sqrt(1 - height²), …: the first axis
        self.height, self.turn = 0.0, 0.0


def test_scale_and_shift_by_known_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = torch.arange(16.0).expand(1, 1, 8, 16)
    monkeypatch.setattr("hrcam_lightning.data.augment._Draw", lambda *_: _Fixed(size=1))
    made = augment(_batch(ramp), Augmentation(scale=1.0), 0, 0)["image"]  # twice as large
    torch.testing.assert_close(made[0, 0, 3], 7.5 + (torch.arange(16.0) - 7.5) / 2, atol=1e-4, rtol=0)
    monkeypatch.setattr("hrcam_lightning.data.augment._Draw", lambda *_: _Fixed(shift=(0, 1, 0)))
    made = augment(_batch(ramp), Augmentation(translation=0.125), 0, 0)["image"]  # by two voxels, edge repeated
    torch.testing.assert_close(made[0, 0, 3], (torch.arange(16.0) + 2).clamp(max=15), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spacing", [(1.0, 4.0), (1.0, 0.5, 3.0)])
def test_a_rotation_is_rigid_in_the_patient(spacing: tuple[float, ...]) -> None:
    """A round blob stays round in millimetres, on a grid of unlike steps, and keeps its distance from the centre."""
    shape = tuple(round(48 / step) for step in spacing)
    image, _ = _blobs(shape, spacing, 6, 4)
    made = augment(_batch(image, None, _affine(*spacing)), Augmentation(rotation=40), 3, 0)["image"]
    axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    distances, spreads, centres = [], [], []
    for blob in (image[0, 0], *made[:, 0]):
        weights = blob.clamp(min=0.1) - 0.1
        centre = (places * weights).flatten(1).sum(1) / weights.sum()
        away = (places - centre.view(-1, *[1] * len(shape))).flatten(1)
        spreads.append(torch.linalg.eigvalsh((away * weights.flatten()) @ away.T / weights.sum()).sqrt())
        distances.append(centre.norm())
        centres.append(centre)
    assert (centres[1] - centres[0]).norm() > 1  # it did turn
    for distance, spread in zip(distances, spreads, strict=True):
        assert distance == pytest.approx(float(distances[0]), abs=0.3)
        np.testing.assert_allclose(spread, spreads[0], atol=0.25)


@pytest.mark.parametrize("spacing", [(1.0, 2.0), (1.0, 1.0, 2.0)])
def test_a_mask_stays_on_its_lesion_to_half_a_voxel(spacing: tuple[float, ...]) -> None:
    shape = tuple(round(32 / step) for step in spacing)
    image, mask = _blobs(shape, spacing, 5, 8)
    how = Augmentation((0, 1), 25, 0.15, 0.05)
    made = augment(_batch(image, mask, _affine(*spacing)), how, 0, 5)
    assert made["mask"].dtype == torch.bool
    assert not torch.equal(made["mask"], mask)
    slope = max(float(image.diff(dim=axis + 2).abs().max()) for axis in range(len(shape)))  # a voxel along one axis
    off = (made["mask"] != (made["image"] > 0.5)).nonzero()
    assert len(off) < 0.3 * int(mask.sum())
    for place in off:  # only where the value is within what half a voxel along every axis can change
        value = float(made["image"][tuple(place)])
        assert abs(value - 0.5) <= len(shape) * slope / 2 + 1e-4


def test_training_does_not_know_where_a_finding_is() -> None:
    """Lesions in the corner, at amplitudes that push many of them out: images are moved as those without masks are."""
    image = torch.zeros(64, 1, 24, 24)
    mask = torch.zeros(64, 1, 24, 24, dtype=torch.bool)
    image[..., :5, :5], mask[..., :5, :5] = 1, True
    how = Augmentation(rotation=45, scale=0.3, translation=0.3)
    made, free = augment(_batch(image, mask), how, 0, 0), augment(_batch(image), how, 0, 0)
    assert torch.equal(made["image"], free["image"])
    sizes = made["mask"].flatten(1).sum(1)
    assert sizes.min() == 0
    assert 25 * 1.3**2 / 2 < sizes.max() <= 25 * 1.3**2 + 8  # a mask is not drawn out from the edge


def test_a_case_gets_the_same_whatever_else_is_in_its_batch() -> None:
    image, mask = torch.randn(4, 2, 10, 12), torch.rand(4, 3, 10, 12) < 0.02
    whole = augment(_batch(image, mask), EVERYTHING, 7, 11)
    for n in range(4):
        single = augment(_batch(image[n : n + 1], mask[n : n + 1], first=n), EVERYTHING, 7, 11)
        torch.testing.assert_close(single["image"][0], whole["image"][n], atol=1e-5, rtol=0)  # powers round by place
        assert torch.equal(single["mask"][0], whole["mask"][n])
    for seed, step in ((7, 12), (8, 11)):
        other = augment(_batch(image, mask), EVERYTHING, seed, step)["image"]
        assert all(not torch.equal(one, two) for one, two in zip(other, whole["image"], strict=True))
    assert not torch.equal(*augment(_batch(image[:1].expand(2, -1, -1, -1)), EVERYTHING, 0, 0)["image"])


def test_it_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    augment(_batch(torch.randn(2, 1, 8, 8, generator=torch.Generator())), EVERYTHING, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_change_of_greys_is_the_stated_one() -> None:
    image = 5 + 3 * torch.randn(200, 2, 12, 13, generator=torch.Generator().manual_seed(0))
    deviation, mean = image.std((2, 3), correction=0), image.mean((2, 3))

    def made(**how: float) -> Tensor:
        return augment(_batch(image), Augmentation(**how), 0, 0)["image"]  # type: ignore[arg-type]

    gain = made(gain=0.5)
    torch.testing.assert_close(gain.mean((2, 3)), mean)
    factors = gain.std((2, 3), correction=0) / deviation
    assert 1 / 1.5 <= factors.min() < 0.7
    assert 1.4 < factors.max() <= 1.5
    assert (factors[:, 0] - factors[:, 1]).abs().max() > 0.3  # each channel its own
    shifts = (made(offset=0.2) - image).mean((2, 3)) / deviation
    assert -0.2 <= shifts.min() < -0.18
    assert 0.18 < shifts.max() <= 0.2
    gamma = made(gamma=0.5)
    torch.testing.assert_close(gamma.amin((2, 3)), image.amin((2, 3)))
    torch.testing.assert_close(gamma.amax((2, 3)), image.amax((2, 3)))
    span = image.amax((2, 3), keepdim=True) - image.amin((2, 3), keepdim=True)
    before, after = ((x - image.amin((2, 3), keepdim=True)) / span for x in (image, gamma))
    middle = (before > 0.3) & (before < 0.7)
    powers = torch.where(middle, after.log() / before.log(), 1)
    exponents = powers.masked_fill(~middle, torch.nan).nanmean((2, 3))
    assert (powers - exponents[..., None, None])[middle].abs().max() < 0.02
    assert 1 / 1.5 - 0.01 <= exponents.min() < 0.7
    assert 1.4 < exponents.max() <= 1.51
    noise = (made(noise=0.3) - image).std((2, 3)) / deviation
    assert noise.min() < 0.02
    assert 0.27 < noise.max() < 0.36


def test_a_bias_field_is_smooth_and_no_larger_than_stated() -> None:
    for shape in ((24, 32), (12, 14, 16)):
        image = torch.rand(60, 1, *shape) + 1
        image[:, :, 0] = 0  # the lowest value, which a field leaves
        image[:, :, -1] = 5
        made = augment(_batch(image), Augmentation(bias=0.4), 1, 0)["image"]
        assert torch.equal(made[:, :, 0], image[:, :, 0])
        logs = (made[:, :, 1:] / image[:, :, 1:]).log() / math.log(1.4)
        peaks = logs.abs().flatten(1).amax(1)
        assert 0.8 < peaks.max() <= 1.0001
        assert peaks.min() < 0.1
        for axis in range(len(shape)):  # a wave of cosine over n voxels changes by no more than 2π/n times its height
            assert logs.diff(dim=axis + 2).abs().max() < 2.5 * 2 * math.pi / shape[axis]
        assert logs.flatten(1).std(1).max() > 0.2
        fields = _fields([_Draw(0, 0, str(n), 1) for n in range(60)], image)
        assert fields.mean(tuple(range(2, image.ndim))).abs().max() < 1e-5  # no change of the whole


def test_constant_images_stay_finite() -> None:
    made = augment(_batch(torch.full((3, 1, 8, 8), 2.0)), EVERYTHING, 0, 0)["image"]
    torch.testing.assert_close(made, torch.full_like(made, 2))


def test_half_precision_comes_back_as_it_was() -> None:
    image = torch.randn(2, 1, 8, 8).bfloat16()
    made = augment(_batch(image), EVERYTHING, 0, 0)["image"]
    assert made.dtype == torch.bfloat16
    expected = augment(_batch(image.float()), EVERYTHING, 0, 0)["image"]
    assert torch.equal(made, expected.bfloat16())


def test_settings_out_of_range_are_refused() -> None:
    for arguments, sentence in (
        ({"rotation": -1}, "augmentation.rotation is -1"),
        ({"noise": math.nan}, "augmentation.noise is nan"),
        ({"translation": 0.6}, "translation by 0.6"),
        ({"flips": (3,)}, r"flips is \[3\]"),
        ({"flips": (0, 0)}, r"flips is \[0, 0\]"),
    ):
        with pytest.raises(InputError, match=sentence):
            Augmentation(**cast("Any", arguments))
    with pytest.raises(InputError, match="images have the axes 0 to 1"):
        augment(_batch(torch.zeros(1, 1, 4, 4)), Augmentation((2,)), 0, 0)


def _images_of_a_run(
    spec: Path, monkeypatch: pytest.MonkeyPatch, how: Augmentation | None, **task: object
) -> dict[str, list[Any]]:
    """What reaches the network in two epochs, and the views that are drawn of it."""
    seen: dict[str, list[Any]] = {"train": [], "val": [], "view": [], "loss": []}
    monkeypatch.undo()
    steps = {"train": LocalizationTask.training_step, "val": LocalizationTask.validation_step}
    for stage, name in (("train", "training_step"), ("val", "validation_step")):

        def spy(self: LocalizationTask, batch: Batch, index: int, stage: str = stage) -> Any:
            seen[stage].append({"image": batch["image"].clone(), "mask": batch["mask"], "case": batch["case"]})
            return steps[stage](self, batch, index)

        monkeypatch.setattr(LocalizationTask, name, spy)
    apply = View.apply

    def look(view: View, x: Tensor) -> Tensor:
        seen["view"].append((view, x.clone()))
        return apply(view, x)

    monkeypatch.setattr(View, "apply", look)
    seed_everything(5, verbose=False)
    model = LocalizationTask(backbone=partial(ConvPyramid, width=4, depth=3), view_averaging=False, **task)  # type: ignore[arg-type]
    data = PhantomDataModule(str(spec), augmentation=how, batch_size=4)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=spec.parent,
    )  # fmt: skip
    trainer.fit(model, data)
    return seen


def test_only_training_images_are_augmented_and_views_are_views_of_them(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _images_of_a_run(spec_path, monkeypatch, None)
    made = _images_of_a_run(spec_path, monkeypatch, EVERYTHING)
    assert len(plain["train"]) == len(made["train"]) == 4
    for step, (before, after) in enumerate(zip(plain["train"], made["train"], strict=True)):
        assert before["case"] == after["case"]
        batch = _batch(before["image"], before["mask"], _affine(1.0, 2.0))
        batch["case"] = before["case"]
        expected = augment(batch, EVERYTHING, 5, step)
        assert not torch.equal(expected["image"], before["image"])
        assert torch.equal(expected["image"], after["image"])
        assert torch.equal(expected["mask"], after["mask"])
    for before, after in zip(plain["val"], made["val"], strict=True):
        assert torch.equal(before["image"], after["image"])
    # The same views are drawn as without it, of what the network is shown.
    assert [view for view, _ in plain["view"]] == [view for view, _ in made["view"]]
    for (_, shown), after in zip(made["view"], made["train"], strict=True):
        assert torch.equal(shown, after["image"])


def test_a_data_module_without_it_hands_batches_on_untouched(spec_path: Path) -> None:
    module = PhantomDataModule(str(spec_path))
    module.trainer = cast("Trainer", SimpleNamespace(training=True, global_step=0))
    batch = _batch(torch.zeros(1, 1, 4, 4))
    assert module.on_after_batch_transfer(batch, 0) is batch
