from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from synth import Phantoms, PhantomSpec
from synth.dataset import Shard, generate
from synth.files import DatasetError, nifti_bytes, read_nifti
from synth.merge import merge
from synth.verify import open_set, problems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPLITS = {"train": 13, "val": 4, "test": 3}
TWO = {name: {"radius_mm": [2.2, 2.6], "cnr": 3} for name in ("a", "b")}


class StopError(Exception):
    """What ends a run in the middle."""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_shards(spec: PhantomSpec, folder: Path, number: int, **options: Any) -> list[Path]:
    paths = [folder / f"shard{part}of{number}" for part in range(number)]
    for part, path in enumerate(paths):
        generate(path, spec, **{"seed": 5, "splits": SPLITS, **options}, shard=Shard(part, number))
    return paths


@pytest.mark.parametrize("number", [1, 3, 24])
@pytest.mark.parametrize("twins", [False, True])
def test_merged_shards_are_the_whole_set_bit_for_bit(
    make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path, number: int, twins: bool
) -> None:
    spec = make_spec(dimensions, task="multilabel", lesions=TWO)
    generate(tmp_path / "whole", spec, seed=5, splits=SPLITS, twins=twins)
    shards = make_shards(spec, tmp_path, number, twins=twins)
    told: list[tuple[int, int]] = []
    assert merge(tmp_path / "out", shards[::-1], on_case=lambda done, total: told.append((done, total)))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert told[-1] == (20, 20)
    assert problems(tmp_path / "out") == []
    assert not merge(tmp_path / "out", shards, resume=True)
    # Each shard wrote its own cases and no other.
    assert sum(len(list((shard / "images").iterdir())) for shard in shards) == 20


def test_sites_cues_distractors_twins_and_the_reversed_split_go_together(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path
) -> None:
    cue = {"kind": "marker", "dose": 1.0, "size_mm": 6}
    spots = {"spot": {"radius_mm": 2.2, "cnr": 3, "prevalence": 0.5, "count": [1, 2]}}
    sites = {"a": {}, "b": {"blur_mm": 1.0}}
    spec = make_spec(shape=[48, 48], spacing_mm=[1, 1], sites=sites, cue=cue, distractors=spots)
    splits = {"train": 8, "test": 2, "reversed": 8}
    generate(tmp_path / "whole", spec, seed=5, splits=splits, twins=True)
    merge(tmp_path / "out", make_shards(spec, tmp_path, 3, splits=splits, twins=True))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert problems(tmp_path / "out") == []

    def stop(done: int, _: int) -> None:
        if done >= 16:  # in the reversed split
            raise StopError

    made_from: dict[str, Any] = {"seed": 5, "splits": splits, "twins": True}
    with pytest.raises(StopError):
        generate(tmp_path / "cut", spec, **made_from, on_case=stop)
    lost = min((tmp_path / "cut" / "distractors").iterdir())
    lost.unlink()  # as a kill may leave it
    resumed: list[int] = []
    generate(tmp_path / "cut", spec, **made_from, resume=True, on_case=lambda done, _: resumed.append(done))
    assert resumed[0] == 15
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")

    stored = open_set(tmp_path / "out")
    assert list(stored.cases[0])[7:] == ["site", "cue", "distractor", "twin", "twin_hash"]
    for index, row in enumerate(stored.cases):
        case = (Phantoms(spec, 5).reversed if row["split"] == "reversed" else Phantoms(spec, 5))[index]
        assert row["site"] == case.site
        assert bool(row["twin"]) == (row["label"] != "normal")
        assert bool(row["cue"]) == (bool(row["twin"]) != (row["split"] == "reversed"))
        assert bool(row["distractor"]) == bool(case.distractors)
        if row["twin"]:
            assert np.array_equal(read_nifti(tmp_path / "out" / row["twin"])[0][..., 0], case.twin().image)
    for folder in ("cues", "distractors", "twins"):
        stray = tmp_path / "out" / folder / "stray.nii.gz"
        stray.touch()
        assert problems(tmp_path / "out") == [f"1 files belong to no case, such as {folder}/stray.nii.gz"]
        stray.unlink()
    for column in ("cue", "distractor"):
        path = tmp_path / "out" / next(row[column] for row in stored.cases if row[column])
        content = path.read_bytes()
        path.unlink()
        assert [problem.endswith("is missing") for problem in problems(tmp_path / "out")] == [True]
        path.write_bytes(content)


def test_an_interrupted_shard_is_resumed(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    spec, shard = make_spec(), Shard(1, 2)

    def stop(done: int, total: int) -> None:
        assert total == 10
        if 0 < done < total:
            raise StopError

    whole = make_shards(spec, tmp_path, 2)
    with pytest.raises(StopError):
        generate(tmp_path / "out", spec, seed=5, splits=SPLITS, shard=shard, on_case=stop)
    with pytest.raises(DatasetError, match="is unfinished"):
        merge(tmp_path / "merged", [whole[0], tmp_path / "out"])
    with pytest.raises(DatasetError, match=r"another shard \(\[1, 2\], not \[0, 2\]\)"):
        generate(tmp_path / "out", spec, seed=5, splits=SPLITS, shard=Shard(0, 2), resume=True)
    with pytest.raises(DatasetError, match=r"another twins \(None, not True\)"):
        generate(tmp_path / "out", spec, seed=5, splits=SPLITS, shard=shard, twins=True, resume=True)
    assert generate(tmp_path / "out", spec, seed=5, splits=SPLITS, shard=shard, resume=True)
    assert tree(tmp_path / "out") == tree(whole[1])
    assert not generate(tmp_path / "out", spec, seed=5, splits=SPLITS, shard=shard, resume=True)
    with pytest.raises(DatasetError, match=r"is one shard of a set: .* hrcam-synth merge"):
        open_set(tmp_path / "out")


def test_an_interrupted_merge_is_resumed(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    shards = make_shards(make_spec(), tmp_path, 2)
    generate(tmp_path / "whole", make_spec(), seed=5, splits=SPLITS)

    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise StopError

    with pytest.raises(StopError):
        merge(tmp_path / "out", shards, on_case=stop)
    with pytest.raises(DatasetError, match="unfinished"):
        open_set(tmp_path / "out")
    with pytest.raises(DatasetError, match="is not empty"):
        merge(tmp_path / "out", shards)
    assert merge(tmp_path / "out", shards, resume=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_shards_that_are_not_those_of_one_set_are_refused(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path
) -> None:
    first, second, third = make_shards(make_spec(), tmp_path, 3)
    other: dict[str, dict[str, Any]] = {
        "seed": {"seed": 6},
        "splits": {"splits": {"train": 20}},
        "twins": {"twins": True},
    }
    wrong = {key: make_shards(make_spec(), tmp_path / key, 3, **options)[2] for key, options in other.items()}
    wrong["spec"] = make_shards(make_spec(prevalence=0.4), tmp_path / "spec", 3)[2]
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "shard.jsonl").write_text("\n".join((third / "shard.jsonl").read_text().splitlines()[:-1]))
    cases = [([first, second, shard], f"is of a set with another {key} than") for key, shard in wrong.items()]
    cases += [
        ([first, second], "is shard 0/3 but 2 are given"),
        ([first, second, second], "are both shard 1/3"),
        ([first, second, third, third], "is shard 0/3 but 4 are given"),
        ([first, second, tmp_path], "holds no shard"),
        ([first, second, damaged], r"shard\.jsonl is damaged"),
    ]
    for shards, words in cases:
        with pytest.raises(DatasetError, match=words):
            merge(tmp_path / "out", shards)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_twins_are_the_abnormal_cases_without_lesions(
    make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path, task: str
) -> None:
    spec = make_spec(dimensions, **({"task": task, "lesions": TWO} if task == "multilabel" else {}))
    generate(tmp_path / "with", spec, splits=SPLITS, twins=True)
    generate(tmp_path / "without", spec, splits=SPLITS)
    with (tmp_path / "with/cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    phantoms = Phantoms(spec, 0)
    for index, row in enumerate(rows):
        case = phantoms[index]
        assert row["twin"] == (f"twins/{case.name}.nii.gz" if case.lesions else "")
        assert bool(row["twin_hash"]) == bool(case.lesions)
        if case.lesions:
            voxels, affine = read_nifti(tmp_path / "with" / row["twin"])
            assert np.array_equal(voxels, case.twin().image.reshape(voxels.shape))
            assert affine == pytest.approx(case.affine, abs=1e-5)
    assert any(row["twin"] for row in rows)
    # Without them, nothing else changes, and no column tells of them.
    plain = tree(tmp_path / "without")
    assert plain["cases.csv"].startswith(b"case,image,label,mask,split,subject,hash\n")
    assert "twins" not in json.loads(plain["dataset.json"])
    both = {name: content for name, content in tree(tmp_path / "with").items() if not name.startswith("twins/")}
    assert both.keys() == plain.keys()
    assert {name for name in both if both[name] != plain[name]} == {"cases.csv", "dataset.json"}


def test_verify_covers_twins(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    generate(tmp_path, make_spec(prevalence=1), splits={"test": 4}, twins=True)
    assert problems(tmp_path) == []
    paths = sorted((tmp_path / "twins").iterdir())
    voxels, affine = read_nifti(paths[0])
    changed = voxels.copy()
    changed[3, 4, 0] += 1e-6
    paths[0].write_bytes(nifti_bytes(changed, affine))
    paths[1].write_bytes(nifti_bytes(voxels[1:], affine))
    paths[2].unlink()
    (tmp_path / "twins/stray.nii.gz").write_bytes(b"")
    first, second, third, stray = problems(tmp_path)
    assert first == "case_000000: the twin is not what was generated (another hash)"
    assert second == "case_000001: the twin's shape is (31, 28, 1)"
    assert third.startswith("case_000002: ")
    assert third.endswith("case_000002.nii.gz is missing")
    assert "twins/stray.nii.gz" in stray
