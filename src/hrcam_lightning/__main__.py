"""``python -m hrcam_lightning``."""

from hrcam_lightning.cli import console

console()
