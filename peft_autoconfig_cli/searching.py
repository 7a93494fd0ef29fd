"""The work of `search`: pilot, trials, and the table of the front beside hand-made choices."""

from pathlib import Path
from typing import Any

from peft_autoconfig import Search
from peft_autoconfig.front import markdown_table
from peft_autoconfig.front.comparison import Row
from peft_autoconfig.front.view import TableView
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.search.live import LiveView, quieten
from peft_autoconfig.search.trackers import Trackers
from peft_autoconfig.training import Training

from .options import Given
from .output import write
from .recipes import recipe_of
from .runs import front_text, members_of

__all__ = ["search"]


def search(
    given: Given, config: Path | None, *, output: str | None, track: str | None, as_json: bool
) -> None:
    """Runs a whole search by a recipe and writes its front and its table."""
    quieten()
    recipe = recipe_of(given, config, Path(output) if output else None)
    run = output or str(Path("runs") / recipe.label)
    training = recipe.training()
    with training.together() as leads:
        if leads:
            _search(recipe, training, run, track=track, as_json=as_json)


def _search(
    recipe: Recipe, training: Training, run: str, *, track: str | None, as_json: bool
) -> None:
    search = recipe.search(training, run)
    is_first = training.accelerator.is_local_main_process
    names = [name.strip() for name in (track or "").split(",") if name.strip()]
    with Trackers(names, search) as trackers:
        with LiveView(search, recipe.num_trials, enabled=is_first) as live:
            recipe.run(search, training, callbacks=[live, trackers])
    # the processes of one launch may each search, but the table is one process's work
    if not training.accelerator.is_main_process:
        return
    with TableView(enabled=recipe.report_seeds > 0) as view:
        rows = recipe.compare(search, training, notify=view)
    value: dict[str, Any] = {
        "run": run,
        "front": members_of(search),
        "table": [_row_values(row) for row in rows],
    }
    write(value, _text(search, training, rows, run), as_json=as_json)


def _row_values(row: Row) -> dict[str, Any]:
    return {
        "method": row.name,
        "trial": row.trial,
        "num_params": row.num_params,
        "learning_rate": row.learning_rate,
        "test_scores": list(row.scores),
    }


def _text(search: Search, training: Training, rows: list[Row], run: str) -> str:
    task = training.task
    parts = [
        f"Front on {task.name}, by {task.metric.name} on search-dev:",
        front_text(members_of(search)),
    ]
    if rows:
        base = search.about["num_base_params"]
        parts += ["On the report-test split, which the search has not seen:"]
        parts += [markdown_table(rows, task.metric.name, base)]
    parts.append(
        f"See it:  peft-autoconfig report {run}\n"
        f"Use it:  peft-autoconfig train {run} --select knee\n"
        f'         AutoPEFTConfig.from_search("{run}")'
    )
    return "\n\n".join(parts)
