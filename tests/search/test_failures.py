"""When and with what summary a search stops because its trials fail."""

import pytest

from peft_autoconfig.search.failures import complaint
from peft_autoconfig.search.trial import TrialRecord


def failed(*reasons):
    return [TrialRecord(number, "FAIL", reason=reason) for number, reason in enumerate(reasons)]


def test_reasons_that_differ_in_numbers_alone_are_one():
    reasons = [
        f"TrainingError: the loss was nan at step {step} with learning rate {rate}"
        for step, rate in ((20, "1e-3"), (40, "0.005"), (60, "5e-05"), (0, "1"))
    ]
    said = complaint(failed("KeyError: 'a'", *reasons))
    assert f"4 x {reasons[0]}; 1 x KeyError: 'a'." in said


def test_other_reasons_are_counted_apart_and_the_commonest_comes_first():
    said = complaint(failed("a", "b", "b", "c", "d", "b"))
    assert "3 x b; 1 x a; 1 x c." in said


def test_a_reason_that_fills_screens_is_cut():
    said = complaint(failed(*["CUDA error:\n  device-side assert\n" + "trace " * 999] * 5))
    assert "5 x CUDA error: device-side assert trace" in said
    assert " .... Mend" in said
    assert len(said) < 600


@pytest.mark.parametrize(("number", "is_enough"), [(4, False), (5, True)])
def test_some_failures_are_no_complaint(number, is_enough):
    assert (complaint(failed(*["a"] * number)) is not None) == is_enough
    assert complaint([*failed(*["a"] * number), TrialRecord(9, "COMPLETE")]) is None
