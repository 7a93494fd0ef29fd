"""Judges ways to give a configuration its learning rate, by trainings at several rates each.

    python benchmarks/rates/rates.py [FILE ...]

Takes files of trainings in the format of `../table`, or what `../headline` keeps; by default all of
its own folder and of that one. Writes `results/summary.json` and the tables of README.md.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from statistics import mean, median, stdev

HERE = Path(__file__).resolve().parent
MARK = "<!-- tables, written by rates.py -->"
FEWEST_RATES = 3
NEAR = 0.01  # of the best score
# The rule that the first table of trainings of trec gave, at batches of 32: rates by size.
LEAD = ((53_000, 1e-2), (240_000, 5e-3), (float("inf"), 2e-3))
# The same with a fourth step, which the trainings here ask for.
LONGER = (*LEAD[:2], (500_000, 2e-3), (float("inf"), 1e-3))
MOST_STEPS = 4
# where a rule fitted to other tasks may change its rate
BORDERS = (0, 10_000, 35_000, 53_000, 110_000, 240_000, 500_000)


@dataclass
class Tried:
    """A configuration with what its trainings at several rates came to; one seed.

    Attributes:
        task: The task, and whose trainings they are.
        name: What tells the configuration from others.
        num_params: Its parameters, without the head.
        scores: Score at the end by rate, higher is better.
        quarters: Loss after a quarter of the steps by rate; empty if unknown.
    """

    task: str
    name: str
    num_params: int
    scores: dict[float, float] = field(default_factory=dict)
    quarters: dict[float, float] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return max(self.scores.values())

    def short(self, rate: float) -> float:
        """Returns how far the rate nearest to ``rate`` falls short of the best."""
        nearest = min(self.scores, key=lambda other: abs(rate - other) / (rate + other))
        return self.best - self.scores[nearest]


Choice = Callable[[Tried], Iterable[float]]  # the shortfalls of whatever it may choose


def read(file: Path) -> tuple[list[Tried], list[list[float]]]:
    """Returns the configurations of a file, and the scores over seeds of what has several."""
    tried: dict[str, Tried] = {}
    seeds: dict[tuple[str, float], dict[int, float]] = defaultdict(dict)
    for line in _lines(file):
        name, rate, score = line["name"], line["rate"], line["score"]
        seeds[name, rate][line["seed"]] = score
        if line["seed"] == 0:
            entry = tried.setdefault(name, Tried(line["task"], name, line["num_params"]))
            entry.scores[rate] = score
            if line["quarter"] is not None:
                entry.quarters[rate] = line["quarter"]
    repeated = [
        list(scores.values()) for scores in seeds.values() if 0 in scores and len(scores) > 1
    ]
    return [t for t in tried.values() if len(t.scores) >= FEWEST_RATES], repeated


def _lines(file: Path) -> Iterable[dict]:
    """Yields name, task, num_params, rate, seed, score and quarter of each training of a file."""
    if file.suffix == ".jsonl":
        for text in file.read_text().split("\n")[:-1]:
            line = json.loads(text)
            if line["curve"]:
                yield {
                    "name": json.dumps(line["config"], sort_keys=True),
                    "task": f"{line['task']}, {file.parent.parent.name}",
                    "rate": line["learning_rate"],
                    "score": line["curve"][-1][1],
                    "quarter": line["curve"][0][2] if len(line["curve"]) > 1 else None,
                } | {name: line[name] for name in ("num_params", "seed")}
        return
    content = json.loads(file.read_text())
    task = f"{file.name.removesuffix('-trainings.json')}, {file.parent.parent.name}"
    for line in content["evaluations"]:
        # neither the head alone nor all weights: a search proposes neither
        if line["method"] not in ("linear probe", "full fine-tuning"):
            yield {
                "name": line["method"],
                "task": task,
                "rate": line["learning_rate"],
                "score": line["dev"],
                "quarter": None,
            } | {name: line[name] for name in ("num_params", "seed")}


def rule(steps: Iterable[tuple[float, float]]) -> Callable[[Tried], float]:
    """Returns a rule by size: the rate of the first step that holds so many parameters."""
    steps = list(steps)
    return lambda tried: next(rate for most, rate in steps if tried.num_params <= most)


def fitted(tried: list[Tried]) -> list[tuple[float, float]]:
    """Returns the rule of at most four steps, down with size, with the least mean shortfall."""
    rates = sorted({rate for entry in tried for rate in entry.scores}, reverse=True)
    rules = [
        tuple(zip((*borders, float("inf")), chosen, strict=True))
        for borders in combinations_with_replacement(BORDERS, MOST_STEPS - 1)
        for chosen in combinations_with_replacement(rates, MOST_STEPS)
    ]
    return list(min(rules, key=lambda steps: mean(t.short(rule(steps)(t)) for t in tried)))


def elsewhere(tried: Tried, others: list[Tried]) -> float:
    """Returns the best rate of the same configuration on other tasks, which no rule knows better.

    That is all that can be had without looking at the task: what it falls short by is the task's.
    """
    same = [other for other in others if other.name == tried.name]
    rates = sorted(set.intersection(*(set(other.scores) for other in same)))
    return max(rates, key=lambda rate: mean(other.scores[rate] for other in same))


def ways(tried: list[Tried], others: list[Tried]) -> dict[str, tuple[float, list[float]]]:
    """Returns cost in trainings and the shortfalls of each way, for the configurations of a task.

    Args:
        tried: The configurations.
        others: Those of other tasks, for a rule fitted to them.
    """
    rates = sorted({rate for entry in tried for rate in entry.scores})
    found = {f"{rate:g} for all": (1.0, [t.short(rate) for t in tried]) for rate in rates}
    found["any of them by chance"] = (1.0, [mean(map(t.short, t.scores)) for t in tried])
    lead = rule(LEAD)
    found["the rule by size of the first table"] = (1.0, [t.short(lead(t)) for t in tried])
    longer = rule(LONGER)
    found["the same, and 0.001 above 500,000"] = (1.0, [t.short(longer(t)) for t in tried])
    if others:
        learned = rule(fitted(others))
        found["a rule by size from the other tasks"] = (1.0, [t.short(learned(t)) for t in tried])
    known = {other.name for other in others}
    both = [t for t in tried if t.name in known]
    if both:
        shorts = [t.short(elsewhere(t, others)) for t in both]
        found["its own best on the other tasks"] = (1.0, shorts)
    probed = [t for t in tried if t.quarters.keys() == t.scores.keys()]
    if probed:
        shorts = [t.short(min(t.quarters, key=t.quarters.__getitem__)) for t in probed]
        found["the least loss after a quarter"] = (1 + (len(rates) - 1) / 4, shorts)
    for pair in ((1e-3, 5e-3), (2e-3, 1e-2)):
        name = f"the better of {pair[0]:g} and {pair[1]:g}"
        found[name] = (2.0, [min(map(t.short, pair)) for t in tried])
    for three in ((1e-3, 2e-3, 5e-3), (1e-3, 5e-3, 1e-2)):
        name = f"the best of {', '.join(f'{rate:g}' for rate in three)}"
        found[name] = (3.0, [min(map(t.short, three)) for t in tried])
    found["the best of all"] = (float(len(rates)), [0.0 for _ in tried])
    return found


def over_seeds(repeated: list[list[float]]) -> dict[str, float]:
    """Returns the median deviation over seeds, and how many fell far below the first of them."""
    if not repeated:
        return {}
    return {
        "median_deviation": round(median(map(stdev, repeated)), 4),
        "configurations": len(repeated),
        "with_a_seed_0.1_below_the_first": sum(min(s) < s[0] - 0.1 for s in repeated),
    }


def main() -> None:
    files = [Path(name) for name in sys.argv[1:]] or [
        *sorted(HERE.glob("results/*.jsonl")),
        *sorted(HERE.parent.glob("headline/results/*-trainings.json")),
    ]
    by_task: dict[str, list[Tried]] = {}
    noises = {}
    for file in files:
        tried, repeated = read(file)
        if tried:
            by_task[tried[0].task] = tried
            noises[tried[0].task] = over_seeds(repeated)
    if not by_task:
        sys.exit("no configuration was trained at three rates yet; measure.py does that")
    found = {
        task: ways(
            tried, [t for other in by_task if _task(other) != _task(task) for t in by_task[other]]
        )
        for task, tried in by_task.items()
    }
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    whole = {
        name: [short for rows in found.values() for short in rows.get(name, (0, []))[1]]
        for name in names
    }
    cost = {name: next(rows[name][0] for rows in found.values() if name in rows) for name in names}
    summary = {
        "tasks": len({_task(task) for task in by_task}),
        "configurations": sum(map(len, by_task.values())),
        "over_seeds": noises,
        "ways": {
            name: {
                "cost": cost[name],
                "short": round(mean(shorts), 4),
                "within_0.01": round(_near(shorts), 3),
                "configurations": len(shorts),
            }
            for name, shorts in whole.items()
        },
        "rule_from_all": [[m if m < 1e9 else None, rate] for m, rate in fitted(_all(by_task))],
    }
    (HERE / "results" / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    pages = [*table(found, whole, cost), "", *scores(by_task)]
    readme.write_text(text + MARK + "\n\n" + "\n".join(pages) + "\n", encoding="utf-8")
    print("\n".join(pages))


def _all(by_task: dict[str, list[Tried]]) -> list[Tried]:
    return [entry for tried in by_task.values() for entry in tried]


def _task(title: str) -> str:
    return title.split(",")[0]


def _near(shorts: list[float]) -> float:
    return mean(short <= NEAR + 1e-9 for short in shorts)


def table(found: dict, whole: dict[str, list[float]], cost: dict[str, float]) -> list[str]:
    """Returns the table of ways: mean shortfall and share within .01, on each task and in all."""
    lines = [
        "| rate | trainings | all | " + " | ".join(found) + " |",
        "|---|--:" + "|--:" * (1 + len(found)) + "|",
    ]
    for name, shorts in whole.items():
        cells = [_cell(rows[name][1]) if name in rows else "" for rows in found.values()]
        lines.append(f"| {name} | {cost[name]:g} | {_cell(shorts)} | " + " | ".join(cells) + " |")
    return lines


def _cell(shorts: list[float]) -> str:
    return f"{mean(shorts):.3f} ({_near(shorts):.0%})"


def scores(by_task: dict[str, list[Tried]]) -> list[str]:
    """Returns a table of the best rate and the scores of each configuration."""
    rates = sorted({rate for entry in _all(by_task) for rate in entry.scores})
    lines = [
        "| task | configuration | parameters | " + " | ".join(f"{r:g}" for r in rates) + " |",
        "|---|---|--:" + "|--:" * len(rates) + "|",
    ]
    for task, tried in by_task.items():
        for entry in sorted(tried, key=lambda entry: entry.num_params):
            cells = [
                f"{'**' * (s == entry.best)}{s:.3f}{'**' * (s == entry.best)}"
                if s is not None
                else ""
                for s in map(entry.scores.get, rates)
            ]
            lines.append(
                f"| {task} | {short_name(entry.name)} | {entry.num_params:,} | "
                + " | ".join(cells)
                + " |"
            )
    return lines


PARTS = {
    "serial_bottleneck_size": "serial",
    "parallel_bottleneck_size": "parallel",
    "prefix_length": "prefix",
    "lora_rank": "LoRA",
    "r": "LoRA",
}


def short_name(name: str) -> str:
    """Returns a configuration in a few words."""
    values = json.loads(name)
    if "bottleneck_size" in values:  # of PEFT types with one part
        part = values["peft_type"].removeprefix("AUTOPEFT_").lower()
        values[f"{part}_bottleneck_size"] = values["bottleneck_size"]
    words = [f"{PARTS[key]} {values[key]}" for key in PARTS if values.get(key)]
    layers = values.get("layers") or values.get("layers_to_transform")
    if layers is not None:
        words.append("in " + " ".join(map(str, layers)))
    if values.get("target_modules") == "all-linear":
        words.append("all linear")
    return ", ".join(words)


if __name__ == "__main__":
    main()
