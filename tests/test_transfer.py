"""Training in phases: frozen backbones, weights of another run, and the rate at which training ends."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, ReduceLROnPlateau

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.cli import main
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.decoders import FPN
from hrcam_lightning.transfer import hold_still, load_matching
from tests.command_line import CASES, SMALL

if TYPE_CHECKING:
    from pathlib import Path

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _task(**arguments: object) -> LocalizationTask:
    settings = {
        "task": "binary", "classes": ["lesion"], "channels": 1, "dims": 2, "consistency": 0.0,
        "backbone": partial(ConvPyramid, width=4, depth=3), "decoder": partial(FPN, width=4, segmentation_width=4),
        "optimizer": partial(Adam, lr=1e-2, weight_decay=0.1),
    }  # fmt: skip
    return LocalizationTask(**{**settings, **arguments})  # type: ignore[arg-type]


def _fit(task: LocalizationTask, root: Path, spec: Path, **arguments: object) -> Trainer:
    settings: dict[str, object] = {
        "default_root_dir": root, "max_epochs": 2, "accelerator": "cpu", "logger": False,
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }  # fmt: skip
    trainer = Trainer(**{**settings, **arguments})  # type: ignore[arg-type]
    trainer.fit(task, PhantomDataModule(str(spec), batch_size=4))
    return trainer


def _changed(before: dict[str, Tensor], task: LocalizationTask) -> set[str]:
    return {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("freeze_statistics", [True, False])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_frozen_backbone_stays_bit_for_bit(
    tmp_path: Path, spec_path: Path, epochs: int, freeze_statistics: bool
) -> None:
    seed_everything(0)
    task = _task(freeze="backbone", freeze_statistics=freeze_statistics)
    before = copy.deepcopy(task.state_dict())
    trainer = _fit(task, tmp_path, spec_path, max_epochs=epochs)
    changed = _changed(before, task)
    trained = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in task.named_parameters() if name.startswith("model.decoder.")}
    assert trained <= changed
    inside = {name for name in changed if name.startswith("model.backbone.")}
    statistics = {name for name in before if name.startswith("model.backbone.") and name.endswith(STATISTICS)}
    assert inside == (set() if freeze_statistics else statistics)
    updated = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert updated == {id(p) for p in task.parameters() if p.requires_grad}


def test_statistics_stay_and_are_used_while_everything_else_is_trained(tmp_path: Path, spec_path: Path) -> None:
    seed_everything(0)
    task = _task(freeze="statistics")
    before = copy.deepcopy(task.state_dict())
    # Two validations an epoch, after each of which Lightning sets the training mode anew.
    _fit(task, tmp_path, spec_path, max_epochs=2, val_check_interval=0.5)
    changed = _changed(before, task)
    assert {name for name, _ in task.named_parameters()} <= changed
    assert {name for name in changed if name.endswith(STATISTICS)} == {
        name for name in before if name.startswith("model.decoder.") and name.endswith(STATISTICS)
    }
    # An image's features do not depend on the others of its batch, as they do in training mode.
    backbone = task.network.backbone.train()
    hold_still(backbone, "statistics", statistics=True)
    images = torch.randn(4, 1, 16, 16)
    for together, alone in zip(backbone(images), backbone(images[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone)


def test_statistics_that_do_not_exist_cannot_be_kept() -> None:
    with pytest.raises(InputError, match="has no batch norm"):
        hold_still(nn.Sequential(nn.Conv2d(1, 1, 3), nn.InstanceNorm2d(1)), "statistics", statistics=True)


def test_without_freezing_everything_is_trained(tmp_path: Path, spec_path: Path) -> None:
    task = _task()
    before = copy.deepcopy(task.state_dict())
    _fit(task, tmp_path, spec_path, max_epochs=1)
    assert {name for name, _ in task.named_parameters()} <= _changed(before, task)


def test_matching_tensors_are_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = _task(task="multilabel", classes=["a", "b"]).network
    torch.save(source.state_dict(), tmp_path / "two.pt")
    target = _task().network
    head = target.decoder.head.weight.detach().clone()  # type: ignore[union-attr,operator]
    sentence = load_matching(target, tmp_path / "two.pt")
    total = len(target.state_dict())
    assert sentence == (
        f"{tmp_path / 'two.pt'}: {total - 2} of the network's {total} tensors start from it"
        "; new: 2 (decoder.bias, decoder.head.weight); left out: 2 (decoder.bias, decoder.head.weight)"
    )
    assert torch.equal(target.decoder.head.weight, head)  # type: ignore[union-attr,arg-type]
    for (name, mine), theirs in zip(
        target.backbone.state_dict().items(), source.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": torch.zeros(1)}, "none of its 1 tensors fits the network"),
        ([1, 2], "holds no weights"),
        ({"state_dict": 3}, "holds no weights"),
        (nn.Linear(1, 1), "would run code when read"),
        (None, "no such file of weights"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, content: object, sentence: str) -> None:
    if content is not None:
        torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=sentence):
        _task(weights=str(tmp_path / "weights.pt"))


def test_two_phases_on_the_command_line(fitted: Path, tiny_set: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fit(root: str, *more: str) -> dict[str, Tensor]:
        run = ["--trainer.default_root_dir", root, "--trainer.max_epochs", "1", *more]
        main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run])
        return torch.load(f"{root}/last.ckpt", weights_only=True)["state_dict"]  # type: ignore[no-any-return]

    base = torch.load(fitted / "best.ckpt", weights_only=True)["state_dict"]
    caplog.set_level("INFO")
    first = fit("one", "--model.weights", str(fitted / "best.ckpt"), "--model.freeze", "backbone")
    assert f"{fitted / 'best.ckpt'}: " in caplog.text
    backbone = [name for name in base if name.startswith("model.backbone.")]
    assert all(torch.equal(base[name], first[name]) for name in backbone)
    assert not torch.equal(base["model.decoder.bias"], first["model.decoder.bias"])
    second = fit("two", "--model.weights", "one/last.ckpt", "--model.optimizer", "torch.optim.SGD",
                 "--model.optimizer.lr", "1e-9")  # fmt: skip
    weights = [name for name in base if "running" not in name and "tracked" not in name and name != "thresholds"]
    for name in weights:  # so small a rate leaves them where they started
        torch.testing.assert_close(second[name], first[name], atol=1e-6, rtol=1e-6)
    # The run can be tested when the file that it started from is gone.
    (fitted.parent / "one/last.ckpt").unlink()
    test = ["--trainer.default_root_dir", "two", "--ckpt_path", "two/last.ckpt"]
    main(["test", *CASES, str(tiny_set / "cases.csv"), *SMALL, *test])


def test_training_ends_at_the_rate_that_it_is_told(tmp_path: Path, spec_path: Path) -> None:
    """PYLON's recipe: 1e-4, 2e-5, 4e-6, stop. A loss that never falls by a whole unit is a plateau from the start."""
    plateau = partial(ReduceLROnPlateau, factor=0.2, patience=1, threshold=1.0, threshold_mode="abs")
    task = _task(optimizer=partial(Adam, lr=1e-4), lr_scheduler=plateau, stop_rate=1e-6)
    rates: list[float] = []
    task.on_train_epoch_end = lambda: rates.append(task.trainer.optimizers[0].param_groups[0]["lr"])  # type: ignore[method-assign]
    trainer = _fit(task, tmp_path, spec_path, max_epochs=40, limit_train_batches=1, limit_val_batches=1)
    # The first epoch is the best; two without progress end a rate.
    assert rates == pytest.approx([1e-4] * 3 + [2e-5] * 2 + [4e-6] * 2)
    assert trainer.current_epoch == 7


def test_without_a_rate_training_does_not_end_early(tmp_path: Path, spec_path: Path) -> None:
    task = _task(optimizer=partial(SGD, lr=1e-3), lr_scheduler=partial(ExponentialLR, gamma=1e-3))
    assert _fit(task, tmp_path, spec_path, max_epochs=4, limit_train_batches=1, limit_val_batches=0).current_epoch == 4
    with pytest.raises(InputError, match="stop_rate is -1"):
        _task(stop_rate=-1.0)


def test_a_schedule_that_warms_up_below_the_rate_is_not_at_its_end(tmp_path: Path, spec_path: Path) -> None:
    """one_cycle starts at a 25th of the highest rate and falls to almost nothing; 0 means never, even at rate 0."""
    task = _task(optimizer=partial(SGD, lr=1e-3), lr_scheduler="one_cycle", stop_rate=1e-4)
    trainer = _fit(task, tmp_path, spec_path, max_epochs=6, limit_train_batches=2, limit_val_batches=0)
    assert trainer.current_epoch >= 5
    task = _task(optimizer=partial(SGD, lr=1e-3), lr_scheduler=partial(CosineAnnealingLR, T_max=2), stop_rate=0.0)
    assert _fit(task, tmp_path, spec_path, max_epochs=4, limit_train_batches=1, limit_val_batches=0).current_epoch == 4
