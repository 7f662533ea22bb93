"""The words of the subcommands that are not LightningCLI's: ``cases``, ``compare`` and ``report``."""

from __future__ import annotations

import argparse
from typing import NoReturn

from hrcam_lightning.errors import InputError


class WordParser(argparse.ArgumentParser):
    """Says in one sentence what it does not understand, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Leave.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message} (see {self.prog} --help)")
