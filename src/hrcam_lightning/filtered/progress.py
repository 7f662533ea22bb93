"""How far a study is: which training it is at, and what share of that is done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")


class Progress:
    """Two bars: trainings done of all, and the one at hand.

    Args:
        trainings: How many there are in all.
        shown: Whether to draw.
    """

    def __init__(self, trainings: int, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
        )  # fmt: skip
        self.bars = Bars(*columns, disable=not shown)
        self.all = self.bars.add_task("filtered-retrain", total=trainings, unit="trainings")

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def track(self, items: Iterable[T], name: str) -> Iterator[T]:
        """Give items one by one."""
        one = self.bars.add_task(name, total=len(items), unit="batches")  # type: ignore[arg-type]  # a loader has one
        for item in items:
            yield item
            self.bars.advance(one)
        self.bars.remove_task(one)

    @contextmanager
    def job(self, name: str) -> Iterator[Callable[[float], None]]:
        """Show a training; tell what is given the share that is done."""
        one = self.bars.add_task(name, total=100, unit="%")
        yield lambda share: self.bars.update(one, completed=round(100 * share))
        self.bars.remove_task(one)
        self.bars.advance(self.all)

    def skip(self, name: str) -> None:
        """Count a training that was done before."""
        self.bars.console.print(f"{name}: done before", highlight=False)
        self.bars.advance(self.all)
