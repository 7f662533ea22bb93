"""What a network knows as it trains: the measure, the agreement that waits for it, and the levels by themselves."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything

from hrcam_lightning import LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.cli import main
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.decoders import CAM
from hrcam_lightning.losses import class_shares, cross_entropy, uninformed_loss
from hrcam_lightning.skill import CHANCE, Skill
from hrcam_lightning.views import disagreement
from tests.command_line import SMALL

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = {
    "binary": torch.tensor([1, 0, 0, 1, 0, 0, 0]),
    "multilabel": torch.tensor([[1, 0], [0, 0], [1, 1], [1, 0], [0, 0]]),
    "multiclass": torch.tensor([0, 2, 1, 1, 0, 0, 0]),
}
CLASSES = {"binary": 1, "multilabel": 2, "multiclass": 3}
HALF = math.log(2)


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
    assert uninformed_loss("binary", torch.tensor([0.5])) == pytest.approx(HALF)
    assert uninformed_loss("multiclass", torch.tensor([1, 1, 1]) / 3) == pytest.approx(math.log(3))
    assert uninformed_loss("binary", torch.tensor([0.0])) == 0


def test_skill_is_of_a_running_mean_from_the_first_step_on() -> None:
    skill = Skill()
    for loss, share in ((0.9, 0.5), (0.5, 0.0), (0.2, 0.5)):
        skill.learn("binary", loss, [share])
    weights = 0.98**2, 0.98, 1.0
    loss = (0.98**2 * 0.9 + 0.98 * 0.5 + 0.2) / sum(weights)
    share = (0.98**2 * 0.5 + 0.5) / sum(weights)
    ignorance = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert skill.value == pytest.approx(1 - loss / ignorance, rel=1e-6)


@pytest.mark.parametrize("weight", [None, 9.0])
def test_a_constant_answer_never_passes_for_knowledge(weight: float | None) -> None:
    """Rare findings, small batches: many of them have none, and lose little by saying so."""
    weights = None if weight is None else torch.tensor([weight])
    answer = torch.tensor([[math.log(0.1 / 0.9 * (weight or 1))]])
    generator = torch.Generator().manual_seed(0)
    skill = Skill()
    for _ in range(200):
        labels = (torch.rand(8, generator=generator) < 0.1).long()
        loss = cross_entropy("binary", answer.expand(8, 1), labels, weights)
        skill.learn("binary", float(loss), class_shares("binary", labels, 1).tolist(), weights)
        assert skill.value < 1e-6


def test_skill_knows_the_weights_of_the_loss() -> None:
    weights = torch.tensor([9.0])
    answer = torch.tensor([[math.log(9)]] * 2)  # odds of 1, nine times as heavy
    ignorance = cross_entropy("binary", answer, torch.tensor([0, 1]), weights)
    skill = Skill()
    skill.learn("binary", 0.6 * float(ignorance), [0.5], weights)
    assert skill.value == pytest.approx(0.4, rel=1e-5)


def test_a_loss_that_is_not_finite_is_not_remembered() -> None:
    skill = Skill()
    skill.learn("binary", 0.5, [0.5])
    before = Skill(skill.value, list(skill.sums))
    for loss in (math.nan, math.inf):
        skill.learn("binary", loss, [0.5])
        assert skill == before


def test_one_label_alone_teaches_nothing() -> None:
    skill = Skill()
    skill.learn("binary", 0.0, [0.0])
    assert skill.value == 0


def test_what_needs_knowledge_rises_with_it_and_falls_with_it() -> None:
    skill = Skill()
    assert [skill.share(whole) for whole in (0.1, 0.0)] == [0, 1]  # nothing is known yet; asked for all the same
    shares = []
    for loss, times in ((2 * HALF, 100), (0.96 * HALF, 500), (0.5 * HALF, 200), (HALF, 500)):
        for _ in range(times):
            skill.learn("binary", loss, [0.5])
        shares.append(skill.share(0.1))
    assert shares == [0, pytest.approx(0.4, rel=1e-2), 1, 0]


def test_what_may_be_luck_is_not_knowledge() -> None:
    assert [Skill(value).share(0.1) for value in (-3.0, 0.0, CHANCE, 1.5 * CHANCE)] == [0, 0, 0, pytest.approx(0.3)]
    assert Skill(1.5 * CHANCE).share(CHANCE / 2) == 1


def _task(**arguments: Any) -> LocalizationTask:
    backbone = partial(ConvPyramid, width=4, depth=3)
    return LocalizationTask("binary", ["lesion"], 1, 2, backbone=backbone, **arguments)


def _step(task: LocalizationTask, spec: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, float], Any]:
    """A training step: what it returns, what it logs, and the batch."""
    seed_everything(0)
    monkeypatch.setattr(LocalizationTask, "global_step", 0)
    logged: dict[str, float] = {}
    monkeypatch.setattr(
        task, "_log_training", lambda _, **values: logged.update({k: float(v.detach()) for k, v in values.items()})
    )
    batch = next(iter(PhantomDataModule(str(spec), batch_size=4).train_dataloader()))
    return task.training_step(batch, 0), logged, batch


@pytest.mark.parametrize(("skill", "share"), [(0.0, 0.0), (CHANCE, 0.0), (0.03, 0.3), (0.05, 0.5), (0.7, 1.0)])
def test_levels_by_themselves_at_first_and_agreement_by_and_by(
    skill: float, share: float, spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(consistency=2.0, level_loss=0.5, full_skill=0.1).eval()  # batch norm the same twice
    task.skill = Skill(skill)
    out, logged, batch = _step(task, spec_path, monkeypatch)
    images, labels = batch["image"], batch["label"].float()[:, None].repeat(2, 1)
    view = task._draw_view(images, batch["affine"])
    seen = task.network(torch.cat([images, view.apply(images)]))
    apart = disagreement(view.inside(seen.maps[:4]), view.inside(view.invert(seen.maps[4:])))
    alone = [F.binary_cross_entropy_with_logits(logits, labels) for logits in task.network.level_logits(seen)]
    assert len(alone) == 3
    whole = F.binary_cross_entropy_with_logits(seen.logits, labels)
    torch.testing.assert_close(out["loss"], whole + 2 * share * apart + 0.5 * (1 - share) * torch.stack(alone).mean())
    judged = whole if share == 1 else torch.maximum(whole, torch.stack(alone).mean())
    torch.testing.assert_close(out["judged"], judged)
    assert not out["judged"].requires_grad
    assert logged["disagreement"] == pytest.approx(float(apart.detach()), rel=1e-4)
    assert ("level_loss" in logged) == (share < 1)


def test_what_the_deepest_level_knows_does_not_let_the_others_go(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small, plain lesions: the coarse levels tell the class within an epoch, and kept the map to themselves."""
    task = _task().eval()
    monkeypatch.setattr(type(task.network), "level_logits", lambda _, output: [0 * output.logits, output.logits])
    monkeypatch.setattr(task, "loss", lambda logits, _: logits.abs().max())
    out, logged, _ = _step(task, spec_path, monkeypatch)
    assert logged["level_loss"] == pytest.approx(logged["loss"] / 2)
    assert float(out["judged"]) == pytest.approx(logged["loss"])
    monkeypatch.setattr(task, "loss", lambda logits, _: 1 - logits.abs().max().clamp(0, 1))
    out, logged, _ = _step(task, spec_path, monkeypatch)
    assert logged["level_loss"] > logged["loss"] + 0.01
    assert float(out["judged"]) == pytest.approx(logged["level_loss"])


@pytest.mark.parametrize("arguments", [{"level_loss": 0.0}, {"decoder": CAM}])
def test_no_loss_of_levels_where_none_is_asked_for_or_there_is_but_one(
    arguments: dict[str, Any], spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(consistency=0.0, **arguments)
    out, logged, _ = _step(task, spec_path, monkeypatch)
    assert set(logged) == {"loss"}
    assert float(out["loss"].detach()) == float(out["judged"])


def test_a_run_asks_for_more_once_it_knows_something_and_resumes_where_it_was(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shares: list[float] = []
    share = Skill.share

    def spy(self: Skill, whole: float) -> float:
        shares.append(share(self, whole))
        return shares[-1]

    monkeypatch.setattr(Skill, "share", spy)
    train = [
        "fit", "--data", "PhantomDataModule", "--data.spec", str(spec_path), *SMALL,
        "--model.class_weights", "balanced", "--model.lr_scheduler", "constant",
        "--model.optimizer", "Adam", "--model.optimizer.lr", "0.02", "--model.full_skill", "0.05",
    ]  # fmt: skip
    main([*train, "--trainer.max_epochs", "8", "--trainer.default_root_dir", "whole"])
    whole, shares[:] = list(shares), []
    assert whole[0] == 0
    assert whole[-1] == 1  # it learns something
    assert max(whole[: len(whole) * 3 // 4]) > 0  # by where the second run goes on
    main([*train, "--trainer.max_epochs", "6", "--trainer.default_root_dir", "parts"])
    more = ["--trainer.max_epochs", "8", "--trainer.default_root_dir", "parts", "--ckpt_path", "parts/last.ckpt"]
    main([*train, *more])
    assert shares == whole
    files = [Path(folder, "metrics.csv").read_text(encoding="utf-8") for folder in ("whole", "parts")]
    assert files[0] == files[1]
    rows = _rows(Path("whole/metrics.csv"))
    assert float(rows[-1]["train/skill"]) > CHANCE
    assert [bool(rows[at]["train/level_loss"]) for at in (0, -1)] == [True, False]  # not the last that there was


def test_where_nothing_waits_for_it_no_skill_is_measured(spec_path: Path) -> None:
    task = _task(consistency=0.0, level_loss=0.0)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1
    )
    trainer.fit(task, PhantomDataModule(str(spec_path), counts={"train": 4, "val": 4}, batch_size=4))
    assert task.skill == Skill()
    assert "train/skill" not in trainer.callback_metrics


def _rows(path: Path) -> Sequence[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
