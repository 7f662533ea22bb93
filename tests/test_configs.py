"""Every configuration in configs/ runs: found by glob, so that none is forgotten."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from hrcam_lightning.cli import main
from synth import Phantoms, PhantomSpec
from synth.cli import main as synth_main

ROOT = Path(__file__).parents[1]
OVERLAYS = ("augment.yaml", "gpu.yaml", "wandb.yaml")
STUDY = "filtered_retrain.yaml"
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name not in (*OVERLAYS, STUDY))
SPECS = sorted((ROOT / "configs/synth").glob("*.yaml"))
QUICK = [
    "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2",
    "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false", "--data.batch_size", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout's, with a small demo set in its place."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").symlink_to(ROOT / "configs")
    demo = ["generate", str(folder / "data/demo"), "--config", str(ROOT / "configs/synth/demo.yaml")]
    assert synth_main([*demo, "--splits", "train=8,val=4,test=4"]) == 0
    _write_flair(folder / "data/flair")
    return folder


def _write_flair(folder: Path) -> None:
    """A volume in place of the real one, stored alike: L-A-S, skull-stripped, with the lesions of half its slices."""
    folder.mkdir()
    voxels, lesions = np.zeros((24, 28, 12), np.float32), np.zeros((24, 28, 12), np.uint8)
    voxels[3:-3, 3:-3] = np.random.default_rng(0).normal(80, 9, (18, 22, 12))
    lesions[9:12, 10:13, ::2] = 1
    affine = np.diag([-1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(voxels + 60 * lesions, affine), folder / "flair.nii.gz")  # type: ignore[no-untyped-call]
    nib.save(nib.Nifti1Image(lesions, affine), folder / "lesions.nii.gz")  # type: ignore[no-untyped-call]
    blocks = {"0:6": "train", "6:9": "val", "9:12": "test"}
    rows = [f"flair.nii.gz,lesion,lesions.nii.gz,{block},{split}" for block, split in blocks.items()]
    (folder / "cases.csv").write_text("\n".join(["image,label,mask,slices,split", *rows]))


@pytest.mark.parametrize(
    "config",
    # a 3D ResNet takes as long as six others, and each of its parts is tested by itself
    [pytest.param(one, marks=[pytest.mark.slow] * (one.name == "resnet3d.yaml"), id=one.name) for one in CONFIGS],
)
def test_a_configuration_trains_and_tests(config: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    main(["fit", "-c", f"configs/{config.name}", *QUICK])
    run = yaml.safe_load(config.read_text())["trainer"]["default_root_dir"]
    limits = ["--trainer.limit_test_batches", "1", *QUICK[-4:], *QUICK[:2]]
    main(["test", "-c", f"configs/{config.name}", "--ckpt_path", f"{run}/best.ckpt", *limits])
    assert Path(run, "test/metrics.json").is_file()


def test_the_augmentation_overlay_augments(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    run = ["--trainer.default_root_dir", "runs/augmented"]
    main(["fit", "-c", "configs/demo.yaml", "-c", "configs/augment.yaml", *QUICK, *run])
    written = yaml.safe_load(Path("runs/augmented/config.yaml").read_text(encoding="utf-8"))["data"]
    assert written["class_path"].endswith("CaseDataModule")
    given = yaml.safe_load((ROOT / "configs/augment.yaml").read_text())["data"]["init_args"]["augmentation"]
    assert written["init_args"]["augmentation"] == {"offset": 0.0, "gamma": 0.0, **given}


def test_the_study_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    main(["filtered-retrain", "-c", f"configs/{STUDY}", *QUICK, "--folds", "2", "--seeds", "1", "--kinds", "[inside]"])
    assert Path("runs/filtered_retrain/filtered_retrain/metrics.json").is_file()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_overlay_trains_in_mixed_precision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    quick = [*QUICK[2:]]
    main(["fit", "-c", "configs/demo.yaml", "-c", "configs/gpu.yaml", *quick])


@pytest.mark.parametrize(
    "config", [*CONFIGS, *(ROOT / "configs" / name for name in (*OVERLAYS, STUDY))], ids=lambda path: path.name
)
def test_a_configuration_is_short_and_says_how_to_run_it(config: Path) -> None:
    lines = config.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert f"configs/{config.name}" in lines[0]


@pytest.mark.parametrize("spec_path", SPECS, ids=lambda path: path.name)
def test_a_spec_says_how_to_draw_it_and_draws(spec_path: Path) -> None:
    first = spec_path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert f"configs/synth/{spec_path.name}" in first
    spec = PhantomSpec.from_yaml(spec_path)
    assert Phantoms(spec)[0].image.shape == spec.shape
