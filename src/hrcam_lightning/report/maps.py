"""The maps of a run's test cases, made once more by the checkpoint, as `test` makes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from hrcam_lightning.callbacks.explainers import MODEL, Explainer
from hrcam_lightning.callbacks.localization import one_hot
from hrcam_lightning.callbacks.scale import ScaleFinder
from hrcam_lightning.errors import InputError
from hrcam_lightning.views import spacing_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.pytorch import Trainer
    from torch import Tensor

    from hrcam_lightning.data import Batch, LocalizationDataModule
    from hrcam_lightning.decoders import Decoder
    from hrcam_lightning.report.arrays import Bools, Floats
    from hrcam_lightning.report.evaluation import Evaluation
    from hrcam_lightning.task import LocalizationTask, StepOutput

VALUES = 20_000_000
"""Values of images and maps that a page holds: 400 cases of 64 x 64 with a dozen maps each; a byte each, compressed."""
MOST = 400
SAME = 0.01
"""By how much a probability may differ from that of the test: another device, another precision."""


class Built(NamedTuple):
    """What a command line comes to, not run yet."""

    trainer: Trainer
    task: LocalizationTask
    data: LocalizationDataModule
    checkpoint: Path


Build = Callable[[Sequence[str]], Built]
"""From the words of a command to what it comes to."""


@dataclass(frozen=True)
class SeenMaps:
    """Of one case, on the network's grid.

    Attributes:
        image: (*S), channels averaged, on the network's scale.
        affine: Voxel to millimetres; None for a picture.
        masks: (K, *S).
        maps: (K, *S) by explainer; the model's with its bias, see `LocalizationOutput.evidence`.
        levels: (K, *S) by level, of the image as it is.
    """

    image: Floats
    affine: np.ndarray[Any, np.dtype[np.float64]] | None
    masks: Bools
    maps: Mapping[str, Floats]
    levels: Mapping[str, Floats]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres along each axis; none for a picture."""
        return tuple(spacing_of(self.affine, self.image.ndim) or ())


@dataclass
class MapCollector(Callback):
    """Keep the maps of some cases of a test, and the probabilities of all.

    Attributes:
        order: Cases, those to be taken first.
        limit: How many are taken; None for as many as make a page of some 10 MB.
        explainers: What is mapped beside the model.
        with_levels: Keep what each level adds.
        others: Maps of other networks that a page holds of each case.
        seen: What was kept, by case.
        probabilities: Of every case, (K,).
        thresholds: (K,), from which a lesion counts as found in the model's evidence; NaN where there is none.
    """

    order: Sequence[str]
    limit: int | None
    explainers: Sequence[Explainer]
    with_levels: bool
    others: int = 0
    seen: dict[str, SeenMaps] = field(default_factory=dict)
    probabilities: dict[str, Floats] = field(default_factory=dict)
    thresholds: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    _finder: ScaleFinder = field(default_factory=ScaleFinder)
    _wanted: frozenset[str] | None = None

    def drop_broken(self) -> set[str]:
        """Leave out the maps that hold NaN or infinity in any case, of the model also its levels; says which."""
        kept = [(name, own) for one in self.seen.values() for name, own in one.maps.items()]
        broken = {name for name, own in kept if not np.isfinite(own).all()}
        for case, one in self.seen.items():
            maps = {name: own for name, own in one.maps.items() if name not in broken}
            self.seen[case] = replace(one, maps=maps, levels={} if MODEL in broken else one.levels)
        return broken

    def offsets(self) -> list[list[float]]:
        """What is added to each level and class to be shown, see `MapScale`: a level without its mean."""
        scale = self._finder.compute()
        return [] if scale is None else scale.offsets

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LocalizationTask,
        outputs: StepOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what is wanted of a batch."""
        output, network = outputs["output"], pl_module.network
        probabilities = pl_module.probabilities(output.logits).float().cpu().numpy()
        self.probabilities |= dict(zip(batch["case"], probabilities, strict=True))
        self.thresholds = _array(pl_module.thresholds + output.bias)
        self._finder.update(batch["case"], one_hot(batch["label"], output.maps.shape[1]), output, network)
        names = level_names(network.decoder) if self.with_levels else []
        if self._wanted is None:
            arrays = 2 + len(self.explainers) + len(names) + self.others
            count = self.limit or affordable(arrays * output.maps[0].numel())
            self._wanted = frozenset(self.order[:count])
        rows = [row for row, case in enumerate(batch["case"]) if case in self._wanted]
        if not rows:
            return
        maps = {MODEL: output.evidence[rows]}
        maps |= {one.name: one.maps(network, batch["image"][rows]) for one in self.explainers}
        size = output.maps.shape[2:]
        levels = {
            name: network.upsample(level[rows], number, size)
            for number, (name, level) in enumerate(zip(names, output.level_maps, strict=False))
        }
        made, added = ({name: _array(one) for name, one in of.items()} for of in (maps, levels))
        images, masks = _array(batch["image"][rows].float().mean(1)), batch["mask"][rows].cpu().numpy()
        for place, row in enumerate(rows):
            self.seen[batch["case"][row]] = SeenMaps(
                images[place],
                batch["affine"][row],
                masks[place],
                {name: one[place] for name, one in made.items()},
                {name: one[place] for name, one in added.items()},
            )


def affordable(values: int) -> int:
    """How many cases of so many values each make a page of some 10 MB; at most 400."""
    return max(1, min(MOST, VALUES // values))


def level_names(decoder: Decoder) -> list[str]:
    """A name for each level by its stride; none for a single level, which is the map itself."""
    if len(decoder.levels) == 1:
        return []
    strides = [
        f"stride {level.stride[0]:g}"
        if len(set(level.stride)) == 1
        else f"stride {' × '.join(f'{step:g}' for step in level.stride)}"
        for level in decoder.levels
    ]
    return [f"{name} ({number})" if strides.count(name) > 1 else name for number, name in enumerate(strides, 1)]


def collect(
    tested: Evaluation, built: Built, order: Sequence[str], limit: int | None, others: int | None = None
) -> MapCollector:
    """Map the test cases once more.

    Args:
        tested: What the test said of them.
        built: Of the run's configuration and checkpoint.
        order: Cases, those to be taken first.
        limit: How many are taken; None for as many as make a page of some 10 MB.
        others: Networks that are shown beside it, without explainers and levels then; None for the run by itself.

    Raises:
        InputError: If the checkpoint does not say of the cases what the test said.
    """
    explainers = [one.explainer for one in tested.maps if one.explainer is not None] if others is None else []
    collector = MapCollector(order, limit, explainers, with_levels=others is None, others=others or 0)
    trainer = built.trainer
    bars = [one for one in trainer.callbacks if isinstance(one, ProgressBar)]  # type: ignore[attr-defined]
    trainer.callbacks = [collector, *bars]  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # Those of the training are left out on purpose: they would write the files of a test.
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
        trainer.test(built.task, built.data, ckpt_path=str(built.checkpoint), weights_only=True, verbose=False)
    _compare(tested, collector.probabilities, built.checkpoint)
    return collector


def _compare(tested: Evaluation, found: Mapping[str, Any], checkpoint: Path) -> None:
    """Pictures of another network or of other cases must not stand beside the figures of a test."""
    run = tested.scores
    again = f"run hrcam test again with {checkpoint}"
    if set(run.cases) != set(found):
        raise InputError(
            f"{tested.folder}/test/cases.csv tells of {len(run.cases)} cases, and the data now have {len(found)}, "
            f"or others: {again}"
        )
    gaps = [np.abs(found[case] - told).max() for case, told in zip(run.cases, run.probability, strict=True)]
    gap = float(np.max(gaps))
    if not gap <= SAME:
        raise InputError(
            f"{checkpoint} gives a case a probability that is {gap:.2g} away from the one in "
            f"{tested.folder}/test/cases.csv: it is not the network, or these are not the images, that were tested; "
            f"{again}"
        )


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()
