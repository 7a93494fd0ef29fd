"""The work of the commands that look at runs: `status`, `front`, `report`, `compare`."""

import time
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live

from peft_autoconfig import AutoPEFTConfig, Search
from peft_autoconfig.bayes.pareto import hypervolume
from peft_autoconfig.errors import RunError
from peft_autoconfig.front.table import table_progress
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.run.folder import read_front
from peft_autoconfig.search.live import describe, duration, quieten, render
from peft_autoconfig.search.progress import Progress, progress_of
from peft_autoconfig.search.trial import TrialRecord, front_member

from .output import table, write

__all__ = ["compare", "front", "front_text", "members_of", "report", "status"]

SECONDS_BETWEEN_LOOKS = 1.0

Member = dict[str, Any]


def status(run: str, *, watch: bool, as_json: bool) -> None:
    """Writes how far a search is; with ``watch`` until it is done or interrupted."""
    quieten()
    search = Search.open(run)
    recipe = Recipe.of_run(run)
    wanted = recipe.num_trials if recipe else None
    progress = progress_of(search, wanted)
    if watch:
        progress = _watch(search, wanted)
    if as_json:
        write(_progress_values(run, search, progress), "", as_json=True)
    else:
        console = Console()
        console.print(render(progress, title=run))
        trainings = table_progress(search)
        if trainings is not None:
            done, total = trainings
            console.print(f"table of front and hand-made choices: {done}/{total or '?'} trainings")


def _watch(search: Search, wanted: int | None) -> Progress:
    progress = progress_of(search, wanted)
    console = Console(stderr=True)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while wanted is None or progress.done < wanted:
            live.update(render(progress, title=str(search.folder.path.name)), refresh=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            progress = progress_of(search, wanted)
    return progress


def _progress_values(run: str, search: Search, progress: Progress) -> dict[str, Any]:
    done, total = table_progress(search) or (0, None)
    return {
        "run": run,
        "num_trials": progress.num_trials,
        "complete": progress.complete,
        "stopped": progress.stopped,
        "failed": progress.failed,
        "waiting": progress.waiting,
        "seconds_per_trial": progress.seconds_per_trial,
        "seconds_left": progress.seconds_left,
        "running": [_running_values(record, progress.at) for record in progress.running],
        "front": members_of(search),
        "table": {"trainings": done, "total": total},
        "failures": [
            {"trial": record.number, "reason": record.reason} for record in progress.failures
        ],
    }


def _running_values(record: TrialRecord, now: datetime) -> dict[str, Any]:
    seconds = None if record.started is None else (now - record.started).total_seconds()
    return {"trial": record.number, "worker": record.worker, "seconds": seconds}


def members_of(search: Search) -> list[Member]:
    """Returns the front of a search as ``front.json`` has it."""
    base = search.about.get("num_base_params")
    return [front_member(record, base) for record in search.front()]


def front(source: str, *, max_params: int | None, as_json: bool) -> None:
    """Writes the front of a run folder or a Hub repository."""
    members = [
        member
        for member in read_front(source)
        if max_params is None or member["num_params"] <= max_params
    ]
    if not members:
        raise RunError(
            f"The front in {source} has no member"
            f"{'' if max_params is None else f' with at most {max_params} parameters'} yet."
        )
    write({"run": source, "front": members}, front_text(members), as_json=as_json)


def front_text(members: Sequence[Member]) -> str:
    """Returns a front as a table for people."""
    rows = [
        [
            str(member["trial"]),
            _text(member.get("mean"), ".4f"),
            _text(member.get("deviation"), ".4f"),
            _text(_percent(member.get("confidence")), ".0f"),
            f"{member['score']:.4f}",
            f"{member['num_params']:,}",
            _text(_percent(member.get("fraction")), ".2f"),
            _text(member["learning_rate"], "g"),
            describe(AutoPEFTConfig(**member["config"])),
        ]
        for member in members
    ]
    believed = ["believed", "sd", "% sure"]
    header = ["trial", *believed, "scored", "parameters", "%", "rate", "configuration"]
    return (
        f"{table(header, rows)}\n\n"
        "believed: the score without noise, by a model of all scores; sd: how far that may be off\n"
        "% sure: that it truly scores better than the line above it"
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def report(run: str, *, output: Path | None, as_json: bool) -> None:
    """Writes the HTML page of a run, and where it is."""
    quieten()
    page = import_module("peft_autoconfig.report").write_report(run, output)
    write({"report": str(page)}, f"Wrote {page}", as_json=as_json)


def compare(runs: Sequence[str], *, as_json: bool) -> None:
    """Writes several runs side by side."""
    quieten()
    values = _compared({run: Search.open(run) for run in runs})
    rows = [
        [
            str(value["complete"]),
            _text(value["best_score"], ".4f"),
            _text(value["best_num_params"], ","),
            _text(value["smallest_num_params"], ","),
            str(value["front_size"]),
            _text(value["hypervolume"], ".4f"),
            duration(value["seconds"]),
            value["task"],
            value["run"],
        ]
        for value in values
    ]
    header = ["trials", "best", "with", "smallest", "front", "hypervolume", "time", "task", "run"]
    write({"runs": values}, table(header, rows), as_json=as_json)


def _compared(searches: dict[str, Search]) -> list[dict[str, Any]]:
    complete = {
        run: [record for record in search.trials if record.state == "COMPLETE"]
        for run, search in searches.items()
    }
    everything = [record for records in complete.values() for record in records]
    scores = [record.score for record in everything if record.score is not None]
    counts = [record.num_params for record in everything if record.num_params]
    reference = (min(scores), _log10(max(counts))) if scores and counts else None
    return [_facts(run, search, complete[run], reference) for run, search in searches.items()]


def _facts(
    run: str,
    search: Search,
    complete: Sequence[TrialRecord],
    reference: tuple[float, float] | None,
) -> dict[str, Any]:
    front = search.front()
    task = search.about.get("task") or {}
    best = front[-1] if front else None
    return {
        "run": run,
        "model": search.about.get("model"),
        "task": task.get("name", "?") if isinstance(task, dict) else str(task),
        "complete": len(complete),
        "best_score": best.mean if best else None,
        "best_num_params": best.num_params if best else None,
        "smallest_num_params": front[0].num_params if front else None,
        "front_size": len(front),
        "hypervolume": _hypervolume(front, reference) if reference else None,
        "seconds": sum(record.seconds or 0.0 for record in complete),
    }


def _hypervolume(front: Sequence[TrialRecord], reference: tuple[float, float]) -> float:
    """Returns the area that a front covers, by what is believed of its members."""
    scores = torch.tensor([record.mean for record in front], dtype=torch.float64)
    costs = torch.tensor([record.num_params for record in front], dtype=torch.float64).log10()
    return hypervolume(scores, costs, reference)


def _log10(count: int) -> float:
    return float(torch.tensor(count, dtype=torch.float64).log10())


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
