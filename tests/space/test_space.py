"""The search space: round trips, exact counts against hand formulas, brute force, bad input."""

import itertools
import json

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, DistilBertConfig, GPT2Config, LlamaConfig

from peft_autoconfig import AutoPEFTConfig, SerialAdapterConfig
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.space import SearchSpace

RATES = (1e-4, 1e-3, 3e-3)
SMALL = SearchSpace(
    num_layers=3,
    hidden_size=8,
    serial_bottleneck_sizes=(0, 1, 4),
    parallel_bottleneck_sizes=(0, 2),
    prefix_lengths=(0, 3),
    learning_rates=RATES,
    key_value_size=6,
)


def all_configs(space):
    """Every configuration of a small space, valid or not, as (sizes, mask)."""
    sizes = itertools.product(
        space.serial_bottleneck_sizes, space.parallel_bottleneck_sizes, space.prefix_lengths
    )
    return itertools.product(sizes, itertools.product((0, 1), repeat=space.num_layers))


def params_by_hand(space, sizes, mask):
    serial, parallel, prefix = sizes
    hidden = space.hidden_size
    adapters = sum(2 * hidden * size + size + hidden for size in (serial, parallel) if size)
    return sum(mask) * (adapters + 2 * prefix * space.key_value_size)


def config_of(sizes, mask):
    serial, parallel, prefix = sizes
    return AutoPEFTConfig(
        serial_bottleneck_size=serial,
        parallel_bottleneck_size=parallel,
        prefix_length=prefix,
        layers_to_transform=[i for i, bit in enumerate(mask) if bit],
    )


@given(seed=st.integers(0, 2**32), rate=st.sampled_from(RATES))
@settings(max_examples=50, deadline=None)
def test_every_form_of_a_configuration_leads_back_to_it(seed, rate):
    config = SMALL.sample(seed)
    assert SMALL.config(SMALL.params(config, rate)) == config
    assert SMALL.decode(SMALL.encode(config, rate)) == (config, rate)
    assert SMALL.canonical(config) == config
    params = SMALL.params(config, rate)
    assert SMALL.decode_params(SMALL.encode_params(params)) == params
    assert SMALL.suggest(optuna.trial.FixedTrial(params)) == config


@given(
    num_layers=st.integers(1, 5),
    hidden_size=st.integers(1, 64),
    sizes=st.lists(st.lists(st.integers(1, 64), max_size=3, unique=True), min_size=3, max_size=3),
    rates=st.none() | st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_any_space_counts_and_round_trips(num_layers, hidden_size, sizes, rates, seed):
    if not any(sizes):
        sizes[0] = [1]
    space = SearchSpace(
        num_layers=num_layers,
        hidden_size=hidden_size,
        serial_bottleneck_sizes=[*sizes[0], 0],
        parallel_bottleneck_sizes=[*sizes[1], 0],
        prefix_lengths=[*sizes[2], 0],
        learning_rates=rates,
    )
    config = space.sample(seed)
    rate = None if rates is None else rates[0]
    x = space.encode(config, rate)
    assert x.min() >= 0
    assert x.max() <= 1
    assert space.decode(x) == (config, rate)
    assert space.count_params(x[None])[0] == space.num_params(config)
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize("max_params", [None, 500, 100, 40])
def test_size_and_draws_against_brute_force(max_params):
    space = SearchSpace.from_dict(SMALL.to_dict() | {"max_params": max_params})
    counts = [params_by_hand(space, *config) for config in all_configs(space)]
    valid = [count for count in counts if 0 < count <= (max_params or max(counts))]
    assert space.size == len(valid)
    assert space.num_points == len(valid) * len(RATES)
    generator = np.random.default_rng(0)
    drawn = [space.params(space.sample(generator), RATES[0]) for _ in range(40 * len(valid))]
    tally = {}
    for params in drawn:
        key = tuple(params.values())
        tally[key] = tally.get(key, 0) + 1
    assert len(tally) == len(valid)
    assert max(tally.values()) < 3 * min(tally.values()) + 20


def test_num_params_against_a_hand_formula():
    for sizes, mask in all_configs(SMALL):
        expected = params_by_hand(SMALL, sizes, mask)
        if not expected:
            continue
        config = config_of(sizes, mask)
        serial, parallel, prefix = sizes
        assert SMALL.num_params(config) == expected
        paper = sum(mask) * (2 * 8 * (serial + parallel) + 2 * 6 * prefix)
        assert SMALL.num_paper_params(config) == paper
        assert SMALL.num_trained_params(config, num_head_params=7) == expected + 7


def test_num_params_of_other_configs_than_the_space_s():
    per_layer = AutoPEFTConfig(serial_bottleneck_size=[0, 5, 1], prefix_length=7)
    serial = sum(2 * 8 * size + size + 8 for size in (5, 1))
    assert SMALL.num_params(per_layer) == serial + 3 * 2 * 7 * 6
    assert SMALL.num_params(SerialAdapterConfig(bottleneck_size=2)) == 3 * (2 * 8 * 2 + 2 + 8)


def test_paper_preset():
    space = SearchSpace.paper(12, 768)
    sizes = (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768)
    assert space.serial_bottleneck_sizes == space.parallel_bottleneck_sizes == sizes
    assert space.prefix_lengths == sizes
    assert space.size == 5_446_350  # (11^3 - 1) * (2^12 - 1)
    assert list(space.dimensions)[:4] == [
        "serial_bottleneck_size",
        "parallel_bottleneck_size",
        "prefix_length",
        "layer_0",
    ]
    large = SearchSpace.paper(24, 1024, prefix_lengths=[0, 10], learning_rates=RATES)
    assert large.serial_bottleneck_sizes[:4] == (0, 1, 4, 8)
    assert large.num_points == (11 * 11 * 2 - 1) * (2**24 - 1) * 3
    assert list(large.dimensions)[-1] == "learning_rate"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BertConfig(num_hidden_layers=4, hidden_size=32, num_attention_heads=2), (4, 32, 32)),
        (DistilBertConfig(n_layers=3, dim=24, n_heads=3), (3, 24, 24)),
        (GPT2Config(n_layer=5, n_embd=16, n_head=4), (5, 16, 16)),
        (
            LlamaConfig(
                num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2
            ),
            (2, 32, 16),
        ),
        (
            LlamaConfig(
                num_hidden_layers=2,
                hidden_size=32,
                num_attention_heads=4,
                head_dim=16,
                num_key_value_heads=4,
            ),
            (2, 32, 64),
        ),
    ],
)
def test_from_model_reads_any_config(config, expected):
    space = SearchSpace.from_model(config, learning_rates=RATES)
    assert (space.num_layers, space.hidden_size, space.key_value_size) == expected
    assert space.learning_rates == RATES


def test_from_model_takes_a_model():
    config = BertConfig(
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        vocab_size=10,
        intermediate_size=8,
    )
    assert SearchSpace.from_model(BertModel(config)) == SearchSpace.from_model(config)
    assert SearchSpace.from_model(config, prefix_lengths=[0]).prefix_lengths == (0,)


def test_from_model_says_what_it_misses():
    with pytest.raises(
        ConfigError, match=r"its Transformers config, got dict; .* num_layers=\.\.\."
    ):
        SearchSpace.from_model({"layers": 3})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation", "gelu"),
        ("parallel_scale", "learned"),
        ("dropout", 0.1),
        ("init_weights", "paper"),
        ("target_modules", ["query"]),
    ],
)
def test_what_a_space_does_not_vary_is_refused_and_not_lost(field, value):
    config = AutoPEFTConfig(serial_bottleneck_size=4, **{field: value})
    with pytest.raises(ConfigError, match=f"expected {field}=.*, which a space does not vary"):
        SMALL.params(config, RATES[0])
    with pytest.raises(ConfigError, match=field):
        SMALL.neighbors(config)
    assert not SMALL.is_valid(config)
    assert getattr(SMALL.canonical(config), field) == getattr(config, field)


def test_what_peft_notes_in_a_config_is_passed_over():
    config = AutoPEFTConfig(
        serial_bottleneck_size=4,
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
        inference_mode=True,
        base_model_name_or_path="somewhere",
    )
    plain = AutoPEFTConfig(serial_bottleneck_size=4)
    assert SMALL.params(config, RATES[0]) == SMALL.params(plain, RATES[0])


def test_masks_by_part_are_refused_where_they_differ():
    masks = {"serial": [0], "parallel": [1]}
    config = AutoPEFTConfig(
        serial_bottleneck_size=4, parallel_bottleneck_size=2, layers_to_transform=masks
    )
    with pytest.raises(ConfigError, match=r"same sizes .* in every active layer"):
        SMALL.params(config, RATES[0])
    alike = AutoPEFTConfig(serial_bottleneck_size=4, layers_to_transform={"serial": [0, 2]})
    assert SMALL.canonical(alike).layers_to_transform == [0, 2]


def test_canonical_recognises_the_same_structure_written_differently():
    written = AutoPEFTConfig(
        serial_bottleneck_size=[4, 0, 4], prefix_length=[3, 0, 3], modules_to_save=["classifier"]
    )
    canonical = SMALL.canonical(written)
    assert canonical.serial_bottleneck_size == 4
    assert canonical.prefix_length == 3
    assert canonical.layers_to_transform == [0, 2]
    assert canonical.modules_to_save == ["classifier"]
    everywhere = AutoPEFTConfig(serial_bottleneck_size=4, layers_to_transform=[2, 1, 0])
    assert SMALL.canonical(everywhere).layers_to_transform is None


@pytest.mark.parametrize("max_params", [None, 200])
def test_neighbors_are_all_valid_single_changes(max_params):
    space = SearchSpace.from_dict(SMALL.to_dict() | {"max_params": max_params})
    config = AutoPEFTConfig(serial_bottleneck_size=1, layers_to_transform=[1])
    mine = tuple(space.params(config, RATES[0]).values())[:-1]
    expected = set()
    for sizes, mask in all_configs(space):
        other = (*sizes, *mask)
        count = params_by_hand(space, sizes, mask)
        differences = sum(a != b for a, b in zip(mine, other, strict=True))
        if differences == 1 and 0 < count <= (max_params or count):
            expected.add(other)
    neighbors = space.neighbors(config)
    found = {tuple(space.params(other, RATES[0]).values())[:-1] for other in neighbors}
    assert found == expected
    assert len(neighbors) == len(expected)


def test_stratified_draws_cover_cheap_and_dear_and_every_rate():
    space = SearchSpace.paper(12, 768, learning_rates=RATES)
    X = space.sample_stratified(500, 0)
    counts = space.count_params(X)
    assert counts.min() > 0
    assert np.quantile(counts, 0.15) < 1.5e5
    assert np.quantile(counts, 0.8) > 3e6
    assert {space.decode(x)[1] for x in X} == set(RATES)
    assert (space.sample_stratified(500, 0) == X).all()
    tight = SearchSpace.paper(12, 768, max_params=20_000)
    assert tight.count_params(tight.sample_stratified(200, 0)).max() <= 20_000


def test_suggest_names_the_parameters_and_their_real_sizes():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(SMALL.params(AutoPEFTConfig(serial_bottleneck_size=4), 1e-3))
    study.optimize(lambda trial: (0.5, SMALL.num_params(SMALL.suggest(trial))), n_trials=1)
    assert study.trials[0].params == {
        "serial_bottleneck_size": 4,
        "parallel_bottleneck_size": 0,
        "prefix_length": 0,
        "layer_0": 1,
        "layer_1": 1,
        "layer_2": 1,
        "learning_rate": 1e-3,
    }
    assert study.trials[0].distributions == SMALL.distributions
    assert study.trials[0].values == [0.5, 3 * (2 * 8 * 4 + 4 + 8)]


@pytest.mark.parametrize("sizes", [{"layer_0": 0}, {"serial_bottleneck_size": 4}])
def test_suggest_prunes_what_a_foreign_sampler_should_not_have_drawn(sizes):
    space = SearchSpace.from_dict(SMALL.to_dict() | {"num_layers": 1, "max_params": 60})
    params = space.params(AutoPEFTConfig(serial_bottleneck_size=1), 1e-3) | sizes
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(params)
    study.optimize(lambda trial: (0.5, space.num_params(space.suggest(trial))), n_trials=1)
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert study.trials[0].params == params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers to be a whole number of at least 1, got 0"),
        ({"num_layers": True}, "num_layers"),
        ({"hidden_size": 2.5}, "hidden_size"),
        ({"key_value_size": -1}, "key_value_size"),
        ({"serial_bottleneck_sizes": []}, "at least one value in serial_bottleneck_sizes"),
        ({"serial_bottleneck_sizes": 3}, "list of numbers, got 3"),
        ({"parallel_bottleneck_sizes": [0, -2]}, "at least 0 in parallel_bottleneck_sizes"),
        ({"prefix_lengths": [0, 1.5]}, "whole numbers of at least 0 in prefix_lengths"),
        ({"prefix_lengths": [0, 4, 4]}, r"different values in prefix_lengths, got \[4\]"),
        ({"learning_rates": []}, "None means that it does not vary"),
        ({"learning_rates": [0.0]}, "finite numbers above 0 in learning_rates, got 0.0"),
        ({"learning_rates": [float("nan")]}, "finite numbers above 0"),
        ({"learning_rates": ["1e-3"]}, "finite numbers above 0"),
        ({"learning_rates": [1e-3, 1e-3]}, "more than once"),
        ({"max_params": 0}, "max_params to be a whole number"),
        ({"max_params": 24}, "max_params of at least 25, which the smallest"),
        (
            {
                "serial_bottleneck_sizes": [0],
                "parallel_bottleneck_sizes": [0],
                "prefix_lengths": [0],
            },
            "above 0 for at least one module",
        ),
        (
            {
                "serial_bottleneck_sizes": range(200),
                "parallel_bottleneck_sizes": range(200),
                "prefix_lengths": range(200),
            },
            "thin the lists",
        ),
        ({"sizes": [1]}, "names among"),
    ],
)
def test_impossible_spaces_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace.from_dict(SMALL.to_dict() | change)


def test_incomplete_spaces_are_refused():
    with pytest.raises(ConfigError, match=r"without \['prefix_lengths'\]"):
        SearchSpace.from_dict({k: v for k, v in SMALL.to_dict().items() if k != "prefix_lengths"})
    with pytest.raises(ConfigError, match=r"got \['prefix_length'\]"):
        SearchSpace.paper(12, 768, prefix_length=[0])


@pytest.mark.parametrize(
    ("config", "rate", "message"),
    [
        (AutoPEFTConfig(serial_bottleneck_size=2), 1e-3, r"among \[0, 1, 4\], got 2"),
        (AutoPEFTConfig(serial_bottleneck_size=4), 2e-3, "learning_rate among"),
        (AutoPEFTConfig(serial_bottleneck_size=4), None, "expected a learning rate"),
        (AutoPEFTConfig(serial_bottleneck_size=[1, 4, 0]), 1e-3, "same sizes .* in every active"),
        (AutoPEFTConfig(serial_bottleneck_size=[1, 1]), 1e-3, "serial_bottleneck_size"),
        (AutoPEFTConfig(serial_bottleneck_size=4, layers_to_transform=[5]), 1e-3, "layers"),
    ],
)
def test_configurations_outside_the_space_are_refused(config, rate, message):
    with pytest.raises(ConfigError, match=message):
        SMALL.encode(config, rate)


def test_vectors_and_parameters_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="vectors of 7 entries"):
        SMALL.decode(np.zeros(6))
    with pytest.raises(ConfigError, match="NaN"):
        SMALL.decode(np.full(7, np.nan))
    with pytest.raises(ConfigError, match="everything off"):
        SMALL.decode(np.zeros(7))
    with pytest.raises(ConfigError, match="expected a parameter serial_bottleneck_size"):
        SMALL.config({})
    with pytest.raises(ConfigError, match="expected a parameter learning_rate"):
        SMALL.encode_params(dict(list(SMALL.params(SMALL.sample(0), 1e-3).items())[:-1]))


def test_budget_decides_validity():
    config = AutoPEFTConfig(serial_bottleneck_size=4)
    assert SMALL.is_valid(config)
    assert not SMALL.is_valid(AutoPEFTConfig(serial_bottleneck_size=5))
    tight = SearchSpace.from_dict(SMALL.to_dict() | {"max_params": SMALL.num_params(config) - 1})
    assert not tight.is_valid(config)
    with pytest.raises(ConfigError, match=r"at most 227 parameters \(max_params\), got 228"):
        tight.params(config, 1e-3)
