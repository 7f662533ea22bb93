"""Bad input: one sentence, exit code 2."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hrcam_lightning.cli import main
from tests.command_line import CASES, SMALL, again, error_of, load, rows_of, save


def _broken(name: str, set_: Path, tmp_path: Path) -> Path:
    """A copy of the tiny set with one thing wrong in its first training case that has a mask."""
    folder = tmp_path / name
    shutil.copytree(set_, folder)
    rows = rows_of(folder / "cases.csv")
    row = next(row for row in rows if row["mask"] and row["split"] == "train")
    image, mask = folder / row["image"], folder / row["mask"]
    voxels = np.asarray(load(image).dataobj)
    if name == "corrupt":
        image.write_bytes(image.read_bytes()[:100])
    elif name == "nan":
        voxels = voxels.copy()
        voxels[3, 3] = np.nan
        save(voxels, load(image).affine, image)
    elif name == "claims":
        whole = gzip.decompress(image.read_bytes())
        image.write_bytes(gzip.compress(whole[:42] + b"\xff\x7f" * 3 + whole[48:]))
    elif name == "outside":
        image.rename(tmp_path / "elsewhere.nii.gz")
        image.symlink_to(tmp_path / "elsewhere.nii.gz")
    elif name == "numbers":
        save(np.asarray(load(mask).dataobj) * 3, load(mask).affine, mask)
    elif name == "shape":
        save(np.ones((5, 5, 1), np.uint8), np.eye(4), mask)
    elif name == "affine":
        save(np.asarray(load(mask).dataobj), np.eye(4) * 3, mask)
    elif name == "label":
        text = (folder / "cases.csv").read_text()
        (folder / "cases.csv").write_text(text.replace(",lesion,", ",lesoin,", 1))
    elif name == "missing":
        image.unlink()
    elif name == "swapped":
        text = (folder / "cases.csv").read_text()
        (folder / "cases.csv").write_text(text.replace(f"{row['image']},lesion", f"{row['image']},normal"))
    return folder / "cases.csv"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("corrupt", "may be damaged"),
        ("nan", "1 voxels are NaN or infinite"),
        ("shape", "the mask is 5 x 5, but its image"),
        ("affine", "has another affine than its image"),
        ("label", "the label 'lesoin' is unknown; known are normal, lesion"),
        ("missing", "does not exist"),
        ("claims", "which a file of"),
        ("outside", "lies outside the table's folder"),
        ("numbers", "the mask holds 0, 3, not 0 and 1 alone"),
        ("swapped", "the mask shows lesion, but the label of"),
    ],
)
@pytest.mark.parametrize("workers", ["0", "1"])
def test_bad_cases_end_with_one_sentence(
    name: str, sentence: str, workers: str, tiny_set: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    cases = _broken(name, tiny_set, tmp_path)
    run = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", "run", "--data.num_workers", workers]
    assert sentence in error_of(capsys, monkeypatch, "fit", *CASES, str(cases), *SMALL, *run)


def test_a_bad_command_line_ends_with_one_sentence(
    tiny_set: Path,
    tmp_path: Path,
    spec_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = [*CASES, str(tiny_set / "cases.csv")]
    phantoms = ["--data", "PhantomDataModule", "--data.spec"]
    Path("file").touch()
    torch.save({"state_dict": {}}, "foreign")
    Path("bad.yaml").write_text("shape: [16, 16]\nspacing: 1\n")
    deep = ["--model.backbone", "ConvPyramid", "--model.backbone.depth", "6"]
    for arguments, sentence in {
        ("fit", *CASES, "none.csv"): "none.csv: no such file",
        ("fit", *cases, "--model.widht", "3"): "widht",
        ("fit", *cases, "--model.resampling", "nearest"): "half_pixel",
        ("fit", *cases, *SMALL, *deep): "smaller than the network's deepest stride, 32 x 32",
        ("fit", *cases, *SMALL, "--trainer.default_root_dir", "file"): "file",
        ("fit", *cases, "--model.consistency", "-1"): "consistency is -1.0",
        ("fit", *cases, "--localization.radius", "0"): "localization.radius 0",
        ("fit", *phantoms, "bad.yaml"): "spacing",
        ("fit", *phantoms, "none.yaml"): "none.yaml",
        ("fit", *phantoms, str(spec_path), "--data.counts", "{train: 0}"): "no cases in the split 'train'",
        ("fit", "-c", "none.yaml"): "none.yaml",
        ("test", *cases, *SMALL, "--ckpt_path", "none.ckpt"): "none.ckpt",
        ("test", *cases, *SMALL, "--ckpt_path", "file"): "file: is not a checkpoint",
        ("test", *cases, *SMALL, "--ckpt_path", "foreign"): "foreign: holds no run of hrcam",
        ("test", *cases, *SMALL, "--ckpt_path", "last"): "last.ckpt: no such checkpoint",
        ("fit", *cases, *SMALL, "--trainer.max_epochs", "-1"): "has no end: give --trainer.max_epochs",
        ("fit", *cases, *SMALL, "--model.optimizer", "SGD", "--model.optimizer.lr", "-1"): "Invalid learning rate",
        ("fit", *cases, *SMALL, "--model.views", "[]"): "model.views is empty",
        ("fit", *cases, *SMALL, "--trainer.accelerator", "gpu"): "gpu" if not torch.cuda.is_available() else "",
        ("test", *cases, *SMALL): "test needs a trained network: give --ckpt_path",
        ("predict", *cases, *SMALL): "predict needs a trained network: give --ckpt_path",
    }.items():
        assert sentence in error_of(capsys, monkeypatch, *arguments), arguments


def test_switches_win_over_the_checkpoint_and_another_network_is_refused(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = again("test", fitted, tiny_set / "cases.csv")
    words[words.index("--ckpt_path") + 1] = "best"  # of the run folder
    main([*words, "--model.full_skill", "0.5"])  # shapes no weights of a trained network
    averaged = (fitted / "test/cases.csv").read_bytes()
    with pytest.warns(UserWarning, match="thresholds"):
        main([*words, "--model.view_averaging", "false"])
    assert (fitted / "test/cases.csv").read_bytes() != averaged
    message = error_of(capsys, monkeypatch, *words, "--model.decoder", "CAM")
    assert "trained with another --model.decoder" in message


def test_one_class_in_a_split_is_warned_of_and_its_auroc_undefined(fitted: Path, tiny_set: Path) -> None:
    folder = fitted.parent / "single"
    shutil.copytree(tiny_set, folder)
    rows = [row for row in rows_of(folder / "cases.csv") if row["split"] != "test" or row["label"] == "lesion"]
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.warns(UserWarning, match="every case of the split 'test' is lesion"):
        main(again("test", fitted, folder / "cases.csv"))
    figures = json.loads((fitted / "test/metrics.json").read_text())
    assert figures["test/auroc"]["value"] is None
    assert figures["test/auroc"]["reason"] == "every case is positive: AUROC needs positive and negative cases"
    assert figures["test/normal/false_activation"]["reason"] == "there are no normal cases"


def test_a_checkpoint_of_other_classes_is_refused(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fitted.parent / "renamed"
    shutil.copytree(tiny_set, folder)
    for name in ("cases.csv", "dataset.json"):
        (folder / name).write_text((folder / name).read_text().replace("lesion", "tumour"))
    message = error_of(capsys, monkeypatch, *again("test", fitted, folder / "cases.csv"))
    assert "the label 'tumour' is unknown; known are normal, lesion" in message


def test_a_finished_run_is_not_overwritten_by_accident(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    command = ["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, "--trainer.default_root_dir", "run"]
    assert "run holds a run already (best.ckpt)" in error_of(capsys, monkeypatch, *command)
    assert before == {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    main([*command, *short, "--overwrite", "true"])
    assert (fitted / "best.ckpt").read_bytes() != before[fitted / "best.ckpt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.decoder", "PYLON"], "PYLON with n_up 3 needs 4 levels, but the backbone has 3"),
        (["--model.pooling", "TopKPooling", "--model.pooling.share", "2"], "TopKPooling: share is 2.0"),
        (["--model.weights", "none.ckpt"], "none.ckpt: no such file of weights"),
    ],
)
def test_parts_of_a_network_that_do_not_fit_end_with_one_sentence(
    options: list[str],
    sentence: str,
    tiny_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in error_of(capsys, monkeypatch, "fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *options)


@pytest.mark.parametrize(
    ("settings", "option", "wanted"),
    [
        ("model: {stop_rate: null}", "model.stop_rate", "float"),
        ("model: {views: null}", "model.views", "list"),
        ("localization: {recall: null}", "localization.recall", "float"),
        ("fused_maps: {cases: null}", "fused_maps.cases", "int"),
        ("data: {class_path: CaseDataModule, init_args: {cases: cases.csv, batch_size: null}}", "batch_size", "int"),
        ("model: {pooling: {class_path: TopKPooling, init_args: {share: null}}}", "share", "float"),
        ("model: {backbone: {class_path: ConvPyramid, init_args: {width: null}}}", "width", "int"),
        ("model: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: null}}}", "lr", "float"),
        ("trainer: {callbacks: [{class_path: SubtletyCurriculum, init_args: {start: null}}]}", "start", "float"),
    ],
)
def test_a_null_where_a_value_is_wanted_ends_with_one_sentence(
    settings: str,
    option: str,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("null.yaml").write_text(settings)
    message = error_of(capsys, monkeypatch, "fit", *CASES, "cases.csv", "-c", "null.yaml")
    assert f'"{option}"' in message
    assert f"<class '{wanted}'>" in message


def test_a_null_is_an_option_where_nothing_is_one(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("null.yaml").write_text("model: {weights: null, task: null}\nfused_maps: {limits: null}\n")
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, "-c", "null.yaml", "--trainer.max_epochs", "1"])
    # What was null is null in the configuration that the run leaves, and that is read again.
    kept = yaml.safe_load(Path("runs/default/config.yaml").read_text())
    assert kept["checkpoint"].get("train_time_interval") is None
    assert kept["fused_maps"].get("limits") is None
    main(["test", "-c", "runs/default/config.yaml", "--ckpt_path", "best"])
