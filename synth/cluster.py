"""The same work on a Dask cluster, whose workers see the set's folder under the same path."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from synth.files import DatasetError
from synth.reading import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

    from synth.dataset import Spread

KEY = "--dask"
CONNECT_SECONDS = 10
POLL_SECONDS = 5


@contextmanager
def cluster(address: str) -> Iterator[Spread]:
    """Connect to a Dask scheduler; give what spreads work over its workers.

    Raises:
        SpecError: Dask is not installed, or no scheduler answers at ``address``.
    """
    try:
        from distributed import Client
    except ImportError:
        raise SpecError("needs Dask: pip install 'hrcam-lightning[cluster]'", key=KEY) from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError):
        raise SpecError(f"is {address!r}, where no Dask scheduler answers", key=KEY) from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it has to say is raised
    with client:
        yield partial(_spread, client)


def _spread(
    client: Client, function: Callable[..., Any], fixed: tuple[Any, ...], tasks: Iterable[Any]
) -> Iterator[Any]:
    """Yield ``function(*fixed, task)`` for each task, in order, with as many under way as keep workers busy.

    Raises:
        DatasetError: the workers or the scheduler were lost.
        Exception: whatever ``function`` raises.
    """
    from distributed import KilledWorker

    ahead = 2 * max(1, sum(client.nthreads().values()))
    waiting: deque[Any] = deque()
    try:
        for task in tasks:
            waiting.append(client.submit(function, *fixed, task, pure=False))
            if len(waiting) > ahead:
                yield _result(client, waiting.popleft())
        while waiting:
            yield _result(client, waiting.popleft())
    except KilledWorker:
        raise DatasetError("Dask workers were killed (out of memory?): continue with --resume") from None
    except CancelledError:
        raise DatasetError("the Dask scheduler was lost: continue with --resume") from None


def _result(client: Client, future: Any) -> Any:  # noqa: ANN401 - the result of whatever function was sent
    while True:
        try:
            return future.result(timeout=POLL_SECONDS)
        except TimeoutError:
            # What is sent while the scheduler goes away is neither done nor cancelled, ever.
            if future.status == "pending" and client.status != "running":
                raise CancelledError from None
