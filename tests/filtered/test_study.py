"""``hrcam filtered-retrain`` as a user types it, on tiny phantoms."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from PIL import Image

from hrcam_lightning import LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.errors import InputError
from hrcam_lightning.filtered import StudyTrainer, study
from hrcam_lightning.filtered.filters import KINDS
from hrcam_lightning.filtered.training import StudyData, explain_to, train
from tests.command_line import CASES, SMALL, error_of, rows_of

STUDY = ["--trainer.max_epochs", "1", "--folds", "2", "--seeds", "2"]


def command(cases: Path, *more: str) -> list[str]:
    return ["filtered-retrain", *CASES, str(cases), *SMALL, "--trainer.default_root_dir", "run", *STUDY, *more]


class Watch:
    """What the trainings of a study were given, and what came of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[dict[str, Any]] = []
        self.begun: list[str] = []
        self.steps: list[int] = []
        self.explained: list[dict[str, Any]] = []

        def watched(task: LocalizationTask, data: StudyData, *rest: Any) -> LocalizationTask:
            made = train(task, data, *rest)
            cases = [data.splits["train"][n] for n in range(len(data.splits["train"]))]  # type: ignore[arg-type]
            names = {sample["case"] for sample in cases}
            image = cases[0]["image"]
            self.trained.append({"task": made, "cases": names, "seed": rest[2], "image": image})
            return made

        def explained(path: Path, task: LocalizationTask, loader: Any, *rest: Any) -> Any:
            logits = explain_to(path, task, loader, *rest)
            cases = [loader.dataset[n] for n in range(len(loader.dataset))]
            self.explained.append({"path": path, "task": task, "cases": cases})
            return logits

        def begin(task: LocalizationTask) -> None:
            digest = hashlib.sha256()
            for value in task.state_dict().values():
                digest.update(value.numpy().tobytes())
            self.begun.append(digest.hexdigest())

        monkeypatch.setattr(study, "train", watched)
        monkeypatch.setattr(study, "explain_to", explained)
        monkeypatch.setattr(LocalizationTask, "on_train_start", begin)
        monkeypatch.setattr(LocalizationTask, "on_train_end", lambda task: self.steps.append(task.global_step))


def test_the_whole_protocol_and_going_on_after_a_kill(
    tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    watch = Watch(monkeypatch)
    main(command(tiny_set / "cases.csv"))
    folder = Path("run/filtered_retrain")
    files = ["cases.csv", "config.yaml", "dice.csv", "examples.png", "logits", "maps", "metrics.json", "results.csv"]
    assert sorted(path.name for path in folder.iterdir()) == [*files, "scores.png", "table.md"]
    assert not list(folder.rglob(".part*"))

    _maps_are_by_networks_that_have_not_seen_the_case(watch)
    _trainings_are_equal_but_for_the_images(watch)
    _figures_are_those_of_the_logits(folder, tiny_set)
    assert "random_outside" in capsys.readouterr().out

    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["folds"], config["seeds"], config["threshold"]) == (2, 2, 0.5)
    first = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for picture in ("examples.png", "scores.png"):
        with Image.open(folder / picture) as image:
            assert image.size[0] > 500
    done = len(watch.trained)
    for victim in ("maps/fold_1-*", "logits/soft_1-*", "results.csv"):
        next(folder.glob(victim)).unlink()
    main(["filtered-retrain", "-c", str(folder / "config.yaml")])
    assert len(watch.trained) == done + 2
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first
    main(command(tiny_set / "cases.csv", "--fill", "blur", "--kinds", "[inside]", "--seeds", "1"))
    assert len(watch.trained) == done + 3  # originals and maps are as they were
    assert len(list(folder.glob("logits/inside_0-*"))) == 1
    assert list(rows_of(folder / "results.csv")[1].values())[:2] == ["inside", "0"]


def _maps_are_by_networks_that_have_not_seen_the_case(watch: Watch) -> None:
    assert len(watch.trained) == 2 + 8 * 2
    of = {id(one["task"]): one["cases"] for one in watch.trained}
    held: list[str] = []
    for one in watch.explained:
        names = [sample["case"] for sample in one["cases"]]
        assert not of[id(one["task"])] & set(names)
        with torch.no_grad():
            maps = one["task"](torch.stack([sample["image"] for sample in one["cases"]])).maps[:, 0]
        np.testing.assert_allclose(np.load(one["path"]), maps, atol=1e-5)
        if one["path"].name.startswith("fold"):
            held += names
            assert len(of[id(one["task"])]) + len(names) == 8
        else:
            assert len(of[id(one["task"])]) == 8
    assert len(held) == len(set(held)) == 8
    stems = [one["path"].name.rpartition("-")[0] for one in watch.explained]
    assert stems == ["fold_0", "fold_1", "val", "test"]


def _trainings_are_equal_but_for_the_images(watch: Watch) -> None:
    whole = [n for n, one in enumerate(watch.trained) if len(one["cases"]) == 8]
    begun = {seed: {watch.begun[n] for n in whole if watch.trained[n]["seed"] == seed} for seed in (0, 1)}
    assert [len(begun[seed]) for seed in (0, 1)] == [1, 1]
    assert begun[0] != begun[1]
    assert {watch.steps[n] for n in whole} == {2}
    images = [watch.trained[n]["image"] for n in whole if watch.trained[n]["seed"] == 1]
    assert len({image.numpy().tobytes() for image in images}) == len(KINDS)


def _figures_are_those_of_the_logits(folder: Path, tiny_set: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = rows_of(folder / "results.csv")
    assert [(row["kind"], row["seed"]) for row in rows] == [(kind, seed) for kind in KINDS for seed in ("0", "1")]
    cases = [row for row in rows_of(tiny_set / "cases.csv") if row["split"] == "test"]
    labels = np.array([row["label"] != "normal" for row in cases])
    tested = rows_of(folder / "cases.csv")
    assert [(row["case"], row["label"]) for row in tested] == [
        (row["case"], str(int(label))) for row, label in zip(cases, labels.tolist(), strict=True)
    ]
    assert [row["subject"] for row in tested] == [row["subject"] for row in cases]
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        logits = np.stack([np.load(next(folder.glob(f"logits/{kind}_{seed}-*"))) for seed in (0, 1)])
        for seed in (0, 1):
            written = np.array([row[f"{kind}/seed_{seed}"] for row in tested], np.float32)
            np.testing.assert_array_equal(written, logits[seed].astype(np.float32))
        gaps = logits[:, labels, None] - logits[:, None, ~labels]
        areas = ((gaps > 0) + 0.5 * (gaps == 0)).mean((1, 2))
        assert [float(row["auroc"]) for row in mine] == pytest.approx(areas.tolist(), abs=1e-5)
        assert [float(row["accuracy"]) for row in mine] == pytest.approx(((logits > 0) == labels).mean(1), abs=1e-5)
        assert metrics["auroc"][kind]["value"] == pytest.approx(areas.mean())
    gap = metrics["auroc"]["inside"]["value"] - metrics["auroc"]["random_inside"]["value"]
    assert metrics["auroc_difference"]["inside-random_inside"]["value"] == pytest.approx(gap)
    assert metrics["cases"] == {"train": 8, "val": 6, "test": 6}
    overlaps = rows_of(folder / "dice.csv")
    for split in ("train", "test"):
        for rule in ("fixed", "validation", "otsu", "oracle"):
            values = [float(row[rule]) for row in overlaps if row["split"] == split]
            assert metrics["dice"][f"{split}/{rule}"]["value"] == pytest.approx(np.mean(values), abs=1e-5)
        assert metrics["dice"][f"{split}/oracle"]["value"] >= metrics["dice"][f"{split}/validation"]["value"]
    assert {row["fold"] for row in overlaps if row["split"] == "train"} <= {"0", "1"}
    table = (folder / "table.md").read_text()
    assert f"| truth_inside | {metrics['auroc']['truth_inside']['value']:.3f} [" in table


def test_from_python_in_3d_by_another_explainer_a_killed_study_goes_on(tmp_path: Path, spec_path: Path) -> None:
    spec = yaml.safe_load(spec_path.read_text())
    spec |= {"shape": [10, 9, 8], "spacing_mm": [1, 1, 1], "splits": {"train": 12, "val": 8, "test": 8}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    data = PhantomDataModule(str(tmp_path / "spec.yaml"), batch_size=5)
    task = LocalizationTask(backbone=partial(ConvPyramid, width=2, depth=2))

    class Kill(Callback):
        """Left out of trainings, as are all of the run's callbacks."""

        def on_train_start(self, *args: Any) -> None:
            raise AssertionError

    def run(**more: Any) -> dict[str, Any]:
        torch.manual_seed(5)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = StudyTrainer(default_root_dir=tmp_path, max_epochs=1, callbacks=[Kill()], **quiet)
        trainer.filtered_retrain(task, data, **{"folds": 2, "seeds": 1, "explainer": "gradcam", **more})
        found: dict[str, Any] = json.loads((tmp_path / "filtered_retrain/metrics.json").read_text())
        return found

    started: list[str] = []

    def dies(*args: Any) -> LocalizationTask:
        started.append("")
        if len(started) == 4:
            raise KeyboardInterrupt
        return train(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "train", dies)
        with pytest.raises(KeyboardInterrupt):
            run(kinds=["truth_inside"])
        assert not (tmp_path / "filtered_retrain/metrics.json").exists()
        found = run(kinds=["truth_inside"])
    assert len(started) == 5
    assert found["settings"]["seed"] == 5
    assert np.load(next((tmp_path / "filtered_retrain/maps").glob("test-*"))).shape == (8, 10, 9, 8)
    assert found["auroc"].keys() == {"original", "truth_inside"}
    assert task.model is None


def test_bad_input_ends_with_one_sentence(
    tmp_path: Path, tiny_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = tiny_set / "cases.csv"
    assert "insight" in error_of(capsys, monkeypatch, *command(cases, "--kinds", "[insight]"))
    assert "give --trainer.devices 1" in error_of(capsys, monkeypatch, *command(cases, "--trainer.devices", "2"))


def test_what_makes_no_study_is_refused_before_anything_is_trained(tmp_path: Path, tiny_set: Path) -> None:
    data = CaseDataModule(str(tiny_set / "cases.csv"))
    options: dict[str, Any] = {"logger": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer, task = StudyTrainer(**options), LocalizationTask()
    for more, sentence in {
        ("folds", 1): "folds is 1",
        ("folds", 9): "at most the training subjects of either kind",
        ("seeds", 0): "seeds is 0",
        ("threshold", 0.0): "threshold is 0.0, but is a strength",
        ("threshold", 1.5): "threshold is 1.5, but is a strength",
    }.items():
        with pytest.raises(InputError, match=sentence):
            trainer.filtered_retrain(task, data, **dict([more]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no explainer 'gradcamel'"):
        trainer.filtered_retrain(task, data, explainer="gradcamel")
    with pytest.raises(InputError, match="unequal budgets"):
        trainer.filtered_retrain(LocalizationTask(stop_rate=1e-4), data)
    with pytest.raises(InputError, match="unequal budgets"):
        StudyTrainer(**options, max_time="00:00:01:00").filtered_retrain(task, data)
    with pytest.raises(InputError, match="has no dry run"):
        StudyTrainer(**options, fast_dev_run=True).filtered_retrain(task, data)
    with pytest.raises(InputError, match="asks of one finding"):
        trainer.filtered_retrain(task, CaseDataModule(str(tiny_set / "cases.csv"), task="multilabel"))
    with pytest.raises(InputError, match="drawn anew each epoch"):
        trainer.filtered_retrain(task, PhantomDataModule("spec.yaml", fresh=True))
    bare = tmp_path / "bare.csv"
    rows = [{**row, "image": tiny_set / row["image"]} for row in rows_of(tiny_set / "cases.csv")]
    bare.write_text("image,label,split\n" + "".join(f"{row['image']},{row['label']},{row['split']}\n" for row in rows))
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    task = LocalizationTask(backbone=partial(ConvPyramid, width=2, depth=2))
    with pytest.raises(InputError, match="need the mask of every positive case"):
        StudyTrainer(**options).filtered_retrain(task, CaseDataModule(str(bare), allow_outside=True), folds=2)
    assert not list(tmp_path.rglob("*.npy"))
    StudyTrainer(**options).filtered_retrain(
        task, CaseDataModule(str(bare), allow_outside=True), folds=2, seeds=1, kinds=["inside"]
    )
    assert json.loads((tmp_path / "filtered_retrain/metrics.json").read_text())["dice"]["test/otsu"] == {
        "value": None, "low": None, "high": None, "n": 0, "reason": "no positive case has a mask",
    }  # fmt: skip


def test_a_training_starts_anew_whatever_network_it_is_given(tmp_path: Path, spec_path: Path) -> None:
    source = PhantomDataModule(str(spec_path), batch_size=4)
    data = StudyData(source, {"train": source.dataset("train"), "val": source.dataset("val")})
    small = partial(ConvPyramid, width=2, depth=2)
    bare = LocalizationTask(backbone=small)
    built = LocalizationTask("binary", ["lesion"], 1, 2, backbone=small)
    settings = {"max_epochs": 1, "accelerator": "cpu"}
    shown: list[float] = []
    ends = [train(task, data, settings, tmp_path, 3, shown.append).state_dict() for task in (bare, built)]
    other = train(bare, data, settings, tmp_path, 4, shown.append).state_dict()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] if name != "thresholds")
    assert not all(torch.equal(ends[0][name], other[name]) for name in other if name != "thresholds")
    assert shown == [0.5, 1.0] * 3
