"""``hrcam retrofit`` as a user types it: from a base to a checkpoint like any other."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from hrcam_lightning import LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.retrofit import RetrofitTrainer
from tests.command_line import CASES, SMALL, error_of, rows_of
from tests.retrofit.command import command


def test_a_base_becomes_a_checkpoint_that_tests_and_predicts(base: Path, tiny_set: Path) -> None:
    cases = tiny_set / "cases.csv"
    main(command(base, cases, "--levels", "[2,0]"))
    head = Path("head")
    assert {"best.ckpt", "config.yaml", "retrofit.csv", "retrofit.json"} <= {path.name for path in head.iterdir()}
    assert not list(head.glob(".part*"))
    before, after = (torch.load(p / "best.ckpt", weights_only=True)["state_dict"] for p in (base, head))
    frozen = [name for name in before if name.startswith("model.backbone.")]
    assert len(frozen) > 20
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert torch.isfinite(after["thresholds"]).all()

    report = json.loads((head / "retrofit.json").read_text())
    assert report["train_cases"] == 8
    assert report["val_cases"] == 6
    assert report["levels"] == [2, 0]
    assert report["neighbours"] == [0]  # the only one whose cells are at most two pixels apart
    ill = [row for row in rows_of(cases) if row["split"] == "train" and row["label"] != "normal"]
    assert report["views"]["aimed_cases"] == len(ill)
    assert set(report["val"]) == {"base/auroc", "head/auroc", "same_decisions", "rank_correlation"}
    rows = rows_of(head / "retrofit.csv")
    assert [float(row["equivariance"]) for row in rows] == [0, 0.01, 0.1, 1, 10]
    assert report["equivariance"] in [float(row["equivariance"]) for row in rows]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    limit = float(best["val_loss"]) + float(best["val_se"])
    near = [float(row["equivariance"]) for row in rows if float(row["val_loss"]) <= limit]
    assert report["equivariance"] == max(near)

    task = LocalizationTask.load_from_checkpoint(head / "best.ckpt", weights_only=True).eval()
    data = CaseDataModule(str(cases))
    (batch,) = data.in_order("val")
    with torch.no_grad():
        output = task(batch["image"])
    torch.testing.assert_close(output.maps.flatten(2).mean(-1) + output.bias, output.logits, atol=1e-5, rtol=1e-5)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(output.logits[:, 0], batch["label"].float())
    chosen = next(row for row in rows if float(row["equivariance"]) == report["equivariance"])
    assert float(loss) == pytest.approx(float(chosen["val_loss"]), abs=1e-4)

    config = yaml.safe_load((head / "config.yaml").read_text())
    assert config["model"]["decoder"]["init_args"] == {"taps": [2, 0], "neighbours": [0]}
    assert after["model.decoder.beside.0"].abs().max() > 0
    main(["test", "-c", "head/config.yaml", "--ckpt_path", "best"])
    plain = (head / "test/cases.csv").read_bytes()
    again = ["--trainer.default_root_dir", "head", "--ckpt_path", "best"]
    main(["test", *CASES, str(cases), *SMALL, *again])
    assert (head / "test/cases.csv").read_bytes() == plain
    with pytest.warns(UserWarning, match="thresholds were set with view_averaging False"):
        main(["test", "-c", "head/config.yaml", "--ckpt_path", "best", "--model.view_averaging", "true"])
    assert (head / "test/cases.csv").read_bytes() != plain
    main(["predict", "-c", "head/config.yaml", "--ckpt_path", "best"])
    assert len(rows_of(head / "predictions/predictions.csv")) == 20


def test_the_published_form_needs_no_views_and_batches_do_not_matter(base: Path, tiny_set: Path) -> None:
    weights = []
    for size in ("4", "3"):
        published = ["--equivariance", "0", "--l2", "0.01", "--overwrite", "true", "--data.batch_size", size]
        main(command(base, tiny_set / "cases.csv", *published))
        content = torch.load("head/best.ckpt", weights_only=True)
        assert content["hyper_parameters"]["resampling"] == "half_pixel"
        weights.append(content["state_dict"]["model.decoder.weights.0"])
        report = json.loads(Path("head/retrofit.json").read_text())
        assert report["views"] is None
        assert report["neighbours"] == []
        assert not [name for name in content["state_dict"] if "beside" in name]
    torch.testing.assert_close(*weights, atol=1e-3, rtol=1e-3)


def test_bad_input_ends_with_one_sentence(
    base: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tiny_set / "cases.csv"
    renamed = base.parent / "renamed"
    shutil.copytree(tiny_set, renamed)
    for name in ("cases.csv", "dataset.json"):
        (renamed / name).write_text((renamed / name).read_text().replace("lesion", "tumour"))
    bare = command(base, cases)
    bare = bare[: bare.index("--ckpt_path")]
    for words, sentence in {
        ("--levels", "[3]"): "levels is [3], but the backbone has levels 0 to 2",
        ("--levels", "[0,0]"): "levels is [0, 0]",
        ("--neighbours", "[0,0]"): "neighbours is [0, 0]: name levels that are read ([0, 1, 2]), each once",
        ("--levels", "[2]", "--neighbours", "[0]"): "neighbours is [0]: name levels that are read ([2])",
        ("--neighbours", "[7]"): "neighbours is [7]",
        ("--aimed_cases", "-1"): "aimed_cases is -1",
        ("--equivariance", "-1"): "equivariance is -1.0",
        ("--l2", "-1"): "l2 is -1.0",
        ("--pixels", "0"): "pixels is 0",
        ("--views", "[]"): "views is empty",
        ("--trainer.devices", "2"): "give --trainer.devices 1",
        ("--trainer.default_root_dir", "base", "--overwrite", "true"): "base holds the base itself",
        ("--model.decoder", "HRCAM"): "trained with another --model.decoder",
    }.items():
        assert sentence in error_of(capsys, monkeypatch, *command(base, cases, *words)), words
    assert "retrofit needs a trained network" in error_of(capsys, monkeypatch, *bare)
    assert "the label 'tumour' is unknown" in error_of(capsys, monkeypatch, *command(base, renamed / "cases.csv"))
    assert not Path("head/best.ckpt").exists()
    assert not Path("head/retrofit.csv").exists()
    assert not Path("head/config.yaml").exists()
    assert not list(Path("head").rglob("*.ckpt"))


def test_from_python_a_network_of_three_classes_in_3d(tmp_path: Path) -> None:
    lesion = {"cnr": 6, "radius_mm": 2, "edge_mm": 1, "polarity": "bright"}
    spec = {
        "name": "two", "task": "multiclass", "shape": [12, 12, 10], "spacing_mm": [1, 1, 1],
        "splits": {"train": 16, "val": 8, "test": 4}, "noise": {"kind": "gaussian", "sd": 0.05},
        "lesions": {"light": lesion, "dark": {**lesion, "polarity": "dark"}},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    torch.manual_seed(0)
    data = PhantomDataModule(str(tmp_path / "spec.yaml"), batch_size=5)
    made = {"backbone": partial(ConvPyramid, width=2, depth=2), "consistency": 0.5, "level_loss": 0.5}
    layout = data.layout
    task = LocalizationTask(layout.task, layout.classes, layout.channels, layout.dims, **made)  # type: ignore[arg-type]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    first = RetrofitTrainer(default_root_dir=tmp_path / "base", **quiet)  # type: ignore[arg-type]
    first.strategy.connect(task)
    first.save_checkpoint(tmp_path / "base.ckpt", weights_only=True)
    trainer = RetrofitTrainer(default_root_dir=tmp_path, **quiet)  # type: ignore[arg-type]
    trainer.retrofit(task, data, ckpt_path=str(tmp_path / "base.ckpt"), view_cases=4, pixels=8, l2=0.1)
    # What trained the base is not what a head that may read one level is trained with.
    assert [task.consistency, task.level_loss, task.hparams["consistency"], task.hparams["level_loss"]] == [0] * 4
    report = json.loads((tmp_path / "retrofit.json").read_text())
    assert report["views"]["aimed_cases"] > 0
    assert report["neighbours"] == [0, 1]
    assert {"base/accuracy", "head/accuracy"} <= set(report["val"])
    images = torch.cat([batch["image"] for batch in data.in_order("val")])
    with torch.no_grad():
        output = task.network(images)
    assert output.maps.shape == (8, 3, 12, 12, 10)
    torch.testing.assert_close(output.maps.flatten(2).mean(-1) + output.bias, output.logits, atol=1e-5, rtol=1e-4)
