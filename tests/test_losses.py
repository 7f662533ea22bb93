"""Losses with class weights: by hand, from the training cases, and kept with the network."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.cli import main
from hrcam_lightning.data import CaseDataModule, PhantomDataModule
from hrcam_lightning.losses import balanced_weights, cross_entropy, given_weights
from tests.command_line import CASES, SMALL, again, error_of

if TYPE_CHECKING:
    from pathlib import Path

SMALL_BACKBONE = partial(ConvPyramid, width=4, depth=3)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_a_weighted_binary_loss_by_hand() -> None:
    loss = cross_entropy("binary", torch.tensor([[0.3], [-1.0], [2.0]]), torch.tensor([1, 0, 1]), torch.tensor([3.0]))
    assert loss.item() == pytest.approx((3 * _softplus(-0.3) + _softplus(-1.0) + 3 * _softplus(-2.0)) / 3)


def test_a_weighted_multilabel_loss_by_hand() -> None:
    logits, labels = torch.tensor([[0.5, -0.5], [1.0, 2.0]]), torch.tensor([[1, 0], [0, 1]])
    loss = cross_entropy("multilabel", logits, labels, torch.tensor([2.0, 5.0]))
    expected = (2 * _softplus(-0.5) + _softplus(-0.5) + _softplus(1.0) + 5 * _softplus(-2.0)) / 4
    assert loss.item() == pytest.approx(expected)


def test_a_weighted_multiclass_loss_by_hand_does_not_depend_on_its_batches() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    labels, weights = torch.tensor([0, 0, 2, 1]), torch.tensor([0.5, 2.0, 4.0])
    terms = [math.log(math.e + 2) - 1, math.log(math.exp(2) + 2), math.log(math.exp(3) + 2) - 3, math.log(3)]
    expected = (0.5 * terms[0] + 0.5 * terms[1] + 4 * terms[2] + 2 * terms[3]) / 4
    assert cross_entropy("multiclass", logits, labels, weights).item() == pytest.approx(expected, rel=1e-6)
    parts = [cross_entropy("multiclass", logits[n : n + 2], labels[n : n + 2], weights) for n in (0, 2)]
    assert float(sum(parts)) / 2 == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_are_those_of_the_counts() -> None:
    classes = ["a", "b", "c"]
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = balanced_weights("multiclass", labels, classes)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 1.0]))
    assert weights[labels].mean().item() == pytest.approx(1)
    torch.testing.assert_close(balanced_weights("binary", torch.tensor([1, 0, 0, 0]), ["a"]), torch.tensor([3.0]))
    findings = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0]])
    torch.testing.assert_close(balanced_weights("multilabel", findings, ["a", "b"]), torch.tensor([1 / 3, 3.0]))


def test_what_cannot_be_balanced_is_refused() -> None:
    with pytest.raises(InputError, match="b is in 0 of 2 training cases"):
        balanced_weights("multiclass", torch.tensor([0, 2]), ["a", "b", "c"])
    with pytest.raises(InputError, match="a is in 2 of 2 training cases"):
        balanced_weights("binary", torch.tensor([1, 1]), ["a"])
    for wrong in ([1.0], [1.0, 0.0], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(InputError, match="one positive number is needed for each of a, b"):
            given_weights(wrong, ["a", "b"])


def test_phantoms_say_their_labels_without_being_drawn(tiny_set: Path, spec_path: Path) -> None:
    drawn = PhantomDataModule(str(spec_path), seed=3)
    expected = [sample["label"] for sample in (drawn.dataset("train")[index] for index in range(8))]
    assert drawn.training_labels().tolist() == expected
    assert CaseDataModule(str(tiny_set / "cases.csv")).training_labels().tolist() == expected
    assert 0 < sum(expected) < 8


def test_a_task_weighs_every_loss() -> None:
    task = LocalizationTask(
        "multilabel", ["a", "b"], 1, 2, SMALL_BACKBONE, class_weights=[2.0, 0.5], consistency=0, view_averaging=False
    )
    logits, labels = torch.randn(3, 2), torch.tensor([[1, 0], [0, 1], [1, 1]])
    expected = cross_entropy("multilabel", logits, labels, torch.tensor([2.0, 0.5]))
    assert torch.equal(task.loss(logits, labels), expected)
    assert "class_weights" in task.state_dict()
    plain = LocalizationTask("multilabel", ["a", "b"], 1, 2, SMALL_BACKBONE)
    assert torch.equal(plain.loss(logits, labels), cross_entropy("multilabel", logits, labels))
    assert "class_weights" not in plain.state_dict()  # checkpoints of before have none


def test_the_balance_of_the_training_cases_goes_with_the_network(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    images = sorted((tiny_set / "images").iterdir())[:12]
    splits = [("train", "0000011"), ("val", "0111"), ("test", "1")]
    rows = [f"{split},{label}" for split, labels in splits for label in labels]
    lines = [f"{image},{row}" for image, row in zip(images, rows, strict=True)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,split,label", *lines]))
    run = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "1", "--model.class_weights", "balanced"]
    outside = ["--data.allow_outside", "true"]
    main(["fit", *CASES, "cases.csv", *outside, *SMALL, *run])
    state = torch.load("run/best.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["class_weights"], torch.tensor([2.5]))
    loaded = LocalizationTask.load_from_checkpoint("run/best.ckpt", weights_only=True)
    assert loaded.class_weights is not None
    torch.testing.assert_close(loaded.class_weights.cpu(), torch.tensor([2.5]))
    # A test table without any training case.
    (tmp_path / "new.csv").write_text("\n".join(["image,split,label", f"{images[0]},test,1", f"{images[1]},test,0"]))
    main(again("validate", tmp_path / "run", tmp_path / "cases.csv", *outside))
    main(again("test", tmp_path / "run", tmp_path / "new.csv", *outside))
    command = again("test", tmp_path / "run", tmp_path / "new.csv", *outside, "--model.class_weights", "none")
    assert "trained with another --model.class_weights" in error_of(capsys, monkeypatch, *command)
