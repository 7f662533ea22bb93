"""The same work in one process or several, with bounded memory, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Result = TypeVar("Result")
_work: tuple[Callable[..., Any], tuple[Any, ...]]


def run(
    function: Callable[..., Result], fixed: tuple[Any, ...], tasks: Iterable[Any], workers: int
) -> Iterator[Result]:
    """Yield ``function(*fixed, task)`` for each task, in order.

    With more than one worker, processes are spawned and ``fixed`` is sent to each once. If the consumer
    stops, for an error or Ctrl-C, tasks under way are finished and the rest dropped.

    Raises:
        Exception: whatever ``function`` raises.
    """
    if workers == 1:
        for task in tasks:
            yield function(*fixed, task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (function, fixed)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with _interrupts_held():
                    waiting.append(pool.submit(_call, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back from this thread, and for good from processes that it starts meanwhile.

    A terminal sends Ctrl-C to the whole group, while the parent alone decides what is dropped.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(function: Callable[..., Any], fixed: tuple[Any, ...]) -> None:
    global _work
    _work = function, fixed
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Exit when the parent is killed; a pool's worker would otherwise wait for ever for its next task."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _call(task: object) -> Any:  # noqa: ANN401 - the result of whatever function was sent
    function, fixed = _work
    return function(*fixed, task)
