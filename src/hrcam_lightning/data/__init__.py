"""Data modules and the contracts they keep."""

from hrcam_lightning.data.cases import CaseDataModule
from hrcam_lightning.data.contract import Batch, Layout, TaskKind
from hrcam_lightning.data.module import LocalizationDataModule
from hrcam_lightning.data.phantoms import PhantomDataModule

__all__ = ["Batch", "CaseDataModule", "Layout", "LocalizationDataModule", "PhantomDataModule", "TaskKind"]
