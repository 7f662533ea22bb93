"""The protocol from end to end: folds, maps, Dice, retraining. What is finished lies on disk and is not done again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Subset

from hrcam_lightning import __version__
from hrcam_lightning.errors import InputError
from hrcam_lightning.files import replacing
from hrcam_lightning.filtered.dice import dice_curves
from hrcam_lightning.filtered.facts import Facts, read_facts
from hrcam_lightning.filtered.filters import Fill, FilteredDataset, Kind, Negatives, Rule
from hrcam_lightning.filtered.folds import folds_of
from hrcam_lightning.filtered.maps import CaseMaps, scale_of
from hrcam_lightning.filtered.training import StudyData, explain_to, key_of, logits_of, shaping, train

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch.utils.data import Dataset

    from hrcam_lightning.callbacks.explainers import Explainer
    from hrcam_lightning.data import LocalizationDataModule
    from hrcam_lightning.data.module import Sample, Split
    from hrcam_lightning.filtered.maps import Bools, Maps, Scale
    from hrcam_lightning.filtered.progress import Progress
    from hrcam_lightning.metrics.estimate import Floats
    from hrcam_lightning.task import LocalizationTask

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Protocol:
    """What is asked.

    Attributes:
        folds: Parts of the training cases, each explained by a network trained on the others.
        seeds: Trainings of each kind.
        fill: What stands for a pixel that is not shown.
        threshold: Strength from which a pixel is of the map's mask.
        equal_area: Masks of one area for all images.
        negatives: Whose map filters a negative case.
        kinds: Kinds of filtered image; the originals first.
        seed: The first training's.
    """

    folds: int
    seeds: int
    fill: Fill
    threshold: float
    equal_area: bool
    negatives: Negatives
    kinds: tuple[Kind, ...]
    seed: int


@dataclass(frozen=True)
class Findings:
    """What a study has found.

    Attributes:
        facts: Of each split.
        fold: (n,) of each training case.
        curves: Of each split, Dice of its cases as of `dice_curves`.
        area: Pixels of each filter's mask; None where they differ.
        logits: Of each kind, (seeds, n) of the test cases.
        shown: Of each kind, the filtered test cases.
    """

    facts: Mapping[Split, Facts]
    fold: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    curves: Mapping[Split, Floats]
    area: int | None
    logits: Mapping[Kind, Floats]
    shown: Mapping[Kind, FilteredDataset]


class Study:
    """A study in a folder.

    Args:
        protocol: What is asked.
        task: What is trained, each time a copy from the start.
        data: The cases.
        explainer: What makes the maps.
        settings: Arguments of the trainers.
        folder: Where it lies.
        device: Where maps are made.
        progress: Where to say how far it is.
    """

    def __init__(
        self,
        protocol: Protocol,
        task: LocalizationTask,
        data: LocalizationDataModule,
        explainer: Explainer,
        settings: Mapping[str, Any],
        folder: Path,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.protocol, self.task, self.data, self.explainer = protocol, task, data, explainer
        self.settings, self.folder, self.device, self.progress = settings, folder, device, progress
        self.cases: dict[Split, Dataset[Sample]] = {}
        self.facts: dict[Split, Facts] = {}

    def run(self) -> Findings:
        """Do what is not done yet, and gather all of it.

        Raises:
            InputError: If the data cannot be used.
        """
        for split in SPLITS:
            self.cases[split] = self.data.dataset(split)
            batches = self.progress.track(self.data.in_order(split), f"reading {split}")
            self.facts[split] = read_facts(batches, split)
        self._check()
        fold = folds_of(self.facts["train"].subjects, self.facts["train"].labels, self.protocol.folds)
        maps = self._explain(fold)
        area = self._area(maps["train"]) if self.protocol.equal_area else None
        rule = Rule(
            self.protocol.threshold,
            area,
            self.protocol.fill,
            torch.from_numpy(self.facts["train"].mean.astype(np.float32)),
            self.protocol.negatives,
        )
        curves = {split: dice_curves(self._positives(split, maps[split]), self.protocol.threshold) for split in SPLITS}
        logits: dict[Kind, Floats] = {}
        shown: dict[Kind, FilteredDataset] = {}
        for kind in self.protocol.kinds:
            filtered: dict[str, Dataset[Sample]] = {
                split: FilteredDataset(self.cases[split], self.facts[split], maps[split], rule, kind)
                for split in SPLITS
            }
            shown[kind] = filtered["test"]  # type: ignore[assignment]
            logits[kind] = np.stack([self._retrain(kind, number, filtered) for number in range(self.protocol.seeds)])
        return Findings(self.facts, fold, curves, area, logits, shown)

    def _check(self) -> None:
        shapes = {split: facts.shape for split, facts in self.facts.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"images are {shapes} (channels, axes): filtered-retrain needs images of one shape")
        if not any(kind.startswith("truth") for kind in self.protocol.kinds):
            return
        for split, facts in self.facts.items():
            bare = np.flatnonzero((facts.labels == 1) & (facts.areas == 0))
            if len(bare):
                raise InputError(
                    f"truth_inside and truth_outside need the mask of every positive case, but {facts.names[bare[0]]} "
                    f"({split}) has none: give --kinds without them"
                )

    def _area(self, maps: CaseMaps) -> int:
        """Pixels that reach the threshold, in the mean over positive training cases."""
        positives = np.flatnonzero(self.facts["train"].labels == 1)
        mean = np.mean([(maps.strength(int(index)) >= self.protocol.threshold).sum() for index in positives])
        return max(1, round(float(mean)))

    def _positives(self, split: Split, maps: CaseMaps) -> Iterator[tuple[Maps, Bools]]:
        for index in np.flatnonzero(self.facts[split].labels == 1).tolist():
            yield maps.strength(index), self.cases[split][index]["mask"][0].numpy()

    def _explain(self, fold: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> dict[Split, CaseMaps]:
        """Maps of all cases: of a training case by the network of its fold, of others by that of all folds."""
        train, files, rows = self.cases["train"], [], np.zeros(len(fold), dtype=np.int64)
        for number in range(self.protocol.folds):
            held = np.flatnonzero(fold == number)
            rows[held] = np.arange(len(held))
            rest = np.flatnonzero(fold != number).tolist()
            splits = {"train": Subset(train, rest), "val": self.cases["val"], "held": Subset(train, held.tolist())}
            (path,) = self._network(f"fold_{number}", splits, {"held": f"maps/fold_{number}"})
            files.append(path)
        wanted = {"val": "maps/val", "test": "maps/test"}
        val, test = self._network("network of all folds", self.cases, wanted)
        labels = self.facts["train"].labels
        scales = [scale_of(path, labels[fold == number]) for number, path in enumerate(files)]
        whole = scale_of(val, self.facts["val"].labels)  # test cases must not set their own
        places = [(files[home], int(row)) for home, row in zip(fold.tolist(), rows, strict=True)]
        return {
            "train": CaseMaps(places, [scales[home] for home in fold.tolist()]),
            "val": _of_one(val, self.facts["val"], whole),
            "test": _of_one(test, self.facts["test"], whole),
        }

    def _network(self, name: str, splits: Mapping[Any, Dataset[Sample]], wanted: Mapping[str, str]) -> list[Path]:
        """Files with the maps of one network; it is trained if one of them is missing.

        The network of all folds is the first of the retrained ones on originals too, and leaves its logits.
        """
        key = key_of(self._identity(), self.protocol.folds, self.explainer.key)
        paths = {split: self.folder / f"{stem}-{key}.npy" for split, stem in wanted.items()}
        logits = self._logits_path("original", 0)
        if not all(path.is_file() for path in paths.values()):
            with self.progress.job(name) as show:
                data = StudyData(self.data, splits)
                task = train(self.task, data, self.settings, self.folder, self.protocol.seed, show)
                for split, path in paths.items():
                    found = explain_to(path, task, data.in_order(split), self.device, self.explainer)  # type: ignore[arg-type]
                    _sweep(path)
                    if split == "test":
                        _save(logits, found)
        else:
            self.progress.skip(name)
        return list(paths.values())

    def _retrain(self, kind: Kind, number: int, splits: Mapping[str, Dataset[Sample]]) -> Floats:
        """Logits of the test cases by a network trained and tested on filtered images."""
        path = self._logits_path(kind, number)
        if path.is_file():
            if (kind, number) != ("original", 0):
                self.progress.skip(f"{kind}, seed {number + 1}")
        else:
            with self.progress.job(f"{kind}, seed {number + 1} of {self.protocol.seeds}") as show:
                data = StudyData(self.data, splits)
                task = train(self.task, data, self.settings, self.folder, self.protocol.seed + number, show)
                _save(path, logits_of(task, data.in_order("test"), self.device))
        return np.asarray(np.load(path))

    def _logits_path(self, kind: Kind, number: int) -> Path:
        parts: Sequence[object] = [self._identity(), number]
        if kind != "original":
            filters = {name: value for name, value in asdict(self.protocol).items() if name not in ("seeds", "kinds")}
            parts = [*parts, filters, self.explainer.key]
        return self.folder / "logits" / f"{kind}_{number}-{key_of(*parts)}.npy"

    def _identity(self) -> tuple[object, ...]:
        """What every training depends on."""
        digests = {split: facts.digest for split, facts in self.facts.items()}
        network = {name: value for name, value in self.task.hparams.items() if not name.startswith("_")}
        sees = self.data.batch_size, repr(self.data.augmentation), getattr(self.data, "sampling", "natural")
        return __version__, network, shaping(self.settings), digests, sees, self.protocol.seed


def _of_one(path: Path, facts: Facts, scale: Scale) -> CaseMaps:
    """Maps by one network, in one file."""
    count = len(facts.names)
    return CaseMaps([(path, row) for row in range(count)], [scale] * count)


def _save(path: Path, logits: Floats) -> None:
    with replacing(path) as part:
        np.save(part, logits)
    _sweep(path)


def _sweep(path: Path) -> None:
    """Remove the same file of other settings: maps are large, and no later run could tell which it had made."""
    stem = path.name.rpartition("-")[0]
    for other in path.parent.glob(f"{stem}-*.npy"):
        if other != path:
            other.unlink(missing_ok=True)
