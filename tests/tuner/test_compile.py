"""torch.compile of adapted models: no graph breaks in our modules, and what eager gives."""

import copy

import pytest
import torch
from transformers import StaticCache

from peft_autoconfig import AutoPEFTConfig

from .architectures import ARCHITECTURES
from .configurations import METHODS, adapted, output, own_gradients

# fewer layers, since each costs seconds of compilation
ONE_LAYER = {
    "T5": {"num_layers": 1, "num_decoder_layers": 1},
    "GPT-2": {"n_layer": 1},
    "BERT": {"num_hidden_layers": 1},
    "OPT": {"num_hidden_layers": 1},
    "Llama": {"num_hidden_layers": 1},
}
CASES = [*(("BERT", method) for method in METHODS), *((name, "all") for name in ONE_LAYER)]


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()


def step(model, batch):
    result = output(model, batch)
    weights = torch.linspace(-1, 1, result.shape[-1])
    (result * weights).sum().backward()
    gradients = {name: g.clone() for name, g in own_gradients(model).items()}
    model.zero_grad()
    return result.detach(), gradients


@pytest.mark.parametrize(("architecture", "method"), dict.fromkeys(CASES))
def test_compiled_training_equals_eager(architecture, method):
    batch = ARCHITECTURES[architecture].batch()
    model = adapted(architecture, method, **ONE_LAYER[architecture])
    expected = step(model, batch)
    # one graph or an error: a break in our modules cannot pass unseen
    model.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(step(model, batch), expected, rtol=1e-4, atol=1e-5)


def test_compiled_code_follows_the_adapters():
    batch = ARCHITECTURES["BERT"].batch()
    model = adapted("BERT", "all", **ONE_LAYER["BERT"])
    model.add_adapter("other", METHODS["all"]())
    eager = copy.deepcopy(model)
    model.compile(backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for name in ("default", "other", "default"):
            for each in (model, eager):
                each.set_adapter(name)
            torch.testing.assert_close(output(model, batch), output(eager, batch))
        with model.disable_adapter(), eager.disable_adapter():
            torch.testing.assert_close(output(model, batch), output(eager, batch))


def test_compiled_decoding_with_a_static_cache():
    ids = torch.arange(5, 13)[None]
    model = adapted("Llama", "all", **ONE_LAYER["Llama"])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, 4:]
        model.compile(backend="aot_eager", fullgraph=True)
        cache = StaticCache(config=model.config, max_cache_len=16)
        logits = []
        for places in (range(5), [5], [6], [7]):
            step = {"input_ids": ids[:, list(places)], "position_ids": torch.tensor([[*places]])}
            result = model(**step, past_key_values=cache, cache_position=step["position_ids"][0])
            logits.append(result.logits[:, -1:])
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_compiled_mixed_batches():
    batch = ARCHITECTURES["BERT"].batch()
    model = adapted("BERT", "all", **ONE_LAYER["BERT"])
    model.add_adapter("other", AutoPEFTConfig(prefix_length=2))
    model.eval()
    names = {"adapter_names": ["default", "other", "__base__"]}
    with torch.no_grad():
        expected = output(model, {**batch, **names})
        model.compile(backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(output(model, {**batch, **names}), expected)
