"""Generation with a prefix: caches, padding, beams."""

import pytest
import torch
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

from .architectures import ARCHITECTURES, text_batch
from .prefixed import (
    LANGUAGE_MODELS,
    TEXT_TO_TEXT,
    assert_near,
    run,
    sites_of,
    states_of,
    with_prefix,
    with_two_prefixes,
)


def generate(model, batch, **options):
    return model.generate(
        **batch,
        **{
            "max_new_tokens": 4,
            "min_new_tokens": 4,
            "do_sample": False,
            "pad_token_id": 1,
            "output_logits": True,
            "return_dict_in_generate": True,
            **options,
        },
    )


def prompt(name):
    batch = ARCHITECTURES[name].batch()
    batch.pop("decoder_input_ids", None)
    if name in LANGUAGE_MODELS:
        batch = {k: v[:, :4] for k, v in batch.items()}
    return batch


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_generation_needs_no_cache(name):
    model = with_prefix(name)
    cached = generate(model, prompt(name))
    uncached = generate(model, prompt(name), use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    assert_near(torch.stack(cached.logits), torch.stack(uncached.logits))


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_a_static_cache_changes_nothing(name):
    model = with_prefix(name)
    expected = generate(model, prompt(name))
    static = generate(model, prompt(name), cache_implementation="static", disable_compile=True)
    assert_near(torch.stack(static.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_padding_on_the_left_changes_nothing(name):
    model = with_prefix(name)
    batch = prompt(name)
    padded = {
        "input_ids": F.pad(batch["input_ids"], (3, 0), value=1),
        "attention_mask": F.pad(batch["attention_mask"], (3, 0), value=0),
    }
    expected, result = generate(model, batch), generate(model, padded)
    assert_near(torch.stack(result.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_beams_need_no_cache(name):
    model = with_prefix(name)
    results = [generate(model, prompt(name), num_beams=3, use_cache=c) for c in (True, False)]
    assert torch.equal(results[0].sequences, results[1].sequences)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Falcon", "T5"])
def test_beams_of_a_mixed_batch_are_those_of_their_adapter(name):
    model = with_two_prefixes(name)
    adapters = ["default", "longer", "__base__"]
    mixed = generate(model, prompt(name), num_beams=2, adapter_names=adapters).sequences
    for row, adapter in enumerate(adapters[:2]):
        model.set_adapter(adapter)
        assert torch.equal(mixed[row], generate(model, prompt(name), num_beams=2).sequences[row])


def causal_cases():
    for name in LANGUAGE_MODELS:
        # with a window a cached prefix slides out of it, ours stays; Bloom's biases are by position
        changes = {} if name not in ("Mistral", "Gemma 2", "Gemma 3") else {"sliding_window": None}
        if name.startswith("Gemma"):
            changes = {"sliding_window": 64}
        if name != "Bloom":
            yield pytest.param(name, changes, id=name)
    changes = {"new_decoder_architecture": False, "multi_query": True}
    yield pytest.param("Falcon", changes, id="Falcon-MQA")


@pytest.mark.parametrize(("name", "changes"), list(causal_cases()))
def test_output_is_that_of_keys_and_values_that_were_cached_first(name, changes):
    model = with_prefix(name, **changes)
    ids = text_batch()["input_ids"][:1]
    sites = sites_of(model)
    positions = torch.arange(ids.shape[1])[None]
    result = run(model, {"input_ids": ids, "position_ids": positions, "use_cache": False})
    states = [states_of(site) for site in sites]
    base, cache = model.unload(), DynamicCache()
    for i, (key, value) in enumerate(states):
        # Falcon caches the keys of a group once for each of its queries
        repeats = 2 if name == "Falcon" and not changes else 1
        cache.update(*(s.repeat_interleave(repeats, 0)[None] for s in (key, value)), i)
    mask = torch.ones(1, 3 + ids.shape[1], dtype=torch.long)
    expected = run(
        base,
        {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
        },
    )
    assert_near(result, expected)
