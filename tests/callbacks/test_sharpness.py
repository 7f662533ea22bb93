"""The curriculum over sharpness: what a training step pools with, when it sharpens, what a resumed run goes on with."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.callbacks import SharpnessCurriculum
from hrcam_lightning.cli import main
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.losses import class_shares, cross_entropy, uninformed_loss
from hrcam_lightning.pooling import AttentionPooling, LogSumExpPooling, MeanPooling
from tests.command_line import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hrcam_lightning.pooling import Pooling

LABELS = {
    "binary": torch.tensor([1, 0, 0, 1, 0, 0, 0]),
    "multilabel": torch.tensor([[1, 0], [0, 0], [1, 1], [1, 0], [0, 0]]),
    "multiclass": torch.tensor([0, 2, 1, 1, 0, 0, 0]),
}
CLASSES = {"binary": 1, "multilabel": 2, "multiclass": 3}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", LABELS)
def test_no_constant_answer_loses_less_than_the_uninformed(task: str, weighted: bool) -> None:
    labels, classes = LABELS[task], CLASSES[task]
    weights = torch.tensor([2.5, 0.5, 4.0][:classes]) if weighted else None
    answer = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    double = None if weights is None else weights.double()

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = cross_entropy(task, answer.expand(len(labels), -1), labels, double)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver = torch.optim.LBFGS([answer], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    solver.step(loss)  # type: ignore[no-untyped-call]
    assert uninformed_loss(task, class_shares(task, labels, classes), weights) == pytest.approx(
        float(loss().detach()), rel=1e-8
    )


def test_uninformed_losses_by_hand() -> None:
    assert uninformed_loss("binary", torch.tensor([0.5])) == pytest.approx(math.log(2))
    assert uninformed_loss("multiclass", torch.tensor([1, 1, 1]) / 3) == pytest.approx(math.log(3))
    assert uninformed_loss("binary", torch.tensor([0.0])) == 0


def _ready(task: LocalizationTask, spec: Path, **arguments: float) -> tuple[SharpnessCurriculum, Any]:
    """A curriculum where training starts, and what stands for the trainer."""
    curriculum = SharpnessCurriculum(**arguments)
    trainer = _trainer(spec)
    curriculum.on_train_start(trainer, task)
    return curriculum, trainer


def _trainer(spec: Path) -> Any:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.datamodule = PhantomDataModule(str(spec))  # type: ignore[attr-defined]
    return trainer


def _task(pooling: Callable[[], Pooling] = LogSumExpPooling, **arguments: Any) -> LocalizationTask:
    def backbone(channels: int, dims: int) -> ConvPyramid:
        return ConvPyramid(channels, dims, width=4, depth=3)

    return LocalizationTask("binary", ["lesion"], 1, 2, backbone=backbone, pooling=pooling, **arguments)


def _step(
    curriculum: SharpnessCurriculum, trainer: Any, task: LocalizationTask, loss: float, labels: Sequence[int] = (0, 1)
) -> tuple[float, float]:
    """The sharpness that a training step of that loss is pooled with, and the share of the weight of disagreement."""
    batch: Any = {"label": torch.tensor(labels)}
    curriculum.on_train_batch_start(trainer, task, batch, 0)
    used = task.network.pooling.sharpness, task.consistency_share
    curriculum.on_train_batch_end(trainer, task, {"cross_entropy": torch.tensor(loss)}, batch, 0)
    return used  # type: ignore[return-value]


@pytest.mark.parametrize("pooling", [LogSumExpPooling, AttentionPooling])
def test_it_sharpens_by_skill_in_equal_ratios_and_gives_way_again(
    pooling: Callable[[], Pooling], spec_path: Path
) -> None:
    task = _task(pooling)
    own = task.network.pooling.sharpness
    assert isinstance(own, float)
    curriculum, trainer = _ready(task, spec_path, start=0.01, full=0.4)
    ignorance = math.log(2)
    assert _step(curriculum, trainer, task, 5.0) == pytest.approx((0.01, 0))  # nothing is known yet
    assert _step(curriculum, trainer, task, ignorance) == pytest.approx((0.01, 0))  # worse than knowing nothing
    for _ in range(500):
        _step(curriculum, trainer, task, 0.8 * ignorance)
    assert curriculum.skill == pytest.approx(0.2, abs=1e-3)
    half = _step(curriculum, trainer, task, 0.8 * ignorance)
    assert half == pytest.approx((math.sqrt(0.01 * own), 0.5), rel=1e-2)
    for _ in range(500):
        _step(curriculum, trainer, task, 0.1)
    assert _step(curriculum, trainer, task, 0.1) == pytest.approx((own, 1))
    for _ in range(500):
        _step(curriculum, trainer, task, 0.7)
    assert _step(curriculum, trainer, task, 0.7) == pytest.approx((0.01, 0), rel=1e-2, abs=1e-2)
    assert task.network.pooling.sharpness == own  # between steps, where validation is, always
    assert task.consistency_share == 1


def test_skill_is_of_a_running_mean_from_the_first_step_on(spec_path: Path) -> None:
    task = _task()
    curriculum, trainer = _ready(task, spec_path)
    for loss, labels in ((0.9, [0, 1]), (0.5, [0, 0]), (0.2, [0, 1])):
        _step(curriculum, trainer, task, loss, labels)
    weights = 0.98**2, 0.98, 1.0
    loss = (0.98**2 * 0.9 + 0.98 * 0.5 + 0.2) / sum(weights)
    share = (0.98**2 * 0.5 + 0.5) / sum(weights)
    ignorance = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert curriculum.skill == pytest.approx(1 - loss / ignorance, rel=1e-6)


@pytest.mark.parametrize("weight", [None, 9.0])
def test_a_constant_answer_never_passes_for_knowledge(spec_path: Path, weight: float | None) -> None:
    """Rare findings, small batches: many of them have none, and lose little by saying so."""
    task = _task(class_weights="none" if weight is None else [weight])
    curriculum, trainer = _ready(task, spec_path)
    answer = torch.tensor([[math.log(0.1 / 0.9 * (weight or 1))]])
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        labels = (torch.rand(8, generator=generator) < 0.1).long()
        loss = task.loss(answer.expand(8, 1), labels)
        _step(curriculum, trainer, task, float(loss), labels.tolist())
        assert curriculum.progress < 1e-6


def test_skill_knows_the_weights_of_the_loss(spec_path: Path) -> None:
    task = _task(class_weights=[9.0])
    curriculum, trainer = _ready(task, spec_path)
    ignorance = task.loss(torch.tensor([[math.log(9)]] * 2), torch.tensor([0, 1]))  # odds of 1, nine times as heavy
    _step(curriculum, trainer, task, 0.6 * float(ignorance))
    assert curriculum.skill == pytest.approx(0.4, rel=1e-5)


def test_a_loss_that_is_not_finite_is_not_remembered(spec_path: Path) -> None:
    task = _task()
    curriculum, trainer = _ready(task, spec_path)
    _step(curriculum, trainer, task, 0.5)
    before = curriculum.skill
    for loss in (math.nan, math.inf):
        _step(curriculum, trainer, task, loss)
        assert curriculum.skill == before


def test_one_label_alone_teaches_nothing(spec_path: Path) -> None:
    task = _task()
    curriculum, trainer = _ready(task, spec_path)
    _step(curriculum, trainer, task, 0.0, [0, 0])
    assert curriculum.skill == 0


def test_a_step_that_fails_leaves_the_task_as_it_was(spec_path: Path) -> None:
    task = _task()
    curriculum, trainer = _ready(task, spec_path)
    curriculum.on_train_batch_start(trainer, task, {}, 0)  # type: ignore[typeddict-item]
    assert [task.network.pooling.sharpness, task.consistency_share] == [0.01, 0]
    curriculum.on_exception(trainer, task, KeyboardInterrupt())
    assert [task.network.pooling.sharpness, task.consistency_share] == [3, 1]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_scales_the_weight_of_disagreement_alone(share: float, spec_path: Path) -> None:
    seed_everything(0)
    data = PhantomDataModule(str(spec_path), batch_size=4)
    task = _task(consistency=2.0, consistency_ramp=0.0)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    logged: dict[str, float] = {}
    task._log_training = lambda _, **values: logged.update({k: float(v.detach()) for k, v in values.items()})  # type: ignore[method-assign]
    task._trainer = _trainer(spec_path)
    task.consistency_share = share
    out = task.training_step(next(iter(data.train_dataloader())), 0)
    assert float(out["cross_entropy"]) == pytest.approx(logged["loss"])
    assert logged["disagreement"] > 0.01
    assert float(out["loss"].detach()) == pytest.approx(logged["loss"] + 2 * share * logged["disagreement"], rel=1e-6)
    assert not out["cross_entropy"].requires_grad


def test_a_run_sharpens_in_training_alone_and_resumes_where_it_was(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: dict[bool, list[float]] = {True: [], False: []}
    pool = LogSumExpPooling.forward

    def spy(self: LogSumExpPooling, maps: torch.Tensor) -> torch.Tensor:
        seen[self.training].append(self.sharpness)
        return pool(self, maps)

    monkeypatch.setattr(LogSumExpPooling, "forward", spy)
    train = [
        "fit", "--data", "PhantomDataModule", "--data.spec", str(spec_path), *SMALL,
        "--trainer.callbacks+=SharpnessCurriculum", "--trainer.callbacks.start=0.02", "--trainer.callbacks.full=0.1",
        "--model.class_weights", "balanced", "--model.lr_scheduler", "constant",
        "--model.consistency_ramp", "0", "--model.optimizer", "Adam", "--model.optimizer.lr", "0.02",
    ]  # fmt: skip
    main([*train, "--trainer.max_epochs", "8", "--trainer.default_root_dir", "whole"])
    whole, seen[True] = seen[True], []
    assert whole[0] == 0.02
    assert set(seen[False]) == {3.0}
    assert max(whole) > 2 * whole[0]  # it learns something
    assert whole[len(whole) // 2] > whole[0]  # by where the second run goes on
    main([*train, "--trainer.max_epochs", "4", "--trainer.default_root_dir", "parts"])
    more = ["--trainer.max_epochs", "8", "--trainer.default_root_dir", "parts", "--ckpt_path", "parts/last.ckpt"]
    main([*train, *more])
    assert seen[True] == whole
    with Path("whole/metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        progress = min(1, max(0, float(row["train/skill"])) / 0.1)
        assert float(row["train/sharpness"]) == pytest.approx(3 * (0.02 / 3) ** (1 - progress), rel=1e-3)


@pytest.mark.parametrize("arguments", [{"start": 0}, {"start": -1}, {"full": 0}, {"full": 1.5}])
def test_a_curriculum_out_of_range_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        SharpnessCurriculum(**arguments)


def test_what_it_cannot_sharpen_is_refused(spec_path: Path) -> None:
    with pytest.raises(InputError, match=r"MeanPooling has no sharpness; use --model.pooling LogSumExpPooling"):
        _ready(_task(MeanPooling), spec_path)
    with pytest.raises(InputError, match=r"start is 4, but the pooling's own sharpness is 3\.0"):
        _ready(_task(), spec_path, start=4)
