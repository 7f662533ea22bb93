"""The order of training cases: classes in equal numbers, the same after a restart, disjoint between processes."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing.spawn import spawn

from hrcam_lightning.data import CaseDataModule
from hrcam_lightning.data.normalization import Normalization
from hrcam_lightning.data.sampling import BalancedSampler, groups_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

GROUPS = [0] * 17 + [1] * 3 + [2] * 6


def _epoch(number: int, seed: int = 0, groups: list[int] = GROUPS) -> list[int]:
    torch.manual_seed(seed)
    return list(BalancedSampler(groups, lambda: number))


def test_every_class_is_as_often_and_an_epoch_as_long() -> None:
    larger: Counter[int] = Counter()
    for epoch in range(30):
        order = _epoch(epoch)
        counts = Counter(GROUPS[index] for index in order)
        assert len(order) == len(GROUPS) == len(BalancedSampler(GROUPS, lambda: 0))
        assert sorted(counts.values()) == [8, 9, 9]
        larger.update(name for name, count in counts.items() if count == 9)
        visits = Counter(order)
        assert max(visits[index] for index in range(17)) == 1  # no case of a large class comes twice
        assert {visits[index] for index in range(17, 20)} <= {2, 3}  # of a small one, all come about as often
        assert {visits[index] for index in range(20, 26)} <= {1, 2}
    assert min(larger[name] for name in range(3)) > 10
    assert len({index for epoch in range(30) for index in _epoch(epoch)}) == len(GROUPS)


def test_classes_are_mixed_and_the_order_is_of_seed_and_epoch() -> None:
    order = _epoch(3)
    assert order == _epoch(3)
    assert len({tuple(_epoch(3, seed=1)), tuple(_epoch(4)), tuple(order)}) == 3
    halves = [Counter(GROUPS[index] for index in half) for half in (order[:13], order[13:])]
    assert all(len(half) == 3 for half in halves)


def test_the_rarest_finding_of_a_case_is_its_group() -> None:
    assert groups_of([0, 2, 1]) == [0, 2, 1]
    findings = [(1, 0, 0), (1, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1), (1, 1, 0)]
    # Four, three and two cases have them.
    assert groups_of(findings) == [0, 1, 2, -1, 2, 1]
    assert groups_of([(1, 1), (0, 0)]) == [0, -1]  # as rare: the first


def test_a_table_is_sampled_as_asked(tiny_set: Path, tmp_path: Path) -> None:
    images = sorted((tiny_set / "images").iterdir())
    rows = [f"{image},{label},train" for image, label in zip(images, "0000000111", strict=False)]
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["image,label,split", *rows]))
    seen: dict[str, Counter[int]] = {}
    for sampling in ("natural", "balanced"):
        module = CaseDataModule(str(table), sampling=cast("Any", sampling), batch_size=5, allow_outside=True)
        labels = [label for batch in module.train_dataloader() for label in batch["label"].tolist()]
        seen[sampling] = Counter(labels)
    assert seen == {"natural": {0: 7, 1: 3}, "balanced": {0: 5, 1: 5}}


class _Listener(LightningModule):
    """Notes which cases it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        for case, image in zip(batch["case"], batch["image"], strict=True):
            self.seen.append((self.current_epoch, case, float(image.sum())))
        return self.weight.square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _run(rank: int, port: int, table: str, folder: str) -> None:
    import os
    import warnings
    from pathlib import Path

    warnings.simplefilter("ignore")
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(NODE_RANK="0")
    torch.set_num_threads(1)
    seed_everything(4, verbose=False)
    scale = Normalization("zscore", "training")
    module = CaseDataModule(table, sampling="balanced", batch_size=2, normalization=scale, allow_outside=True)
    if rank:  # what the first process has measured is sent to the others
        module._read_training_images = lambda: (_ for _ in ()).throw(AssertionError)  # type: ignore[method-assign]
    listener = _Listener()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo"), max_epochs=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(listener, module)
    torch.save({"seen": listener.seen, "state": module.state_dict()}, Path(folder) / f"{rank}.pt")


def test_two_processes_share_an_epoch_and_one_measures_for_both(tiny_set: Path, tmp_path: Path) -> None:
    import socket

    images = sorted((tiny_set / "images").iterdir())
    rows = [f"{image},{label},train" for image, label in zip(images, "000000000111", strict=False)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,label,split", *rows]))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(_run, (port, str(tmp_path / "cases.csv"), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert found[0]["state"] == found[1]["state"]
    alone = CaseDataModule(str(tmp_path / "cases.csv"), sampling="balanced", normalization="none", allow_outside=True)
    torch.manual_seed(4)
    names = [case.name for case in alone.table.cases]
    for epoch in range(2):
        alone.trainer = cast("Trainer", SimpleNamespace(current_epoch=epoch))
        order = [names[index] for index in alone.training_order()]
        parts = [[case for when, case, _ in one["seen"] if when == epoch] for one in found]
        # Lightning deals the order of the epoch out to the processes, in an order of its own.
        assert [len(part) for part in parts] == [6, 6]
        assert Counter(parts[0] + parts[1]) == Counter(order)
        labels = Counter(alone.table.cases[names.index(case)].label for part in parts for case in part)
        assert labels == {0: 6, 1: 6}
