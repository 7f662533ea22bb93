"""Slices of volumes: which they are, what they are labelled, where they lie, and how often a volume is read."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hrcam_lightning import InputError
from hrcam_lightning.data import CaseDataModule, readers
from hrcam_lightning.data.contract import SlicePlace
from hrcam_lightning.data.frame import Framing, Grid
from hrcam_lightning.data.slices import SliceDataset, VolumeOrder, axis_of, foreground, slab, slice_affine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hrcam_lightning.data.slices import Plane

LAS = np.array([[-2, 0, 0, 5], [0, 3, 0, 7], [0, 0, 4, -9], [0, 0, 0, 1.0]])
PSR = np.array([[0, 0, 2, 5], [-3, 0, 0, 7], [0, 4, 0, -9], [0, 0, 0, 1.0]])  # axes to the back, up, right


def _save(path: Path, data: NDArray[Any], affine: NDArray[Any] = LAS) -> str:
    nib.save(nib.Nifti1Image(data, affine), path)  # type: ignore[no-untyped-call]
    return path.name


def _volume(seed: int = 0, shape: tuple[int, ...] = (6, 7, 8)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _module(folder: Path, rows: list[str], header: str = "image,label,mask,split", **options: Any) -> CaseDataModule:
    (folder / "cases.csv").write_text("\n".join([header, *rows]))
    return CaseDataModule(str(folder / "cases.csv"), **{"slices": "axial", "normalization": "none", **options})


def _slices(module: CaseDataModule, split: Any = "train") -> SliceDataset:
    dataset = module.dataset(split)
    assert isinstance(dataset, SliceDataset)
    return dataset


@pytest.mark.parametrize(("plane", "las", "psr"), [("sagittal", 0, 2), ("coronal", 1, 0), ("axial", 2, 1)])
def test_the_plane_is_found_by_the_affine(tmp_path: Path, plane: Plane, las: int, psr: int) -> None:
    data, mask = _volume(), np.zeros((6, 7, 8), np.uint8)
    mask[2, 3, 4] = 1
    for affine, axis in ((LAS, las), (PSR, psr)):
        files = _save(tmp_path / "v.nii", data, affine), _save(tmp_path / "m.nii", mask, affine)
        made = _slices(_module(tmp_path, [f"{files[0]},sick,{files[1]},train"], slices=plane))
        assert len(made) == data.shape[axis]
        for index in range(len(made)):
            sample = made[index]
            np.testing.assert_array_equal(sample["image"][0], data.take(index, axis))
            np.testing.assert_array_equal(sample["mask"][0], mask.take(index, axis) > 0)
            assert sample["label"] == int(index == (2, 3, 4)[axis])
            assert sample["slice"] == SlicePlace("v", axis, index, data.shape[axis])
            assert (sample["case"], sample["subject"]) == (f"v_{plane}{index:03d}", "v")
            rest = [n for n in range(3) if n != axis]
            voxel = np.zeros(4)
            voxel[rest], voxel[axis], voxel[3] = [1, 2], index, 1
            np.testing.assert_allclose(sample["affine"] @ [1, 2, 0, 1], affine @ voxel)
            assert sample["frame"].grid.shape == data.shape
    module = _module(tmp_path, ["v.nii,sick,m.nii,train"], batch_size=3)
    assert (module.layout.channels, module.layout.dims) == (1, 2)
    batch = next(iter(module.in_order("train")))
    assert batch["image"].shape == (3, 1, 6, 8)
    assert [place.index for place in batch["slice"]] == [0, 1, 2]
    assert len(batch["frame"]) == 3


def test_an_oblique_volume_is_cut_across_the_nearest_axis() -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("zyx", [0.3, 0.2, 0.1]).as_matrix()
    turned = turn @ PSR
    assert [axis_of(Grid((3, 4, 5), turned), plane, "") for plane in ("sagittal", "coronal", "axial")] == [2, 0, 1]
    np.testing.assert_allclose(slice_affine(turned, 0, 2) @ [3, 4, 0, 1], turned @ [2, 3, 4, 1])


def test_a_framed_volume_is_cut_and_its_lesion_keeps_its_place(tmp_path: Path) -> None:
    data, mask = _volume(), np.zeros((6, 7, 8), np.uint8)
    data[2, 3, 4], mask[2, 3, 4] = 99, 1
    files = _save(tmp_path / "v.nii", data, PSR), _save(tmp_path / "m.nii", mask, PSR)
    made = _slices(
        _module(tmp_path, [f"{files[0]},sick,{files[1]},train"], framing=Framing(orientation="RAS", shape=[10, 4, 9]))
    )
    (index,) = [n for n, label in enumerate(made.labels) if label]
    sample = made[index]
    (spot,) = np.argwhere(sample["image"][0].numpy() == 99)
    np.testing.assert_array_equal(np.argwhere(sample["mask"][0].numpy()), [spot])
    np.testing.assert_allclose(sample["affine"] @ [*spot, 0, 1], PSR @ [2, 3, 4, 1])
    maps = np.zeros((1, *sample["frame"].grid.shape), np.float32)
    maps[(0, *spot, sample["slice"].index)] = 1  # the network found it
    np.testing.assert_array_equal(np.argwhere(sample["frame"].back(maps)[0] == 1), [[2, 3, 4]])


def test_a_row_may_be_a_block_of_slices_of_a_file(tmp_path: Path) -> None:
    data, mask = _volume(), np.zeros((6, 7, 8), np.uint8)
    mask[1, 1, 1] = mask[1, 1, 6] = 1
    _save(tmp_path / "v.nii.gz", data), _save(tmp_path / "m.nii.gz", mask)
    rows = ["v.nii.gz,sick,m.nii.gz,train,0:3", "v.nii.gz,sick,m.nii.gz,test,3:6", "v.nii.gz,sick,m.nii.gz,train,6:8"]
    module = _module(tmp_path, rows, "image,label,mask,split,slices")
    train = _slices(module)
    assert [sample["case"] for sample in train] == [  # type: ignore[attr-defined]
        "v_0-3_axial000", "v_0-3_axial001", "v_0-3_axial002", "v_6-8_axial000", "v_6-8_axial001",
    ]  # fmt: skip
    assert train.labels == [0, 1, 0, 1, 0]
    for index, place in enumerate([0, 1, 2, 6, 7]):
        np.testing.assert_array_equal(train[index]["image"][0], data[..., place])
        np.testing.assert_allclose(train[index]["affine"] @ [2, 3, 0, 1], LAS @ [2, 3, place, 1])
    with pytest.warns(UserWarning, match="every case of the split 'test' is negative"):
        assert _slices(module, "test").labels == [0, 0, 0]
    # A block may be called normal where the mask shows nothing in it, and not where it does.
    honest, wrong = (row.replace("sick", "normal") for row in (rows[1], rows[0]))
    with pytest.warns(UserWarning, match="negative"):
        _slices(_module(tmp_path, [rows[0], honest], "image,label,mask,split,slices"), "test")
    with pytest.raises(InputError, match="the mask shows sick, but the label of v_0-3 does not"):
        _module(tmp_path, [rows[2], wrong], "image,label,mask,split,slices").dataset("train")
    with pytest.raises(InputError, match=r"say which way they are cut: --data\.slices axial"):
        _module(tmp_path, rows, "image,label,mask,split,slices", slices=None).dataset("train")
    with pytest.raises(InputError, match=r"v\.nii\.gz: has 8 slices, but the table wants 6:9 of them"):
        _module(tmp_path, ["v.nii.gz,sick,m.nii.gz,train,6:9"], "image,label,mask,split,slices").dataset("train")
    cut, grid = slab(Grid((6, 7, 8), LAS), 1, (2, 5), "")
    assert (data[cut].shape, grid.shape) == ((6, 3, 8), (6, 3, 8))


def test_slices_of_background_are_left_out_but_none_with_a_lesion_and_none_in_prediction(tmp_path: Path) -> None:
    data, mask = np.full((5, 5, 6), -3, np.float32), np.zeros((5, 5, 6), np.uint8)
    data[2, 2, 1] = 9  # 1 of 25 voxels
    data[1:4, 1:4, 2:4] = 5  # 9 of 25
    data[2, 2, 4] = -3 + 5e-3  # too faint to be other than background
    mask[0, 0, 5] = 1
    _save(tmp_path / "v.nii", data), _save(tmp_path / "m.nii", mask)
    np.testing.assert_allclose(foreground(data[None], 2), [0, 0.04, 0.36, 0.36, 0, 0])
    rows = ["v.nii,sick,m.nii,train"]
    for least, kept in ((0.0, [1, 2, 3, 5]), (0.04, [2, 3, 5]), (0.9, [5])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one class
            made = _slices(_module(tmp_path, rows, min_foreground=least))
        assert [place.index for _, place in made.places] == kept
    assert [place.index for _, place in _slices(_module(tmp_path, rows), "predict").places] == list(range(6))
    for two in ([np.zeros_like(data), data], [data, np.zeros_like(data)]):
        np.testing.assert_allclose(foreground(np.stack(two), 2), [0, 0.04, 0.36, 0.36, 0, 0])
    _save(tmp_path / "empty.nii", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"no slice is left; lower data\.min_foreground"):
        _module(tmp_path, ["empty.nii,normal,,train"]).dataset("train")


def test_labels_come_from_masks_or_are_inherited_and_that_is_said(tmp_path: Path) -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[1, 1, 3] = 1
    _save(tmp_path / "m.nii", mask)
    for name in "abc":
        _save(tmp_path / f"{name}.nii", _volume(ord(name)))
    shown = [int(index == 3) for index in range(8)]
    _save(tmp_path / "numbers.nii", 2 * mask + 3 * np.roll(mask, 2, axis=2))  # 3 in slice 5
    numbered = _slices(_module(tmp_path, ["a.nii,sick,numbers.nii=2,train"]))
    assert numbered.labels == shown
    with pytest.warns(
        UserWarning, match="1 cases, b first, have a finding and no mask of it: all their slices inherit"
    ):
        binary = _slices(_module(tmp_path, ["a.nii,sick,m.nii,train", "b.nii,sick,,train", "c.nii,normal,,train"]))
    assert binary.labels == [*shown, *[1] * 8, *[0] * 8]
    rows = ["a.nii,x|y,x=m.nii,train", "b.nii,normal,,train", "c.nii,y,y=m.nii,train"]
    with pytest.warns(UserWarning, match="1 cases, a first"):
        several = _slices(_module(tmp_path, rows))
    assert several.labels == [*((one, 1) for one in shown), *[(0, 0)] * 8, *((0, one) for one in shown)]
    rows = ["a.nii,x,m.nii,train", "b.nii,normal,,train", "c.nii,y,y=m.nii,train"]
    with_normal = _slices(_module(tmp_path, rows))  # classes normal, x, y
    assert with_normal.labels == [*one_of(1, shown), *[0] * 8, *one_of(2, shown)]
    rows = ["a.nii,x,m.nii,train", "b.nii,z,z=m.nii,train", "c.nii,y,y=m.nii,train"]
    assert _slices(_module(tmp_path, rows)).labels == [0, 2, 1]  # no class for the other slices


def one_of(label: int, shown: list[int]) -> list[int]:
    return [label * there for there in shown]


def test_a_volume_is_scaled_as_a_whole(tmp_path: Path) -> None:
    _save(tmp_path / "v.nii", _volume() * np.arange(1, 9, dtype=np.float32))
    with pytest.warns(UserWarning, match="negative"):
        made = _slices(_module(tmp_path, ["v.nii,normal,,train"], normalization="zscore", negative="normal"))
    images = torch.stack([made[index]["image"] for index in range(8)])
    np.testing.assert_allclose([images.mean(), images.std(correction=0)], [0, 1], atol=1e-5)
    assert images[7].std() > 3 * images[0].std()
    assert images[0].untyped_storage().nbytes() == images.untyped_storage().nbytes()
    assert made[0]["image"].untyped_storage().nbytes() == 6 * 7 * 4  # not a view of the volume


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_sees_each_slice_once_in_an_order_by_seed_alone(tmp_path: Path, workers: int) -> None:
    rows = [f"{_save(tmp_path / f'{n}.nii', _volume(n))},{'sick' if n % 2 else 'normal'},,train" for n in range(5)]

    def epoch(seed: int) -> list[str]:
        torch.manual_seed(seed)
        module = _module(tmp_path, rows, volumes=2, batch_size=4, num_workers=workers)
        with pytest.warns(UserWarning, match="inherit"):
            loader = module.train_dataloader()
        return [name for batch in loader for name in batch["case"]]

    first = epoch(0)
    assert sorted(first) == [f"{n}_axial{index:03d}" for n in range(5) for index in range(8)]
    assert epoch(0) == first != epoch(1)


def test_each_volume_is_read_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{_save(tmp_path / f'{n}.nii', _volume(n))},{'sick' if n % 2 else 'normal'},,train" for n in range(7)]
    module = _module(tmp_path, rows, volumes=2)
    with pytest.warns(UserWarning, match="inherit"):
        made = _slices(module)
    read: Counter[str] = Counter()
    original = readers.read_image

    def counted(paths: tuple[Path, ...]) -> Any:
        read[paths[0].name] += 1
        return original(paths)

    monkeypatch.setattr("hrcam_lightning.data.dataset.read_image", counted)
    order = list(module.training_order())
    for index in order:
        made[index]
    assert sorted(order) == list(range(56))
    assert max(read.values()) == 1
    assert len(read) >= 5  # two were still in memory
    runs = [made.places[index][0] for index in order]
    assert all(len(set(runs[first : first + 16])) == 2 for first in (0, 16, 32))
    assert sum(a != b for a, b in pairwise(runs[:16])) > 3  # and those two are mixed
    read.clear()
    for number in (0, 1, 0, 2, 0):  # what was asked for last stays
        made[8 * number]
    assert read["0.nii"] <= 1
    read.clear()
    grids = _slices(module, "predict")
    assert (len(grids), sum(read.values())) == (56, 0)  # headers alone


def test_the_order_changes_with_the_epoch() -> None:
    groups = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    orders = [list(VolumeOrder(groups, 2, lambda epoch=epoch: epoch)) for epoch in (0, 0, 1)]  # type: ignore[misc]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(9))


def test_a_lesion_lost_by_a_crop_is_said(tmp_path: Path) -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[0, 0, 0] = 1
    _save(tmp_path / "v.nii", _volume()), _save(tmp_path / "m.nii", mask)
    _save(tmp_path / "w.nii", -_volume())
    rows = ["v.nii,sick,m.nii,train,a", "w.nii,normal,,train,b"]
    made = _module(
        tmp_path, rows, "image,label,mask,split,case", slices=None, framing=Framing(shape=[4, 4, 4])
    ).dataset("train")
    with pytest.warns(UserWarning, match=r"m\.nii: all that the mask shows lies outside data\.framing\.shape"):
        sample = made[0]
    sample = made[0]  # said once: a second warning would be an error here
    assert (sample["label"], bool(sample["mask"].any())) == (1, False)
    np.testing.assert_array_equal(sample["image"][0], _volume()[1:5, 1:5, 2:6])
    np.testing.assert_allclose(sample["affine"] @ [0, 0, 0, 1], LAS @ [1, 1, 2, 1])


def test_pictures_and_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "flat.nii", np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match=r"flat\.nii: is no volume with an affine, so it has no axial slices"):
        _module(tmp_path, ["flat.nii,normal,,train"]).dataset("train")
    for options, words in (({"volumes": 0}, "volumes is 0"), ({"min_foreground": 1.0}, r"min_foreground is 1\.0")):
        with pytest.raises(InputError, match=words):
            _module(tmp_path, ["flat.nii,normal,,train"], **options)
