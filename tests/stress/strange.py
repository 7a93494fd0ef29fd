"""What strangers write into files, and what a reader may make of it: a value, or our own error."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from peft_autoconfig.errors import AutoConfigError

fuzzed = settings(
    max_examples=200,
    deadline=5000,  # milliseconds: a hostile file must not cost more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)

numbers = st.one_of(
    st.integers(), st.sampled_from([-1, 0, 1, 2**31, 2**63, 10**30, 10**400]), st.floats()
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20))
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


def either_way(read):
    """Calls a reader, which may refuse in our own words only."""
    try:
        return read()
    except AutoConfigError as refused:
        message = str(refused)
    assert 0 < len(message) < 5000, "a message must not repeat what a stranger wrote at length"
    return None


def near(good):
    """Values that are nearly right: some of a good one's entries replaced, left out or added."""
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(st.just(value), anything) for name, value in good.items()}
    ).flatmap(
        lambda some: st.dictionaries(st.text(max_size=6), anything, max_size=1).map(
            lambda more: good | some | more
        )
    )
