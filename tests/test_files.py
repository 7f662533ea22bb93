"""Files are whole or not there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from hrcam_lightning import InputError
from hrcam_lightning.files import replacing, safe_name, write_csv, write_json

if TYPE_CHECKING:
    from pathlib import Path


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.txt"
    with replacing(path) as part:
        part.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"x\.txt: cannot be written"),
        replacing(tmp_path / "file" / "x.txt") as part,
    ):
        part.write_text("never")


def test_tables_and_json_are_plain(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"b": 1}, {"a": "x, y"}], ["a", "b"])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n,1\n"x, y",\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": math.nan})
    assert not (tmp_path / "a.json").exists()


def test_names_become_file_names() -> None:
    assert safe_name("a/b c.nii") == "a_b_c.nii"
    assert safe_name("../../etc/passwd") == "_.._etc_passwd"
    assert safe_name("ü-1_2") == "ü-1_2"
    assert safe_name("..") == "_"
