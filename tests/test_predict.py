"""A folder of scans in, maps out: broken files, other grids, slices, resuming, all by the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from hrcam_lightning import LocalizationTask
from hrcam_lightning.callbacks.predictions import PredictionWriter
from hrcam_lightning.cli import main
from hrcam_lightning.data.frame import Framing, Grid
from tests.command_line import CASES, SMALL, error_of, load, rows_of, save

if TYPE_CHECKING:
    from pathlib import Path

    from hrcam_lightning.data import Batch

LAS = np.array([[-1.0, 0, 0, 8], [0, 1.5, 0, -9], [0, 0, 2.0, 3], [0, 0, 0, 1.0]])
SLICES = ["--data.slices", "axial", "--data.framing.orientation", "RAS"]


def volumes(folder: Path) -> Path:
    """Six L-A-S volumes with a bright block in every second, and the table that says so."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["image,label,mask,split"]
    for number in range(6):
        voxels, mask = rng.normal(size=(16, 14, 6)).astype(np.float32), np.zeros((16, 14, 6), np.uint8)
        if number % 2:
            voxels[3:7, 8:12, 2:4] += 6
            mask[3:7, 8:12, 2:4] = 1
        save(voxels, LAS, folder / f"s{number}.nii.gz")
        save(mask, LAS, folder / f"m{number}.nii.gz")
        split = ("train", "train", "train", "train", "val", "val")[number]
        rows.append(f"s{number}.nii.gz,{number % 2},{f'm{number}.nii.gz' if number % 2 else ''},{split}")
    (folder / "cases.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on axial slices of such volumes, trained for a step or two."""
    root = tmp_path_factory.mktemp("sliced")
    folder = volumes(root / "set")
    run = ["--trainer.default_root_dir", str(root / "run"), "--trainer.max_epochs", "1", "--fused_maps.cases", "0"]
    main(["fit", *CASES, str(folder / "cases.csv"), *SMALL, *SLICES, *run])
    return root


def command(root: Path, cases: str, *more: str) -> list[str]:
    place = ["--trainer.default_root_dir", str(root / "run"), "--ckpt_path", str(root / "run/best.ckpt")]
    return ["predict", *CASES, cases, *SMALL, *place, "--data.slices", "axial", *more]


def test_slices_come_back_as_a_volume_on_the_files_grid(sliced: Path, tmp_path: Path) -> None:
    main(command(sliced, str(sliced / "set/s1.nii.gz"), "--predictions.folder", str(tmp_path)))
    written, source = load(tmp_path / "s1_map.nii.gz"), load(sliced / "set/s1.nii.gz")
    np.testing.assert_allclose(written.affine, source.affine)
    assert written.shape == source.shape
    # The framing, RAS, came with the checkpoint; the volume as a whole is scaled, and each slice is looked at alone.
    task = LocalizationTask.load_from_checkpoint(sliced / "run/best.ckpt", weights_only=True).eval()
    voxels = np.asarray(source.dataobj, np.float32)
    frame = Framing("RAS").of(Grid(voxels.shape, source.affine))
    image = frame.image(voxels[None])
    image = (image - image.mean()) / image.std()
    with torch.no_grad():
        output = task(torch.from_numpy(image).permute(3, 0, 1, 2))
    maps = frame.back(output.maps[:, 0].permute(1, 2, 0).numpy()[None])[0]
    np.testing.assert_allclose(np.asarray(written.dataobj), maps, atol=1e-4)
    (row,) = rows_of(tmp_path / "predictions.csv")
    assert float(row["probability"]) == pytest.approx(float(output.logits.sigmoid().max()), rel=1e-4)
    peak = np.unravel_index(maps.argmax(), maps.shape)
    assert [int(row[f"peak_{axis}"]) for axis in "ijk"] == list(peak)
    np.testing.assert_allclose([float(row[f"peak_{axis}_mm"]) for axis in "xyz"], (LAS @ [*peak, 1])[:3], rtol=1e-5)
    threshold = float(task.thresholds[0])
    assert int(row["lesion_voxels"]) == (np.asarray(written.dataobj) >= threshold).sum()
    np.testing.assert_array_equal(
        np.asarray(load(tmp_path / "s1_mask.nii.gz").dataobj), np.asarray(written.dataobj) >= threshold
    )
    main(command(sliced, str(sliced / "set/s1.nii.gz"), "--predictions.folder", str(tmp_path / "mean"),
                 "--predictions.slice_score", "mean"))  # fmt: skip
    (row,) = rows_of(tmp_path / "mean/predictions.csv")
    assert float(row["probability"]) == pytest.approx(float(output.logits.sigmoid().mean()), rel=1e-4)


def test_a_folder_with_broken_and_other_scans_is_done_as_far_as_it_can_be(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(1)
    save(rng.normal(size=(12, 13, 5)).astype(np.float32), LAS, folder / "b.nii.gz")
    save(rng.normal(size=(16, 14, 4)).astype(np.float32), LAS, folder / "c.nii.gz")
    (folder / "a.nii.gz").write_bytes(b"")
    whole = (folder / "c.nii.gz").read_bytes()
    (folder / "d.nii.gz").write_bytes(whole[: len(whole) // 2])  # the header can be read, the voxels cannot
    save(np.full((8, 8, 4), np.nan, np.float32), LAS, folder / "e.nii.gz")
    out = tmp_path / "out"
    words = error_of(capsys, monkeypatch, *command(sliced, str(folder), "--predictions.folder", str(out)))
    assert "3 of the scans could not be read, the others are done" in words
    assert "a.nii.gz" in words
    assert [row["case"] for row in rows_of(out / "unreadable.csv")] == ["a", "d", "e"]
    assert [row["case"] for row in rows_of(out / "predictions.csv")] == ["b", "c"]
    assert load(out / "b_map.nii.gz").shape == (12, 13, 5)
    # Mended, and resumed: the others are left alone.
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("[bc]_*")}
    for name in "ade":
        save(rng.normal(size=(16, 14, 4)).astype(np.float32), LAS, folder / f"{name}.nii.gz")
    main(command(sliced, str(folder), "--predictions.folder", str(out), "--resume"))
    assert "5 cases written to" in capsys.readouterr().out
    assert [row["case"] for row in rows_of(out / "predictions.csv")] == ["a", "b", "c", "d", "e"]
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("[bc]_*")} == before
    assert not (out / "unreadable.csv").exists()
    # Nothing is left to do: said, and the table stays.
    main(command(sliced, str(folder), "--predictions.folder", str(out), "--resume"))
    assert "5 cases written to" in capsys.readouterr().out
    assert len(rows_of(out / "predictions.csv")) == 5


def test_batches_shapes_and_resuming_do_not_change_a_prediction(sliced: Path, tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    main(command(sliced, str(sliced / "set/s[0-3].nii.gz"), "--predictions.folder", str(together)))
    for number in range(4):
        scan = str(sliced / f"set/s{number}.nii.gz")
        main(command(sliced, scan, "--predictions.folder", str(alone), *["--resume"] * (number > 0)))
    assert (together / "predictions.csv").read_text() == (alone / "predictions.csv").read_text()
    for path in together.glob("*_map.nii.gz"):
        np.testing.assert_array_equal(np.asarray(load(path).dataobj), np.asarray(load(alone / path.name).dataobj))


def test_resuming_goes_by_the_file_and_the_settings(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, out = np.random.default_rng(2), tmp_path / "out"
    for folder, shape in (("one", (16, 14, 4)), ("two", (12, 14, 5))):
        (tmp_path / folder).mkdir()
        save(rng.normal(size=shape).astype(np.float32), LAS, tmp_path / folder / "x.nii.gz")
    run = ["--predictions.folder", str(out), "--resume"]
    main(command(sliced, str(tmp_path / "one"), *run))
    assert load(out / "x_map.nii.gz").shape == (16, 14, 4)
    first = (out / "x_map.nii.gz").stat().st_mtime_ns
    main(command(sliced, str(tmp_path / "one"), *run))
    assert (out / "x_map.nii.gz").stat().st_mtime_ns == first
    # A scan of the same name elsewhere, and one that was mended, are other scans.
    main(command(sliced, str(tmp_path / "two"), *run))
    assert load(out / "x_map.nii.gz").shape == (12, 14, 5)
    save(rng.normal(size=(12, 14, 6)).astype(np.float32), LAS, tmp_path / "two/x.nii.gz")
    (out / ".done-0.jsonl").rename(out / ".done-1.jsonl")  # as if another process had done it the last time
    main(command(sliced, str(tmp_path / "two"), *run))
    assert load(out / "x_map.nii.gz").shape == (12, 14, 6)
    (row,) = rows_of(out / "predictions.csv")
    assert float(row["peak"]) == pytest.approx(np.asarray(load(out / "x_map.nii.gz").dataobj).max(), rel=1e-5)
    for option, words in (
        (["--predictions.slice_score", "mean"], "made with predictions.slice_score max, not mean"),
        (["--data.slices", "coronal"], "made with data.slices axial, not coronal"),
    ):
        found = error_of(capsys, monkeypatch, *command(sliced, str(tmp_path / "two"), *run, *option))
        assert words in found
        assert "predict without --resume" in found


def test_one_scan_of_another_kind_does_not_decide_for_all(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(scans / "a.png")  # in colour, and no volume
    save(np.random.default_rng(3).normal(size=(8, 8, 4)).astype(np.float32), LAS, scans / "b.nii.gz")
    words = error_of(capsys, monkeypatch, *command(sliced, str(scans), "--predictions.folder", str(out)))
    assert "1 of the scans could not be read, the others are done" in words
    assert "a.png" in words
    assert [row["case"] for row in rows_of(out / "predictions.csv")] == ["b"]


def test_cases_that_would_write_one_file_are_refused_before_any_is_predicted(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("a b", "a_b"):
        save(np.zeros((8, 8, 4), np.float32), LAS, scans / f"{name}.nii.gz")
    words = error_of(capsys, monkeypatch, *command(sliced, str(scans), "--predictions.folder", str(out)))
    assert "would write the same file, a_b" in words
    assert not list(out.glob("*"))


def test_a_map_that_is_no_number_is_no_prediction(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = LocalizationTask.predict_step

    def overflown(self: LocalizationTask, batch: Batch, batch_idx: int) -> object:
        found = step(self, batch, batch_idx)
        for index, case in enumerate(batch["case"]):
            if case == "s0_axial002":
                found["output"].maps[index, 0, 3, 3] = torch.nan
        return found

    monkeypatch.setattr(LocalizationTask, "predict_step", overflown)
    scans = str(sliced / "set/s[01].nii.gz")
    words = error_of(capsys, monkeypatch, *command(sliced, scans, "--predictions.folder", str(tmp_path)))
    assert "s0: the network's map holds NaN or infinity" in words
    assert [row["case"] for row in rows_of(tmp_path / "predictions.csv")] == ["s1"]
    assert not list(tmp_path.glob("s0_*"))


def test_a_run_that_was_killed_goes_on_where_it_was(
    sliced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PredictionWriter._write
    written: list[object] = []

    def killed(self: PredictionWriter, *arguments: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        original(self, *arguments)  # type: ignore[arg-type]
        written.append(arguments)

    monkeypatch.setattr(PredictionWriter, "_write", killed)
    again = command(sliced, str(sliced / "set/s[0-3].nii.gz"), "--predictions.folder", str(tmp_path), "--resume")
    with pytest.raises(BaseException):  # noqa: B017, PT011 - a kill, whatever becomes of it
        main(again)
    assert not (tmp_path / "predictions.csv").exists()
    monkeypatch.undo()
    main(again)
    assert [row["case"] for row in rows_of(tmp_path / "predictions.csv")] == ["s0", "s1", "s2", "s3"]
    lines = (tmp_path / ".done-0.jsonl").read_text().splitlines()
    assert [json.loads(line).get("case") for line in lines] == [None, "s0", "s1", "s2", "s3"]


def test_what_cannot_be_predicted_is_said_in_a_sentence(
    sliced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = str(sliced / "set/s0.nii.gz")
    out = ["--predictions.folder", str(tmp_path)]
    words = error_of(capsys, monkeypatch, *command(sliced, scan, *out, "--data.framing.orientation", "LPS"))
    assert "trained with data.framing" in words
    words = error_of(capsys, monkeypatch, *command(sliced, scan, *out, "--data.slices", "coronal"))
    assert "trained with data.slices axial, but coronal is asked for" in words
    main(command(sliced, scan, *out))
    other = torch.load(sliced / "run/best.ckpt", weights_only=True)
    torch.save(other | {"epoch": other["epoch"] + 1}, tmp_path / "other.ckpt")
    words = error_of(
        capsys, monkeypatch, *command(sliced, scan, *out, "--resume", "--ckpt_path", str(tmp_path / "other.ckpt"))
    )
    assert "predictions of another checkpoint" in words
    save(np.zeros((8, 8, 4, 2), np.float32), LAS, tmp_path / "four.nii.gz")
    words = error_of(capsys, monkeypatch, *command(sliced, str(tmp_path / "four.nii.gz"), *out))
    assert "four.nii.gz" in words
    assert "Traceback" not in words


def test_windows_and_another_crop_for_a_network_of_volumes(tmp_path: Path) -> None:
    folder = volumes(tmp_path / "set")
    run = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_epochs", "1", "--fused_maps.cases", "0"]
    spaced = ["--data.framing.spacing", "[1.0,1.5,1.0]"]
    main(["fit", *CASES, str(folder / "cases.csv"), *SMALL, *run, *spaced, "--data.framing.shape", "[8,8,8]"])
    place = ["--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", str(tmp_path / "run/best.ckpt")]
    crop = ["predict", *CASES, str(folder / "s1.nii.gz"), *SMALL, *place]
    main([*crop, "--predictions.folder", str(tmp_path / "crop")])
    voxels = np.asarray(load(tmp_path / "crop/s1_map.nii.gz").dataobj)
    assert np.isnan(voxels).any()
    assert np.isfinite(voxels).any()
    window = ["--model.window", "[8,8,8]", "--predictions.folder", str(tmp_path / "window")]
    main([*crop, *spaced, *window])
    voxels = np.asarray(load(tmp_path / "window/s1_map.nii.gz").dataobj)
    assert voxels.shape == (16, 14, 6)
    assert np.isfinite(voxels).all()


@pytest.mark.usefixtures("_no_wandb")
def test_overlays_and_rows_go_to_wandb(sliced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, object] = {}

    def log_table(_: object, key: str, columns: list[str], data: list[list[object]]) -> None:
        logged[key] = [dict(zip(columns, row, strict=True)) for row in data]

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_table", log_table)
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = ["--trainer.logger", "WandbLogger", "--trainer.logger.save_dir", str(tmp_path)]
    logger += ["--trainer.logger.offline", "true"]
    main(command(sliced, str(sliced / "set/s1.nii.gz"), "--predictions.folder", str(tmp_path), *logger))
    rows = logged["predictions"]
    assert isinstance(rows, list)
    with (tmp_path / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert str(rows[0]["probability"]) == row["probability"]
    assert type(rows[0]["overlay"]).__name__ == "Image"
    assert load(tmp_path / "s1_map.nii.gz").shape == (16, 14, 6)
