"""The support table in the docs says what is so."""

from .support import FILE, support_table


def test_the_support_table_is_up_to_date():
    # reasons name modules, which transformers renames now and then; what works must not change
    found = [line for line in support_table().splitlines() if line.startswith("|")]
    written = FILE.read_text(encoding="utf-8").splitlines()
    assert [line for line in found if line not in written] == [], (
        "write it anew: python -m tests.tuner.support"
    )
