"""Data modules: the batch contract, phantoms on disk and in memory alike, order by seed and epoch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader

from hrcam_lightning import InputError
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.data.module import collate
from hrcam_lightning.data.sampling import EpochSampler
from synth import Phantoms, PhantomSpec
from synth.cli import main as synth_main

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def _trainer(epoch: int = 0, fn: str = "fit", module: object = None) -> Trainer:
    """As much of a trainer as a data module looks at."""
    made = SimpleNamespace(current_epoch=epoch, lightning_module=module, state=SimpleNamespace(fn=fn))
    return cast("Trainer", made)


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


@pytest.fixture
def cued_spec(spec_path: Path, tmp_path: Path) -> Path:
    """The tiny spec with a marker that gives every label away, and a split in which it misleads."""
    cue = {"kind": "marker", "dose": 1, "size_mm": 3}
    splits = {"train": 4, "val": 2, "test": 5, "reversed": 6}
    PhantomSpec.from_yaml(spec_path, {"cue": cue, "splits": splits}).to_yaml(tmp_path / "cued.yaml")
    return tmp_path / "cued.yaml"


def test_test_and_predict_take_the_split_that_is_asked_for(cued_spec: Path, tmp_path: Path) -> None:
    assert synth_main(["generate", str(tmp_path / "set"), "--config", str(cued_spec), "--seed", "3"]) == 0
    phantoms = Phantoms(PhantomSpec.from_yaml(cued_spec), 3)
    first = {"train": 0, "val": 4, "test": 6, "reversed": 11}
    for split, count in (("reversed", 6), ("test", 5), ("val", 2)):
        source = phantoms.reversed if split == "reversed" else phantoms
        for modules in ("test", "predict"):
            options: Any = {f"{modules}_split": split, "normalization": "none"}
            drawn = PhantomDataModule(str(cued_spec), seed=3, **options).dataset(modules)
            stored = CaseDataModule(str(tmp_path / "set/cases.csv"), **options).dataset(modules)
            assert len(drawn) == len(stored) == count
            for index in range(count):
                expected = source[first[split] + index]
                for sample in (drawn[index], stored[index]):
                    assert (sample["case"], sample["label"]) == (expected.name, expected.label)
                    np.testing.assert_array_equal(sample["image"][0], expected.image)
    # What is not asked for stays as it is.
    assert len(PhantomDataModule(str(cued_spec), test_split="reversed").dataset("predict")) == 5
    assert len(PhantomDataModule(str(cued_spec), test_split="reversed").dataset("val")) == 2


def test_fresh_phantoms_are_not_those_of_the_reversed_split(cued_spec: Path) -> None:
    order = PhantomDataModule(str(cued_spec), fresh=True).training_order()
    order.epoch = lambda: 1
    assert sorted(order) == list(range(17, 21))


def test_a_split_that_is_not_there_is_one_sentence(spec_path: Path, tiny_set: Path) -> None:
    missing: Any = "dev"
    wrong = [
        (PhantomDataModule(str(spec_path), test_split=missing), "'dev' is not a split of the spec 'tiny'; it may have"),
        (
            PhantomDataModule(str(spec_path), test_split="reversed"),
            "the spec 'tiny' has no cases in the split 'reversed'",
        ),
        (PhantomDataModule(str(spec_path), counts={"reversed": 4}), "data.counts: 'reversed: 4' needs a cue, which"),
        (CaseDataModule(str(tiny_set / "cases.csv"), test_split=missing), "no case is in the split 'dev'"),
    ]
    for module, sentence in wrong:
        with pytest.raises(InputError) as caught:
            module.dataset("test")
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)


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


def test_tensors_of_a_batch_move_and_the_rest_stays(tiny_set: Path) -> None:
    module = CaseDataModule(str(tiny_set / "cases.csv"), batch_size=3)
    batch = next(iter(module.val_dataloader()))
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {moved[name].device.type for name in ("image", "label", "mask")} == {"meta"}
    assert moved["frame"][0].is_identity
    double = apply_to_collection(batch, torch.Tensor, lambda some: some.double())  # as precision plugins do
    assert double["image"].dtype == torch.float64
    assert double["frame"][0].steps == batch["frame"][0].steps


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
        module.trainer = _trainer(epoch)
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
            "frame": None,
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
    module = CaseDataModule(str(table), allow_outside=True)
    with pytest.raises(InputError, match="no case is in the split 'test'"):
        module.dataset("test")
    with pytest.raises(InputError, match="has no column 'label', which all but predict needs"):
        module.dataset("train")
    assert len(module.dataset("predict")) == 1
    with pytest.raises(InputError, match="batch_size is 0"):
        CaseDataModule(str(table), allow_outside=True, batch_size=0)


def test_prediction_reads_images_alone_whatever_the_labels_hold(tiny_set: Path, tmp_path: Path) -> None:
    table = tmp_path / "scans.csv"
    image = next((tiny_set / "images").iterdir())
    table.write_text(f"image,label,mask\n{image},,no/such/mask.nii\n")
    module = CaseDataModule(str(table), allow_outside=True)
    module.trainer = _trainer(fn="predict", module=SimpleNamespace(task="binary", classes=["lesion"]))
    assert set(module.dataset("predict")[0]) == {"image", "case", "affine", "frame"}
    assert module.layout.classes is None
    labelled = CaseDataModule(str(table), allow_outside=True)
    with pytest.raises(InputError, match="the label is empty"):
        labelled.dataset("test")


def test_a_trained_network_says_what_labels_mean(tiny_set: Path, tmp_path: Path) -> None:
    """A table of one class alone would be taken for another task."""
    table = tmp_path / "some.csv"
    image = next((tiny_set / "images").iterdir())
    table.write_text(f"image,label\n{image},b\n")
    module = CaseDataModule(str(table), allow_outside=True, shares=(0, 0, 1))
    module.trainer = _trainer(fn="test", module=SimpleNamespace(task="multiclass", classes=["a", "b", "c"]))
    assert module.dataset("test")[0]["label"] == 1
    assert module.layout.task == "multiclass"


def test_settings_of_phantoms_out_of_range_are_refused(spec_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'training: 8' is not a number of cases"):
        _ = PhantomDataModule(str(spec_path), counts={"training": 8}).counts
    with pytest.raises(InputError, match="seed is -1"):
        PhantomDataModule(str(spec_path), seed=-1)
    with pytest.raises(InputError, match="num_workers is -1"):
        PhantomDataModule(str(spec_path), num_workers=-1)
    tight = PhantomSpec.from_yaml(spec_path, {"lesions.lesion.count": [9, 9], "lesions.lesion.radius_mm": 5.5})
    tight.to_yaml(tmp_path / "tight.yaml")
    drawn = PhantomDataModule(str(tmp_path / "tight.yaml")).dataset("train")
    with pytest.raises(InputError, match=r"of the spec 'tiny': lesions\.lesion\.radius_mm .* no room"):
        _ = [drawn[index] for index in range(8)]


def test_batches_name_subjects_and_show_where_a_cue_is(tmp_path: Path) -> None:
    """From files and drawn while training alike; of data without a cue there is none."""
    spec = Path(__file__).parents[2] / "configs/synth/shortcut.yaml"
    splits = ["--splits", "train=6,val=1,test=1,reversed=1"]
    assert synth_main(["generate", str(tmp_path / "set"), "--config", str(spec), *splits]) == 0
    read = CaseDataModule(str(tmp_path / "set/cases.csv"), batch_size=6)
    drawn = PhantomDataModule(str(spec), counts={"train": 6, "val": 1, "test": 1, "reversed": 1}, batch_size=6)
    stored, made = (next(iter(module.in_order("train"))) for module in (read, drawn))
    assert stored["subject"] == [case.subject for case in read.table.cases[:6]]
    assert stored["cue"].equal(made["cue"])
    assert stored["cue"].flatten(1).any(1).tolist() == [case.cue is not None for case in read.table.cases[:6]]
    assert 0 < int(stored["cue"].flatten(1).any(1).sum()) < 6
