"""The command line as a user types it: fit, validate, test, predict, resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from PIL import Image

from hrcam_lightning import LocalizationTask
from hrcam_lightning.cli import console, main
from tests.command_line import CASES, SMALL, again, load, rows_of


def test_fit_leaves_a_whole_run_folder(fitted: Path) -> None:
    names = {str(path.relative_to(fitted)) for path in fitted.rglob("*") if path.is_file()}
    assert names == {
        "best.ckpt",
        "last.ckpt",
        "config.yaml",
        "metrics.csv",
        "maps/epoch_000.png",
        "maps/epoch_001.png",
    }
    rows = rows_of(fitted / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(float(row["train/loss"]) > 0 and float(row["val/loss"]) > 0 for row in rows)
    assert yaml.safe_load((fitted / "config.yaml").read_text())["model"]["decoder"]["class_path"].endswith("HRCAM")
    assert torch.load(fitted / "best.ckpt", weights_only=True)["hyper_parameters"]["classes"] == ["lesion"]


def test_test_writes_figures_cases_and_pictures(
    fitted: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(again("test", fitted, tiny_set / "cases.csv"))
    figures = json.loads((fitted / "test/metrics.json").read_text())
    rates = [f"lesion/recall@{rate}fp" for rate in ("0.25", "0.5", "1", "2", "4", "8")]
    compared = ["pointing", "pixel_ap", "relevance_mass", "relevance_rank", "dice", "iou", "iobb"]
    drift = ["displacement_px", *(f"displacement_px/{name}" for name in ("axis0", "axis1", "spread"))]
    own = [*compared, "pointing@5px", "normal/false_activation", "lesion/recall", "lroc", "pxap", "aupro", *drift]
    own += [f"{name}{ending}" for name in (*rates, "lesion/froc") for ending in ("", "_by_parts")]
    own += [
        "predicted/pointing",
        "predicted/pixel_ap",
        "box_acc",
        "box_acc_v2",
        "oracle/dice",
        "oracle/max_box_acc",
        "oracle/max_box_acc_v2",
    ]
    assert set(figures) == {
        "test/auroc",
        *(f"test/{who}{metric}" for who in ("", "random/", "center/") for metric in own),
        *(f"test/model-{floor}/{metric}" for floor in ("random", "center") for metric in compared),
    }
    for name, entry in figures.items():
        low, high = (-16, 16) if "displacement" in name else (-1 if "model-" in name else 0, 1)
        assert low <= entry["value"] <= high, name
        if entry["low"] is not None:  # groups of so few cases may hold no lesion
            assert low <= entry["low"] <= entry["value"] <= entry["high"] <= high, name
        assert ("p" in entry) == ("model-" in name)
    lesions = rows_of(fitted / "test/lesions.csv")
    stored = [row for row in rows_of(tiny_set / "lesions.csv") if row["case"] in {row["case"] for row in lesions}]
    assert [(row["case"], row["voxels"]) for row in lesions] == [(row["case"], row["voxels"]) for row in stored]
    found = np.mean([float(row["found"]) for row in lesions])
    assert figures["test/lesion/recall"]["value"] == pytest.approx(found)
    assert {"center/peak", "center/found", "centre_i", "centre_j"} <= set(lesions[0])
    cases = rows_of(fitted / "test/cases.csv")
    truth = {row["case"]: row for row in rows_of(tiny_set / "cases.csv") if row["split"] == "test"}
    assert [row["case"] for row in cases] == sorted(truth)
    for row in cases:
        assert (row["label"] == "1") == (truth[row["case"]]["label"] == "lesion")
        assert bool(row["pointing"]) == (row["label"] == "1")
    ap = [float(row["pixel_ap"]) for row in cases if row["pixel_ap"]]
    assert figures["test/pixel_ap"]["value"] == pytest.approx(np.mean(ap), abs=1e-5)
    assert figures["test/pixel_ap"]["n"] == len(ap)
    pictures = {path.stem for path in (fitted / "test/maps").glob("*.png")}
    assert pictures <= set(truth)
    assert len(pictures) == len(truth)
    output = capsys.readouterr().out
    assert "center" in output
    assert f"Pictures: {fitted}/test/maps.png" in output


def test_testing_twice_writes_the_same_files(fitted: Path, tiny_set: Path) -> None:
    main(again("test", fitted, tiny_set / "cases.csv"))
    shutil.copytree(fitted / "test", fitted.parent / "first")
    main(again("test", fitted, tiny_set / "cases.csv"))
    for path in (fitted / "test").rglob("*"):
        before = fitted.parent / "first" / path.relative_to(fitted / "test")
        if (
            path.suffix == ".png"
        ):  # of the same arrays, matplotlib draws a few pixels in a thousand one grey level apart
            old, new = (np.asarray(Image.open(file), np.int16) for file in (before, path))
            assert np.abs(new - old).max() <= 1
        elif path.is_file():
            assert path.read_bytes() == before.read_bytes()


def test_validate_sets_the_thresholds_that_the_checkpoint_holds(fitted: Path, tiny_set: Path) -> None:
    main(again("validate", fitted, tiny_set / "cases.csv"))
    figures = json.loads((fitted / "val/metrics.json").read_text())
    task = LocalizationTask.load_from_checkpoint(fitted / "best.ckpt", weights_only=True)
    rows = rows_of(fitted / "val/cases.csv")
    normals = [float(row["peak"]) for row in rows if row["label"] == "0"]
    expected = np.mean([peak >= float(task.thresholds[0]) - 1e-5 for peak in normals])
    assert figures["val/normal/false_activation"]["value"] == pytest.approx(expected)


def test_predict_writes_maps_on_the_images_grid(fitted: Path, tiny_set: Path) -> None:
    table = tiny_set / "cases.csv"
    unlabelled = fitted.parent / "scans.csv"
    some = rows_of(table)[:3]
    unlabelled.write_text("\n".join(["image", *(str(tiny_set / row["image"]) for row in some)]))
    main(again("predict", fitted, unlabelled, "--predictions.folder", "out", "--data.allow_outside", "true"))
    out = fitted.parent / "out"
    rows = rows_of(out / "predictions.csv")
    assert len(rows) == 3
    task = LocalizationTask.load_from_checkpoint(fitted / "best.ckpt", weights_only=True).eval()
    for row, source in zip(rows, some, strict=True):
        image = load(tiny_set / source["image"])
        (path,) = out.glob(f"*{source['case']}_map.nii.gz")
        found = load(path)
        assert found.shape == image.shape
        assert found.get_data_dtype() == np.float32
        np.testing.assert_array_equal(found.affine, image.affine)
        voxels = np.asarray(image.dataobj, dtype=np.float64)[..., 0]
        scored = torch.from_numpy(((voxels - voxels.mean()) / voxels.std()).astype(np.float32))
        with torch.no_grad():
            output = task(scored[None, None])
        np.testing.assert_allclose(found.get_fdata()[..., 0], output.maps[0, 0], atol=1e-4)
        assert float(row["probability"]) == pytest.approx(output.logits.sigmoid().item(), abs=1e-4)
        assert np.asarray(found.dataobj)[int(row["peak_i"]), int(row["peak_j"]), 0] == pytest.approx(
            float(row["peak"]), abs=1e-4
        )


def test_pictures_are_trained_on_and_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = ["image,label"]
    for number in range(12):
        pixels = rng.integers(0, 90, (18, 21), dtype=np.uint8)
        if number % 2:
            pixels[4:7, 9:12] += 150
        Image.fromarray(pixels).save(f"{number}.png")
        lines.append(f"{number}.png,{'sick' if number % 2 else 'normal'}")
    Path("cases.csv").write_text("\n".join(lines))
    shares = ["--data.shares", "[0.6,0.2,0.2]"]
    main(
        [
            "fit",
            *CASES,
            "cases.csv",
            *shares,
            *SMALL,
            "--trainer.default_root_dir",
            "run",
            "--trainer.max_epochs",
            "1",
        ]
    )
    main(again("test", Path("run"), Path("cases.csv"), *shares))
    figures = json.loads(Path("run/test/metrics.json").read_text())
    assert figures["test/pointing"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "no positive case has a mask",
    }
    main(again("predict", Path("run"), Path("cases.csv")))
    maps = np.load("run/predictions/3_map.npy")
    assert maps.shape == (1, 18, 21)
    assert np.asarray(Image.open("run/predictions/3_sick.png")).shape == (18, 21, 3)
    assert len(rows_of(Path("run/predictions/predictions.csv"))) == 12


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = [
        "fit",
        *CASES,
        str(tiny_set / "cases.csv"),
        *SMALL,
        "--model.lr_scheduler",
        "constant",
        "--model.full_skill",
        "0",
    ]
    main([*base, "--trainer.default_root_dir", "whole", "--trainer.max_epochs", "3"])
    main([*base, "--trainer.default_root_dir", "parts", "--trainer.max_epochs", "1"])
    main(
        [
            *base,
            "--trainer.default_root_dir",
            "parts",
            "--trainer.max_epochs",
            "3",
            "--ckpt_path",
            "parts/last.ckpt",
        ]
    )
    whole, parts = (torch.load(f"{name}/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert Path("whole/metrics.csv").read_text() == Path("parts/metrics.csv").read_text()


def test_a_run_told_to_end_does_not_pass_for_a_finished_one_and_goes_on(
    tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clusters and `hrcam compare` go by the exit code, which Lightning leaves at 0."""
    monkeypatch.chdir(tmp_path)
    words = ["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, "--trainer.max_epochs", "2"]
    main([*words, "--trainer.default_root_dir", "whole"])
    words += ["--trainer.default_root_dir", "parts"]
    with monkeypatch.context() as patched:
        patched.setattr(
            LocalizationTask,
            "on_train_epoch_start",
            lambda self: os.kill(os.getpid(), signal.SIGTERM) if self.current_epoch else None,
        )
        patched.setattr(sys, "argv", ["hrcam", *words])
        with pytest.raises(SystemExit) as ended:
            console()
    assert ended.value.code == 143
    assert "hrcam: ended by SIGTERM" in capsys.readouterr().err
    main([*words, "--ckpt_path", "last"])
    whole, parts = (torch.load(f"{name}/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_several_classes_in_three_dimensions(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lesion = {"cnr": 6, "radius_mm": 2, "edge_mm": 1, "polarity": "bright"}
    Path("spec.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "two",
                "task": kind,
                "shape": [14, 12, 10],
                "spacing_mm": [1, 1, 1],
                "splits": {"train": 6, "val": 6, "test": 8},
                "noise": {"kind": "gaussian", "sd": 0.05},
                "lesions": {"light": lesion, "dark": {**lesion, "polarity": "dark"}},
            }
        )
    )
    data = ["--data", "PhantomDataModule", "--data.spec", "spec.yaml", "--data.fresh", "true"]
    run = [*data, *SMALL, "--trainer.default_root_dir", "run"]
    main(["fit", *run, "--trainer.max_epochs", "1"])
    main(["test", *run, "--ckpt_path", "run/best.ckpt"])
    figures = json.loads(Path("run/test/metrics.json").read_text())
    assert ("test/accuracy" if kind == "multiclass" else "test/auroc") in figures
    header = Path("run/test/cases.csv").read_text().splitlines()[0].split(",")
    assert {"probability/light", "probability/dark", "pointing/dark", "center/pixel_ap/light"} <= set(header)
    main(["predict", *run, "--ckpt_path", "run/best.ckpt"])
    maps = load(next(Path("run/predictions").glob("*_map.nii.gz")))
    assert maps.shape == (14, 12, 10, 3 if kind == "multiclass" else 2)


@pytest.mark.usefixtures("_no_wandb")
def test_wandb_offline_gets_panels_and_masks(tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overlay = Path(__file__).parents[1] / "configs/wandb.yaml"
    sent: list[wandb.Artifact] = []
    monkeypatch.setattr(wandb.Run, "log_artifact", lambda _, artifact: sent.append(artifact))
    Path("runs").mkdir()
    run = ["--trainer.default_root_dir", "runs/w", "--trainer.max_epochs", "1", "-c", str(overlay)]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run])
    files = [path for path in Path("runs/wandb").rglob("media/images/**/*") if path.is_file()]
    assert any("mask" in str(path) for path in files)
    assert any(path.name.startswith("maps") and path.suffix == ".png" for path in files)
    # The run's configuration, the hash of its data and its best checkpoint, which wait for `wandb sync`.
    assert wandb.run is not None
    assert wandb.run.config["data_hash"] == json.loads((tiny_set / "dataset.json").read_text())["hash"]
    assert wandb.run.config["settings"]["trainer"]["default_root_dir"] == "runs/w"
    assert [(artifact.type, list(artifact.manifest.entries)) for artifact in sent] == [("model", ["best.ckpt"])]


def test_an_epoch_without_validation_shows_no_figures_of_another(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"]
    main(["fit", *CASES, str(tiny_set / "cases.csv"), *SMALL, *run])
    assert [bool(row["val/loss"]) for row in rows_of(Path("run/metrics.csv"))] == [False, True, False]


def test_optimiser_schedule_and_parts_come_from_yaml(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schedulers = "torch.optim.lr_scheduler"
    plateau = {"class_path": f"{schedulers}.ReduceLROnPlateau", "init_args": {"patience": 0, "threshold": 1e9}}
    model = {
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}},
        "lr_scheduler": {**plateau, "init_args": {**plateau["init_args"], "factor": 0.1}},  # type: ignore[dict-item]
        "decoder": {"class_path": "HRCAM", "init_args": {"taps": [-1, 0]}},
        "pooling": "MeanPooling",
    }
    Path("over.yaml").write_text(yaml.safe_dump({"model": model}))
    run = [
        *CASES,
        str(tiny_set / "cases.csv"),
        *SMALL,
        "--trainer.max_epochs",
        "3",
        "--trainer.default_root_dir",
        "run",
    ]
    main(["fit", *run, "-c", "over.yaml"])
    # never good enough for the plateau: a tenth after each epoch but the first
    rates = [float(row["learning_rate"]) for row in rows_of(Path("run/metrics.csv"))]
    assert rates == pytest.approx([0.5, 0.05, 0.005])
    task = LocalizationTask.load_from_checkpoint("run/last.ckpt", weights_only=True)
    assert [level.channels for level in task.network.decoder.levels] == [16, 4]
    assert type(task.network.pooling).__name__ == "MeanPooling"
    anew = ["--overwrite", "true"]
    main(["fit", *run, "--model.lr_scheduler", f"{schedulers}.StepLR", "--model.lr_scheduler.step_size", "1", *anew])
    first, second, _ = (float(row["learning_rate"]) for row in rows_of(Path("run/metrics.csv")))
    assert second == pytest.approx(first / 10)


def test_thresholds_of_other_maps_are_left_out(fitted: Path, tiny_set: Path) -> None:
    """Averaging over views lowers peaks: a threshold of plain maps would seem stricter than it is."""
    task = LocalizationTask.load_from_checkpoint("run/best.ckpt", weights_only=True)
    assert task.thresholds.isfinite().all()
    with pytest.warns(UserWarning, match="thresholds were set with view_averaging True and are left out"):
        main(again("test", fitted, tiny_set / "cases.csv", "--model.view_averaging", "false"))
    figures = json.loads((fitted / "test/metrics.json").read_text())
    for name in ("normal/false_activation", "lesion/recall", "dice", "box_acc", "lesion/froc_by_parts"):
        assert figures[f"test/{name}"]["value"] is None
        assert figures[f"test/{name}"]["reason"].startswith("no threshold")
        assert figures[f"test/random/{name}"]["value"] is not None


def test_two_processes_find_what_one_finds(fitted: Path, tiny_set: Path) -> None:
    command = [sys.executable, "-m", "hrcam_lightning", *again("test", fitted, tiny_set / "cases.csv")]
    main(command[3:])
    one = {
        name: (fitted / "test" / name).read_bytes()
        for name in ("metrics.json", "cases.csv", "lesions.csv", "curves.csv")
    }
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    subprocess.run([*command, *several], check=True, capture_output=True)
    assert {name: (fitted / "test" / name).read_bytes() for name in one} == one


def test_the_module_runs_as_a_script() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "hrcam_lightning", "--version"], capture_output=True, text=True, check=True
    )
    assert "0.1.0" in shown.stdout
