"""The page of a report: what its template shows, and the template filled in.

Jinja escapes all that comes from the run; figures travel as JSON in which no character can end a
script. Style and script lie in files beside this one and are put into the page, as is Plotly, so
that it works from a disk and without a network.

Imports all the rest of `report` but `pictures`; imported by `report`.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..search.trial import TrialRecord
from . import commands, figures, palette, score_figures, summary, words
from .effects import Choice, Effects
from .findings import Findings, placed_parts
from .progress import Step, failure_reasons
from .repeats import Scores

__all__ = ["render_page"]

MAX_CURVES = 6
COLORS = {
    "ink": palette.INK,
    "muted": palette.MUTED,
    "paper": palette.PAPER,
    "grid": palette.GRID,
    "line": palette.LINE,
    "front": palette.FRONT,
    "repeat": palette.REPEAT,
    "baseline": palette.BASELINE,
    "dominated": palette.DOMINATED,
    "empty": palette.EMPTY,
}
MAX_TRIALS_IN_TABLE = 2000


def render_page(findings: Findings, effects: Effects | None, steps: Sequence[Step]) -> str:
    """Returns the page as HTML.

    Args:
        findings: The run.
        effects: What matters; None if there are too few trials to tell.
        steps: How the search went.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_resource("page.html"))
    curves = _curves(effects)
    data = {
        "figures": _figures(findings, effects, steps, curves) if findings.front else {},
        "dark": palette.DARK,
    }
    return template.render(
        css=Markup(_resource("page.css")),
        js=Markup(_resource("page.js")),
        plotly=Markup(get_plotlyjs()) if findings.front else "",
        data=Markup(_script_json(data)),
        colors=[
            (n, getattr(palette, n.upper()), palette.DARK[getattr(palette, n.upper())])
            for n in COLORS
        ],
        curves=[{"id": id, "name": words.label(choice.name)} for id, choice in curves.items()],
        **_head(findings),
        **_front(findings),
        **_matters(findings, effects),
        **_rest(findings, steps),
    )


def _head(findings: Findings) -> dict[str, Any]:
    model = findings.model and _short(findings.model)
    title = findings.task or _short(findings.run)
    sections = [("front-section", "Front")]
    if findings.front:
        sections += [
            ("winners-section", "Winners"),
            ("layers-section", "Layers"),
            ("effects-section", "What matters"),
            ("progress-section", "Progress"),
        ]
    if findings.repeats:
        sections.append(("noise-section", "Noise"))
    sections += [("failures-section", "Failures"), ("repeat-section", "Do it again")]
    return {
        "title": title,
        "subtitle": f"{model}, {findings.space.num_layers} layers" if model else None,
        "state": summary.state_of(findings),
        "tiles": summary.tiles_of(findings),
        "headlines": summary.headlines(findings),
        "sections": sections,
        "run": findings.run,
        "version": version("peft-autoconfig"),
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def _front(findings: Findings) -> dict[str, Any]:
    both = "dev test"
    groups = [
        {"id": "front", "name": "front", "views": "dev"},
        {"id": "dominated", "name": "dominated", "views": "dev"},
    ]
    if findings.repeats:
        groups.append({"id": "repeats", "name": "front, new seeds", "views": both})
        groups.append({"id": "baselines", "name": "baselines", "views": both})
    return {
        "front": bool(findings.front),
        "has_repeats": bool(findings.repeats),
        "groups": groups,
        "parts": [(part, words.part_name(part)) for part in findings.parts],
        "members": [_member(findings, member) for member in findings.front],
        "num_complete": len(findings.complete),
    }


def _member(findings: Findings, member: TrialRecord) -> dict[str, Any]:
    repeat = findings.repeat_of(member)
    base, rate = findings.num_base_params, member.learning_rate
    tags = []
    if member is findings.front[-1]:
        tags.append("believed best")
    if findings.knee is not None and member.number == findings.knee.number:
        tags.append("knee")
    tested = [r for r in findings.repeats if r.trial in {m.number for m in findings.front}]
    if repeat and repeat is max(tested, key=lambda r: r.test.mean):
        tags.append("best on test")
    return {
        "number": member.number,
        "tags": tags,
        "grid": _grid(findings, member),
        "params": words.count(member.num_params or 0),
        "share": f"{100 * (member.num_params or 0) / base:.2g} % of the model" if base else "",
        "score": words.score(member.score or 0.0),
        "believed": words.spread(member.mean or 0.0, member.deviation),
        "dev": _spread(repeat.dev) if repeat else None,
        "test": _spread(repeat.test) if repeat else None,
        "config": words.described(member, findings.space.num_layers),
        "rate": None if rate is None else f"{rate:g}",
        "shell": commands.train_command(findings, member),
        "load": commands.load_code(findings, member),
        "train": commands.train_code(findings, member),
        "plain": commands.config_code(member),
    }


def _grid(findings: Findings, member: TrialRecord) -> list[dict[str, Any]]:
    """Returns, for each part that a member uses, its size in every layer."""
    num_layers = findings.space.num_layers
    placed = placed_parts(member, num_layers)
    rows = [
        {
            "part": words.part_name(name),
            "sizes": [placed.get(i, {}).get(name, 0) for i in range(num_layers)],
        }
        for name in findings.parts
    ]
    return [row for row in rows if any(row["sizes"])]


def _matters(findings: Findings, effects: Effects | None) -> dict[str, Any]:
    if effects is None:
        return {"effects": [], "no_effects": summary.no_effects(findings)}
    rows = [
        {
            "name": words.label(choice.name),
            "move": words.score(choice.move.middle),
            "interval": f"{words.score(choice.move.low)} to {words.score(choice.move.high)}",
            "relevance": f"{choice.relevance:.2f}",
            "fanova": "" if choice.fanova is None else f"{100 * choice.fanova:.0f} %",
        }
        for choice in effects.choices
    ]
    return {
        "effects": rows,
        "chance": words.score(effects.chance),
        "model_noise": words.score(effects.noise),
        "trust": summary.trust_in(effects),
    }


def _rest(findings: Findings, steps: Sequence[Step]) -> dict[str, Any]:
    reasons = failure_reasons(findings)
    number = sum(len(trials) for _, trials in reasons)
    return {
        "volume_note": summary.volume_note(steps),
        "cost_note": summary.cost_note(findings),
        "noise_note": summary.noise_note(findings) if findings.repeats else "",
        "repeats": [
            {
                "name": repeat.name,
                "mine": repeat.trial is not None,
                "params": words.count(repeat.num_params),
                "rate": f"{repeat.learning_rate:g}",
                "seeds": len(repeat.test.values),
                "dev": _spread(repeat.dev),
                "test": _spread(repeat.test),
            }
            for repeat in findings.repeats
        ],
        "failures_note": f"{number} of {len(findings.trials)} trials failed or were refused.",
        "failures": [
            {"times": len(trials), "reason": reason, "trials": _listed(trials)}
            for reason, trials in reasons
        ],
        "command": commands.search_command(findings),
        "command_note": "" if findings.recipe else COMMAND_NOTE,
        "space": commands.space_code(findings),
        "facts": _facts(findings),
        "trials": _trials(findings),
    }


COMMAND_NOTE = (
    "Where the data lay is not recorded: add --data-dir for parquet files, or --train-file "
    "with its columns for a file of your own."
)


def _trials(findings: Findings) -> list[dict[str, Any]]:
    members = {member.number for member in findings.front}
    records = [trial.record for trial in findings.trials][-MAX_TRIALS_IN_TABLE:]
    return [
        {
            "number": record.number,
            "mine": record.number in members,
            "state": record.state.lower(),
            "score": "" if record.score is None else words.score(record.score),
            "raw_score": "" if record.score is None else record.score,
            "params": "" if record.num_params is None else words.count(record.num_params),
            "raw_params": "" if record.num_params is None else record.num_params,
            "config": words.described(record, findings.space.num_layers),
            "rate": "" if record.learning_rate is None else f"{record.learning_rate:g}",
            "seconds": "" if record.seconds is None else f"{record.seconds:.1f}",
        }
        for record in records
    ]


def _facts(findings: Findings) -> list[tuple[str, str]]:
    """Returns the stored facts, nested names joined by dots."""
    stored = {"seed": findings.seed, "space": findings.space.to_dict(), **findings.about}
    return list(_flat(stored, ""))


def _flat(value: Any, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(entry) for entry in value)
    else:
        yield name, "not set" if value is None else str(value)


def _curves(effects: Effects | None) -> dict[str, Choice]:
    """Returns the choices whose levels are worth a picture, by the id of its place."""
    choices = [choice for choice in effects.choices if len(choice.levels) > 2] if effects else []
    return {f"curve-{i}": choice for i, choice in enumerate(choices[:MAX_CURVES])}


def _figures(
    findings: Findings,
    effects: Effects | None,
    steps: Sequence[Step],
    curves: dict[str, Choice],
) -> dict[str, Any]:
    made: dict[str, go.Figure] = {
        "front": score_figures.front_figure(findings),
        "layers": figures.layers_figure(findings, findings.front),
        "layers-all": figures.layers_figure(findings, findings.complete),
        "volume": figures.volume_figure(findings, steps),
        "seconds": figures.seconds_figure(findings),
    }
    if effects is not None:
        made["effects"] = figures.effects_figure(effects)
    if findings.repeats:
        made["noise"] = score_figures.noise_figure(findings)
    made.update({id: figures.curve_figure(findings, choice) for id, choice in curves.items()})
    return {name: figure.to_plotly_json() for name, figure in made.items()}


def _script_json(value: Any) -> str:
    """Returns JSON that is safe inside a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _spread(scores: Scores) -> str:
    return words.spread(scores.mean, scores.deviation)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:20])
    return f"{shown}, and {len(numbers) - 20} more" if len(numbers) > 20 else shown


def _short(name: str) -> str:
    """Returns the last two names of a path, which say what a Hub id says."""
    return "/".join(PurePath(name).parts[-2:]).lstrip("/") or name


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
