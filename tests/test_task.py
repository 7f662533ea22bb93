"""The task: losses of the three kinds, the shape that the data decide, schedules, views, checkpoints."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.data import Layout, PhantomDataModule
from hrcam_lightning.decoders import CAM
from hrcam_lightning.pooling import MeanPooling
from hrcam_lightning.schedules import learning_rate_factor, scheduler_config

if TYPE_CHECKING:
    from pathlib import Path

SMALL = partial(ConvPyramid, width=4, depth=3)


def _task(**arguments: object) -> LocalizationTask:
    settings = {"task": "binary", "classes": ["lesion"], "channels": 1, "dims": 2, "backbone": SMALL}
    return LocalizationTask(**{**settings, **arguments})  # type: ignore[arg-type]


def _trainer(root: Path, **arguments: object) -> Trainer:
    settings: dict[str, object] = {
        "default_root_dir": root,
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**settings, **arguments})  # type: ignore[arg-type]


def test_losses_of_the_three_kinds() -> None:
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    findings = torch.tensor([[1, 0], [1, 1]])
    bce = -(torch.sigmoid(torch.tensor([0.3, 1.2, 2.0, 0.1])).log().mean())
    multilabel = _task(task="multilabel", classes=["a", "b"])
    assert multilabel.loss(logits, findings).item() == pytest.approx(bce.item())
    multiclass = _task(task="multiclass", classes=["a", "b"])
    assert multiclass.loss(logits, torch.tensor([1, 0])).item() == pytest.approx(
        (math.log(1 + math.exp(1.5)) + math.log(1 + math.exp(-1.9))) / 2, rel=1e-5
    )
    binary = _task()
    expected = F.softplus(torch.tensor([-0.3, 2.0])).mean()
    assert binary.loss(logits[:, :1], torch.tensor([1, 0])).item() == pytest.approx(expected.item())


def test_probabilities_are_softmax_or_sigmoid() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    multiclass, multilabel = (_task(task=kind, classes=["a", "b"]) for kind in ("multiclass", "multilabel"))
    torch.testing.assert_close(multiclass.probabilities(logits), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(multilabel.probabilities(logits), torch.tensor([[0.5, 0.75]]))


def test_the_data_decide_what_the_arguments_leave_open() -> None:
    task = LocalizationTask(backbone=SMALL)
    with pytest.raises(InputError, match="not built yet"):
        task(torch.zeros(1, 1, 8, 8))
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(layout=Layout("multilabel", ["a", "b"], 2, 3)))  # type: ignore[assignment]
    task.configure_model()
    assert task.eval()(torch.zeros(1, 2, 8, 8, 8)).maps.shape == (1, 2, 8, 8, 8)
    assert task.hparams["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (
            Layout("binary", ["tumour"], 1, 2),
            r"made for classes \['lesion'\], but the data have \['tumour'\]",
        ),
        (Layout("binary", ["lesion"], 3, 2), "made for channels 1, but the data have 3"),
        (Layout("binary", ["lesion"], 1, 3), "made for dims 2, but the data have 3"),
    ],
)
def test_data_of_another_kind_are_refused(layout: Layout, sentence: str) -> None:
    task = _task()
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(layout=layout))  # type: ignore[assignment]
    with pytest.raises(InputError, match=sentence):
        task.configure_model()


def test_unlabelled_data_fit_any_trained_network() -> None:
    task = _task()
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(layout=Layout(None, None, 1, 2)))  # type: ignore[assignment]
    task.configure_model()
    untrained = LocalizationTask()
    untrained._trainer = task._trainer
    with pytest.raises(InputError, match=r"the data do not say task, classes: give --model\.task"):
        untrained.configure_model()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"consistency": -1.0}, "consistency is -1.0"),
        ({"level_loss": -0.5}, "level_loss is -0.5"),
        ({"full_skill": 1.5}, "full_skill is 1.5"),
        ({"classes": ["a", "b"]}, "a binary task has one map"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        _task(**arguments)


def test_schedules_start_peak_and_end_where_they_say() -> None:
    assert learning_rate_factor("constant", 0.7) == 1
    assert learning_rate_factor("cosine", 0) == pytest.approx(1)
    assert learning_rate_factor("cosine", 0.5) == pytest.approx(0.5)
    assert learning_rate_factor("one_cycle", 0) == pytest.approx(1 / 25)
    assert learning_rate_factor("one_cycle", 0.3) == pytest.approx(1)
    assert learning_rate_factor("one_cycle", 0.65) == pytest.approx(0.5)
    assert learning_rate_factor("one_cycle", 1.2) == pytest.approx(1e-4)


def test_a_torch_scheduler_is_stepped_by_epoch_and_a_plateau_watches_the_validation_loss() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    assert scheduler_config(partial(StepLR, step_size=1), optimizer, 10)["interval"] == "epoch"
    plateau = scheduler_config(ReduceLROnPlateau, optimizer, 10)
    assert plateau["monitor"] == "val/loss"
    named = scheduler_config("cosine", optimizer, 10)
    assert named["interval"] == "step"
    for _ in range(5):
        optimizer.step()
        named["scheduler"].step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_views_are_averaged_in_evaluation_only() -> None:
    task = _task(view_averaging=True)
    images = torch.randn(2, 1, 8, 8)
    task.train()
    before = [p.clone() for p in task.parameters()]
    assert task.training
    torch.testing.assert_close(task(images).maps, task.network(images).maps)
    task.eval()
    averaged = task(images).maps
    torch.testing.assert_close(task(images.flip(2)).maps.flip(2), averaged, atol=1e-5, rtol=1e-5)
    assert (averaged - task.network(images).maps).abs().max() > 1e-4
    assert all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))


def _weights_after_fit(tmp_path: Path, spec_path: Path, **arguments: object) -> dict[str, Tensor]:
    seed_everything(5)
    data = PhantomDataModule(str(spec_path), batch_size=4)
    task = _task(optimizer=partial(Adam, lr=1e-2), **arguments)
    _trainer(tmp_path, limit_val_batches=0).fit(task, data)
    return task.state_dict()


def test_a_seed_gives_the_same_weights_and_another_view_weight_does_not(tmp_path: Path, spec_path: Path) -> None:
    first, second = (_weights_after_fit(tmp_path, spec_path) for _ in range(2))
    without = _weights_after_fit(tmp_path, spec_path, consistency=0.0)
    name = "model.decoder.weights.0"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], without[name])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"full_skill": 0.0},
        {"decoder": CAM, "pooling": MeanPooling, "consistency": 0.0, "resampling": "half_pixel"},
    ],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_few_steps_lower_the_loss(
    tmp_path: Path, spec_path: Path, arguments: dict[str, object], precision: str
) -> None:
    seed_everything(0)
    data = PhantomDataModule(str(spec_path), counts={"train": 32, "val": 32}, batch_size=8)
    task = _task(optimizer=partial(Adam, lr=1e-2), view_averaging=False, **arguments)
    trainer = _trainer(tmp_path, max_epochs=8, precision=precision, limit_val_batches=0)
    with torch.no_grad():
        batch = next(iter(data.train_dataloader()))
        before = task.loss(task.network(batch["image"]).logits, batch["label"]).item()
    trainer.fit(task, data)
    assert trainer.callback_metrics["train/loss"].item() < 0.9 * before


def test_a_plateau_schedule_counts_validations(tmp_path: Path, spec_path: Path) -> None:
    data = PhantomDataModule(str(spec_path), counts={"train": 4, "val": 4}, batch_size=4)
    plateau = partial(ReduceLROnPlateau, patience=0, threshold=10.0, threshold_mode="abs")
    task = _task(optimizer=partial(Adam, lr=1e-2), lr_scheduler=plateau)
    trainer = _trainer(tmp_path, max_epochs=8, check_val_every_n_epoch=3, num_sanity_val_steps=0)
    trainer.fit(task, data)  # validates after epochs 3 and 6; no loss falls by 10, so that each but the first is bad
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 2
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_cases_of_different_voxels_are_not_turned_by_one_view(
    tmp_path: Path, spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(views=["rotation"])
    _trainer(tmp_path, max_epochs=1).fit(task, PhantomDataModule(str(spec_path), counts={"train": 4, "val": 4}))
    square, flat = np.eye(4), np.diag([1.0, 3.0, 1.0, 1.0])
    for step in range(4):
        monkeypatch.setattr(LocalizationTask, "global_step", step)
        for affines, turned in (
            ([square, square], True), ([None, None], True), ([square, flat], False), ([flat, flat], False)
        ):  # fmt: skip
            assert bool(task._draw_view(torch.zeros(2, 1, 32, 32), affines).turns) is turned


def test_a_checkpoint_made_in_python_loads_with_weights_only(tmp_path: Path, spec_path: Path) -> None:
    data = PhantomDataModule(str(spec_path), batch_size=4)
    task = LocalizationTask(backbone=SMALL)
    trainer = _trainer(tmp_path, max_epochs=1)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]["classes"] == ["lesion"]
    again = LocalizationTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, backbone=SMALL)
    image = data.dataset("test")[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(again.eval()(image).maps, task.eval()(image).maps)
