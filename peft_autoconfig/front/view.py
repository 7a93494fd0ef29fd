"""A view of the trainings behind a table: a bar on a terminal, a line per training elsewhere.

Imports `search`, `comparison` and rich; imported by the command line and the examples.
"""

import sys
from statistics import mean
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..search.live import duration
from .comparison import TableStep

__all__ = ["TableView"]


class TableView:
    """Counts trainings; a context, and the ``notify`` of `Recipe.compare`.

    Args:
        console: Where to; None takes stderr.
        enabled: Whether to show anything.
    """

    def __init__(self, *, console: Console | None = None, enabled: bool = True) -> None:
        self._console = console or Console(file=sys.stderr)
        is_drawn = self._console.is_terminal and not self._console.is_jupyter
        self._seconds: list[float] = []
        self._writes_lines = enabled and not is_drawn
        self._bar = Progress(
            TextColumn("[bold]report"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("trainings, left:"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (enabled and is_drawn),
        )
        self._task = self._bar.add_task("report", total=None)

    def __enter__(self) -> "TableView":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, step: TableStep) -> None:
        """Takes note of a training; one that was stored before makes no line."""
        self._bar.update(self._task, completed=step.done, total=step.total)
        if step.is_new:
            self._seconds.append(step.evaluated.seconds)
            if self._writes_lines:
                self._console.print(self._line(step), markup=False, highlight=False, soft_wrap=True)

    def _line(self, step: TableStep) -> str:
        evaluated = step.evaluated
        test = "" if evaluated.test is None else f", test {evaluated.test:.4f}"
        left = (step.total or step.done) - step.done
        time_left = f", about {duration(left * mean(self._seconds))} left" if left else ""
        return (
            f"report {step.done}/{step.total or '?'}: {step.name}, rate "
            f"{evaluated.learning_rate:g}, seed {evaluated.seed}: dev "
            f"{evaluated.dev:.4f}{test}{time_left}"
        )
