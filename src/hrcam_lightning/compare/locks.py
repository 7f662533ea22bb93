"""Waiting for one another: processes that work in one folder."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path, busy: str, say: Callable[[str], None]) -> Iterator[int]:
    """Hold a lock, once whoever else holds it is done.

    Args:
        path: The lock; left behind, for one that is removed could be held twice.
        busy: What is said if there is something to wait for.
        say: Told so.

    Yields:
        The open file; processes that inherit it hold the lock as long as they live.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
