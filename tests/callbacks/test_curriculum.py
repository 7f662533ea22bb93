"""The curriculum: what it changes in a phantom, when it steps, what a resumed run goes on with."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hrcam_lightning import InputError
from hrcam_lightning.callbacks import SubtletyCurriculum
from hrcam_lightning.cli import main
from hrcam_lightning.data import PhantomDataModule
from hrcam_lightning.data.phantoms import contrasted
from synth import Phantoms, PhantomSpec
from tests.command_line import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("control", ["dprime", "cnr", "delta"])
def test_only_the_strength_of_the_lesions_changes(spec_path: Path, control: str) -> None:
    spec = PhantomSpec.from_yaml(spec_path)
    values: dict[str, Any] = {"dprime": None, "cnr": None, "delta": None, control: (0.05, 0.1)}
    spec = replace(spec, prevalence=1.0, lesions={"lesion": replace(spec.lesions["lesion"], **values)})
    plain, strong = Phantoms(spec, 3)[5], Phantoms(contrasted(spec, 3), 3)[5]
    assert strong.lesions[0].delta == pytest.approx(3 * plain.lesions[0].delta)
    assert strong.lesions[0].centre_voxel == plain.lesions[0].centre_voxel
    assert (strong.masks == plain.masks).all()
    change = plain.image - plain.twin().image
    torch.testing.assert_close(
        torch.from_numpy(strong.image - plain.image), torch.from_numpy(2 * change), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_it_reaches_the_training_cases_alone_even_in_loader_processes(spec_path: Path, workers: int) -> None:
    data = PhantomDataModule(str(spec_path), batch_size=8, num_workers=workers)
    data.normalization = "none"
    loader, before = data.train_dataloader(), data.dataset("val")[0]["image"]

    def epoch() -> dict[str, torch.Tensor]:
        return {name: image for batch in loader for name, image in zip(batch["case"], batch["image"], strict=True)}

    plain = epoch()
    data.set_contrast(2.0)
    strong = epoch()
    spec = PhantomSpec.from_yaml(spec_path)
    for name, image in strong.items():
        case = Phantoms(contrasted(spec, 2.0))[int(name.removeprefix("case_"))]
        assert torch.equal(image[0], torch.from_numpy(case.image))
        assert torch.equal(image, plain[name]) == (case.label == 0)
    assert torch.equal(data.dataset("val")[0]["image"], before)
    data.set_contrast(1.0)
    assert all(torch.equal(image, plain[name]) for name, image in epoch().items())


class _Trainer:
    def __init__(self, data: object, max_epochs: int = 10) -> None:
        self.datamodule, self.max_epochs, self.current_epoch = data, max_epochs, 0
        self.callback_metrics: dict[str, float] = {}


class _Task:
    task, classes = "binary", ("lesion",)

    def log(self, *_: object, **__: object) -> None: ...


def _run(curriculum: SubtletyCurriculum, data: PhantomDataModule, loss: Callable[[int], float]) -> list[float]:
    """Factors of ten epochs whose training losses are given."""
    trainer, factors = _Trainer(data), []
    curriculum.on_fit_start(trainer, _Task())  # type: ignore[arg-type]
    for epoch in range(10):
        factors.append(float(data._contrast))
        trainer.current_epoch, trainer.callback_metrics = epoch, {"train/loss": loss(epoch)}
        curriculum.on_train_epoch_end(trainer, _Task())  # type: ignore[arg-type]
    return factors


def test_it_waits_for_the_network_but_not_for_ever(spec_path: Path) -> None:
    data = PhantomDataModule(str(spec_path))
    quick = _run(SubtletyCurriculum(start=4, steps=2), data, lambda _: 0.1)
    assert quick == pytest.approx([4, 2, 1, 1, 1, 1, 1, 1, 1, 1])
    # Never ready: both steps are taken by epoch 6 of 10, the first one after half of that.
    slow = _run(SubtletyCurriculum(start=4, steps=2), data, lambda _: 0.69)
    assert slow == pytest.approx([4, 4, 4, 2, 2, 2, 1, 1, 1, 1])
    mixed = _run(SubtletyCurriculum(start=4, steps=2, until=1), data, lambda epoch: 0.1 if epoch == 3 else 0.5)
    assert mixed == pytest.approx([4, 4, 4, 4, 2, 2, 2, 2, 2, 2])


def test_a_run_logs_the_factor_and_resumes_at_it(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = [
        "fit", "--data", "PhantomDataModule", "--data.spec", str(spec_path), "--data.fresh", "true", *SMALL,
        "--trainer.callbacks+=SubtletyCurriculum", "--trainer.callbacks.start=1.5", "--trainer.callbacks.steps=4",
        "--trainer.callbacks.until=1", "--trainer.max_epochs", "4",
    ]  # fmt: skip
    main([*train, "--trainer.default_root_dir", "whole"])
    with Path("whole/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/contrast_factor"]) for row in rows] == pytest.approx(
        [1.5 ** (1 - n / 4) for n in range(4)], rel=1e-4
    )
    state = torch.load("whole/last.ckpt", weights_only=True)["callbacks"]
    assert next(value for key, value in state.items() if "SubtletyCurriculum" in key) == {"step": 4}


@pytest.mark.parametrize("arguments", [{"start": 0.5}, {"steps": 0}, {"ready": 0}, {"until": 1.5}])
def test_a_curriculum_out_of_range_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        SubtletyCurriculum(**arguments)  # type: ignore[arg-type]


def test_other_data_are_refused() -> None:
    with pytest.raises(InputError, match="use --data PhantomDataModule"):
        SubtletyCurriculum().on_fit_start(_Trainer(None), _Task())  # type: ignore[arg-type]


def test_a_contrast_beyond_the_range_of_intensities_is_refused(spec_path: Path) -> None:
    with pytest.raises(InputError, match=r"lesions of 50 times the contrast of .* cannot be drawn"):
        PhantomDataModule(str(spec_path)).set_contrast(50)
