"""Data modules and the contracts they keep."""

from hrcam_lightning.data.cases import CaseDataModule
from hrcam_lightning.data.ceiling import Ceiling
from hrcam_lightning.data.contract import Batch, Layout, TaskKind
from hrcam_lightning.data.known import KnownLesion
from hrcam_lightning.data.module import LocalizationDataModule
from hrcam_lightning.data.phantoms import PhantomDataModule

__all__ = [
    "Batch",
    "CaseDataModule",
    "Ceiling",
    "KnownLesion",
    "Layout",
    "LocalizationDataModule",
    "PhantomDataModule",
    "TaskKind",
]
