"""Classifiers trained on image labels that also say where, at image resolution, from one forward pass."""

from hrcam_lightning.errors import InputError
from hrcam_lightning.export import export
from hrcam_lightning.model import LocalizationModel, LocalizationOutput
from hrcam_lightning.task import LocalizationTask

__version__ = "0.1.0"
__all__ = ["InputError", "LocalizationModel", "LocalizationOutput", "LocalizationTask", "__version__", "export"]
