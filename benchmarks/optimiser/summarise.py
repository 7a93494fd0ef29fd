"""From stored searches to results/summary.json, results/anytime.svg and the tables of README.md.

What has not been run is null in the summary and a dash in the table. A mean is taken over the
instances of a cell, in brackets where fewer came so far; its interval is 1.96 standard errors.
Comparisons are paired by instance, with the p of Wilcoxon's signed-rank test (two-sided) behind
them where there are six pairs at least.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
MARK = "<!-- tables, written by summarise.py -->"
MARKS = (20, 40, 60, 100, 200)
PAIRED = (60, 100, 200)  # where methods are compared with ours
DEPTH = 24  # of the goals
DIMENSIONS = {"redundant": 4, "by_part": 3, "synergy": 3}  # beside the layers

Records = dict[str, list[dict]]


def summarise(records: Records) -> None:
    """Writes all three."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "summary.json").write_text(json.dumps(summary(records), indent=1) + "\n")
    readme = FOLDER / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    readme.write_text(f"{text}{MARK}\n\n{table(records)}", encoding="utf-8")
    plot(records)


def summary(records: Records) -> dict[str, float | None]:
    """Returns the figures that the goals name: means over the instances of 24 layers, q = 1."""
    found: dict[str, float | None] = {
        f"{method}_at_60": mean(at(records.get(method, []), 60))
        for method in ("ours", "gp", "tpe", "nsga3", "published", "mutation")
    }
    found["ours_at_200"] = mean(at(records["ours"], 200))
    found["random_at_200"] = mean(at(records["random"], 200))
    found["ours_evaluations_to_random_200"] = evaluations_to(
        records["ours"], found["random_at_200"]
    )
    found["seconds_per_proposal_200_27"] = mean(last_seconds(records["ours"], dimensions=27))
    found["instances"] = len(at(records["ours"], 60)) or None
    both = at(records["ours"], 60), at(records["ours"], 60, q=4)
    found["ours_loss_of_q_4_at_60"] = mean(
        [both[0][key] - both[1][key] for key in both[0].keys() & both[1].keys()]
    )
    return found


def table(records: Records) -> str:
    """Returns a table for each depth and batch size, all families together."""
    cells = {(r["layers"], r["q"]) for found in records.values() for r in found}
    parts = []
    for layers, q in sorted(cells):
        columns = [*map(str, MARKS), "instances", *(f"ours ahead at {mark}" for mark in PAIRED)]
        parts += [
            f"**{layers} layers, q = {q}**",
            "",
            f"| method | {' | '.join(columns)} | CPU s per proposal |",
            "|---|" + "---|" * (len(columns) + 1),
        ]
        rows = {method: row(records, method, layers, q) for method in records}
        parts += [line for line in rows.values() if line] + [""]
    return "\n".join(parts[:-1]) + "\n"


def row(records: Records, method: str, layers: int, q: int) -> str | None:
    """Returns a method's line of a table, if it has any search there."""
    where = {"layers": layers, "q": q}
    if not at(records[method], MARKS[0], **where):
        return None
    instances = len(at(records[method], MARKS[0], **where))
    cells = []
    for mark in MARKS:
        values = [*at(records[method], mark, **where).values()]
        fewer = f" [{len(values)}]" if 0 < len(values) < instances else ""
        cells.append(with_interval(values) + fewer)
    for mark in PAIRED:
        ours, theirs = (at(records[name], mark, **where) for name in ("ours", method))
        gains = [ours[key] - theirs[key] for key in sorted(ours.keys() & theirs.keys())]
        cells.append("" if method == "ours" else with_test(gains))
    chosen = [r for r in records[method] if r["layers"] == layers and r["q"] == q]
    seconds = mean([s for r in chosen for s in r["cpu_seconds_per_proposal_by_20"]])
    cells.insert(len(MARKS), str(instances))
    return f"| {method} | {' | '.join(cells)} | {seconds} |"


def plot(records: Records) -> None:
    """Draws the share of the hypervolume over evaluations, mean over the instances of a depth."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "anytime"  # the same file each time
    depths = sorted({r["layers"] for found in records.values() for r in found})
    if not depths:
        return
    figure, axes = pyplot.subplots(
        1, len(depths), figsize=(4.2 * len(depths), 3.6), sharey=True, squeeze=False
    )
    for axis, layers in zip(axes[0], depths, strict=True):
        for number, (method, found) in enumerate(records.items()):
            x, y = mean_curve([r for r in found if r["layers"] == layers and r["q"] == 1])
            axis.plot(x, y, color=f"C{number}", label=method if len(x) else None)
        axis.set(title=f"{layers} layers", xlabel="evaluations")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("share of the exact hypervolume")
    figure.savefig(RESULTS / "anytime.svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def at(
    records: Iterable[dict], mark: int, *, layers: int = DEPTH, q: int = 1
) -> dict[tuple, float]:
    """Returns the share after ``mark`` evaluations of each instance that came so far."""
    return {
        (r["family"], r["instance"]): r["curve"][mark // r["every"] - 1]
        for r in records
        if r["layers"] == layers and r["q"] == q and r["evaluations"] >= mark
    }


def mean_curve(records: list[dict]) -> tuple[list[int], list[float]]:
    """Returns evaluations and the mean share there, as far as most instances have come."""
    shares = defaultdict(list)
    for record in records:
        for number, share in enumerate(record["curve"], start=1):
            shares[number * record["every"]].append(share)
    x = [n for n in sorted(shares) if 2 * len(shares[n]) > len(records)]
    return x, [float(np.mean(shares[n])) for n in x]


def evaluations_to(records: list[dict], share: float | None) -> int | None:
    """Returns after how many evaluations the mean curve reaches a share."""
    chosen = [r for r in records if r["layers"] == DEPTH and r["q"] == 1]
    x, y = mean_curve(chosen)
    reached = [n for n, mean_share in zip(x, y, strict=True) if share and mean_share >= share]
    return reached[0] if reached else None


def last_seconds(records: list[dict], *, dimensions: int) -> list[float]:
    """Returns CPU seconds per proposal between 180 and 200 evaluations."""
    return [
        r["cpu_seconds_per_proposal_by_20"][-1]
        for r in records
        if r["layers"] + DIMENSIONS[r["family"]] == dimensions
        and r["q"] == 1
        and r["evaluations"] == 200
    ]


def mean(values: dict | list) -> float | None:
    numbers = [*(values.values() if isinstance(values, dict) else values)]
    return round(float(np.mean(numbers)), 4) if numbers else None


def with_interval(values: list[float]) -> str:
    if not values:
        return "-"
    error = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
    spread = "" if error is None else f" ± {error:.3f}"
    return f"{np.mean(values):.3f}{spread}"


def with_test(gains: list[float]) -> str:
    """Returns the mean of paired differences with its interval, and p where there are enough."""
    if len(gains) < 6 or not any(gains):
        return with_interval(gains)
    return f"{with_interval(gains)}, n = {len(gains)}, p = {wilcoxon(gains).pvalue:.2g}"
