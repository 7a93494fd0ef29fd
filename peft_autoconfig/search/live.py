"""A view of a running search: bar, time left, who trains what, the front, the last failures.

    with LiveView(search, 40) as view:
        search.run(objective, 40, callbacks=[view])

On a terminal it draws itself anew every second from what the run folder holds, other workers'
trials included. Elsewhere (a log, a pipe, a notebook) it writes one line as each trial ends. The
library never prints by itself: somebody has to open a view.

Imports `progress`, `search`, `trial` and rich; imported by the command line and the examples.
"""

import logging
import sys
import time
import warnings
from types import TracebackType

import optuna
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from ..tuner.config import AutoPEFTConfig
from .progress import Progress, progress_of
from .search import Search
from .trial import TrialRecord

__all__ = ["LiveView", "describe", "duration", "quieten", "render"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_READS = 1.0
REFRESHES_PER_SECOND = 4
# What fits a terminal of 24 lines beside the rest.
MOST_MEMBERS, MOST_WORKERS, MOST_FAILURES = 8, 6, 3


class LiveView:
    """Shows a search while it runs; a context, and a callback of `Search.run` and `Search.pilot`.

    Args:
        search: The search.
        num_trials: Complete trials that are wanted; None if unknown.
        title: What the bar is called; may be changed at any time.
        console: Where to; None takes stderr.
        enabled: Whether to show anything: of the processes of one launch only the first should.
    """

    def __init__(
        self,
        search: Search,
        num_trials: int | None = None,
        *,
        title: str = "search",
        console: Console | None = None,
        enabled: bool = True,
    ) -> None:
        self.title = title
        self._search, self._num_trials = search, num_trials
        self._console = console or Console(file=sys.stderr)
        self._enabled = enabled
        self._progress: Progress | None = None
        self._read_at = 0.0
        self._started = time.monotonic()
        is_drawn = enabled and self._console.is_terminal and not self._console.is_jupyter
        self._live = (
            Live(
                get_renderable=self._draw,
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )
            if is_drawn
            else None
        )

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, search: Search, record: TrialRecord) -> None:
        """Takes note of a trial that ended."""
        self._read_at = 0.0
        if self._live is None and self._enabled:
            line = _line(self.title, record, progress_of(search, self._num_trials))
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        """What rich's thread shows: the last reading, if a new one is not due or not possible."""
        now = time.monotonic()
        if self._progress is None or now - self._read_at >= SECONDS_BETWEEN_READS:
            try:
                self._progress = progress_of(self._search, self._num_trials)
            except Exception as error:  # a store that is busy; the next reading may succeed
                logger.debug("The run could not be read for the view: %s", error)
            self._read_at = now
        if self._progress is None:
            return Text(self.title)
        return render(self._progress, title=self.title, elapsed=now - self._started)


def render(progress: Progress, *, title: str = "search", elapsed: float | None = None) -> Group:
    """Returns a picture of a run's progress for a rich console.

    Args:
        progress: The progress.
        title: What the bar is called.
        elapsed: Seconds since the view was opened; None leaves it out.
    """
    parts: list[RenderableType] = [_bar(progress, title, elapsed)]
    if progress.running:
        parts.append(_workers(progress))
    if progress.front:
        parts.append(_front(progress))
    failures = progress.failures[:MOST_FAILURES]
    parts.extend(
        Text(
            f"trial {record.number} failed: {record.reason}",
            style="red",
            overflow="ellipsis",
            no_wrap=True,
        )
        for record in failures
    )
    return Group(*parts)


def describe(config: AutoPEFTConfig | None) -> str:
    """Returns a configuration in a few words: its parts that are not off, and its layers."""
    if config is None:
        return "unknown"
    sizes = {
        "serial": config.serial_bottleneck_size,
        "parallel": config.parallel_bottleneck_size,
        "prefix": config.prefix_length,
        "LoRA": getattr(config, "lora_rank", 0),
    }
    parts = [f"{name} {size}" for name, size in sizes.items() if size]
    layers = config.layers_to_transform
    where = "all layers" if layers is None else f"layers {_ranges(layers)}"
    return f"{', '.join(parts)}; {where}"


def duration(seconds: float | None) -> str:
    """Returns a time span as people say it, such as ``2 h 05 min``; "?" for None."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _bar(progress: Progress, title: str, elapsed: float | None) -> Table:
    row = Table.grid(padding=(0, 1))
    wanted = progress.num_trials
    words = [f"{progress.done}/{wanted or '?'} trials"]
    if progress.stopped:
        words.append(f"{progress.stopped} stopped early")
    if progress.failed:
        words.append(f"{progress.failed} failed")
    if elapsed is not None:
        words.append(duration(elapsed))
    if progress.seconds_left is not None and progress.done < (wanted or 0):
        words.append(f"{duration(progress.seconds_left)} left")
    bar = ProgressBar(total=wanted or 1, completed=progress.done, width=20)
    row.add_row(Text(title, style="bold"), bar, Text(", ".join(words)))
    return row


def _workers(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    for record in progress.running[:MOST_WORKERS]:
        since = (progress.at - record.started).total_seconds() if record.started else None
        table.add_row(
            Text(f"  {record.worker or 'nobody yet'}", style="cyan"),
            Text(f"trial {record.number}"),
            Text(duration(since)),
            Text(_settings(record), overflow="ellipsis", no_wrap=True),
        )
    if len(progress.running) > MOST_WORKERS:
        table.add_row(Text(f"  and {len(progress.running) - MOST_WORKERS} more"))
    return table


def _front(progress: Progress) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name, width in (("believed", 8), ("scored", 6), ("parameters", 10), ("trial", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("configuration", no_wrap=True, overflow="ellipsis")
    for record in reversed(progress.front[-MOST_MEMBERS:]):
        style = "bold green" if record == progress.best else ""
        table.add_row(
            f"{record.mean:.4f}",
            f"{record.score:.4f}",
            f"{record.num_params:,}",
            str(record.number),
            _settings(record),
            style=style,
        )
    if len(progress.front) > MOST_MEMBERS:
        table.add_row("", "", "", "", f"and {len(progress.front) - MOST_MEMBERS} smaller ones")
    return table


def _line(title: str, record: TrialRecord, progress: Progress) -> str:
    """One line of a log on a trial that ended."""
    if record.state == "COMPLETE":
        what = f"{record.score:.4f} with {record.num_params:,} parameters ({_settings(record)})"
    elif record.is_stopped:
        what = record.reason or "stopped"
    else:
        what = f"failed: {record.reason}"
    left = f", about {duration(progress.seconds_left)} left" if progress.seconds_left else ""
    best = f", best {progress.best.score:.4f}" if progress.best else ""
    count = f"{progress.done}/{progress.num_trials or '?'}"
    return f"{title} {count}: trial {record.number} {what}{best}{left}"


def _settings(record: TrialRecord) -> str:
    rate = "" if record.learning_rate is None else f"; rate {record.learning_rate:g}"
    return describe(record.config) + rate


def _ranges(layers: object) -> str:
    """Returns indices as runs, such as ``0-3, 7``; those of each part, if they differ."""
    if isinstance(layers, dict):
        return ", ".join(f"{part} {_ranges(indices)}" for part, indices in layers.items())
    if not isinstance(layers, list):
        return str(layers)
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def quieten() -> None:
    """Keeps Transformers, Optuna, PEFT and searches from writing between the lines of a view."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # a view tells of trials that fail
    logging.getLogger(Search.__module__).setLevel(logging.ERROR)
    # names that PEFT and we still use and transformers will drop
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
