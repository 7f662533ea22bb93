"""Whose weights a retrofit reads, in which precision, and what it leaves behind where it cannot."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import Backbone, ConvPyramid, MonaiBackbone, TappedBackbone
from hrcam_lightning.callbacks import LocalizationMetrics
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule
from hrcam_lightning.retrofit import RetrofitTrainer
from hrcam_lightning.retrofit.features import on_disk
from tests.command_line import CASES, SMALL, error_of
from tests.retrofit.command import bare, command

PUBLISHED = ["--equivariance", "0", "--l2", "0.1"]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_of_weights_takes_the_place_of_a_checkpoint(base: Path, tiny_set: Path) -> None:
    cases, states = tiny_set / "cases.csv", []
    for words in (command(base, cases), bare(cases, "--model.weights", str(base / "best.ckpt"))):
        main([*words, *PUBLISHED, "--overwrite", "true"])
        states.append(torch.load("head/best.ckpt", weights_only=True)["state_dict"])
    first, second = ({name: state[name] for name in state if name != "thresholds"} for state in states)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)
    assert set(json.loads(Path("head/retrofit.json").read_text())["val"]) == {"head/auroc"}


def test_a_file_without_the_whole_backbone_is_refused(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(base / "best.ckpt", weights_only=True)["state_dict"]
    part = {name.removeprefix("model."): value for name, value in state.items() if "stages.2" not in name}
    torch.save(part, "part.pt")
    words = bare(tiny_set / "cases.csv", "--model.weights", "part.pt")
    assert "part.pt: does not hold the backbone that is asked for; it misses" in error_of(capsys, monkeypatch, *words)
    assert not _contents(Path("head"))


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())


def _retrofit(root: Path, cases: Path, backbone: object, weights: str | None = None) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    task = LocalizationTask(backbone=backbone, weights=weights)  # type: ignore[arg-type]
    trainer = RetrofitTrainer(default_root_dir=root, **quiet)  # type: ignore[arg-type]
    trainer.retrofit(task, CaseDataModule(str(cases), batch_size=4), equivariance=0.0, l2=0.1)


def test_backbones_say_whether_they_bring_weights(tmp_path: Path, tiny_set: Path) -> None:
    resnet = partial(MonaiBackbone, name="resnet10", stem_stride=2)
    for network in (partial(ConvPyramid, width=2, depth=2), resnet):
        with pytest.raises(InputError, match=r"needs a trained network: give --ckpt_path, --model\.weights, or"):
            _retrofit(tmp_path, tiny_set / "cases.csv", network)
    assert not _contents(tmp_path)
    torch.save(resnet(1, 2).network.state_dict(), tmp_path / "resnet.pt")
    own: Backbone = resnet(1, 2, weights=str(tmp_path / "resnet.pt"))
    assert own.brings_weights
    _retrofit(tmp_path, tiny_set / "cases.csv", partial(TappedBackbone, network=_network, layers=["1", "3"]))
    assert (tmp_path / "best.ckpt").is_file()


def test_timm_says_whether_it_brings_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from hrcam_lightning.backbones import TimmBackbone

    assert not TimmBackbone(1, 2, "resnet10t").brings_weights
    torch.save(timm.create_model("resnet10t", in_chans=1).state_dict(), tmp_path / "weights.pt")
    assert TimmBackbone(1, 2, "resnet10t", weights=str(tmp_path / "weights.pt")).brings_weights


def test_a_network_that_was_trained_since_keeps_what_it_learnt(base: Path, tiny_set: Path) -> None:
    pyramid = partial(ConvPyramid, width=4, depth=3)
    file = str(base / "best.ckpt")
    task = LocalizationTask("binary", ["lesion"], 1, 2, backbone=pyramid, weights=file)
    before = {name: value.clone() for name, value in task.network.backbone.state_dict().items()}
    with torch.no_grad():
        for parameter in task.network.backbone.parameters():
            parameter.add_(0.01)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = RetrofitTrainer(default_root_dir=base.parent, **quiet)  # type: ignore[arg-type]
    data = CaseDataModule(str(tiny_set / "cases.csv"), batch_size=4)
    trainer.retrofit(task, data, equivariance=0.0, l2=0.1)
    for name, parameter in task.network.backbone.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.01)


def test_half_precision(base: Path, tiny_set: Path) -> None:
    cases = tiny_set / "cases.csv"
    precision = ["--trainer.precision", "bf16-true"]
    main(command(base, cases, *precision))
    state = torch.load("head/best.ckpt", weights_only=True)["state_dict"]
    assert {value.dtype for name, value in state.items() if "weight" in name} == {torch.bfloat16}
    half = json.loads(Path("head/retrofit.json").read_text())
    main(["test", *CASES, str(cases), *SMALL, *precision, "--trainer.default_root_dir", "head", "--ckpt_path", "best"])
    main(command(base, cases, "--overwrite", "true"))
    single = json.loads(Path("head/retrofit.json").read_text())
    assert half["val"]["base/auroc"] == pytest.approx(single["val"]["base/auroc"], abs=0.25)  # of 6 cases
    assert half["views"] == single["views"]


def test_nothing_stays_behind_an_error(
    base: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All has been read by then: eight cases are told apart perfectly."""
    words = command(base, tiny_set / "cases.csv", "--equivariance", "0", "--l2", "0")
    assert "do not settle at l2 0" in error_of(capsys, monkeypatch, *words)
    assert list(Path("head").iterdir()) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ZeroDivisionError), on_disk(empty, 10, 3) as values:
        values[:] = 1 / 0
    with on_disk(empty, 10, 3) as values:
        values[:] = 1
        assert list(empty.iterdir()) == []


def test_a_validation_that_fails_leaves_no_half_of_a_result(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command(base, tiny_set / "cases.csv", "--equivariance", "0", "--overwrite", "true")

    def fail(*_: object) -> None:
        raise InputError("no luck")

    with monkeypatch.context() as patched:
        patched.setattr(LocalizationMetrics, "on_validation_batch_end", fail)
        assert "no luck" in error_of(capsys, monkeypatch, *words, "--l2", "1")
        assert not _contents(Path("head"))
    main([*words, "--l2", "0.01"])
    before = _contents(Path("head"))
    assert {"best.ckpt", "retrofit.csv", "retrofit.json"} <= {path.name for path in before}
    monkeypatch.setattr(LocalizationMetrics, "on_validation_batch_end", fail)
    assert "no luck" in error_of(capsys, monkeypatch, *words, "--l2", "1")
    assert before == _contents(Path("head"))


def test_a_trial_leaves_an_earlier_run_as_it_is(base: Path, tiny_set: Path) -> None:
    cases = tiny_set / "cases.csv"
    main(command(base, cases, *PUBLISHED))
    before = _contents(Path("head"))
    assert Path("head/config.yaml") in before
    one_batch = ["--trainer.fast_dev_run", "true", "--data.batch_size", "8"]  # of both labels
    main(command(base, cases, *one_batch))
    assert _contents(Path("head")) == before


def test_without_cases_to_read_nothing_is_saved(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tiny_set / "cases.csv"
    for split in ("train", "val"):
        limit = f"--trainer.limit_{split}_batches"
        for value in ("0", "0.0"):
            words = command(base, cases, limit, value)
            assert f"retrofit reads the {split} cases: {limit} must not" in error_of(capsys, monkeypatch, *words)
    words = command(base, cases, "--trainer.limit_train_batches", "0.1")
    assert "no batch of the train cases is read: raise --trainer.limit_train" in error_of(capsys, monkeypatch, *words)
    with monkeypatch.context() as patch:
        patch.setattr(RetrofitTrainer, "validate", lambda *_, **__: [])
        assert "retrofit had no validation case" in error_of(capsys, patch, *command(base, cases))
    assert not _contents(Path("head"))


def test_a_second_retrofit_is_not_told_to_go_on_training(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("head").mkdir()
    Path("head/best.ckpt").touch()
    sentence = error_of(capsys, monkeypatch, *command(base, tiny_set / "cases.csv"))
    assert sentence.endswith("choose another --trainer.default_root_dir, or replace it with --overwrite true")


def test_views_that_hold_to_nothing(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no class is named normal."""
    cases = tiny_set / "cases.csv"
    monkeypatch.setattr("hrcam_lightning.retrofit.stage._normal", lambda _: lambda _: False)
    sentence = error_of(capsys, monkeypatch, *command(base, cases, "--views", "[quiet]"))
    assert "views [quiet] hold a map to nothing in these cases" in sentence
    assert not _contents(Path("head"))
    main(command(base, cases, "--views", "[quiet,flip]", "--patch_sides", "[0.1,0.3]"))
    assert "Views that no training case could give: quiet" in capsys.readouterr().out
    stated = json.loads(Path("head/retrofit.json").read_text())["views"]
    assert stated["kinds"] == ["flip"]
    assert stated["patch_sides"] == [0.1, 0.3]
