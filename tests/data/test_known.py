"""What is known of lesions: read from a set, from a user's table, and from phantoms as they are drawn."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import pytest

from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.data.ceiling import Reading, read_ceiling
from hrcam_lightning.data.known import KnownLesion, diameter, read_lesions
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def _write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_a_set_on_disk_and_the_same_phantoms_drawn_know_the_same(tiny_set: Path, spec_path: Path) -> None:
    stored = CaseDataModule(str(tiny_set / "cases.csv")).known_lesions("test")
    drawn = PhantomDataModule(str(spec_path), seed=3).known_lesions("test")
    with (tiny_set / "cases.csv").open() as file:
        tests = [row["case"] for row in csv.DictReader(file) if row["split"] == "test"]
    assert list(drawn) == tests
    assert sum(map(len, drawn.values())) > 0
    for case, lesions in drawn.items():
        assert lesions == stored.get(case, [])


def test_every_column_is_taken(tmp_path: Path) -> None:
    places = "centre_mm_x,centre_mm_y,centre_voxel_x,centre_voxel_y,radius_mm_1,radius_mm_2"
    header = f"case,class,family,{places},volume_mm3,delta,cnr,dprime"
    path = _write(
        tmp_path / "lesions.csv", header, "a,mass,ring,1.5,-2,7,8,4,9,113,0.2,3,5", "a,mass,ring,0,0,1,1,1,1,,,,"
    )
    first, second = read_lesions(path)["a"]
    assert first == KnownLesion("mass", (1.5, -2), (7, 8), "ring", 12.0, 113, 0.2, 3, 5)
    assert second.size_mm == 2
    assert all(math.isnan(value) for value in (second.volume_mm3, second.contrast, second.cnr, second.dprime))


def test_a_users_table_needs_a_case_and_a_place(tmp_path: Path) -> None:
    path = _write(tmp_path / "lesions.csv", "case,centre_voxel_x,centre_voxel_y,centre_voxel_z,size_mm", "a,1,2,3,8.5")
    (lesion,) = read_lesions(path)["a"]
    assert lesion[:5] == ("", None, (1, 2, 3), "", 8.5)
    assert read_lesions(tmp_path / "none.csv") == {}
    with pytest.warns(UserWarning, match=r"lesions\.csv is left out: it has no columns 'case'"):
        assert read_lesions(_write(path, "patient,grade", "a,3")) == {}
    with pytest.raises(InputError, match=r"lesions\.csv, line 3: could not convert string to float: 'big'"):
        read_lesions(_write(path, "case,centre_mm_x,size_mm", "a,1,2", "b,1,big"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as a CSV file in UTF-8"):
        read_lesions(path)


def test_a_diameter_keeps_area_and_volume() -> None:
    assert diameter([4, 9]) == 12
    assert diameter([1, 8, 27]) == pytest.approx(12)
    assert math.isnan(diameter([]))


def _ceiling(folder: Path, **changed: str) -> Path:
    index = {"hash": "1", "split": "test", "kind": "exact"} | changed
    _write(folder / "ceiling.json", str(index).replace("'", '"'))
    _write(folder / "ceiling.csv", "case,class,rating,located,hit", "a,mass,1.5,0.5,1", "b,mass,-2,,")
    _write(folder / "dataset.json", '{"hash": "1"}')
    return folder


def test_a_ceiling_is_read_for_its_split_and_its_set(tmp_path: Path) -> None:
    assert read_ceiling(tmp_path, "test") is None
    found = read_ceiling(_ceiling(tmp_path), "test")
    assert found is not None
    assert found.kind == "exact"
    assert found.readings["a", "mass"] == Reading(1.5, 0.5, 1)
    assert found.readings["b", "mass"] == pytest.approx((-2, math.nan, math.nan), nan_ok=True)
    assert read_ceiling(tmp_path, "reversed") is None
    with pytest.warns(UserWarning, match="is left out: it is of another set"):
        assert read_ceiling(_ceiling(tmp_path, hash="2"), "test") is None


def test_a_damaged_ceiling_says_how_to_mend_it(tmp_path: Path) -> None:
    _ceiling(tmp_path)
    _write(tmp_path / "ceiling.csv", "case,class,rating,located,hit", "a,mass,high,,")
    with pytest.raises(InputError, match=r"damaged .* write it anew with hrcam-synth observer --write"):
        read_ceiling(tmp_path, "test")
    (tmp_path / "ceiling.csv").unlink()
    with pytest.raises(InputError, match="damaged"):
        read_ceiling(tmp_path, "test")
    _write(tmp_path / "ceiling.json", "[]")
    with pytest.raises(InputError, match="damaged"):
        read_ceiling(tmp_path, "test")
