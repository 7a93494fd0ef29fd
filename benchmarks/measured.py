"""Writes the picture and the table of what was measured, from the results of every benchmark.

    python benchmarks/measured.py

Between its marks README holds what this script makes of the files under `*/results`, and so does
docs/results.md; a test fails when they disagree.
"""

import json
import sys
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# where the table stands, and how it names the folder of a benchmark there
PAGES = {
    ROOT / "README.md": "[`{0}`](benchmarks/{0})",
    ROOT / "docs" / "results.md": "`benchmarks/{0}`",
}
PICTURE = ROOT / "docs" / "assets" / "measured.svg"
BEGIN, END = "<!-- written by benchmarks/measured.py -->", "<!-- until here -->"
CURVES = {
    "ours": "ours",
    "gp": "Optuna's GP",
    "tpe": "TPE",
    "random": "random",
    "nsga3": "NSGA-III",
    "published": "the paper's",
    "mutation": "AutoPEFT's release",
}
DEPTH = 24  # layers of the curves


def main() -> None:
    for page, link in PAGES.items():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{block(link)}{after}", encoding="utf-8")
    draw()


def block(link: str) -> str:
    """Returns what stands on a page, marks and all; ``link`` is the form of a benchmark's name."""
    rows = [*sampler_rows(), *headline_rows(), *cost_rows()]
    lines = [BEGIN, "| what | measured | by |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | {link.format(folder)} |" for what, figure, folder in rows]
    return "\n".join([*lines, END])


def sampler_rows() -> list[tuple[str, str, str]]:
    found = summary("optimiser")
    at_60 = {"ours": "ours", "gp": "Optuna's GP", "tpe": "TPE", "nsga3": "NSGA-III"}
    at_60 |= {"published": "the paper's sampler", "mutation": "what its release ran"}
    shares = [
        f"{title} {found[f'{name}_at_60']:.2f}"
        for name, title in at_60.items()
        if found[f"{name}_at_60"] is not None
    ]
    what = f"Share of the exact front after 60 simulated trainings, {DEPTH} layers"
    return [(what, ", ".join(shares), "optimiser"), table_row()]


def table_row() -> tuple[str, str, str]:
    """Returns the shares after a search on the tables of real trainings."""
    records = json.loads((HERE / "table" / "results" / "optimisers.json").read_text())
    records = [r for r in records if r["truth"] == "forest"]
    ends: dict[str, list[float]] = {}
    for record in records:
        ends.setdefault(record["method"], []).append(record["curve"][-1])
    shares = [
        f"{title} {mean(ends[method]):.2f}" for method, title in CURVES.items() if method in ends
    ]
    trainings = len(records[0]["curve"]) * records[0]["every"]
    tasks = len({record["task"] for record in records})
    what = f"Share of the best known front after {trainings} trainings, interpolated, {tasks} tasks"
    return what, ", ".join(shares), "table"


def headline_rows() -> list[tuple[str, str, str]]:
    found = summary("headline")
    against = {
        "ours_minus_best_handmade_at_equal_params": "the best hand-made choice that is no smaller",
        "ours_minus_full_fine_tuning": "full fine-tuning, within 1.5 % of its parameters",
        "ours_minus_random": "random search of as many trials",
    }
    where = f"{found['tasks']} tasks, short trainings"
    return [
        (
            f"Score of what was found, less that of {title} ({where})",
            difference(found, name),
            "headline",
        )
        for name, title in against.items()
    ]


def difference(found: dict, name: str) -> str:
    return f"{found[name]:+.1f} points (p = {found['p'][name]:.2g})"


def cost_rows() -> list[tuple[str, str, str]]:
    step, trials, stress = summary("step_time"), summary("trials"), summary("stress")
    return [
        (
            "Time of a step, against AdapterHub's or PEFT's method of the same maths",
            f"serial {step['serial_vs_adapters']:.2f}, "
            f"parallel {step['parallel_vs_adapters']:.2f}, "
            f"prefix {step['prefix_vs_adapters']:.2f}, low rank {step['low_rank_vs_lora']:.2f}",
            "step_time",
        ),
        (
            "Trials an hour, against a new `Trainer` each: padded, with dynamic padding",
            f"{trials['speedup_vs_trainer_padded']:.1f} times, "
            f"{trials['speedup_vs_trainer_dynamic']:.1f} times",
            "trials",
        ),
        (
            "Trials lost or trained twice after workers were killed",
            f"{stress['lost'] + stress['duplicated']} of {stress['finished']:,}, "
            f"{stress['kills']:,} kills",
            "stress",
        ),
    ]


def summary(folder: str) -> dict:
    return json.loads((HERE / folder / "results" / "summary.json").read_text())


def draw() -> None:
    """Draws the curves of the samplers, and scores over parameters on each task."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "measured"  # the same file each time
    files = sorted((HERE / "headline" / "results").glob("*.json"))
    tasks = [content for file in files if "rows" in (content := json.loads(file.read_text()))]
    count = 1 + len(tasks)
    figure, axes = pyplot.subplots(1, count, figsize=(3.3 * count, 3.1))
    draw_curves(axes[0])
    for axis, task in zip(axes[1:], tasks, strict=True):
        draw_task(axis, task)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    pyplot.close(figure)


def draw_curves(axis) -> None:
    sys.path.insert(0, str(HERE / "optimiser"))
    from run import stored
    from summarise import mean_curve

    for method, title in CURVES.items():
        chosen = [r for r in stored(method) if r["layers"] == DEPTH and r["q"] == 1]
        axis.plot(*mean_curve(chosen), label=title, linewidth=2 if method == "ours" else 1)
    axis.set(title="simulated searches", xlabel="trainings", ylabel="share of the exact front")
    axis.legend(fontsize=6)
    axis.grid(alpha=0.3)


def draw_task(axis, task: dict) -> None:
    """Draws test scores over trained parameters; full fine-tuning is a line."""
    marks = {"hand-made": ("o", "0.6"), "random": ("x", "C3"), "ours": ("D", "C0")}
    for kind, (marker, color) in marks.items():
        rows = [r for r in task["rows"] if r["kind"] == kind and r["num_params"]]
        rows = [r for r in rows if r["name"] != "full fine-tuning"]
        x, y = [r["num_params"] for r in rows], [mean(r["scores"]) for r in rows]
        axis.scatter(x, y, marker=marker, color=color, label=kind, s=22, zorder=2)
    full = next(r for r in task["rows"] if r["name"] == "full fine-tuning")
    axis.axhline(mean(full["scores"]), color="0.3", linestyle=":", label="full fine-tuning")
    axis.set(title=task["task"], xlabel="trained parameters", xscale="log", ylabel="test score")
    axis.legend(fontsize=6)
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
