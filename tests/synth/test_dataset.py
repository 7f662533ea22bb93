from __future__ import annotations

import csv
import errno
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import Phantoms, PhantomSpec, SpecError
from synth.dataset import generate, share
from synth.files import DatasetError, Voxels, case_hash, nifti_bytes, read_nifti
from synth.verify import open_set, problems

if TYPE_CHECKING:
    from collections.abc import Callable

SPLITS = {"train": 13, "val": 4, "test": 3}
TWO = {name: {"radius_mm": [2.2, 2.6], "cnr": 3} for name in ("a", "b")}


class StopError(Exception):
    """What ends a run in the middle."""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def whole(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> Path:
    """Return a complete 2D set."""
    generate(tmp_path / "whole", make_spec(), seed=5, splits=SPLITS)
    return tmp_path / "whole"


def test_files_hold_the_cases_as_drawn(make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path) -> None:
    spec = make_spec(dimensions)
    assert generate(tmp_path, spec, seed=5, splits=SPLITS)
    phantoms = Phantoms(spec, 5)
    table = rows(tmp_path / "cases.csv")
    assert list(table[0]) == ["case", "image", "label", "mask", "split", "subject", "hash"]
    assert [row["split"] for row in table] == ["train"] * 13 + ["val"] * 4 + ["test"] * 3
    for index, row in enumerate(table):
        case = phantoms[index]
        shape = (*spec.shape, 1)[:3]
        image = nib.Nifti1Image.from_filename(tmp_path / row["image"])
        assert np.array_equal(np.asarray(image.dataobj), case.image.reshape(shape))
        assert image.affine == pytest.approx(case.affine, abs=1e-5)
        assert image.header["pixdim"][1:4] == pytest.approx((*spec.spacing_mm, 1.0)[:3])
        assert (row["case"], row["label"], bool(row["mask"])) == (
            case.name,
            case.label_text,
            bool(case.label),
        )
        if case.label:
            mask = nib.Nifti1Image.from_filename(tmp_path / row["mask"])
            assert np.asarray(mask.dataobj).dtype == np.uint8
            assert np.array_equal(np.asarray(mask.dataobj), case.masks[0].reshape(shape))
    lesions = [lesion for index in range(20) for lesion in phantoms[index].lesions]
    for row, lesion in zip(rows(tmp_path / "lesions.csv"), lesions, strict=True):
        assert float(row["dprime"]) == lesion.dprime
        assert float(row["centre_voxel_y"]) == lesion.centre_voxel[1]
        assert float(row["radius_mm_1"]) == lesion.radii_mm[0]
        assert int(row["voxels"]) == lesion.voxels
    assert problems(tmp_path) == []


def test_dataset_json_tells_what_the_set_is_and_how_to_make_it_again(whole: Path, tmp_path: Path) -> None:
    info = json.loads((whole / "dataset.json").read_text(encoding="utf-8"))
    assert (info["schema"], info["seed"], info["task"]) == (1, 5, "binary")
    assert (info["classes"], info["labels"], info["spacing_mm"]) == (
        ["lesion"],
        ["normal", "lesion"],
        [1.0, 1.25],
    )
    assert {split: sum(labels.values()) for split, labels in info["counts"].items()} == SPLITS
    lesions = sum(labels.get("lesion", 0) for labels in info["counts"].values())
    assert lesions == len(list((whole / "masks").iterdir())) > 0
    generate(tmp_path / "again", PhantomSpec.from_dict(info["spec"]), seed=info["seed"], splits=info["splits"])
    assert tree(tmp_path / "again") == tree(whole)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_several_classes_have_a_mask_file_each(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path, task: str
) -> None:
    spec = make_spec(task=task, lesions=TWO)
    generate(tmp_path, spec, splits={"train": 12})
    phantoms, stored = Phantoms(spec, 0), open_set(tmp_path)
    for index, row in enumerate(stored.cases):
        case = phantoms[index]
        paths = {lesion.class_name: f"masks/{case.name}_{lesion.class_name}.nii.gz" for lesion in case.lesions}
        assert row["mask"] == "|".join(f"{name}={path}" for name, path in paths.items())
        assert row["label"] == case.label_text
        for name, path in stored.masks(row).items():
            assert np.array_equal(read_nifti(path)[0][..., 0], case.masks[spec.classes.index(name)])
    assert problems(tmp_path) == []


def test_two_workers_write_the_same_bytes_as_one(
    make_spec: Callable[..., PhantomSpec], dimensions: int, tmp_path: Path
) -> None:
    spec = make_spec(dimensions, noise={"kind": "rician", "sd": 0.03})
    for workers in (1, 2):
        generate(tmp_path / str(workers), spec, seed=1, splits=SPLITS, workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_more_cases_leave_earlier_ones_as_they_were(
    make_spec: Callable[..., PhantomSpec], whole: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "more", make_spec(), seed=5, splits={"train": 30})
    more = tree(tmp_path / "more")
    assert all(more[name] == content for name, content in tree(whole).items() if name.endswith(".nii.gz"))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("spoil", ["nothing", "cut line", "lost image", "stray part"])
def test_an_interrupted_set_is_resumed_to_the_same_bytes(
    make_spec: Callable[..., PhantomSpec], whole: Path, tmp_path: Path, workers: int, spoil: str
) -> None:
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise StopError

    with pytest.raises(StopError):
        generate(out, make_spec(), seed=5, splits=SPLITS, on_case=stop)
    journal = out / "incomplete.jsonl"
    assert not (out / "cases.csv").exists()
    assert len(journal.read_bytes().splitlines()) == 9
    if spoil == "cut line":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif spoil == "lost image":
        (out / "images/case_000003.nii.gz").unlink()
    elif spoil == "stray part":
        (out / "images/case_000019.nii.gz.77.part").write_bytes(b"half")

    with pytest.raises(DatasetError, match=r"is not empty: .* --resume"):
        generate(out, make_spec(), seed=5, splits=SPLITS)
    with pytest.raises(DatasetError, match="unfinished"):
        problems(out)
    first: list[int] = []
    assert generate(
        out,
        make_spec(),
        seed=5,
        splits=SPLITS,
        workers=workers,
        resume=True,
        on_case=lambda done, _: first.append(done),
    )
    assert first[0] == (7 if spoil in ("cut line", "lost image") else 8)
    assert tree(out) == tree(whole)
    assert not generate(out, make_spec(), seed=5, splits=SPLITS, resume=True)


def test_a_kill_among_the_tables_is_resumed(
    make_spec: Callable[..., PhantomSpec], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise StopError

    for number, last in enumerate(("cases.csv", "lesions.csv", "dataset.json", "incomplete.jsonl")):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr("synth.dataset.write_tables", killed)
            with pytest.raises(StopError):
                generate(out, make_spec(), seed=5, splits=SPLITS)
        for name in ("cases.csv", "lesions.csv", "dataset.json")[:number]:
            (out / name).write_bytes((whole / name).read_bytes())
        assert not (out / last).exists() or last == "incomplete.jsonl"
        generate(out, make_spec(), seed=5, splits=SPLITS, resume=True)
        assert tree(out) == tree(whole)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": 6}, r"another seed \(5, not 6\)"),
        ({"splits": {"train": 20}}, "another splits"),
        ({"spec": {"prevalence": 0.4}}, "another spec: resume with the same one"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_resuming_another_set_is_refused(
    make_spec: Callable[..., PhantomSpec],
    whole: Path,
    changed: dict[str, dict[str, int]],
    sentence: str,
    finished: bool,
) -> None:
    if not finished:
        header = json.loads((whole / "dataset.json").read_text(encoding="utf-8"))
        kept = {key: header[key] for key in ("schema", "generator", "spec", "seed", "splits")}
        (whole / "incomplete.jsonl").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    before = tree(whole)
    spec = make_spec(**changed.get("spec", {}))
    with pytest.raises(DatasetError, match=sentence):
        generate(whole, spec, seed=changed.get("seed", 5), splits=changed.get("splits", SPLITS), resume=True)  # type: ignore[arg-type]
    assert tree(whole) == before


def test_a_full_disk_leaves_nothing_half_written_and_a_set_that_can_be_resumed(
    make_spec: Callable[..., PhantomSpec], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, written = tmp_path / "out", Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) < 12:
            return write(path, content)
        write(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            generate(out, make_spec(), seed=5, splits=SPLITS)
    assert not list(out.rglob("*.part"))
    for path in (out / "images").iterdir():
        gzip.decompress(path.read_bytes())
    generate(out, make_spec(), seed=5, splits=SPLITS, resume=True)
    assert tree(out) == tree(whole)


def test_lesions_that_fit_nowhere_are_found_before_anything_is_written(
    make_spec: Callable[..., PhantomSpec], tmp_path: Path
) -> None:
    spec = make_spec(lesions={"lesion": {"radius_mm": 4, "cnr": 1, "count": 40}})
    with pytest.raises(SpecError, match=r"lesions\.lesion\.radius_mm leaves no room"):
        generate(tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({"dprime": [3, 4000]}, r"lesions\.lesion\.dprime is \[3\.0, 4000\.0\] but asks for a change of"),
        ({"delta": 0.7, "polarity": "dark"}, r"lesions\.lesion\.delta is .*: 0\.6 is all of the range between tissue"),
        ({"delta": 1.5}, r"lesions\.lesion\.delta is .*: 1\.4 is all of the range between tissue and 2"),
        ({"cnr": 2, "depth_mm": [90, 99]}, r"lesions\.lesion\.depth_mm is .* its deepest voxel lies at"),
    ],
)
@pytest.mark.parametrize("prevalence", [0, 1])
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    make_spec: Callable[..., PhantomSpec],
    tmp_path: Path,
    replaced: dict[str, object],
    sentence: str,
    prevalence: float,
) -> None:
    spec = make_spec(prevalence=prevalence, lesions={"lesion": {"radius_mm": [2.2, 3], **replaced}})
    with pytest.raises(SpecError, match=sentence):
        generate(tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


def test_the_largest_lesion_must_fit_its_tissue(make_spec: Callable[..., PhantomSpec], tmp_path: Path) -> None:
    # The field holds it, the head does not, and chance would seldom ask for it.
    head = {"shape": [48, 48], "spacing_mm": [1, 1], "anatomy": {"kind": "head"}}
    spec = make_spec(**head, prevalence=0.01, lesions={"lesion": {"radius_mm": [2, 19], "cnr": 1}})
    with pytest.raises(SpecError, match=r"lesions\.lesion\.radius_mm leaves no room in the tissue for a lesion of 38"):
        generate(tmp_path / "out", spec)
    assert not (tmp_path / "out").exists()


def rewrite_image(folder: Path, name: str, change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    voxels, affine = read_nifti(folder / name)
    voxels, affine = voxels.copy(), affine.copy()
    change(voxels, affine)
    (folder / name).write_bytes(nifti_bytes(voxels, affine))


def first_mask(folder: Path) -> str:
    return f"masks/{min((folder / 'masks').iterdir()).name}"


def spoil_voxel(folder: Path) -> None:
    def change(voxels: np.ndarray, _: np.ndarray) -> None:
        voxels[3, 4, 0] += 1e-6

    rewrite_image(folder, "images/case_000002.nii.gz", change)


def spoil_affine(folder: Path) -> None:
    rewrite_image(folder, "images/case_000002.nii.gz", lambda _, affine: affine.__setitem__((0, 3), 9.0))


def spoil_mask(folder: Path) -> None:
    rewrite_image(folder, first_mask(folder), lambda voxels, _: voxels.__setitem__((0, 0, 0), 1))


def spoil_mask_affine(folder: Path) -> None:
    rewrite_image(folder, first_mask(folder), lambda _, affine: affine.__setitem__((1, 3), 9.0))


def spoil_file(folder: Path) -> None:
    path = folder / "images/case_000002.nii.gz"
    path.write_bytes(path.read_bytes()[:200])


def spoil_label(folder: Path) -> None:
    text = (folder / "cases.csv").read_text(encoding="utf-8")
    (folder / "cases.csv").write_text(text.replace(",lesion,", ",normal,", 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "case", "words"),
    [
        (spoil_voxel, "case_000002", "another hash"),
        (spoil_affine, "case_000002", "affine is not the set's"),
        (spoil_mask, None, "its rows in lesions.csv"),
        (spoil_mask_affine, None, "another shape or affine than the image"),
        (spoil_file, "case_000002", "cannot be read as NIfTI"),
        (lambda folder: (folder / "images/case_000002.nii.gz").unlink(), "case_000002", "is missing"),
        (spoil_label, None, "does not agree with the masks"),
    ],
    ids=["voxel", "affine", "mask", "mask affine", "file", "missing", "label"],
)
def test_verify_names_the_case_that_was_changed(
    whole: Path, spoil: Callable[[Path], None], case: str | None, words: str
) -> None:
    case = case or first_mask(whole)[6:17]
    assert problems(whole) == []
    spoil(whole)
    first, *_ = problems(whole)
    assert first.startswith(f"{case}: ")
    assert words in first


def test_verify_finds_changed_tables_and_stray_files(whole: Path) -> None:
    (whole / "images/extra.nii.gz").write_bytes(b"")
    lesions = whole / "lesions.csv"
    lesions.write_text(lesions.read_text(encoding="utf-8").replace(",ellipsoid,", ",blob,", 1), encoding="utf-8")
    hashes, strays = problems(whole)
    assert "another hash of the whole" in hashes
    assert "images/extra.nii.gz" in strays


def test_hash_is_over_content_and_independent_of_the_compressor(whole: Path) -> None:
    path = whole / "images/case_000000.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
    assert problems(whole) == []
    image, affine = np.zeros((3, 4), np.float32), np.eye(4)
    one = case_hash(image, {}, affine)
    assert one == case_hash(image[..., np.newaxis].astype(">f4"), {}, affine)
    others = [
        case_hash(image.reshape(4, 3), {}, affine),
        case_hash(image.astype(np.float64), {}, affine),  # type: ignore[arg-type]
        case_hash(image, {}, 2 * affine),
        case_hash(image, {"a": np.zeros((3, 4), np.uint8)}, affine),
        case_hash(image, {"b": np.zeros((3, 4), np.uint8)}, affine),
    ]
    assert len({one, *others}) == 6


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 5000), min_size=3, max_size=3).filter(any),
    total=st.integers(1, 5000),
)
def test_shared_out_cases_keep_their_total_and_proportions(counts: list[int], total: int) -> None:
    splits = dict(zip(("train", "val", "test"), counts, strict=True))
    shares = share(splits, total)
    assert sum(shares.values()) == total
    for name, count in splits.items():
        assert abs(shares[name] - count * total / sum(counts)) < 1


@pytest.mark.parametrize(("shape", "kind"), [((5, 7), np.float32), ((4, 6, 3), np.uint8)])
def test_a_file_is_the_one_that_nibabel_writes(shape: tuple[int, ...], kind: type[np.float32 | np.uint8]) -> None:
    """Its header is made once for all files alike; nothing of it may depend on the voxels."""
    affine = np.array([[2.0, 0, 0, -7], [0, 3, 0.5, 1], [0, -0.5, 4, 0], [0, 0, 0, 1]])
    for seed in range(2):
        voxels: Voxels = (np.random.default_rng(seed).random(shape) * 9).astype(kind)  # type: ignore[assignment]
        volume = nib.Nifti1Image(voxels.reshape(*shape, *[1] * (3 - len(shape))), affine)  # type: ignore[no-untyped-call]
        volume.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
        assert gzip.decompress(nifti_bytes(voxels, affine)) == volume.to_bytes()
