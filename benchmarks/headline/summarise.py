"""Writes results/summary.json and the tables of README.md from results/<task>.json.

A comparison is a row of pairs of report-test scores: of each task, one for each seed. The best
hand-made choice is the one with the best mean on report-test itself, which favours it; what was
found was chosen by search-dev. The p is of a paired t-test over all pairs.
"""

import json
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import ttest_rel

HERE = Path(__file__).resolve().parent
MARK = "<!-- tables, written by summarise.py -->"
FULL = "full fine-tuning"
WITHOUT_BUDGET = ("linear probe", FULL)
LARGEST = "1.5%"  # the largest budget; how it is spelled in the rows

Task = dict
Row = dict
Pairs = dict[str, tuple[Row, Row]]  # by task

TITLES = {
    "ours_minus_best_handmade_at_equal_params": "ours, no larger than the best hand-made, less it",
    "ours_minus_full_fine_tuning": f"ours within {LARGEST}, less full fine-tuning",
    "ours_minus_random": f"ours less random search, within {LARGEST}",
    "transfer_minus_best_handmade": f"found on another task, less best hand-made, within {LARGEST}",
}


def main() -> None:
    contents = [json.loads(file.read_text()) for file in sorted(HERE.glob("results/*.json"))]
    tasks = [content for content in contents if "rows" in content]
    found = comparisons(tasks)
    summary: dict[str, object] = {"tasks": len(tasks)}
    summary |= {name: points(pairs) for name, pairs in found.items()}
    summary["names"] = [task["task"] for task in tasks]
    (HERE / "results" / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    parts = [MARK, "", *tests(found)]
    for task in tasks:
        parts += ["", *table(task)]
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    readme.write_text(text + "\n".join(parts) + "\n", encoding="utf-8")


def comparisons(tasks: list[Task]) -> dict[str, Pairs]:
    """Returns the rows to be compared, of each task that has both."""
    found: dict[str, Pairs] = {name: {} for name in TITLES}
    for task in tasks:
        best, within = best_hand_made(task), best_hand_made(task, LARGEST)
        pairs = {
            "ours_minus_best_handmade_at_equal_params": (
                best and row(task, "ours", f"as {best['name']}"),
                best,
            ),
            "ours_minus_full_fine_tuning": (row(task, "ours", LARGEST), named(task, FULL)),
            "ours_minus_random": (row(task, "ours", LARGEST), row(task, "random", LARGEST)),
            "transfer_minus_best_handmade": (row(task, "transferred", LARGEST), within),
        }
        for name, (ours, theirs) in pairs.items():
            if ours and theirs:
                found[name][task["task"]] = (ours, theirs)
    return found


def best_hand_made(task: Task, budget: str | None = None) -> Row | None:
    """Returns the hand-made row of the best mean, within a budget if one is given."""
    rows = [r for r in task["rows"] if r["kind"] == "hand-made" and r["name"] not in WITHOUT_BUDGET]
    if budget is not None:
        rows = [r for r in rows if r["num_params"] <= task["budgets"][budget]]
    return max(rows, key=lambda r: mean(r["scores"]), default=None)


def row(task: Task, kind: str, budget: str) -> Row | None:
    """Returns the row of what was found within a budget."""
    rows = (r for r in task["rows"] if r["kind"] == kind and r["budget"] == budget)
    return next(rows, None)


def named(task: Task, name: str) -> Row | None:
    """Returns the row of a name."""
    return next((r for r in task["rows"] if r["name"] == name), None)


def points(pairs: Pairs) -> float | None:
    """Returns the mean difference over tasks, in score points of a hundred."""
    differences = [mean(a["scores"]) - mean(b["scores"]) for a, b in pairs.values()]
    return round(100 * mean(differences), 2) if differences else None


def tests(found: dict[str, Pairs]) -> list[str]:
    """Returns the lines of the table of comparisons."""
    lines = ["| comparison (score points) | mean | by task | p | pairs |", "|---|--:|---|--:|--:|"]
    for name, pairs in found.items():
        ours = [score for a, _ in pairs.values() for score in a["scores"]]
        theirs = [score for _, b in pairs.values() for score in b["scores"]]
        by_task = ", ".join(f"{task} {points({task: pair})}" for task, pair in pairs.items())
        p = f"{ttest_rel(ours, theirs).pvalue:.2g}" if len(ours) > 1 else ""
        lines.append(f"| {TITLES[name]} | {points(pairs)} | {by_task} | {p} | {len(ours)} |")
    return lines


def table(task: Task) -> list[str]:
    """Returns the lines of the table of a task, the fewest parameters first within each kind."""
    total = task["num_base_params"]
    plan = task["plan"]
    lines = [
        f"**{task['task']}** ({plan['max_steps']} steps of {plan['batch_size']}, searches of "
        f"{plan['trials']} trials; constant predictor {task['constant']:.3f})",
        "",
        "| what | budget | parameters | % | rate | test score | sd | seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in task["rows"]:
        deviation = f"{stdev(r['scores']):.4f}" if len(r["scores"]) > 1 else ""
        lines.append(
            f"| {r['name']} | {r['budget'] or ''} | {r['num_params']:,} "
            f"| {100 * r['num_params'] / total:.2f} | {r['learning_rate']:g} "
            f"| {mean(r['scores']):.4f} | {deviation} | {len(r['scores'])} |"
        )
    return lines


if __name__ == "__main__":
    main()
