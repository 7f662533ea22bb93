"""Which errors are bad input, and the sentence that a user reads of them."""

from __future__ import annotations

import re

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hrcam_lightning.errors import InputError

# jsonargparse's words where a logger or callback cannot be built, as when its package is missing
UNBUILT = re.compile(r"Problem with given class_path '(?P<name>[^']+)':\s*(?P<why>[^\n]+)")


def refusal(error: BaseException) -> str | None:
    """What a user has to mend, in one sentence; None if the error is a fault of the program.

    Args:
        error: As it left a command; the bad input may be a cause of it.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, InputError | ArgumentError | MisconfigurationException):
        seen = seen.__cause__ or seen.__context__
    if seen is not None:
        return _sentence(str(seen))
    if isinstance(error, ValueError) and (found := UNBUILT.search(str(error))):
        return _sentence(f"{found['name']} cannot be used: {found['why']}")
    return _sentence(str(error)) if _of_lightning(error) else None


def _of_lightning(error: BaseException) -> bool:
    """Whether Lightning itself refuses a setting, such as a metric to stop by that nobody logs."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    module = "" if last is None else str(last.tb_frame.f_globals.get("__name__"))
    return isinstance(error, ValueError | RuntimeError) and module.startswith("lightning.pytorch.")


def _sentence(text: str) -> str:
    if "Original Traceback" in text:  # from a loader process; the sentence is the last line
        text = text.rsplit("InputError: ", 1)[-1]
    return " ".join(text.split())
