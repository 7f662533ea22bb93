"""A BIDS data set of the usual form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hrcam_lightning.data import CaseDataModule
from tests.command_line import error_of, save
from tests.importers.trees import imported, lines_of, text

if TYPE_CHECKING:
    from pathlib import Path


def _scan(path: Path, value: float, lesion: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.full((4, 5, 6), value, np.float32)
    if lesion:
        voxels = np.zeros((4, 5, 6), np.uint8)
        voxels[1, 2, 3] = 1
    save(voxels, np.diag([1, 1, 2, 1]), path)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """A control, a patient with two sessions, and a patient with one."""
    text(
        tmp_path / "participants.tsv",
        "participant_id\tage\tgroup",
        "sub-01\t30\tControl",
        "sub-02\t40\tMS",
        "sub-03\t50\tMS",
    )
    for n, place in enumerate(("sub-01", "sub-02/ses-a", "sub-02/ses-b", "sub-03")):
        name = place.replace("/", "_")
        _scan(tmp_path / place / "anat" / f"{name}_T1w.nii.gz", n)
        _scan(tmp_path / place / "anat" / f"{name}_acq-3d_FLAIR.nii.gz", n + 10)
    for name in ("sub-02_ses-a", "sub-03"):
        _scan(tmp_path / f"derivatives/manual/{name[:6]}/anat/{name}_label-lesion_mask.nii.gz", 1, lesion=True)
        _scan(tmp_path / f"derivatives/manual/{name[:6]}/anat/{name}_label-brain_mask.nii.gz", 1)
    return tmp_path


def _words(bids: Path, *more: str) -> list[str]:
    return ["bids", str(bids), "--labels", "participants.tsv:group", *more]


def test_sessions_become_cases_and_suffixes_channels(bids: Path) -> None:
    imported(
        *_words(bids, "--suffix", "FLAIR", "T1w", "--negative", "control", "--masks", "*_label-lesion_mask.nii.gz")
    )
    assert lines_of(bids / "cases.csv") == [
        "image,label,mask,subject,case",
        "sub-01/anat/sub-01_acq-3d_FLAIR.nii.gz|sub-01/anat/sub-01_T1w.nii.gz,normal,,sub-01,sub-01",
        (
            "sub-02/ses-a/anat/sub-02_ses-a_acq-3d_FLAIR.nii.gz|sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz,MS,"
            "derivatives/manual/sub-02/anat/sub-02_ses-a_label-lesion_mask.nii.gz,sub-02,sub-02_ses-a"
        ),
        (
            "sub-02/ses-b/anat/sub-02_ses-b_acq-3d_FLAIR.nii.gz|sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz,MS,,"
            "sub-02,sub-02_ses-b"
        ),
        (
            "sub-03/anat/sub-03_acq-3d_FLAIR.nii.gz|sub-03/anat/sub-03_T1w.nii.gz,MS,"
            "derivatives/manual/sub-03/anat/sub-03_label-lesion_mask.nii.gz,sub-03,sub-03"
        ),
    ]
    module = CaseDataModule(str(bids / "cases.csv"), shares=(1, 0, 0), normalization="none")
    assert (module.layout.classes, module.layout.channels, module.layout.dims) == (["MS"], 2, 3)
    samples = [module.dataset("train")[n] for n in range(4)]
    assert [sample["label"] for sample in samples] == [0, 1, 1, 1]
    assert [sample["image"][:, 0, 0, 0].tolist() for sample in samples] == [[10, 0], [11, 1], [12, 2], [13, 3]]
    assert [sample["mask"].nonzero().tolist() for sample in samples] == [[], [[0, 1, 2, 3]], [], [[0, 1, 2, 3]]]


def test_entities_choose_among_several_scans(
    bids: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _scan(bids / "sub-01/anat/sub-01_acq-2d_FLAIR.nii.gz", 5)
    words = _words(bids, "--suffix", "FLAIR")
    found = error_of(capsys, monkeypatch, "cases", *words)
    assert "holds 2 scans of kind FLAIR (sub-01_acq-2d_FLAIR.nii.gz, sub-01_acq-3d_FLAIR.nii.gz)" in found
    imported(*words, "--entities", "acq-3d")
    assert lines_of(bids / "cases.csv")[1] == "sub-01/anat/sub-01_acq-3d_FLAIR.nii.gz,Control,sub-01,sub-01"


def test_what_cannot_be_used_ends_with_one_sentence(
    bids: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, sentence in {
        ("--labels", "participants.tsv"): "--labels is 'participants.tsv'; give a table and its column",
        ("--labels", "participants.tsv:sex"): "has no column 'sex', only participant_id, age, group",
        ("--labels", "people.tsv:group"): "people.tsv: no such file",
        ("--negative", "healthy"): "no label of participants.tsv:group is --negative healthy, only Control, MS",
        ("--masks", "*_roi.nii.gz"): "no file sub-*_... is called *_roi.nii.gz; mend --masks",
        ("--masks", "*_mask.nii.gz"): "two masks for sub-02_ses-a; make --masks '*_mask.nii.gz' narrower",
        ("--suffix", "T2w"): "4 cases have no T2w in anat (sub-01, sub-02_ses-a, sub-02_ses-b, ...)",
    }.items():
        assert sentence in error_of(capsys, monkeypatch, "cases", *_words(bids, *words)), words
    text(bids / "participants.tsv", "participant_id\tgroup", "02\tMS", "sub-01\tn/a", "sub-03")
    plain = _words(bids)
    assert "2 cases have no label in participants.tsv:group (sub-01, sub-03)" in error_of(
        capsys, monkeypatch, "cases", *plain
    )
    (bids / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz").unlink()
    imported(*plain, "--skip_missing")
    assert lines_of(bids / "cases.csv")[1:] == ["sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz,MS,sub-02,sub-02_ses-b"]
