"""The maths: against formulas written out here, and against outputs of AdapterHub's library."""

import json

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from torch.nn import functional as F
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from peft_autoconfig import AutoPEFTConfig

from ..conftest import shared_folder, tiny_bert, tiny_llama

FIELDS = {
    "serial": "serial_bottleneck_size",
    "parallel": "parallel_bottleneck_size",
    "prefix": "prefix_length",
}
FIXTURE = "adapterhub_parity.safetensors"
CASES = [
    f"{arch}.{case}"
    for arch in ("bert", "roberta")
    for case in (
        "serial",
        "serial_layers",
        "parallel",
        "parallel_layers",
        "prefix",
        "prefix_layers",
    )
]


def bottleneck(site, part, x):
    down = getattr(site, f"autopeft_{part}_down")["default"]
    up = getattr(site, f"autopeft_{part}_up")["default"]
    return torch.relu(x @ down.weight.T + down.bias) @ up.weight.T + up.bias


def randomise(model):
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "autopeft_" in name:
            torch.nn.init.normal_(parameter, std=0.3)


def test_post_norm_layer_is_the_papers_formula():
    model = get_peft_model(
        tiny_bert().double(),
        AutoPEFTConfig(serial_bottleneck_size=5, parallel_bottleneck_size=7),
        autocast_adapter_dtype=False,
    )
    randomise(model)
    layer = model.base_model.model.encoder.layer[1]
    x = torch.randn(2, 6, 32, dtype=torch.double)
    h = layer.output.dense(layer.intermediate(x))
    site = layer.output.LayerNorm
    norm = site.base_layer
    expected = norm(
        x + h + bottleneck(site, "serial", norm(x + h)) + 4.0 * bottleneck(site, "parallel", x)
    )
    torch.testing.assert_close(layer.feed_forward_chunk(x), expected, rtol=0, atol=1e-12)


def test_whole_feed_forward_has_both_bottlenecks():
    model = get_peft_model(
        tiny_llama().double(),
        AutoPEFTConfig(serial_bottleneck_size=5, parallel_bottleneck_size=7, parallel_scale=2.0),
        autocast_adapter_dtype=False,
    )
    randomise(model)
    site = model.base_model.model.model.layers[0].mlp
    x = torch.randn(2, 6, 32, dtype=torch.double)
    h = site.base_layer(x)
    expected = h + bottleneck(site, "serial", h) + 2.0 * bottleneck(site, "parallel", x)
    torch.testing.assert_close(site(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [True, False])
def test_prefix_is_attended_to_by_every_token(implementation, padded, batch):
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    model = get_peft_model(
        tiny_bert(attn_implementation=implementation), AutoPEFTConfig(prefix_length=3)
    )
    randomise(model)
    attention = model.base_model.model.encoder.layer[0].attention.self
    seen = {}
    attention.register_forward_hook(lambda _, args, output: seen.update(x=args[0], y=output[0]))
    model(**batch)
    base, x = attention.base_layer, seen["x"]
    heads = [
        projection(x).view(3, 9, 4, 8).transpose(1, 2)
        for projection in (base.query, base.key, base.value)
    ]
    key = torch.cat([attention.autopeft_prefix_key["default"].expand(3, -1, -1, -1), heads[1]], 2)
    value = torch.cat(
        [attention.autopeft_prefix_value["default"].expand(3, -1, -1, -1), heads[2]], 2
    )
    logits = heads[0] @ key.transpose(-1, -2) / 8**0.5
    hidden = F.pad(batch["attention_mask"] == 0, (3, 0), value=False)
    weights = logits.masked_fill(hidden[:, None, None], float("-inf")).softmax(-1)
    expected = (weights @ value).transpose(1, 2).reshape(3, 9, 32)
    torch.testing.assert_close(seen["y"], expected, rtol=0, atol=2e-6)


def test_causal_prefix_without_a_mask_hides_no_token():
    ids = torch.arange(5, 14)[None]
    outputs = {}
    for implementation in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = get_peft_model(
            tiny_llama(attn_implementation=implementation), AutoPEFTConfig(prefix_length=3)
        )
        randomise(model)
        outputs[implementation] = model(input_ids=ids).logits
        changed = model(input_ids=ids.clone().index_fill_(1, torch.tensor([6]), 50)).logits
        assert (changed[0, 7:] - outputs[implementation][0, 7:]).abs().max() > 1e-4
        torch.testing.assert_close(changed[0, :6], outputs[implementation][0, :6])
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_those_of_adapterhub(case, implementation):
    path = shared_folder("PEFT_AUTOCONFIG_FIXTURES_DIR") / FIXTURE
    with safe_open(path, "pt") as fixture:
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}
        facts = {key: json.loads(value) for key, value in fixture.metadata().items()}
    arch = case.split(".")[0]
    sizes = facts["config"]
    kinds = {"bert": (BertModel, BertConfig), "roberta": (RobertaModel, RobertaConfig)}
    model_class, config_class = kinds[arch]
    config = config_class(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["num_hidden_layers"],
        num_attention_heads=sizes["num_attention_heads"],
        intermediate_size=sizes["intermediate_size"],
        attn_implementation=implementation,
    )
    if arch == "roberta":
        config.max_position_embeddings = sizes["roberta_max_position_embeddings"]
    base = model_class(config)
    head = f"{arch}.base."
    base.load_state_dict(
        {key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)},
        strict=False,
    )
    chosen = {FIELDS[part]: size for part, size in facts[case]["sizes"].items()}
    model = get_peft_model(base, AutoPEFTConfig(**chosen)).eval()
    weights = {}
    for key in model.state_dict():
        if "autopeft_" not in key:
            continue
        layer = key.split(".layer.")[1].split(".")[0]
        part, piece = key.split("autopeft_")[1].split(".")[0].split("_")
        suffix = "" if part == "prefix" else f".{key.rsplit('.', 1)[1]}"
        weights[key] = tensors[f"{case}.{part}.{layer}.{piece}{suffix}"]
    model.load_state_dict(weights, strict=False)
    mask = tensors["attention_mask"]
    with torch.no_grad():
        output = model(input_ids=tensors["input_ids"], attention_mask=mask).last_hidden_state
    difference = ((output - tensors[f"{case}.output"]) * mask[..., None]).abs().max()
    assert difference < 1e-5
