"""The only contact with PEFT's private parts: makes our methods known to PEFT.

PEFT's `register_peft_method` wants a member of the enum `PeftType`, which has no public way of
growing. The members are added first (`add_peft_types`, before the config classes are defined),
the methods are registered once the tuner exists (`register`). Both may be called again.

The prefix of a method must be its name plus "_": transformers takes that for granted when it
loads and deletes adapters. Hence the names: each is the beginning of the names of the
weights that its method may have.
"""

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method

__all__ = ["METHODS", "add_peft_types", "register"]

METHODS = (
    "autopeft",
    "autopeft_serial",
    "autopeft_parallel",
    "autopeft_prefix",
    "autopeft_lora",
)


def add_peft_types() -> None:
    """Adds a member to `peft.utils.PeftType` for each of our methods that it lacks."""
    for method in METHODS:
        if method.upper() not in PeftType.__members__:
            _add_member(method.upper())


def register(configs: dict[str, type[PeftConfig]], tuners: dict[str, type[BaseTuner]]) -> None:
    """Registers a config class and a tuner class with PEFT for each method, once.

    Args:
        configs: The config class of each name in `METHODS`.
        tuners: The tuner class of each name in `METHODS`.
    """
    for method in METHODS:
        if PeftType[method.upper()] not in PEFT_TYPE_TO_CONFIG_MAPPING:
            register_peft_method(name=method, config_cls=configs[method], model_cls=tuners[method])


def _add_member(name: str) -> None:
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member.__objclass__ = PeftType  # type: ignore[attr-defined]
    member._sort_order_ = len(PeftType._member_names_)  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    # 3.13 keeps the values that can be looked up by hash in a list of their own as well
    hashable = getattr(PeftType, "_hashable_values_", None)
    if hashable is not None:
        hashable.append(name)
    # EnumType refuses to reassign members through its own __setattr__
    type.__setattr__(PeftType, name, member)
    if PeftType(name) is not member or PeftType[name] is not member or name not in list(PeftType):
        raise ImportError(
            f"peft_autoconfig could not add {name} to peft.utils.PeftType on this Python; "
            "please report the versions of Python and PEFT."
        )
