import copy
import pickle

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType

import peft_autoconfig.tuner.registry as registry


@pytest.mark.parametrize("method", registry.METHODS)
def test_a_method_is_a_full_member_of_peft_type(method):
    member = PeftType[method.upper()]
    assert PeftType(method.upper()) is member
    assert member in list(PeftType)
    assert member == method.upper()
    assert {member: 1}[method.upper()] == 1
    assert copy.deepcopy(member) is member
    assert pickle.loads(pickle.dumps(member)) is member
    assert member in PEFT_TYPE_TO_CONFIG_MAPPING


def test_adding_twice_changes_nothing():
    before = list(PeftType)
    registry.add_peft_types()
    assert list(PeftType) == before
