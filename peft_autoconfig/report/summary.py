"""What the numbers of a run say, in sentences: the key figures, the findings and the cautions.

Every sentence follows from numbers by a rule that is stated here. Text is plain, not escaped.

Imports `effects`, `findings`, `progress`, `repeats` and `words`; imported by `page`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .effects import FEWEST_TRIALS, Effects
from .findings import Findings
from .progress import Step, cost_of
from .repeats import Repeat, pooled_deviation
from .words import count, duration, score, spread

__all__ = [
    "Sentence",
    "Tile",
    "cost_note",
    "headlines",
    "no_effects",
    "noise_note",
    "state_of",
    "tiles_of",
    "trust_in",
    "volume_note",
]

# Below this share of explained variance a model's opinion is a guess, below the other a hint.
POOR, FAIR = 0.2, 0.6
# Two single scores differ by chance by less than so many standard deviations, 95 times in 100.
SINGLE_SCORES = 1.96 * 2**0.5


@dataclass(frozen=True)
class Sentence:
    """A statement, and whether it is a ``finding``, a ``warning`` or a ``note``."""

    text: str
    kind: str = "finding"


@dataclass(frozen=True)
class Tile:
    """One key figure, with what it is and what else to know of it."""

    name: str
    value: str
    note: str


def state_of(findings: Findings) -> Sentence:
    """Returns how far the search is, its kind being ``open`` while trials wait or run."""
    running, waiting = len(findings.records("RUNNING")), len(findings.records("WAITING"))
    if running or waiting:
        return Sentence(f"{running} running, {waiting} waiting", "open")
    return Sentence("no trial is running", "done")


def tiles_of(findings: Findings) -> list[Tile]:
    """Returns the key figures of a run, at most four."""
    cost, failed, stopped = cost_of(findings), len(findings.refused), len(findings.stopped)
    early = f"{stopped} more stopped early, " if stopped else ""
    tiles = [
        Tile(
            "trials",
            str(len(findings.complete)),
            early + (f"{failed} failed or refused" if failed else "none failed"),
        ),
        Tile("training time", duration(cost.training), f"{duration(cost.median)} per trial"),
    ]
    if not findings.front or findings.knee is None:
        return tiles
    best, knee = findings.front[-1], findings.knee
    return [
        Tile(
            f"best {findings.metric}, believed",
            score(best.mean or 0.0),
            f"{count(best.num_params or 0)} parameters, trial {best.number}",
        ),
        Tile(
            "at the knee",
            score(knee.mean or 0.0),
            f"{count(knee.num_params or 0)} parameters, trial {knee.number}",
        ),
        *tiles,
    ]


def headlines(findings: Findings) -> list[Sentence]:
    """Returns the findings of a run, the most useful first."""
    members = [r for r in findings.repeats if r.trial in {m.number for m in findings.front}]
    if not members:
        return []
    best = max(members, key=lambda repeat: repeat.test.mean)
    seeds = len(best.test.values)
    said = [
        Sentence(
            f"Trained again with {seeds} new seed{'s' if seeds > 1 else ''} and scored on "
            f"report-test, {best.name} is the front's best: "
            f"{spread(best.test.mean, best.test.deviation)} with {count(best.num_params)} "
            f"parameters. {_how_many(len(members), len(findings.front))}"
        )
    ]
    baselines = [r for r in findings.repeats if r.trial is None and r.num_params]
    if baselines:
        said.append(_against(best, max(baselines, key=lambda repeat: repeat.test.mean)))
        said += _smaller_and_as_good(best, baselines)
    return said + _not_told_apart(best, members) + _did_not_hold(findings, members)


def _how_many(tested: int, members: int) -> str:
    """Says what the best was chosen from, since the choice flatters it."""
    if tested == 1:
        return f"It is the only one of {members} that was trained again."
    of = f"all {members}" if tested == members else f"{tested} of the {members}"
    return f"It was picked by that score from {of} members, which flatters it a little."


def _against(best: Repeat, rival: Repeat) -> Sentence:
    difference = best.test.mean - rival.test.mean
    side = "above" if difference > 0 else "below"
    return Sentence(
        f"That is {score(abs(difference))} {side} the best baseline, {rival.name}, at "
        f"{spread(rival.test.mean, rival.test.deviation)} with {count(rival.num_params)} "
        f"parameters, {_times(rival.num_params, best.num_params)}."
    )


def _times(more: int, fewer: int) -> str:
    ratio = more / fewer
    if ratio < 1:
        return f"{ratio:.2g} of its size"
    return f"{count(ratio) if ratio >= 10 else f'{ratio:.1f}'} times as many"


def _smaller_and_as_good(best: Repeat, baselines: Sequence[Repeat]) -> list[Sentence]:
    """Names the larger baselines that are no better, by the spread of the two together."""
    if best.test.deviation is None:
        return []
    beaten = [
        rival.name
        for rival in baselines
        if rival.num_params > best.num_params
        and rival.test.mean - best.test.mean < 2 * _spread_of_difference(best, rival)
    ]
    if not beaten:
        return []
    names = ", ".join(beaten[:-1]) + " and " + beaten[-1] if len(beaten) > 1 else beaten[0]
    return [
        Sentence(
            f"Larger, and not shown to be better: {names}. {'None' if len(beaten) > 1 else 'It'} "
            f"{'leads' if len(beaten) > 1 else 'does not lead'} by twice the standard error of the "
            "difference over these seeds."
        )
    ]


def _not_told_apart(best: Repeat, members: Sequence[Repeat]) -> list[Sentence]:
    """Names the smaller members of the front whose lag may be noise, by the spread of all members.

    Two or three seeds of one member say little of its own spread.
    """
    usual = pooled_deviation([member.test for member in members])
    if usual is None:
        return []
    alike = [
        f"{member.name} with {count(member.num_params)}"
        for member in members
        if member.num_params < best.num_params
        and best.test.mean - member.test.mean
        < 2 * usual * (1 / len(best.test.values) + 1 / len(member.test.values)) ** 0.5
    ]
    if not alike:
        return []
    names = ", ".join(alike[:-1]) + " and " + alike[-1] if len(alike) > 1 else alike[0]
    return [
        Sentence(
            f"Smaller members of the front that are not told apart from it: {names} parameters. "
            "The difference is below twice its standard error, with the spread over seeds pooled "
            "over the members."
        )
    ]


def _spread_of_difference(one: Repeat, other: Repeat) -> float:
    """Returns the standard error of the difference of two means."""
    parts = [(r.test.deviation or 0.0) ** 2 / len(r.test.values) for r in (one, other)]
    return float(sum(parts) ** 0.5)


def _did_not_hold(findings: Findings, members: Sequence[Repeat]) -> list[Sentence]:
    """Warns of members that fall, on the same split, by over three times the usual deviation."""
    usual = _typical_deviation(members)
    if usual is None:
        return []
    scores = {record.number: record.score or 0.0 for record in findings.complete}
    return [
        Sentence(
            f"The search's score of {repeat.name} did not hold: {score(scores[repeat.trial])} with "
            f"one seed, {spread(repeat.dev.mean, repeat.dev.deviation)} on the same split over new "
            "ones.",
            "warning",
        )
        for repeat in members
        if repeat.trial is not None and scores[repeat.trial] - repeat.dev.mean > 3 * usual
    ]


def _typical_deviation(members: Sequence[Repeat]) -> float | None:
    """Returns the median deviation on search-dev, which one wild member does not move."""
    deviations = sorted(r.dev.deviation for r in members if r.dev.deviation is not None)
    return deviations[len(deviations) // 2] if deviations else None


def trust_in(effects: Effects) -> Sentence:
    """Returns how far to believe what a model says, by what it explains of held-out trials."""
    start = f"From {effects.num_trials} trials. "
    share = f"{100 * max(0.0, effects.held_out):.0f} %"
    explains = f"The model explains {share} of the variance of trials that it has not seen: "
    if effects.held_out < POOR:
        return Sentence(
            start + explains + "it is nearly blind away from them, so read what follows as "
            "guesses that more trials may overturn.",
            "caution",
        )
    if effects.held_out < FAIR:
        return Sentence(start + explains + "read what follows as hints.", "caution")
    return Sentence(start + explains + "what follows describes the trials well.", "note")


def no_effects(findings: Findings) -> str:
    """Returns why it is not told what matters."""
    if len(findings.complete) >= FEWEST_TRIALS:
        return "All trials scored the same, so no choice can be told to matter."
    return (
        f"With {len(findings.complete)} complete trials nothing can be said about what matters; "
        f"it takes at least {FEWEST_TRIALS}, and several times that to be of use."
    )


def volume_note(steps: Sequence[Step]) -> str:
    """Returns when the area under the front came near to what it is now."""
    if not steps:
        return ""
    near = next((i for i, step in enumerate(steps, start=1) if step.share >= 0.95), len(steps))
    since = next((i for i, step in enumerate(reversed(steps)) if step.gained), 0)
    last = f"The last {since} trials added nothing." if since > 1 else "It was still growing."
    return (
        f"The hypervolume of score against log parameters, above the lowest score of the run. "
        f"95 % of it stood after trial {near} of {len(steps)}. {last}"
    )


def cost_note(findings: Findings) -> str:
    """Returns what the run took."""
    cost = cost_of(findings)
    said = [
        f"{duration(cost.training)} of training in {duration(cost.elapsed)} from first to last"
        f", {duration(cost.median)} for the median trial."
    ]
    if cost.lost >= 1:
        said.append(f"{duration(cost.lost)} went into trials that came to nothing.")
    if cost.repeats:
        said.append(f"The trainings over new seeds took {duration(cost.repeats)} more.")
    return " ".join(said)


def noise_note(findings: Findings) -> str:
    """Returns how far seeds alone move a score, and what difference can be told."""
    dev = pooled_deviation([repeat.dev for repeat in findings.repeats])
    if dev is None:
        return "Each method was trained with one new seed only, so its noise is not known."
    typical = _typical_deviation(findings.repeats) or 0.0
    return (
        f"The same configuration scores differently with another seed: by a standard deviation of "
        f"{score(typical)} on search-dev for the median method ({score(dev)} pooled over all, "
        f"which unstable ones dominate). So two single scores that differ by less than about "
        f"{score(SINGLE_SCORES * typical)} are not told apart."
    )
