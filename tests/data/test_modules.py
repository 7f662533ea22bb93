"""Data modules: the batch contract, phantoms on disk and in memory alike, order by seed and epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hrcam_lightning import InputError
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.data.module import EpochSampler, collate
from synth import Phantoms, PhantomSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_drawn_phantoms_are_those_of_the_set_on_disk(split: str, tiny_set: Path, spec_path: Path) -> None:
    stored = CaseDataModule(str(tiny_set / "cases.csv")).dataset(split)  # type: ignore[arg-type]
    drawn = PhantomDataModule(str(spec_path), seed=3).dataset(split)  # type: ignore[arg-type]
    assert len(stored) == len(drawn)
    for index in range(len(stored)):
        a, b = stored[index], drawn[index]
        assert a["case"] == b["case"]
        assert a["label"] == b["label"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])
        np.testing.assert_allclose(a["affine"], b["affine"])


def test_a_batch_keeps_the_contract(tiny_set: Path) -> None:
    module = CaseDataModule(str(tiny_set / "cases.csv"), batch_size=3, normalization="none")
    batch = next(iter(module.val_dataloader()))
    assert batch["image"].shape == (3, 1, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].shape == (3, 1, 16, 16)
    assert batch["mask"].dtype == torch.bool
    assert batch["label"].tolist() == batch["mask"].flatten(1).any(1).long().tolist()
    phantom = Phantoms(PhantomSpec.from_yaml(tiny_set.parent / "tiny.yaml"), 3)[8]
    assert batch["case"][0] == phantom.name
    np.testing.assert_array_equal(batch["image"][0, 0], phantom.image)
    assert module.layout.__dict__ == {"task": "binary", "classes": ["lesion"], "channels": 1, "dims": 2}


def test_a_cached_case_is_the_read_one(tiny_set: Path) -> None:
    cached = CaseDataModule(str(tiny_set / "cases.csv"), cache=True).dataset("train")
    plain = CaseDataModule(str(tiny_set / "cases.csv")).dataset("train")
    assert cached[2]["image"] is cached[2]["image"]
    assert torch.equal(cached[2]["image"], plain[2]["image"])
    assert plain[2]["image"] is not plain[2]["image"]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_training_order_is_a_permutation_by_seed_and_epoch(tiny_set: Path, workers: int) -> None:
    def names(seed: int, epoch: int) -> list[str]:
        torch.manual_seed(seed)
        module = CaseDataModule(str(tiny_set / "cases.csv"), batch_size=4, num_workers=workers)
        module.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        return [name for batch in module.train_dataloader() for name in batch["case"]]

    first = names(0, 0)
    assert sorted(first) == [f"case_{n:06d}" for n in range(8)]
    assert names(0, 0) == first
    assert len({tuple(names(0, 1)), tuple(names(1, 0)), tuple(first)}) == 3


def test_fresh_phantoms_are_new_each_epoch_and_touch_no_other_split(spec_path: Path) -> None:
    module = PhantomDataModule(str(spec_path), fresh=True, batch_size=4)
    seen: list[set[str]] = []
    for epoch in range(3):
        module.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        seen.append({name for batch in module.train_dataloader() for name in batch["case"]})
    held_out = {
        name
        for loader in (module.val_dataloader(), module.test_dataloader())
        for batch in loader
        for name in batch["case"]
    }
    assert seen[0] == {f"case_{n:06d}" for n in range(8)}
    assert seen[1] == {f"case_{n:06d}" for n in range(20, 28)}
    assert len(set().union(*seen, held_out)) == 3 * 8 + 12


def test_a_fixed_set_sees_the_same_phantoms_each_epoch(spec_path: Path) -> None:
    order = PhantomDataModule(str(spec_path)).training_order()
    order.epoch = lambda: 5
    assert sorted(order) == list(range(8))


def test_the_sampler_goes_through_a_distributed_wrapper() -> None:
    """Lightning wraps it for several processes; together they must see each case once."""
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    torch.manual_seed(0)
    parts = [
        list(DistributedSamplerWrapper(EpochSampler(10, lambda: 2), num_replicas=2, rank=rank, shuffle=False))
        for rank in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(10))


def test_images_of_different_shape_are_refused_by_name() -> None:
    samples = [
        {
            "image": torch.zeros(1, 4, n),
            "case": f"scan{n}",
            "affine": None,
            "label": 0,
            "mask": torch.zeros(1, 4, n),
        }
        for n in (5, 6)
    ]
    with pytest.raises(InputError, match=r"scan5 is 4 x 5 .* and scan6 is 4 x 6 .* use --data.batch_size 1"):
        next(iter(DataLoader(samples, batch_size=2, collate_fn=collate)))  # type: ignore[arg-type]


def test_unlabelled_and_empty_splits_are_refused(tiny_set: Path, tmp_path: Path) -> None:
    table = tmp_path / "scans.csv"
    image = next((tiny_set / "images").iterdir())
    table.write_text(f"image,split\n{image},train\n")
    module = CaseDataModule(str(table))
    with pytest.raises(InputError, match="no case is in the split 'test'"):
        module.dataset("test")
    with pytest.raises(InputError, match="has no column 'label', which all but predict needs"):
        module.dataset("train")
    assert len(module.dataset("predict")) == 1
    with pytest.raises(InputError, match="batch_size is 0"):
        CaseDataModule(str(table), batch_size=0)
