"""A view of the trainings behind a table: a bar on a terminal, a line per training elsewhere.

Imports `comparison` and rich; imported by the command line and the examples.
"""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .comparison import Evaluated

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
        self._done = 0
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

    def __call__(self, evaluated: Evaluated, total: int) -> None:
        """Takes note of a training, one of ``total``, those that are stored already included."""
        self._done += 1
        self._bar.update(self._task, completed=self._done, total=total)
        if self._writes_lines:
            test = "" if evaluated.test is None else f", test {evaluated.test:.4f}"
            self._console.print(
                f"report {self._done}/{total}: dev {evaluated.dev:.4f}{test} with "
                f"{evaluated.num_params:,} parameters, seed {evaluated.seed}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
