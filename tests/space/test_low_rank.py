"""A space with a low-rank part: a fourth size, exact, and nothing changed for spaces without."""

import itertools
import json

import numpy as np
import optuna
import pytest
from transformers import BertConfig, CLIPConfig, T5Config

from peft_autoconfig import AutoPEFTConfig, LowRankConfig
from peft_autoconfig.errors import ConfigError, PlacementError
from peft_autoconfig.space import SearchSpace

OLD = {
    "num_layers": 3,
    "hidden_size": 8,
    "serial_bottleneck_sizes": (0, 1, 4),
    "parallel_bottleneck_sizes": (0,),
    "prefix_lengths": (0, 3),
}
SPACE = SearchSpace(
    **OLD, lora_ranks=(8, 0, 2), low_rank_size=40, lora_modules="attention", learning_rates=(0.1,)
)
BERT = BertConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=24)
# inputs and outputs of query, key, value, output, and of the two of the feed-forward sub-layer
BERT_SIZES = {"attention": 4 * (16 + 16), "feed_forward": 2 * (16 + 24), "all": 128 + 80}


def test_a_fourth_size_follows_the_three():
    assert list(SPACE.dimensions) == [
        "serial_bottleneck_size",
        "parallel_bottleneck_size",
        "prefix_length",
        "lora_rank",
        "layer_0",
        "layer_1",
        "layer_2",
        "learning_rate",
    ]
    assert SPACE.dimensions["lora_rank"] == (0, 2, 8)
    assert SPACE.size == (3 * 1 * 2 * 3 - 1) * (2**3 - 1)
    config = AutoPEFTConfig(prefix_length=3, lora_rank=2, lora_modules="attention")
    assert SPACE.encode(config, 0.1).tolist() == [0, 0, 1, 0.5, 1, 1, 1, 0]


def test_spaces_without_it_are_what_they_were():
    space = SearchSpace(**OLD)
    assert list(space.dimensions)[:4] == [*space.size_names, "layer_0"]
    assert space.encode(AutoPEFTConfig(serial_bottleneck_size=1)).tolist() == [0.5, 0, 0, 1, 1, 1]
    # run folders compare the descriptions of spaces
    assert set(space.to_dict()) == {*OLD, "learning_rates", "key_value_size", "max_params"}
    assert space.config(space.params(space.sample(0))) == space.sample(0)


def test_all_points_count_as_by_hand():
    seen = set()
    for x in SPACE.points():
        config, _ = SPACE.decode(x)
        layers = config.layers_to_transform or [0, 1, 2]
        serial = config.serial_bottleneck_size
        bottleneck = (2 * 8 * serial + serial + 8) * (serial > 0)
        per_layer = bottleneck + 2 * 8 * config.prefix_length + 40 * config.lora_rank
        assert SPACE.num_params(config) == SPACE.count_params(x[None])[0] == len(layers) * per_layer
        assert config.lora_modules == ("attention" if config.lora_rank else "all")
        assert SPACE.decode(SPACE.encode(config, 0.1)) == (config, 0.1)
        seen.add(str(config))
    assert len(seen) == SPACE.size


def test_an_optuna_trial_gives_the_configuration():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(SPACE.params(AutoPEFTConfig(lora_rank=8, lora_modules="attention"), 0.1))
    study.optimize(lambda trial: (0.5, SPACE.num_params(SPACE.suggest(trial))), n_trials=1)
    assert study.trials[0].params["lora_rank"] == 8
    assert study.trials[0].values[1] == 3 * 8 * 40


def test_the_description_is_json_and_leads_back():
    named = SearchSpace(**OLD, lora_ranks=[0, 4], low_rank_size=16, lora_modules=["value", "query"])
    assert named.lora_modules == ("query", "value")
    for space in (SPACE, named):
        assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    sampled = [named.sample(seed) for seed in range(20)]
    assert {str(c.lora_modules) for c in sampled} == {"all", "['query', 'value']"}
    assert all(named.is_valid(config) for config in sampled)


@pytest.mark.parametrize("modules", ["all", "attention", "feed_forward"])
def test_from_model_sums_inputs_and_outputs(modules):
    space = SearchSpace.from_model(BERT, lora_ranks=(0, 4), lora_modules=modules)
    assert space.low_rank_size == BERT_SIZES[modules]
    assert space.num_params(AutoPEFTConfig(lora_rank=4, lora_modules=modules)) == (
        2 * 4 * BERT_SIZES[modules]
    )


def test_a_low_rank_config_is_of_the_space_too():
    config = LowRankConfig(rank=2, modules="attention")
    assert SPACE.num_params(config) == 3 * 2 * 40
    assert SPACE.params(config, 0.1)["lora_rank"] == 2


def test_low_rank_alone():
    lists = dict.fromkeys(
        ("serial_bottleneck_sizes", "parallel_bottleneck_sizes", "prefix_lengths"), (0,)
    )
    space = SearchSpace.from_model(BERT, **lists, lora_ranks=(1, 2))
    assert space.size == 2 * (2**2 - 1)
    assert space.params_range == (BERT_SIZES["all"], 2 * 2 * BERT_SIZES["all"])
    assert all(space.config(p).lora_rank for p in map(space.decode_params, space.points()))


@pytest.mark.parametrize("max_params", [None, 100])
def test_draws_stay_within_the_budget(max_params):
    space = SearchSpace.from_dict(SPACE.to_dict() | {"max_params": max_params})
    counts = space.count_params(space.sample_stratified(300, 0))
    assert counts.min() > 0
    assert counts.max() <= (max_params or 10**9)
    sizes = itertools.product((0, 1, 4), (0, 3), (0, 2, 8), range(1, 4))
    fits = {
        count * per_layer
        for serial, prefix, rank, count in sizes
        if (per_layer := (17 * serial + 8) * (serial > 0) + 16 * prefix + 40 * rank)
        and count * per_layer <= (max_params or 10**9)
    }
    assert set(space.count_params(space.points()).tolist()) == fits
    assert np.isin(counts, [*fits]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_rank_size": None}, "expected low_rank_size beside lora_ranks"),
        ({"lora_ranks": None}, "expected lora_ranks beside low_rank_size=40"),
        ({"lora_ranks": None, "low_rank_size": None}, "lora_modules='attention'"),
        ({"lora_ranks": []}, "at least one value in lora_ranks"),
        ({"lora_ranks": [0, -1]}, "at least 0 in lora_ranks"),
        ({"low_rank_size": 0}, "low_rank_size to be a whole number of at least 1"),
        ({"lora_modules": "everything"}, "lora_modules must be one of"),
    ],
)
def test_impossible_spaces_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace.from_dict(SPACE.to_dict() | change)


def test_low_rank_parts_of_other_spaces_are_refused():
    config = AutoPEFTConfig(lora_rank=2, lora_modules="all")
    with pytest.raises(
        ConfigError, match="lora_modules='attention', those of the space, got 'all'"
    ):
        SPACE.num_params(config)
    with pytest.raises(ConfigError, match="the space has no lora_ranks, got lora_rank=2"):
        SearchSpace(**OLD).num_params(config)
    with pytest.raises(ConfigError, match=r"lora_scale=1\.0, which a space does not vary"):
        SPACE.params(AutoPEFTConfig(lora_rank=2, lora_modules="attention", lora_scale=2.0), 0.1)


def test_models_that_a_space_cannot_describe_are_refused():
    with pytest.raises(PlacementError, match=r"lora_modules=\['nothing'\]"):
        SearchSpace.from_model(BERT, lora_ranks=(0, 4), lora_modules=["nothing"])
    t5 = T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2, vocab_size=9)
    with pytest.raises(ConfigError, match=r"same low_rank_size in every layer.*'feed_forward'"):
        SearchSpace.from_model(t5, lora_ranks=(0, 4))
    with pytest.raises(ConfigError, match="same hidden_size in every layer"):
        SearchSpace.from_model(CLIPConfig())
