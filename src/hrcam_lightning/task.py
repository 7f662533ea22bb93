"""The Lightning module: one shared step, a loss on image labels alone, and agreement between views."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.optim import AdamW, Optimizer

from hrcam_lightning.backbones import Backbone, ConvPyramid
from hrcam_lightning.decoders import HRCAM, Decoder
from hrcam_lightning.errors import InputError
from hrcam_lightning.losses import ClassWeights, balanced_weights, class_shares, cross_entropy, given_weights
from hrcam_lightning.model import LocalizationModel, LocalizationOutput
from hrcam_lightning.pooling import LogSumExpPooling, Pooling
from hrcam_lightning.schedules import Schedule, scheduler_config
from hrcam_lightning.skill import Skill
from hrcam_lightning.transfer import hold_still, load_matching
from hrcam_lightning.views import (
    View,
    ViewKind,
    average_views,
    disagreement,
    draw_view,
    flip_views,
    largest_shifts,
    spacing_of,
)
from hrcam_lightning.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
    from torch import Tensor
    from torch.optim.lr_scheduler import LRScheduler

    from hrcam_lightning.data.contract import Batch, TaskKind
    from hrcam_lightning.geometry import Level, Resampling
    from hrcam_lightning.transfer import Frozen


class TrainingOutput(TypedDict):
    """What a training step hands to the optimiser and the callbacks: the whole loss, and the part that skill is of."""

    loss: Tensor
    judged: Tensor


class StepOutput(TypedDict):
    """What a validation, test or prediction step hands to the callbacks."""

    output: LocalizationOutput


class LocalizationTask(LightningModule):
    """Train a classifier on image labels, and have it say where.

    What the data decide (`task`, `classes`, `channels`, `dims`) is taken from the data module when the run starts
    and is kept in the checkpoint; give it here to build the network at once.

    The defaults are our recipe: HR-CAM, log-sum-exp pooling, receptive-field resampling, agreement between views,
    views averaged at evaluation. The published forms switch the last three off.

    Args:
        task: ``binary`` (one logit), ``multiclass`` (softmax) or ``multilabel`` (a sigmoid a class).
        classes: Names of the K maps.
        channels: Image channels.
        dims: Spatial axes, 2 or 3.
        backbone: Makes the backbone from (channels, dims).
        decoder: Makes the decoder from (the backbone's levels, K).
        pooling: Makes the pooling of maps into logits.
        resampling: Where the cells of a level are taken to lie.
        consistency: Weight of the disagreement between the map of an image and of a view of it; 0 trains without views.
        level_loss: Weight, at first, of the mean loss of the levels' maps taken one by one, if the decoder has several:
            each has to tell the class by itself (deep supervision: Lee et al., AISTATS 2015), or the coarse ones, which
            learn it soonest, keep the evidence.
        full_skill: Skill (`hrcam_lightning.skill`) from which `consistency` has its whole weight and `level_loss` none.
            As long as the network knows nothing, agreement is had most cheaply from a flat map, and a network that
            learns it first learns nothing else. While levels are asked one by one, theirs counts. 0: from the start.
        views: What a training view may be made of.
        view_averaging: Average maps over all flips in validation, test and prediction.
        window: Pixels, one an axis, of the windows through which larger images are seen outside of training; the whole
            image at once if not given. Memory then follows the window. See `hrcam_lightning.windows`.
        window_overlap: Share by which neighbouring windows overlap, at least.
        class_weights: ``balanced`` weighs classes by how rare they are in the training cases, or one number a class:
            of the cases of each class if multiclass, else of the cases with the finding. In every loss that is logged.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: ``constant``, ``cosine`` or ``one_cycle`` over the whole run, or makes a torch scheduler from the
            optimiser, stepped at every epoch; ``ReduceLROnPlateau`` watches ``val/loss``.
        stop_rate: End training once the schedule has brought the learning rate to this or below; 0 for never.
        weights: File to start from: a checkpoint of ours, or a state dict of the network. All tensors that fit by name
            and shape are taken, the others are named.
        freeze: ``backbone`` trains the decoder alone, ``statistics`` everything but the statistics of the backbone's
            batch norm, ``none`` all. Transfer in two phases is a run with ``--model.freeze backbone``, then one with
            ``--model.weights`` of the first (PYLON's recipe).
        freeze_statistics: Keep a frozen backbone's batch-norm statistics as they are too. The published code of PYLON
            lets them move, so that they follow the new data.
    """

    def __init__(
        self,
        task: TaskKind | None = None,
        classes: list[str] | None = None,
        channels: int | None = None,
        dims: int | None = None,
        backbone: Callable[[int, int], Backbone] = ConvPyramid,
        decoder: Callable[[Sequence[Level], int], Decoder] = HRCAM,
        pooling: Callable[[], Pooling] = LogSumExpPooling,
        resampling: Resampling = "receptive_field",
        consistency: float = 1.0,
        level_loss: float = 1.0,
        full_skill: float = 0.1,
        views: list[ViewKind] = ["flip", "rotation", "shift"],  # noqa: B006 - a config default, never changed
        view_averaging: bool = True,
        window: list[int] | None = None,
        window_overlap: float = 0.5,
        class_weights: ClassWeights = "none",
        optimizer: Callable[[Any], Optimizer] = AdamW,
        lr_scheduler: Schedule | Callable[[Optimizer], LRScheduler] = "one_cycle",
        stop_rate: float = 0.0,
        weights: str | None = None,
        freeze: Frozen = "none",
        freeze_statistics: bool = True,
    ) -> None:
        super().__init__()
        for name, weight in {"consistency": consistency, "level_loss": level_loss}.items():
            if weight < 0:
                raise InputError(f"model.{name} is {weight}, but a weight must not be negative")
        if not 0 <= full_skill <= 1:
            raise InputError(f"model.full_skill is {full_skill}, but is a skill, 0 to 1")
        if consistency and not views:
            raise InputError("model.views is empty: name views, or set --model.consistency 0")
        if stop_rate < 0:
            raise InputError(f"model.stop_rate is {stop_rate}, but a learning rate must not be negative")
        self.save_hyperparameters()
        self.task, self.classes, self.channels, self.dims = task, classes, channels, dims
        self.make_optimizer = optimizer
        self.make_backbone, self.make_decoder, self.make_pooling = backbone, decoder, pooling
        self.resampling: Resampling = resampling
        self.consistency, self.level_loss, self.views = consistency, level_loss, views
        self.full_skill, self.skill = full_skill, Skill()
        self.view_averaging = view_averaging
        self.window, self.window_overlap = window, window_overlap
        self.how_weighted: ClassWeights = class_weights
        self.lr_scheduler, self.stop_rate = lr_scheduler, stop_rate
        self.weights, self.frozen, self.freeze_statistics = weights, freeze, freeze_statistics
        self.model: LocalizationModel | None = None
        self.thresholds: Tensor
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", None)
        if None not in (task, classes, channels, dims):
            self._build()

    # --- what the data decide

    def configure_model(self) -> None:
        """Build the network for the data at hand, or check that it was made for such data.

        Raises:
            InputError: If a checkpoint's classes, task or image kind are not those of the data.
        """
        # Not self.trainer: it raises where there is none, as in load_from_checkpoint.
        layout = getattr(getattr(self._trainer, "datamodule", None), "layout", None)
        if layout is not None:
            for name in ("task", "classes", "channels", "dims"):
                own, theirs = getattr(self, name), getattr(layout, name)
                if own is None:
                    setattr(self, name, theirs)
                elif theirs is not None and own != theirs:
                    mend = (
                        "--data.slices axial takes volumes as 2D images"
                        if name == "dims"
                        else (f"or set --data.{name} where the data module has it")
                    )
                    raise InputError(
                        f"the model is made for {name} {own}, but the data have {theirs}: use the data that it was "
                        f"trained for; {mend}"
                    )
        if self.model is None:
            missing = [name for name in ("task", "classes", "channels", "dims") if getattr(self, name) is None]
            if missing:
                raise InputError(f"the data do not say {', '.join(missing)}: give --model.{missing[0]}")
            self._build()
        if self.how_weighted == "balanced" and self._trainer is not None and self._trainer.state.fn == "fit":
            assert self.class_weights is not None
            self.class_weights.fill_(torch.nan)  # this run's data decide, unless it goes on from a checkpoint

    def _build(self) -> None:
        assert self.classes is not None
        assert self.channels is not None
        assert self.dims is not None
        if self.task == "binary" and len(self.classes) != 1:
            raise InputError(f"a binary task has one map, but classes is {self.classes}: use multilabel or multiclass")
        self.hparams.update(task=self.task, classes=self.classes, channels=self.channels, dims=self.dims)
        backbone = self.make_backbone(self.channels, self.dims)
        decoder = self.make_decoder(backbone.levels, len(self.classes))
        self.model = LocalizationModel(backbone, decoder, self.make_pooling(), self.resampling)
        # A run that tests has a checkpoint of its own.
        if self.weights is not None and (self._trainer is None or self._trainer.state.fn == "fit"):
            rank_zero_info(load_matching(self.model, Path(self.weights)))
        hold_still(backbone, self.frozen, self.freeze_statistics)
        backbone.train()  # until an epoch begins: the Trainer warns of a network that is not
        if self.window is not None:
            Windows(self.model, tuple(self.window), self.window_overlap)  # says at once what does not fit
        # Map values from which a lesion counts as found; set on validation cases, kept in the checkpoint.
        self.register_buffer("thresholds", torch.full((len(self.classes),), torch.nan))
        # Only where there are any, so that checkpoints without them still load; kept, so that val/loss stays the same.
        if self.how_weighted == "balanced":
            self.class_weights = torch.full((len(self.classes),), torch.nan)  # until the training cases are known
        elif self.how_weighted != "none":
            self.class_weights = given_weights(self.how_weighted, self.classes)

    @property
    def network(self) -> LocalizationModel:
        """The network, once the data or the arguments have decided its shape.

        Raises:
            InputError: If they have not.
        """
        if self.model is None:
            raise InputError(
                "the network is not built yet: give task, classes, channels and dims, or run it by a Trainer"
            )
        return self.model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings that are plain data, without the weights that training started from.

        Under the command line all of them are. From Python the parts are classes or functions; a checkpoint that loads
        without running code cannot hold these, so they are given again when it is loaded. The weights are in the
        checkpoint by now: neither their file nor a download may be needed to load it.
        """
        settings = checkpoint["hyper_parameters"]
        kept = copy.deepcopy({name: value for name, value in settings.items() if not callable(value)})
        kept["weights"] = None
        backbone = (kept.get("backbone") or {}).get("init_args") or {}
        for name, nothing in {"weights": None, "pretrained": False}.items():
            if name in backbone:
                backbone[name] = nothing
        checkpoint["hyper_parameters"] = kept
        checkpoint["data_module"] = self._data_module_name()
        checkpoint["skill"] = asdict(self.skill)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hand the data module its state, and forget thresholds of maps of another kind: averaged over views, or not.

        Lightning hands a state to a data module of the same class alone. A network that was trained on phantoms must
        see a user's scans on the same scale.
        """
        self.skill = Skill(**checkpoint.get("skill", {}))
        kept, own = checkpoint.get("data_module"), self._data_module_name()
        if kept in checkpoint and own is not None and own != kept:
            self.trainer.datamodule.load_state_dict(checkpoint[kept])  # type: ignore[attr-defined]
        settings = checkpoint["hyper_parameters"]
        if settings.get("view_averaging", self.view_averaging) != self.view_averaging:
            rank_zero_warn(
                "the checkpoint's thresholds were set with view_averaging "
                f"{not self.view_averaging} and are left out: give it to validate, fit or retrofit as well"
            )
            checkpoint["state_dict"]["thresholds"] = torch.full_like(checkpoint["state_dict"]["thresholds"], torch.nan)

    def _data_module_name(self) -> str | None:
        data = getattr(self._trainer, "datamodule", None)
        return None if data is None else type(data).__qualname__

    # --- steps

    def on_fit_start(self) -> None:
        """Weigh classes by the training cases: a checkpoint, which knows better, is loaded by now."""
        if self.how_weighted == "balanced":
            assert self.classes is not None
            assert self.class_weights is not None
            if self.class_weights.isnan().any():
                labels = self.trainer.datamodule.training_labels()  # type: ignore[attr-defined]
                self.class_weights.copy_(balanced_weights(self.task, labels, self.classes))

    def on_validation_start(self) -> None:
        """The same for a retrofit of a network that comes without a checkpoint."""
        self.on_fit_start()

    def on_train_epoch_start(self) -> None:
        """Hold still what is frozen: the Trainer has set the whole network's mode."""
        hold_still(self.network.backbone, self.frozen, self.freeze_statistics)

    def forward(self, images: Tensor) -> LocalizationOutput:
        """Logits and maps of images (B, C, *S), in evaluation through windows and averaged over flips if asked for."""
        if self.training:
            return self.network(images)  # type: ignore[no-any-return]
        windowed = self.window is not None
        look = Windows(self.network, tuple(self.window or ()), self.window_overlap) if windowed else self.network
        if self.view_averaging:
            return average_views(look, images, flip_views(images.ndim - 2))
        return look(images)

    def training_step(self, batch: Batch, batch_idx: int) -> TrainingOutput:
        """Loss of the batch, or of it and a view, with what is asked of the levels and of the views by now."""
        images, labels, size = batch["image"], batch["label"], len(batch["image"])
        view = self._draw_view(images, batch["affine"]) if self.consistency else None
        seen = images if view is None else torch.cat([images, view.apply(images)])
        labels = labels if view is None else torch.cat([labels, labels])
        output: LocalizationOutput = self.network(seen)
        parts = {"loss": self.loss(output.logits, labels)}
        total, judged, share = parts["loss"], parts["loss"], self.skill.share(self.full_skill)
        if self.level_loss and share < 1 and len(output.level_maps) > 1:
            alone = [self.loss(logits, labels) for logits in self.network.level_logits(output)]
            parts["level_loss"] = torch.stack(alone).mean()
            total = total + self.level_loss * (1 - share) * parts["level_loss"]
            # Plain lesions are known to the deepest level before the finer ones have begun: that must not end it.
            judged = torch.maximum(judged, parts["level_loss"])
        if view is not None:
            first, second = torch.split(output.maps, size)  # slices would each fill a gradient of the whole
            parts["disagreement"] = disagreement(view.inside(first), view.inside(view.invert(second)))
            total = total + self.consistency * share * parts["disagreement"]
        self._log_training(size, **parts)
        return {"loss": total, "judged": judged.detach()}

    def on_train_batch_end(self, outputs: TrainingOutput, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Learn from the batch's loss what the network knows: the same on every process."""
        if self.consistency or self.level_loss:
            assert self.classes is not None
            shares = class_shares(self.task, batch["label"].cpu(), len(self.classes))
            own = outputs["judged"].float().view(1)
            mean = self.trainer.strategy.reduce(torch.cat([own, shares.to(own)]), reduce_op="mean")
            loss, *found = torch.as_tensor(mean).tolist()
            self.skill.learn(self.task, loss, found, self.class_weights)
            self._log_training(len(batch["image"]), skill=self.skill.value)

    def validation_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Maps for the callbacks; logs ``val/loss``, which picks the best checkpoint: image labels only."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Maps for the callbacks."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> StepOutput | dict[str, Any]:
        """Maps for the callbacks; the labels are not looked at. Nothing if no case of the batch could be read."""
        return {"output": self(batch["image"])} if batch["case"] else {}

    def _evaluate(self, batch: Batch, stage: str) -> StepOutput:
        output: LocalizationOutput = self(batch["image"])
        loss = self.loss(output.logits, batch["label"])
        self.log(f"{stage}/loss", loss, batch_size=len(batch["image"]), sync_dist=True, prog_bar=stage == "val")
        return {"output": output}

    def _log_training(self, size: int, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.log(f"train/{name}", value, batch_size=size, on_step=False, on_epoch=True, sync_dist=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (B, K) against labels (B,) class numbers, or (B, K) findings if multilabel."""
        return cross_entropy(self.task, logits, labels, self.class_weights)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of each class, (B, K)."""
        return logits.softmax(-1) if self.task == "multiclass" else logits.sigmoid()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and schedule, both from the configuration.

        Raises:
            InputError: If either refuses its settings.
        """
        try:
            optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        except ValueError as error:
            raise InputError(f"model.optimizer cannot be made: {error}") from error
        steps = self.trainer.estimated_stepping_batches
        every = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": scheduler_config(self.lr_scheduler, optimizer, steps, every)}

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:  # noqa: ANN401
        """Step a schedule, and end training where it has fallen to `stop_rate`; one that warms up begins below it."""
        before = _rate(scheduler)
        super().lr_scheduler_step(scheduler, metric)
        if self.stop_rate and _rate(scheduler) <= min(self.stop_rate, before) and _rate(scheduler) < before:
            self.trainer.should_stop = True

    # --- views

    def _draw_view(self, images: Tensor, affines: Sequence[np.ndarray[Any, Any] | None]) -> View:
        # From the run's seed and the step: the same after a restart, and the same on every process.
        generator = torch.Generator().manual_seed((torch.initial_seed() * 1_000_003 + self.global_step) % 2**63)
        max_shift = largest_shifts(self.network.backbone.levels[-1])
        spacings = [spacing_of(affine, images.ndim - 2) for affine in affines]
        # One view for all: where voxels differ, the first case cannot say which axes may change places.
        alike = len({None if one is None else tuple(round(step, 3) for step in one) for one in spacings}) == 1
        kinds = self.views if alike else [kind for kind in self.views if kind != "rotation"]
        return draw_view(images.shape[2:], kinds, max_shift, generator, spacings[0])


def _rate(scheduler: LRSchedulerTypeUnion) -> float:
    return max(float(group["lr"]) for group in scheduler.optimizer.param_groups)
