"""Normalisation: hand-computed scales, what is measured on training images, and what a checkpoint keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.data.frame import Framing
from hrcam_lightning.data.normalization import Normalization, Scaling, foreground, measure
from tests.command_line import CASES, SMALL, again, error_of, load, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RNG = np.random.default_rng(0)
TRAINING = Normalization("zscore", "training")


def _scaled(voxels: Any, *rule: Any) -> Any:
    return Scaling(Normalization(*rule))(np.asarray(voxels, np.float32))


def test_each_channel_by_its_own_values() -> None:
    voxels = RNG.normal(100, 7, size=(2, 5, 6)).astype(np.float32)
    scored = _scaled(voxels, "zscore")
    np.testing.assert_allclose(scored.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scored.std((1, 2)), 1, atol=1e-5)
    ends = _scaled(voxels, "minmax")
    np.testing.assert_array_equal(ends.min((1, 2)), 0)
    np.testing.assert_array_equal(ends.max((1, 2)), 1)
    assert Scaling(Normalization("none"))(voxels) is voxels


def test_a_constant_channel_becomes_zero_by_every_rule_of_the_image() -> None:
    constant = np.full((2, 3, 4, 5), 5, np.float32)
    for over in ("image", "foreground"):
        np.testing.assert_array_equal(_scaled(constant, "zscore", over), 0)
        np.testing.assert_array_equal(_scaled(constant, "percentile", over, 1, 99), 0)
    np.testing.assert_array_equal(_scaled(constant, "minmax"), 0)


def test_a_window_is_cut_at_its_ends() -> None:
    scaled = _scaled([[[-1000.0, -160, 40, 240, 3000]]], "window", "image", -160, 240)
    np.testing.assert_allclose(scaled, [[[0, 0, 0.5, 1, 1]]], atol=1e-7)


def test_percentiles_are_those_of_each_channel() -> None:
    voxels = np.stack([np.arange(101), 3.0 * np.arange(101) - 50])[:, :, None]
    expected = np.clip((np.arange(101) - 10) / 80, 0, 1)
    scaled = _scaled(RNG.permuted(voxels, axis=1), "percentile", "image", 10, 90)
    np.testing.assert_allclose(np.sort(scaled[..., 0], 1), np.tile(expected, (2, 1)), atol=1e-6)


def test_the_foreground_of_a_stripped_scan_is_all_but_its_padding() -> None:
    """With negative tissue, as interpolation leaves it; with a padding that is not zero; channel by channel."""
    for padding in (0.0, -1024.0):
        channel = np.full((8, 9, 10), padding)
        channel[2:6, 2:7, 3:8] = RNG.normal(padding + 70, 10, size=(4, 5, 5))
        channel[2, 2, 3] = padding - 12
        assert foreground(channel).sum() == 100
        tissue = channel[2:6, 2:7, 3:8]
        scaled = _scaled(channel[None], "zscore", "foreground")
        np.testing.assert_allclose(scaled[0], (channel - tissue.mean()) / tissue.std(), rtol=1e-4, atol=1e-4)


def test_the_foreground_of_a_noisy_scan_lies_above_otsus_threshold() -> None:
    channel = RNG.normal(-100, 5, size=(20, 30))
    channel[5:15, 5:25] += 200
    inside = np.zeros((20, 30), bool)
    inside[5:15, 5:25] = True
    np.testing.assert_array_equal(foreground(channel), inside)
    # Nor is a bright plateau padding, such as a saturated marker.
    channel[:4, :20] = 400
    assert foreground(channel)[:4, :20].all()


def test_the_training_set_is_measured_as_if_it_were_one_image() -> None:
    """In images of different size, of an offset that would cancel in single precision."""
    images = [RNG.normal(1e5, 3, size=(2, 7, n)).astype(np.float32) for n in (3, 11, 6)]
    images[1][1] += 7
    every = np.concatenate([image.reshape(2, -1) for image in images], 1).astype(np.float64)
    found = measure(TRAINING, iter(images))
    assert found.low == pytest.approx(every.mean(1), rel=1e-12)
    assert found.span == pytest.approx(every.std(1), rel=1e-9)
    np.testing.assert_allclose(found(images[0])[1], (images[0][1] - every[1].mean()) / every[1].std(), rtol=1e-4)


def test_percentiles_of_the_training_set_are_those_of_all_its_voxels() -> None:
    whole = [RNG.integers(-1024, 3000, size=(1, 9, n)).astype(np.float32) for n in (40, 70)]
    rule = Normalization("percentile", "training", 5, 95)
    every = np.concatenate([image.ravel() for image in whole])
    low, high = np.percentile(every, [5, 95], method="inverted_cdf")
    found = measure(rule, whole)
    assert found.low == (low,)
    assert found.span == (high - low,)
    assert found == measure(rule, whole[::-1])
    for unit in (1e-6, 1e6):  # whatever the unit
        fractions = [image * np.float32(unit * 1.01) for image in whole]
        found = measure(rule, fractions)
        assert found.low == pytest.approx((low * unit * 1.01,), rel=6e-4)
        assert found.span == pytest.approx(((high - low) * unit * 1.01,), rel=6e-4)


def test_a_stored_scale_refuses_other_channels() -> None:
    found = measure(TRAINING, [np.ones((2, 3, 3), np.float32)])
    np.testing.assert_array_equal(found(np.full((2, 4, 4), 3, np.float32)), 2)  # no deviation to divide by
    with pytest.raises(InputError, match="had 2 channels and this image has 3"):
        found(np.ones((3, 4, 4), np.float32))
    with pytest.raises(InputError, match="have 2 and 1 channels"):
        measure(TRAINING, [np.ones((2, 3, 3), np.float32), np.ones((1, 3, 3), np.float32)])


def test_rules_that_do_not_fit_together_are_refused() -> None:
    wrong: list[tuple[tuple[Any, ...], str]] = [
        (("window",), "window needs low and high"),
        (("window", "image", 5, 5), "lower one first"),
        (("percentile", "image", 1), "for example {kind: percentile, low: 1, high: 99}"),
        (("percentile", "image", -1, 50), "not percentages"),
        (("zscore", "image", 1, 2), "zscore has no low and high"),
        (("minmax", "training"), "over training is for zscore and percentile"),
    ]
    for arguments, sentence in wrong:
        with pytest.raises(InputError, match=sentence):
            Normalization(*arguments)


def test_only_training_cases_are_measured(tiny_set: Path) -> None:
    for workers in (0, 2):
        module = CaseDataModule(str(tiny_set / "cases.csv"), normalization=TRAINING, num_workers=workers)
        train = [case for case in module.table.cases if case.split == "train"]
        voxels = np.stack([np.asarray(load(case.images[0]).dataobj) for case in train]).astype(np.float64)
        assert module.scaling.low == pytest.approx((voxels.mean(),))
        assert module.scaling.span == pytest.approx((voxels.std(),))
    scan = load(module.table.cases[-1].images[0])
    expected = (np.squeeze(np.asarray(scan.dataobj)) - voxels.mean()) / voxels.std()
    np.testing.assert_allclose(module.dataset("test")[5]["image"][0], expected, rtol=1e-4, atol=1e-5)


def test_phantoms_on_disk_and_drawn_are_measured_alike(tiny_set: Path, spec_path: Path) -> None:
    stored = CaseDataModule(str(tiny_set / "cases.csv"), normalization=TRAINING)
    assert stored.scaling == PhantomDataModule(str(spec_path), seed=3, normalization=TRAINING).scaling


@pytest.fixture
def trained(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on phantoms drawn while training, on the scale of its training images."""
    monkeypatch.chdir(tmp_path)
    rule = ["--data.normalization", "{kind: zscore, over: training}", "--trainer.max_epochs", "1"]
    spec = ["--data", "PhantomDataModule", "--data.spec", str(tiny_set.parent / "tiny.yaml"), "--data.seed", "3"]
    main(["fit", *spec, *SMALL, *rule, "--trainer.default_root_dir", "run"])
    return tmp_path / "run"


def _seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Images that reach the network at prediction."""
    from hrcam_lightning.task import LocalizationTask

    seen: list[torch.Tensor] = []
    step: Callable[..., Any] = LocalizationTask.predict_step

    def spy(self: LocalizationTask, batch: Any, batch_idx: int) -> Any:
        seen.extend(batch["image"])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LocalizationTask, "predict_step", spy)
    return seen


def test_prediction_scales_by_the_checkpoint_and_reads_no_training_case(
    trained: Path, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network was trained through another data module than the one that reads the scan, too."""
    state = torch.load(trained / "best.ckpt", weights_only=True)["PhantomDataModule"]["normalization"]
    expected = CaseDataModule(str(tiny_set / "cases.csv"), normalization=TRAINING).scaling
    assert (tuple(state["low"]), tuple(state["span"])) == (expected.low, expected.span)
    table = tmp_path / "new.csv"
    table.write_text("image\nscan.nii\n")
    voxels = RNG.normal(3, 1, size=(16, 16)).astype(np.float32)
    save(voxels, np.eye(4), tmp_path / "scan.nii")
    seen = _seen(monkeypatch)
    main(again("predict", trained, table))
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0][0], (voxels - state["low"][0]) / state["span"][0], rtol=1e-5)
    main(again("predict", trained, table, "--data.normalization", "{kind: zscore, over: training}"))
    assert torch.equal(seen[0], seen[1])


def test_retrofit_keeps_the_scale_and_another_one_is_refused(
    trained: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["retrofit", *CASES, str(tiny_set / "cases.csv"), *SMALL, "--ckpt_path", str(trained / "best.ckpt")]
    main([*start, "--trainer.default_root_dir", "retrofit", "--views", "[flip]"])
    states = [
        torch.load(path, weights_only=True)[name]["normalization"]
        for path, name in (
            (trained / "best.ckpt", "PhantomDataModule"),
            (trained.parent / "retrofit/best.ckpt", "CaseDataModule"),
        )
    ]
    assert states[0] == states[1]
    command = again("test", trained, tiny_set / "cases.csv", "--data.normalization", "minmax")
    assert "trained with data.normalization 'zscore over training', but 'minmax' is asked for" in error_of(
        capsys, monkeypatch, *command
    )


def test_a_checkpoint_of_before_goes_on_by_each_image_alone(
    fitted: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = torch.load(fitted / "best.ckpt", weights_only=True)
    del old["CaseDataModule"], old["data_module"], old["hyper_parameters"]["class_weights"]
    torch.save(old, fitted / "best.ckpt")
    main(again("predict", fitted, tiny_set / "cases.csv"))
    command = again("test", fitted, tiny_set / "cases.csv", "--data.normalization", "{kind: zscore, over: training}")
    assert "does not know the scale of its training images" in error_of(capsys, monkeypatch, *command)


def test_a_resumed_run_goes_on_with_the_scale_it_began_with(
    trained: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrcam_lightning.data.module.measure", lambda *_: pytest.fail("measured again"))
    spec = ["--data", "PhantomDataModule", "--data.spec", str(tiny_set.parent / "tiny.yaml"), "--data.seed", "3"]
    more = ["--trainer.default_root_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    before = torch.load(trained / "last.ckpt", weights_only=True)["PhantomDataModule"]
    main(["fit", *spec, *SMALL, *more])
    after = torch.load(trained / "last.ckpt", weights_only=True)
    assert after["epoch"] == 1
    assert after["PhantomDataModule"] == before


def test_the_framing_of_a_checkpoint_holds_unless_it_asked_for_none(spec_path: Path) -> None:
    def module(framing: Framing | None) -> PhantomDataModule:
        made = PhantomDataModule(str(spec_path))
        made._asked_framing = framing
        return made

    small, large = Framing(shape=[16, 16]), Framing(spacing=[2.0, 2.0], shape=[32, 32])
    state = module(small).state_dict()
    for asked, expected in ((None, small), (small, small)):
        follower = module(asked)
        follower.load_state_dict(state)
        assert follower.framing == expected
        assert follower.state_dict() == state
    with pytest.raises(InputError, match=r"with data.framing {shape: \[16, 16\], fit: crop}, but {spacing: \[2.0, 2"):
        module(large).load_state_dict(state)
    untouched = module(large)
    untouched.load_state_dict(module(None).state_dict())
    assert untouched.framing == large
