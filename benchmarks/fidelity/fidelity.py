"""What a training tells before its end, and what stopping trials by it saves and loses.

    python benchmarks/fidelity/fidelity.py

Reads the learning curves of `benchmarks/table`, each a whole training with points at a quarter,
half and three quarters (batches of 32) or at half (of 16), and replays them in random order as a
search would meet them, with the very rule that a search stops trials by. Writes `results/*.json`
and the tables of README.md; a minute.
"""

import json
import sys
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import create_trial
from scipy.stats import kendalltau

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "table"
sys.path.append(str(TABLE))
from table import DEFAULT_BATCH_SIZE, RATES, Run, Table, fidelity_folder  # noqa: E402

from peft_autoconfig.bayes.surrogate import fit_surrogate  # noqa: E402
from peft_autoconfig.search.rungs import Reporter  # noqa: E402

MARK = "<!-- tables, written by fidelity.py -->"
FEWEST_TRAININGS = 20
BATCH_SIZES = (DEFAULT_BATCH_SIZE, 16)
RUNGS = ((0.25,), (0.5,), (0.25, 0.5), (0.25, 0.5, 0.75))
DEFAULT_RUNGS = (0.25, 0.5)  # of a search
ORDERS = 100
NUM_TRIALS = 40  # as a search has by default
EVALUATION = 0.03  # what a rung takes, as a share of a training
DEV_EXAMPLES, RUNG_EXAMPLES = 400, 192  # of the table, and of a rung of such a training


def fractions_of(runs: list[Run]) -> list[float]:
    """Returns the shares of a training at which all these were evaluated, but for their end."""
    curves = np.array([run.curve for run in runs])
    return [float(share) for share in (curves[:, :-1, 0] / curves[:, -1:, 0]).mean(axis=0)]


def correlations(runs: list[Run]) -> list[dict[str, float]]:
    """Returns for each rung how it ranks what the end ranks, by Kendall's tau."""
    curves = np.array([run.curve for run in runs])
    final = curves[:, -1, 1]
    better = final >= np.quantile(final, 0.7)
    rows = []
    for k, fraction in enumerate(fractions_of(runs)):
        score, loss = curves[:, k, 1], -curves[:, k, 2]
        rows.append(
            {
                "fraction": fraction,
                "cost": float(np.median(curves[:, k, 3] / curves[:, -1, 3])),
                "tau_score": float(kendalltau(score, final)[0]),
                "tau_loss": float(kendalltau(loss, final)[0]),
                "tau_loss_with_final_loss": float(kendalltau(loss, -curves[:, -1, 2])[0]),
                "tau_score_of_best_30_percent": float(kendalltau(score[better], final[better])[0]),
            }
        )
    return rows


def replay(runs: list[Run], order: np.ndarray, rungs: tuple[float, ...], noise: np.ndarray):
    """Returns the trainings of a search in some order: those that ended, and those stopped.

    Args:
        runs: The trainings.
        order: Which come, one after the other.
        rungs: Shares of a training at which a trial may be stopped.
        noise: Added to the scores at the rungs, ``trainings x fractions``.
    """
    ended, stopped, trials, cost = [], [], [], 0.0
    fractions = fractions_of(runs)
    for i in order:
        run = runs[i]
        reporter = Reporter(lambda: trials, run.num_params)
        whole = run.curve[-1][3]
        for fraction in rungs:
            k = fractions.index(fraction)
            cost += EVALUATION * whole
            try:
                score = float(np.clip(run.curve[k][1] + noise[i, k], 0, 1))
                reporter(fraction, score, run.curve[k][2])
            except optuna.TrialPruned:
                cost += run.curve[k][3]
                stopped.append((i, reporter.facts["forecast"], run.curve[k][1]))
                break
        else:
            cost += whole
            ended.append(i)
            values = [run.score, float(run.num_params)]
            trials.append(create_trial(values=values, user_attrs=reporter.facts))
    return ended, stopped, cost


def area(table: Table, runs: list[Run]) -> float:
    """Returns the best score, averaged over the logarithm of the parameters that may be spent."""
    low, high = np.log10(table.space.params_range)
    runs = sorted(runs, key=lambda run: run.num_params)
    edges = [(np.log10(run.num_params) - low) / (high - low) for run in runs] + [1.0]
    best = np.maximum.accumulate([run.score for run in runs])
    return float(np.diff(edges) @ best)


def stopping(table: Table, rungs: tuple[float, ...], num_trials: int) -> dict[str, float]:
    """Returns what stopping at some rungs saves and loses, over many orders of the trainings."""
    runs, results = table.finished, []
    spread = np.sqrt(1 / RUNG_EXAMPLES - 1 / DEV_EXAMPLES)
    scores = np.array([run.curve for run in runs])[:, :-1, 1]
    for seed in range(ORDERS):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(runs))[:num_trials]
        noise = generator.normal(size=scores.shape) * spread * np.sqrt(scores * (1 - scores))
        ended, stopped, cost = replay(runs, order, rungs, noise)
        everything = [runs[i] for i in order]
        results.append(
            (
                cost / sum(run.curve[-1][3] for run in everything),
                area(table, everything) - area(table, [runs[i] for i in ended]),
                len(stopped) / len(order),
            )
        )
    cost, gap, share = np.array(results).T
    return {
        "trials": len(order),
        "cost": round(float(cost.mean()), 3),
        "gap": round(float(gap.mean()), 5),
        "gap_at_most": round(float(gap.max()), 4),
        "stopped": round(float(share.mean()), 3),
    }


def learning(table: Table, num_trials: int = 45, orders: int = 12) -> dict[str, list[float]]:
    """Returns how well a model predicts other trainings, by what stopped trials count as.

    Each entry is R2, Kendall's tau, and tau among the better half, on the trainings left over.
    """
    runs = table.finished
    X = table._inputs([(run.config, run.learning_rate) for run in runs])
    final = np.array([run.score for run in runs])
    fractions = tuple(fractions_of(runs))
    no_noise = np.zeros((len(runs), len(fractions)))
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(runs))
        rest = order[num_trials:]
        ended, stopped, _ = replay(runs, order[:num_trials], fractions, no_noise)
        there = [i for i, _, _ in stopped]
        worst = min(final[ended])
        for name, values in {
            "their score at the end (unknown to a search)": final[there],
            "the forecast": [forecast for _, forecast, _ in stopped],
            "their last score": [score for _, _, score in stopped],
            "the worst complete score": [worst] * len(there),
            "nothing": None,
        }.items():
            known = ended if values is None else [*ended, *there]
            y = np.concatenate([final[ended], [] if values is None else values])
            surrogate = fit_surrogate(torch.as_tensor(X[known]), torch.as_tensor(y))
            mean = surrogate.posterior(torch.as_tensor(X[rest]))[0].numpy()
            truth = final[rest]
            top = truth >= np.median(truth)
            found.setdefault(name, []).append(
                (
                    1 - float(np.mean((mean - truth) ** 2) / truth.var()),
                    float(kendalltau(mean, truth)[0]),
                    float(kendalltau(mean[top], truth[top])[0]),
                )
            )
    return {name: np.round(np.mean(rows, axis=0), 3).tolist() for name, rows in found.items()}


def rates(table: Table) -> dict[str, float]:
    """Returns how far ways to choose a rate fall short of the best of the five, by the model.

    The table has each configuration at one rate, so a model of all trainings fills in the others.
    The rules are fitted to the same configurations that they are judged on, in their favour.
    """
    configs = list({run.num_params: run.config for run in table.finished}.values())
    believed = np.array([[table.predict(c, rate)[0] for rate in RATES] for c in configs])
    lost = believed.max(axis=1, keepdims=True) - believed
    ways = {f"{rate:g} for all": lost[:, i] for i, rate in enumerate(RATES)}
    groups = {
        "one for each largest part": [_largest_part(c) for c in configs],
        "one for each third of log parameters": list(
            np.digitize(
                [np.log10(table.space.num_params(c)) for c in configs],
                np.quantile([np.log10(table.space.num_params(c)) for c in configs], (1 / 3, 2 / 3)),
            )
        ),
    }
    for name, labels in groups.items():
        chosen = np.empty(len(configs))
        for label in set(labels):
            mine = np.array([other == label for other in labels])
            chosen[mine] = lost[mine][:, lost[mine].mean(axis=0).argmin()]
        ways[name] = chosen
    ways["the better of 1e-3 and 5e-3"] = lost[:, [1, 3]].min(axis=1)
    ways["the best of 1e-3, 2e-3, 5e-3"] = lost[:, 1:4].min(axis=1)
    return {
        name: [round(float(v.mean()), 4), round(float((v <= 0.01).mean()), 3)]
        for name, v in ways.items()
    }


def _largest_part(config) -> str:
    sizes = {
        "serial": config.serial_bottleneck_size,
        "parallel": config.parallel_bottleneck_size,
        "prefix": config.prefix_length / 2,
        "low rank": 6 * config.lora_rank,
    }
    return max(sizes, key=sizes.get)


def load_tables() -> dict[str, Table]:
    """Returns the tables that are large enough, by task and what the batches were."""
    tables = {}
    for size in BATCH_SIZES:
        files = fidelity_folder(TABLE / "results", size).glob("*.jsonl")
        for task in sorted({file.name.partition("-")[0] for file in files}):
            name = task if size == DEFAULT_BATCH_SIZE else f"{task} (batches of {size})"
            tables[name] = Table.load(TABLE / "results", task, batch_size=size)
    return {n: t for n, t in tables.items() if len(t.finished) >= FEWEST_TRAININGS}


def main() -> None:
    tables = load_tables()
    large = {n: t for n, t in tables.items() if "batches" not in n and len(t.finished) >= 100}
    found = {
        "correlations": {name: correlations(t.finished) for name, t in tables.items()},
        "stopping": {
            name: {
                str(rungs): stopping(t, rungs, NUM_TRIALS)
                for rungs in RUNGS
                if {*rungs} <= {*fractions_of(t.finished)}
            }
            for name, t in tables.items()
        },
        "learning": {name: learning(t) for name, t in large.items()},
        "rates": {name: rates(t) for name, t in large.items()},
    }
    (HERE / "results" / "replay.json").write_text(json.dumps(found, indent=2) + "\n")
    # of trainings that were evaluated at half alone, that rung
    chosen = [
        by_rungs.get(str(DEFAULT_RUNGS)) or [*by_rungs.values()][-1]
        for by_rungs in found["stopping"].values()
    ]
    kept = HERE / "results" / "summary.json"
    old = json.loads(kept.read_text()) if kept.exists() else {}
    summary = {
        "tasks": len({name.partition(" ")[0] for name in tables}),
        "cost_fraction": round(float(np.mean([c["cost"] for c in chosen])), 3),
        "hypervolume_gap": round(float(np.mean([c["gap"] for c in chosen])), 5),
        "kendall_tau_min": round(
            min(
                r["tau_score"]
                for rows in found["correlations"].values()
                for r in rows
                if r["fraction"] in DEFAULT_RUNGS
            ),
            3,
        ),
    }
    kept.write_text(json.dumps(old | summary, indent=2) + "\n")
    print(summary)
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    readme.write_text(text + MARK + "\n\n" + "\n".join(pages(found)) + "\n", encoding="utf-8")


def pages(found: dict) -> list[str]:
    """Returns the tables of the README."""
    lines = [
        "| task | done | cost | tau, score | tau, loss | loss with final loss | best 30 %, score |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in found["correlations"].items():
        for r in rows:
            cells = [v for k, v in r.items() if k != "fraction"]
            lines.append(
                f"| {name} | {r['fraction']:g} | " + " | ".join(f"{c:.2f}" for c in cells) + " |"
            )
    lines += ["", "| task | trials | rungs | cost | gap, mean | gap, most | stopped |"]
    lines += ["|---|--:|---|--:|--:|--:|--:|"]
    for name, by_rungs in found["stopping"].items():
        for rungs, r in by_rungs.items():
            lines.append(
                f"| {name} | {r['trials']} | {rungs.strip('(),')} | {r['cost']:.2f} "
                f"| {r['gap']:.4f} | {r['gap_at_most']:.4f} | {r['stopped']:.0%} |"
            )
    for name, by_kind in found["learning"].items():
        lines += ["", f"| {name}: stopped trials count as | R2 | tau | tau, better half |"]
        lines += ["|---|--:|--:|--:|"]
        for kind, cells in by_kind.items():
            lines.append(f"| {kind} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")
    for name, by_way in found["rates"].items():
        lines += ["", f"| {name}: rate | short of the best rate | within .01 |", "|---|--:|--:|"]
        for way, (short, share) in by_way.items():
            lines.append(f"| {way} | {short:.3f} | {share:.0%} |")
    return lines


if __name__ == "__main__":
    main()
