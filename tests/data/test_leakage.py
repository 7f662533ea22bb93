"""The same image in two splits, and a mask as an image: refused by the bytes of the files."""

from __future__ import annotations

import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hrcam_lightning import InputError
from hrcam_lightning.data import CaseDataModule, leakage
from hrcam_lightning.data.leakage import check_leakage
from hrcam_lightning.data.table import Case, read_table
from tests.command_line import CASES, SMALL, error_of, save
from tests.importers.trees import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 0 to 5, as bitmaps of one size so that only their content tells them apart."""
    for n in range(6):
        rng = np.random.default_rng(n)
        (tmp_path / f"{n}.png").write_bytes(rng.bytes(20_000))
    return tmp_path


def _check(folder: Path, *rows: str, header: str = "image,label,split,case") -> None:
    path = folder / "cases.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    check_leakage(path, read_table(path).cases)


@pytest.fixture
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("_no_warning")
def test_different_images_of_one_size_pass(folder: Path) -> None:
    _check(folder, *(f"{n}.png,{n % 2},{split},c{n}" for n, split in enumerate(("train", "train", "val", "test"))))


@pytest.mark.parametrize("place", [0, 9_999, 19_999, 5_500])
def test_one_other_byte_makes_another_image(folder: Path, place: int) -> None:
    content = bytearray((folder / "0.png").read_bytes())
    content[place] ^= 1
    (folder / "1.png").write_bytes(content)
    _check(folder, "0.png,0,train,a", "1.png,1,test,b")
    content[place] ^= 1
    (folder / "2.png").write_bytes(content)
    with pytest.raises(InputError, match=r"'a' \(train\) and 'b' \(test\) are the same image, .*0\.png and .*2\.png;"):
        _check(folder, "0.png,0,train,a", "2.png,1,test,b")


def test_a_copy_a_link_and_the_same_path_are_the_same_image(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "copy.png")
    (folder / "link.png").symlink_to(folder / "0.png")
    for other in ("copy.png", "link.png", "0.png", "./0.png"):
        with pytest.raises(InputError, match=r"cases\.csv: 'a' \(val\) and 'b' \(test\) are the same image, .*0\.png"):
            _check(folder, "1.png,0,train,c", "0.png,0,val,a", f"{other},1,test,b")


def test_all_pairs_are_counted_and_three_are_named(folder: Path) -> None:
    rows = [f"{n}.png,{n % 2},{split},{split}{n}" for n in range(5) for split in ("train", "test")]
    with pytest.raises(InputError) as caught:
        _check(folder, *rows)
    assert str(caught.value).count("are the same image") == 3
    assert "'train2' (train) and 'test2' (test)" in str(caught.value)
    assert "; and 2 more; keep each image in one split (--data.check_leakage false if this is meant)" in str(
        caught.value
    )


def test_a_double_within_a_split_is_only_warned_of(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "copy.png")
    with pytest.warns(UserWarning, match=r"'a' \(train\) and 'b' \(train\) are the same image, .* counts twice"):
        _check(folder, "0.png,0,train,a", "copy.png,1,train,b", "1.png,0,test,c")
    with pytest.raises(InputError, match=r"'b' \(train\) and 'c' \(test\)|'a' \(train\) and 'c' \(test\)"):
        _check(folder, "0.png,0,train,a", "copy.png,1,train,b", "0.png,0,test,c")


def test_a_mask_as_an_image_is_refused_by_name_and_by_content(folder: Path) -> None:
    header = "image,label,mask,split,case"
    with pytest.raises(InputError, match=r"1\.png, the image of case 'b', is the mask of case 'a'"):
        _check(folder, "0.png,1,1.png,train,a", "1.png,0,,train,b", header=header)
    shutil.copy(folder / "1.png", folder / "copy.png")
    with pytest.raises(
        InputError, match=r"copy\.png, the image of case 'b', holds the same bytes as .*1\.png, which is"
    ):
        _check(folder, "0.png,1,1.png,train,a", "copy.png,0,,train,b", header=header)
    with pytest.raises(InputError, match=r"0\.png, the image of case 'a', is the mask of case 'a'"):
        _check(folder, "0.png,1,0.png,train,a", "1.png,0,,test,b", header=header)
    with pytest.raises(InputError, match="is the mask of case 'b'"):
        _check(folder, "0.png,1,,train,a", "1.png,0,0.png,train,b", header="image,label,cue,split,case")


@pytest.mark.usefixtures("_no_warning")
def test_masks_may_be_the_same(folder: Path) -> None:
    shutil.copy(folder / "2.png", folder / "copy.png")
    _check(
        folder, "0.png,1,2.png,train,a", "1.png,1,2.png,test,b", "3.png,1,copy.png,test,c",
        header="image,label,mask,split,case",
    )  # fmt: skip


def test_slices_of_one_volume_may_be_apart(folder: Path) -> None:
    save(np.zeros((2, 2, 40)), np.eye(4), folder / "v.nii.gz")
    shutil.copy(folder / "v.nii.gz", folder / "w.nii.gz")
    header = "image,label,slices,split,case"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _check(
            folder, "v.nii.gz,1,0:10,train,a", "v.nii.gz,1,20:30,train,b", "v.nii.gz,1,10:20,test,c",
            "w.nii.gz,1,30:40,val,d", header=header,
        )  # fmt: skip
    with pytest.raises(InputError, match=r"'c' \(test\) and 'b' \(train\) are the same image|'b' .* and 'c' "):
        _check(folder, "v.nii.gz,1,0:10,train,a", "v.nii.gz,1,19:30,train,b", "w.nii.gz,1,10:20,test,c", header=header)
    with pytest.raises(InputError, match=r"'a' \(train\) and 'c' \(test\)"):  # a long range, over a short one
        _check(folder, "v.nii.gz,1,0:40,train,a", "v.nii.gz,1,5:6,train,b", "v.nii.gz,1,30:31,test,c", header=header)
    with pytest.raises(InputError, match=r"'b' \(train\) and 'c' \(test\)"):  # one range behind another
        _check(folder, "v.nii.gz,1,0:5,train,a", "v.nii.gz,1,5:40,train,b", "v.nii.gz,1,20:21,test,c", header=header)
    with pytest.raises(InputError, match="are the same image"):  # the whole volume, and slices of it
        _check(folder, "v.nii.gz,1,,train,a", "v.nii.gz,1,10:20,test,c", header=header)
    with pytest.warns(UserWarning, match="counts twice"):
        _check(folder, "v.nii.gz,1,0:10,train,a", "v.nii.gz,1,9:20,train,b", header=header)


@pytest.mark.usefixtures("_no_warning")
def test_empty_files_are_left_to_the_reader(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"")
    (folder / "1.png").write_bytes(b"")
    _check(folder, "0.png,0,train,a", "1.png,1,test,b")


def test_channels_are_compared_each(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'a' \(train\) and 'b' \(test\) are the same image, .*1\.png"):
        _check(folder, "0.png|1.png,0,train,a", "1.png|2.png,1,test,b")


def test_volumes_of_one_file_are_images_of_their_own(folder: Path) -> None:
    cases = [
        Case(f"{number}{split}", (folder / f"0.png#{number}",), 0, split=split)
        for number, split in ((1, "train"), (2, "test"), (2, "val"))
    ]
    check_leakage(folder / "cases.csv", cases[:2])
    with pytest.raises(InputError, match=r"'2test' .* and '2val' .* are the same image"):
        check_leakage(folder / "cases.csv", cases)


def test_a_series_is_the_same_whatever_its_files_are_called(folder: Path) -> None:
    for name, files in {"s": "012", "t": "201", "u": "013"}.items():
        (folder / name).mkdir()
        for place, file in enumerate(files):
            shutil.copy(folder / f"{file}.png", folder / name / f"{place}.dcm")
    cases = {name: Case(name, (folder / name,), 0, split="train" if name == "s" else "test") for name in "stu"}
    check_leakage(folder, [cases["s"], cases["u"]])
    with pytest.raises(InputError, match=r"'s' \(train\) and 't' \(test\) are the same image"):
        check_leakage(folder, list(cases.values()))


def test_only_files_that_may_be_the_same_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def spy(name: str) -> Callable[[Any], bytes]:
        plain: Callable[[Any], bytes] = getattr(leakage, name)

        def reading(stat: Any) -> bytes:
            read.append(name)
            return plain(stat)

        return reading

    for name in ("_probe", "_digest"):
        monkeypatch.setattr(leakage, name, spy(name))
    (folder / "1.png").write_bytes(b"another size")
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes()[:-1] + b"?")
    _check(folder, "0.png,0,train,a", "1.png,1,test,b", "2.png,1,val,c", "3.png,1,val,d")
    assert sorted(read) == ["_probe"] * 3
    read.clear()
    cases = [Case(f"{n}", (folder / "0.png",), 0, split="train", slices=(n, n + 1)) for n in range(9)]
    check_leakage(folder, cases)
    assert read == []


def test_a_file_that_has_changed_is_read_again(folder: Path) -> None:
    _check(folder, "0.png,0,train,a", "1.png,1,test,b")
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    os.utime(folder / "1.png", ns=(1, 1))
    with pytest.raises(InputError, match="are the same image"):
        _check(folder, "0.png,0,train,a", "1.png,1,test,b")


def test_the_command_refuses_and_the_option_lets_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for n in range(8):
        picture(tmp_path / f"{n}.png")
    shutil.copy("0.png", "7.png")
    rows = [f"{n}.png,{n % 2},{'train' if n < 4 else 'val' if n < 6 else 'test'}" for n in range(8)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,label,split", *rows]))
    found = error_of(capsys, monkeypatch, "fit", *CASES, "cases.csv", *SMALL)
    assert "'0' (train) and '7' (test) are the same image, 0.png and 7.png" in found
    assert len(CaseDataModule("cases.csv", check_leakage=False).table.cases) == 8
