import dataclasses
import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from peft_autoconfig.outcome import Outcome
from peft_autoconfig.report.effects import FEWEST_TRIALS, choice_effects
from peft_autoconfig.report.findings import Trial, read_findings
from peft_autoconfig.report.progress import cost_of, failure_reasons, steps_of
from peft_autoconfig.report.repeats import Repeat, Scores
from peft_autoconfig.report.summary import _not_told_apart, headlines, trust_in
from peft_autoconfig.search import Search

from .report_cases import FAILURE, SPACE, make_run


def test_what_matters_is_found_and_what_does_not_is_not(findings):
    effects = choice_effects(SPACE, findings.complete)
    moves = {choice.name: choice.move for choice in effects.choices}
    assert set(moves) == set(SPACE.dimensions)
    assert effects.choices[0].name == "layer_2"
    # switching it is worth 0.3 everywhere
    assert moves["layer_2"].low > effects.chance
    assert moves["layer_2"].middle == pytest.approx(0.3, abs=0.1)
    assert moves["learning_rate"].middle < 0.3 * moves["layer_2"].middle
    assert all(move.low <= move.middle <= move.high for move in moves.values())
    assert effects.num_trials == len(findings.complete)


def test_curves_follow_the_levels(findings):
    effects = choice_effects(SPACE, findings.complete)
    layer = next(choice for choice in effects.choices if choice.name == "layer_2")
    assert layer.levels == (0.0, 1.0)
    assert layer.curve[1].middle - layer.curve[0].middle == pytest.approx(0.3, abs=0.1)
    serial = next(choice for choice in effects.choices if choice.name == "serial_bottleneck_size")
    assert serial.levels == (0.0, 1.0, 8.0, 32.0)


def test_effects_are_the_same_each_time(findings):
    first = choice_effects(SPACE, findings.complete, seed=5)
    assert choice_effects(SPACE, findings.complete, seed=5) == first


def test_scores_without_a_pattern_are_not_explained(findings):
    noise = np.random.default_rng(0).normal(size=len(findings.complete))
    records = [
        dataclasses.replace(record, score=float(score))
        for record, score in zip(findings.complete, noise, strict=True)
    ]
    effects = choice_effects(SPACE, records)
    assert effects.held_out < 0.2
    assert trust_in(effects).kind == "caution"


def test_equal_scores_and_few_trials_say_nothing(tmp_path):
    make_run(tmp_path / "run", lambda config, learning_rate: Outcome(0.5), n=FEWEST_TRIALS)
    records = read_findings(tmp_path / "run").complete
    assert choice_effects(SPACE, records) is None
    other = dataclasses.replace(records[0], score=0.6)
    assert choice_effects(SPACE, [other, *records[1:]]) is not None
    assert choice_effects(SPACE, [other, *records[1:-1]]) is None


def test_a_budget_keeps_changes_inside_it(tmp_path):
    space = dataclasses.replace(SPACE, max_params=400)
    search = Search(space, tmp_path / "run")
    search.run(lambda config, learning_rate: Outcome(space.num_params(config) / 400), 12)
    effects = choice_effects(space, read_findings(tmp_path / "run").complete)
    serial = next(choice for choice in effects.choices if choice.name == "serial_bottleneck_size")
    assert 32.0 not in serial.levels  # one layer of it has 2,112 parameters
    assert all(math.isfinite(choice.move.high) for choice in effects.choices)


def test_the_area_under_the_front_grows_to_what_it_is(findings):
    steps = steps_of(findings)
    assert [step.trial.record.state for step in steps] == ["COMPLETE"] * len(findings.complete)
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    # by hand: rectangles of the front between log10 counts, above the lowest score
    floor = min(record.score for record in findings.complete)
    edges = [math.log10(member.num_params) for member in findings.front]
    edges.append(math.log10(SPACE.params_range[1]))
    whole = sum(
        (member.score - floor) * (edges[i + 1] - edges[i])
        for i, member in enumerate(findings.front)
    )
    first = steps[0].trial.record
    one = (first.score - floor) * (edges[-1] - math.log10(first.num_params))
    assert shares[0] == pytest.approx(one / whole, abs=1e-6)
    grew = [step.trial.record.number for step in steps if step.gained]
    # the first member of lowest score adds no area, each other one does
    assert {m.number for m in findings.front if m.score > floor} <= set(grew)
    best = 0.0
    for step in steps:
        assert step.gained == (step.share > best + 1e-9)
        best = max(best, step.share)
    assert len(grew) < len(steps)


def test_costs_are_added_up(findings):
    cost = cost_of(findings)
    assert cost.training == 2.0 * len(findings.complete)
    assert cost.median == 2.0
    trained = sum(len(repeat.test.values) for repeat in findings.repeats)
    assert cost.repeats == 2.0 * trained


def test_time_that_came_to_nothing_is_told(findings):
    start = datetime(2026, 1, 1)
    record = findings.records("FAIL")[0]
    trials = (Trial(record, start, start + timedelta(seconds=7)), Trial(record, start, None))
    cost = cost_of(dataclasses.replace(findings, trials=trials))
    assert cost.lost == 7
    assert cost.elapsed == 7


def test_failures_are_counted_by_reason(findings):
    (reason, numbers), *others = failure_reasons(findings)
    assert reason == f"ValueError: {FAILURE}"
    assert numbers == [r.number for r in findings.records("FAIL") if r.reason == reason]
    # the random sampler also draws points twice, and points outside the space
    assert all(other.startswith(("repeats trial", "expected at least one")) for other, _ in others)
    refused = findings.records("FAIL") + findings.records("PRUNED")
    assert sum(len(trials) for _, trials in failure_reasons(findings)) == len(refused)


def test_the_headlines_name_what_holds_and_what_does_not(findings):
    said = headlines(findings)
    best = max(
        (repeat for repeat in findings.repeats if repeat.trial is not None),
        key=lambda repeat: repeat.test.mean,
    )
    assert f"trial {best.trial} is the front's best" in said[0].text
    assert "full fine-tuning" in said[1].text
    assert "Larger, and not shown to be better: LoRA r = 8." in said[2].text
    (warning,) = [sentence for sentence in said if sentence.kind == "warning"]
    assert f"trial {findings.front[-1].number} did not hold" in warning.text


def repeat(trial: int, num_params: int, *scores: float) -> Repeat:
    return Repeat(
        name=f"trial {trial}",
        trial=trial,
        num_params=num_params,
        learning_rate=1e-3,
        dev=Scores(scores),
        test=Scores(scores),
        seconds=1.0,
    )


def test_members_are_not_told_apart_by_less_than_their_noise():
    best = repeat(3, 500, 0.90, 0.92)
    near, far = repeat(1, 20, 0.88, 0.91), repeat(0, 10, 0.80, 0.82)
    larger = repeat(4, 900, 0.90, 0.91)
    (said,) = _not_told_apart(best, [far, near, best, larger])
    assert "not told apart from it: trial 1 with 20 parameters." in said.text
    assert _not_told_apart(best, [far, best]) == []
    single = [repeat(n, n, 0.9) for n in (1, 2)]
    assert _not_told_apart(single[1], single) == []
