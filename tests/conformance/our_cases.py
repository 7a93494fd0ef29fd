"""What PEFT's tests are asked to run on: our configurations in the shapes of their own tables.

`tables` names every table of every test module of PEFT that we take part in, with the rows that
replace its own. A table is a list at the top of the module, or, if PEFT wrote it right at a test,
goes by the name of the test.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import peft_autoconfig
from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)

__all__ = ["MODULES", "is_ours", "tables"]

ALL_BUT_PREFIX = {
    "serial_bottleneck_size": 8,
    "parallel_bottleneck_size": 8,
    "lora_rank": 4,
    "lora_modules": "all",
}

METHODS: dict[str, tuple[type, dict[str, Any]]] = {
    "serial": (SerialAdapterConfig, {"bottleneck_size": 8}),
    "parallel": (ParallelAdapterConfig, {"bottleneck_size": 8}),
    "prefix": (LayerPrefixConfig, {"prefix_length": 4}),
    "projected": (LayerPrefixConfig, {"prefix_length": 4, "projection_size": 8}),
    "low-rank": (LowRankConfig, {"rank": 4}),
    "no-prefix": (AutoPEFTConfig, ALL_BUT_PREFIX),
    "all": (
        AutoPEFTConfig,
        {**ALL_BUT_PREFIX, "prefix_length": 4, "parallel_scale": "learned"},
    ),
}
# Those that can stand around a module of any model, there being no attention for a prefix.
ON_MODULES = {name: row for name, row in METHODS.items() if "prefix_length" not in row[1]}

# Name -> (model of test_custom_models.py, fields that say where).
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP": ("MLP", {"target_modules": "lin0"}),
    "MLP-both": ("MLP", {"target_modules": ["lin0", "lin1"]}),
    "MLP-head": ("MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    "LayerNorm": ("MLP_LayerNorm", {"target_modules": ["lin0", "lin1"]}),
    "embedding": ("EmbConv1D", {"target_modules": ["lin0"]}),
    "convolution": ("Conv2d", {"target_modules": ["lin0"]}),
}

# Module -> table -> task type of its rows.
FAMILIES = {
    "test_decoder_models": {"ALL_CONFIGS": "CAUSAL_LM"},
    "test_encoder_decoder_models": {"ALL_CONFIGS": "SEQ_2_SEQ_LM"},
    "test_feature_extraction_models": {"ALL_CONFIGS": "FEATURE_EXTRACTION"},
    "test_seq_classifier": {"ALL_CONFIGS": "SEQ_CLS"},
    "test_token_classification_qa": {
        "TOKEN_CLS_CONFIGS": "TOKEN_CLS",
        "QA_CONFIGS": "QUESTION_ANS",
    },
}
MODULES = (*FAMILIES, "test_custom_models", "test_config", "test_low_level_api")


def is_ours(value: object) -> bool:
    """Tells whether a parameter of a test is one of our classes or configurations."""
    if isinstance(value, partial):
        value = value.func
    module = value.__module__ if isinstance(value, type) else type(value).__module__
    return module.partition(".")[0] == peft_autoconfig.__name__


def tables() -> dict[str, dict[str, list[Any]]]:
    """Returns the rows for each table of each of `MODULES`: module -> table -> rows."""
    return {
        **{
            module: {name: list(_family(task)) for name, task in names.items()}
            for module, names in FAMILIES.items()
        },
        "test_custom_models": {
            "TEST_CASES": list(_custom()),
            "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES": list(_two_active()),
            "ALL_PEFT_CONFIG_CLASSES": list(_constructors()),
            "test_multiple_adapters_mixed_modules_to_save": list(_constructors()),
            "test_multiple_adapters_mixed_modules_to_save_order_switched": list(_constructors()),
            "test_adapter_name_makes_no_difference": list(_instances("lin0")),
            **_mixed_batches(),
        },
        "test_config": {
            "ALL_CONFIG_CLASSES": [pytest.param(*row, id=name) for name, row in METHODS.items()]
        },
        "test_low_level_api": {
            "test_inject_from_state_dict_and_from_config_target_same_layers": [
                pytest.param(config(**fields), id=name)
                for name, (config, fields) in METHODS.items()
            ]
        },
    }


def _family(task_type: str) -> Iterator[Any]:
    for name, (config, fields) in METHODS.items():
        yield pytest.param(config, {"task_type": task_type, **fields}, id=name)


def _custom() -> Iterator[Any]:
    for place, (model, where) in PLACES.items():
        for name, (config, fields) in ON_MODULES.items():
            title = f"{name}-{place}"
            yield pytest.param(title, model, config, {**fields, **where}, id=title)


def _two_active() -> Iterator[Any]:
    for name, (config, fields) in ON_MODULES.items():
        first, *others = (
            {**fields, "target_modules": [place], "init_weights": False}
            for place in ("lin0", "lin0", "lin1")
        )
        for title, second in zip(("same", "different"), others, strict=True):
            yield pytest.param(title, name, config, first, second, id=f"{name}-{title}")


def _constructors() -> Iterator[Any]:
    # the tests call these with a place only, so the sizes have to be bound beforehand
    for name, (config, fields) in ON_MODULES.items():
        yield pytest.param(partial(config, **fields), id=name)


def _instances(*modules: str, factor: int = 1, **more: Any) -> Iterator[Any]:
    for name, (config, fields) in ON_MODULES.items():
        sizes = {key: factor * size for key, size in fields.items() if isinstance(size, int)}
        where = {"target_modules": list(modules), "init_weights": False, **more}
        yield pytest.param(config(**{**fields, **sizes}, **where), id=name)


def _mixed_batches() -> dict[str, list[Any]]:
    start = "test_mixed_adapter_batches"
    single = list(_instances("lin0"))
    head = list(_instances("lin0", modules_to_save=["lin1"]))
    return {
        "MIXED_ADAPTER_TEST_CASES": _paired(single, list(_instances("lin0", factor=2))),
        f"{start}_different_target_layers": _paired(single, list(_instances("lin1"))),
        f"{start}_multiple_modules_to_save": _paired(head, head),
        f"{start}_partly_overlapping_target_layers": _paired(
            single, list(_instances("lin0", "lin1"))
        ),
        f"{start}_lora_wrong_adapter_name_raises": [
            pytest.param(one.id, *one.values, id=one.id) for one in single
        ],
    }


def _paired(first: list[Any], second: list[Any]) -> list[Any]:
    return [
        pytest.param(one.id, *one.values, *two.values, id=one.id)
        for one, two in zip(first, second, strict=True)
    ]
