"""What an entry of cases.csv means, and where it may lead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hrcam_lightning import InputError
from hrcam_lightning.data.rows import mask_numbers, slice_range
from hrcam_lightning.data.table import read_table


def _files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "cases.csv").write_text(text, encoding=encoding)
    return folder / "cases.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_of_any_spreadsheet_are_read_alike(tmp_path: Path, delimiter: str, encoding: str) -> None:
    names = ["Müller, H; 画像.png", 'with "quotes".png', "plain.png"]
    _files(tmp_path, *names)
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    lines = [delimiter.join(pair) for pair in zip(["label", "sick", "normal", "sick"], ["image", *quoted], strict=True)]
    table = read_table(_write(tmp_path, "\r\n".join(lines) + "\r\n", encoding))
    assert [case.images for case in table.cases] == [(tmp_path / name,) for name in names]
    assert [case.label for case in table.cases] == [1, 0, 1]


def test_a_table_without_the_column_or_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    for text, encoding, words in (
        ("file;label\n1.png;0\n", "utf-8", "has no column 'image', only file;label"),
        ("image,label\nü.png,0\n", "latin-1", "cannot be read as a CSV file in UTF-8"),
        ("image,label\n1.png,0\n", "utf-16", "cannot be read as a CSV file in UTF-8"),
        ("", "utf-8", "holds no cases"),
        ("image,label\n1.png,mass,nodule\n", "utf-8", "line 2: has more values than the first line has columns"),
        ("image,label\n1\0.png,0\n", "utf-8", "line 2: .* does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            read_table(_write(tmp_path, text, encoding))


def test_delimiters_at_the_end_of_a_row_are_no_values(tmp_path: Path) -> None:
    _files(tmp_path, "1.png", "2.png")
    assert len(read_table(_write(tmp_path, "image,label\n1.png,0,,\n2.png,1, ,\n")).cases) == 2


def test_paths_stay_in_the_tables_folder_unless_allowed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _files(tmp_path, "home/in/a.png", "out/b.png")
    (home / "in/inner.png").symlink_to(home / "in/a.png")
    (home / "leads_out.png").symlink_to(tmp_path / "out/b.png")
    (home / "folder").symlink_to(tmp_path / "out")
    for entry in ("in/a.png", "in/../in/a.png", "in/inner.png", str(home / "in/a.png")):
        assert len(read_table(_write(home, f"image,label\n{entry},0\n")).cases) == 1
    for entry in (
        "../out/b.png",
        str(tmp_path / "out/b.png"),
        "leads_out.png",
        "folder/b.png",
        "in/a.png|leads_out.png",
    ):
        path = _write(home, f"image,label\n{entry},0\n")
        with pytest.raises(InputError, match=r"line 2: .*b\.png|leads_out.* lies outside .* --data.allow_outside true"):
            read_table(path)
        assert len(read_table(path, allow_outside=True).cases) == 1
    for column in ("mask", "cue"):
        with pytest.raises(InputError, match=r"leads_out\.png lies outside"):
            read_table(_write(home, f"image,label,{column}\nin/a.png,1,leads_out.png\n"))
    (tmp_path / "link").symlink_to(home)  # the table's own folder may be a link
    assert read_table(_write(tmp_path / "link", "image,label\nin/a.png,0\n")).cases[0].name == "in/a"


def test_links_in_a_circle_and_impossible_names_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for entry in ("a.png", "x" * 5000 + ".png", "scan.nii.gz#3", "a.png/c.png"):
        with pytest.raises(InputError, match=r"line 2: .* does not exist; paths are relative to the table"):
            read_table(_write(tmp_path, f"image,label\n{entry},0\n"))


def test_a_row_may_mean_a_part_of_a_file(tmp_path: Path) -> None:
    _files(tmp_path, "v.nii.gz", "seg.nii.gz", "old=3.png")
    rows = ["v.nii.gz#2,b,b=seg.nii.gz=1+4,0:10", "v.nii.gz#0,a,seg.nii.gz=2,", "v.nii.gz#1,c,c=old=3.png,5:6"]
    text = "\n".join(["image,label,mask,slices", *rows])
    first, second, third = read_table(_write(tmp_path, text)).cases
    assert [case.name for case in (first, second, third)] == ["v_2_0-10", "v_0", "v_1_5-6"]
    assert first.images == (tmp_path / "v.nii.gz#2",)
    assert (first.masks, first.numbers, first.slices) == ({"b": tmp_path / "seg.nii.gz"}, {"b": (1, 4)}, (0, 10))
    assert (second.masks, second.numbers, second.slices) == ({"a": tmp_path / "seg.nii.gz"}, {"a": (2,)}, None)
    assert (third.masks, third.numbers, third.slices) == ({"c": tmp_path / "old=3.png"}, {}, (5, 6))


def test_numbers_and_ranges() -> None:
    assert mask_numbers("a.nii.gz = 1 + 12") == ("a.nii.gz", (1, 12))
    assert mask_numbers("dose=2/a.png") == ("dose=2/a.png", ())
    assert slice_range(Path("t"), 2, "") is None
    assert slice_range(Path("t"), 2, "3 : 12") == (3, 12)
    for wrong in ("3", "3-5", "5:5", "9:2", ":4", "-1:3"):
        with pytest.raises(InputError, match=rf"t, line 2: slices is '{wrong}'; write first:last\+1"):
            slice_range(Path("t"), 2, wrong)
    assert np.arange(99)[slice(3, 12)].tolist() == list(range(3, 12))
