"""Writes results/summary.json and the tables of README.md from results/<task>.json.

A comparison is a row of pairs of report-test scores: of each task, one for each seed. Both sides
were chosen by search-dev and one seed, as a user would choose; beside it stands the comparison with
the hand-made choice that turned out best on report-test itself. The p is of a paired t-test over
all pairs.
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
Pairs = list[tuple[str, Row, Row]]  # a task, and two rows of it

TITLES = {
    "ours_minus_best_handmade_at_equal_params": "ours, no larger than the best hand-made, less it",
    "ours_minus_best_by_test": "the same, the hand-made one chosen by report-test (favours it)",
    "ours_minus_each_handmade": "ours, no larger than each hand-made, less it: mean over them",
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
    summary["p"] = {name: p_value(pairs) for name, pairs in found.items()}
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
    found: dict[str, Pairs] = {name: [] for name in TITLES}
    for task in tasks:
        rows = hand_made(task)
        if not rows:
            continue
        best, best_by_test = max(rows, key=dev), max(rows, key=test)
        within = [r for r in rows if r["num_params"] <= task["budgets"][LARGEST]]
        ours = row(task, "ours", LARGEST)
        pairs = [
            ("ours_minus_best_handmade_at_equal_params", no_larger(task, best), best),
            ("ours_minus_best_by_test", no_larger(task, best_by_test), best_by_test),
            *(("ours_minus_each_handmade", no_larger(task, r), r) for r in rows),
            ("ours_minus_full_fine_tuning", ours, named(task, FULL)),
            ("ours_minus_random", ours, row(task, "random", LARGEST)),
            (
                "transfer_minus_best_handmade",
                row(task, "transferred", LARGEST),
                max(within, key=dev),
            ),
        ]
        for name, first, second in pairs:
            if first and second:
                found[name].append((task["task"], first, second))
    return found


def hand_made(task: Task) -> list[Row]:
    """Returns the hand-made rows that a found configuration may be held to in parameters."""
    rows = (r for r in task["rows"] if r["kind"] == "hand-made")
    return [r for r in rows if r["name"] not in WITHOUT_BUDGET]


def dev(row: Row) -> float:
    return row["dev"]


def test(row: Row) -> float:
    return mean(row["scores"])


def no_larger(task: Task, than: Row) -> Row | None:
    """Returns what was found within the parameters of a hand-made choice."""
    return row(task, "ours", f"as {than['name']}")


def row(task: Task, kind: str, budget: str) -> Row | None:
    """Returns the row of what was found within a budget."""
    rows = (r for r in task["rows"] if r["kind"] == kind and r["budget"] == budget)
    return next(rows, None)


def named(task: Task, name: str) -> Row | None:
    """Returns the row of a name."""
    return next((r for r in task["rows"] if r["name"] == name), None)


def points(pairs: Pairs) -> float | None:
    """Returns the mean difference over tasks, in score points of a hundred."""
    by_task: dict[str, list[float]] = {}
    for task, first, second in pairs:
        by_task.setdefault(task, []).append(test(first) - test(second))
    return round(100 * mean(map(mean, by_task.values())), 2) if by_task else None


def p_value(pairs: Pairs) -> float | None:
    """Returns the p of the paired t-test over all seeds of all tasks."""
    firsts = [score for _, first, _ in pairs for score in first["scores"]]
    seconds = [score for _, _, second in pairs for score in second["scores"]]
    return float(f"{ttest_rel(firsts, seconds).pvalue:.2g}") if len(firsts) > 1 else None


def tests(found: dict[str, Pairs]) -> list[str]:
    """Returns the lines of the table of comparisons."""
    lines = ["| comparison (score points) | mean | by task | p | pairs |", "|---|--:|---|--:|--:|"]
    for name, pairs in found.items():
        tasks = dict.fromkeys(task for task, _, _ in pairs)
        by_task = ", ".join(f"{t} {points([p for p in pairs if p[0] == t])}" for t in tasks)
        count = sum(len(first["scores"]) for _, first, _ in pairs)
        p = "" if (value := p_value(pairs)) is None else value
        lines.append(f"| {TITLES[name]} | {points(pairs)} | {by_task} | {p} | {count} |")
    return lines


def table(task: Task) -> list[str]:
    """Returns the lines of the table of a task, the fewest parameters first within each kind."""
    total = task["num_base_params"]
    plan = task["plan"]
    lines = [
        f"**{task['task']}** ({plan['max_steps']} steps of {plan['batch_size']}, searches of "
        f"{plan['trials']} trials; constant predictor {task['constant']:.3f})",
        "",
        "| what | budget | parameters | % | rate | dev score | test score | sd | seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in task["rows"]:
        dev_score = "" if r["dev"] is None else f"{r['dev']:.4f}"
        deviation = f"{stdev(r['scores']):.4f}" if len(r["scores"]) > 1 else ""
        lines.append(
            f"| {r['name']} | {r['budget'] or ''} | {r['num_params']:,} "
            f"| {100 * r['num_params'] / total:.2f} | {r['learning_rate']:g} "
            f"| {dev_score} | {mean(r['scores']):.4f} | {deviation} | {len(r['scores'])} |"
        )
    return lines


if __name__ == "__main__":
    main()
