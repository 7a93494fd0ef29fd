"""The places: found in every architecture, in models that carry adapters, refused with a reason."""

import copy

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import PlacementError
from peft_autoconfig.tuner.placement import find_layers

from .architectures import ARCHITECTURES, BERT, GPT2, LLAMA, build

# architecture: (module that is wrapped for bottlenecks, module whose input is tapped, attention)
PLACES = {
    "BERT": ("encoder.layer.1.output.LayerNorm", "encoder.layer.1.intermediate", "attention.self"),
    "DistilBERT": ("transformer.layer.1.ffn", None, "attention"),
    "ALBERT": (
        "encoder.albert_layer_groups.0.albert_layers.0.ffn_output",
        "encoder.albert_layer_groups.0.albert_layers.0.ffn",
        "attention",
    ),
    "DeBERTa-v2/v3": (
        "encoder.layer.1.output.LayerNorm",
        "encoder.layer.1.intermediate",
        "attention.self",
    ),
    "ModernBERT": ("layers.1.mlp", None, "attn"),
    "GPT-2": ("transformer.h.1.mlp", None, "attn"),
    "Bloom": ("transformer.h.1.mlp", None, "self_attention"),
    "OPT": ("model.decoder.layers.1.fc2", "model.decoder.layers.1.fc1", "self_attn"),
    "Mixtral": ("model.layers.1.mlp", None, "self_attn"),
    "T5": ("decoder.block.1.layer.2.DenseReluDense", None, "layer.0.SelfAttention"),
    "BART": ("model.decoder.layers.1.fc2", "model.decoder.layers.1.fc1", "self_attn"),
    "CLIP": ("vision_model.encoder.layers.1.mlp", None, "self_attn"),
}
EVERYTHING = {
    "serial_bottleneck_size": 3,
    "parallel_bottleneck_size": 2,
    "prefix_length": 2,
    "lora_rank": 2,
    "lora_modules": "all",
}


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def as_labels(places):
    return list(places.attention_projections), list(places.feed_forward_projections)


def test_every_architecture_has_its_layers(name):
    model = build(name)
    layers = find_layers(model)
    assert len(layers) == ARCHITECTURES[name].num_layers
    modules = dict(model.named_modules())
    for places in layers:
        wrapped = [places.attention, places.feed_forward]
        wrapped += [places.first_module] if places.first_module else []
        assert {*wrapped} <= {*modules}
        projections = {**places.attention_projections, **places.feed_forward_projections}
        linear = {n: modules[n] for n in projections.values()}
        assert len(linear) == len(projections)
        assert all(isinstance(module, nn.Linear | Conv1D) for module in linear.values())
        assert any(n.startswith(f"{places.attention}.") for n in linear)
        kind = type(modules[places.feed_forward]).__name__
        assert places.ends_in_norm == kind.endswith("LayerNorm")


@pytest.mark.parametrize("name", PLACES)
def test_places_are_those_of_the_family(name):
    wrapped, tapped, attention = PLACES[name]
    places = find_layers(build(name))[-1]
    assert (places.feed_forward, places.first_module) == (wrapped, tapped)
    assert places.attention.endswith(f".{attention}")


def test_parts_see_inputs_and_outputs_of_the_hidden_size(name):
    model, widths = build(name), {}
    layers = find_layers(model)
    for i, places in enumerate(layers):
        wrapped = model.get_submodule(places.feed_forward)
        tapped = model.get_submodule(places.first_module) if places.first_module else wrapped
        tapped.register_forward_pre_hook(
            lambda _, args, i=i: widths.update({(i, "x"): args[0].shape[-1]})
        )
        wrapped.register_forward_hook(
            lambda _, args, output, i=i: widths.update({(i, "h"): output.shape[-1]})
        )
    with torch.no_grad():
        model(**ARCHITECTURES[name].batch())
    for i, places in enumerate(layers):
        assert widths[i, "x"] == widths[i, "h"] == places.hidden_size


def test_places_are_found_again_in_a_model_that_carries_adapters(name):
    model = build(name)
    before = find_layers(model)
    carrier = get_peft_model(model, AutoPEFTConfig(**EVERYTHING)).base_model.model
    after = find_layers(carrier)
    modules = dict(carrier.named_modules())
    for old, new in zip(before, after, strict=True):
        assert as_labels(old) == as_labels(new)
        for field in ("attention", "feed_forward", "first_module", "hidden_size", "repeats"):
            assert getattr(old, field) == getattr(new, field)
        for found in (new.attention_projections, new.feed_forward_projections):
            assert all(isinstance(modules[n], nn.Linear | Conv1D) for n in found.values())


def test_shared_layers_are_one_place_that_is_run_several_times():
    (places,) = find_layers(build("ALBERT", num_hidden_layers=12))
    assert places.repeats == 12
    groups = find_layers(build("ALBERT", num_hidden_layers=12, num_hidden_groups=3))
    assert [places.repeats for places in groups] == [4, 4, 4]
    assert all(places.repeats == 1 for places in find_layers(build("T5")))


def test_stacks_follow_each_other_with_widths_of_their_own():
    layers = find_layers(build("CLIP"))
    assert [places.attention.split(".")[0] for places in layers] == [
        *["text_model"] * 2,
        *["vision_model"] * 2,
    ]
    assert [places.hidden_size for places in layers] == [32, 32, 40, 40]
    sides = [places.attention.split(".")[0] for places in find_layers(build("T5"))]
    assert sides == ["encoder", "encoder", "decoder", "decoder"]


@pytest.mark.parametrize(
    ("model_class", "config", "first", "other"),
    [
        (hf.BertModel, hf.BertConfig(**BERT, is_decoder=True, add_cross_attention=True), 0, 4),
        (hf.GPT2Model, hf.GPT2Config(**GPT2, add_cross_attention=True), 0, 2),
    ],
)
def test_cross_attention_gets_low_rank_updates_but_no_prefix(model_class, config, first, other):
    places = find_layers(model_class(config))[0]
    labels = list(places.attention_projections)
    assert "cross" not in places.attention
    assert "cross" not in labels[first]
    assert "cross" in labels[other]
    assert len(places.feed_forward_projections) == 2
    assert not any("cross" in label for label in places.feed_forward_projections)


class Int8Linear(nn.Module):
    """As quantised linear modules are: the matrix is a buffer."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("packed", torch.zeros(8, dtype=torch.int8))


@pytest.mark.parametrize("name", ["BERT", "BART", "Llama", "T5"])
def test_quantised_linear_modules_are_projections(name):
    model = build(name)
    expected = find_layers(model)
    for child_name, child in list(model.named_modules()):
        if isinstance(child, nn.Linear) and "lm_head" not in child_name:
            parent, _, attribute = child_name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, Int8Linear(child))
    assert find_layers(model) == expected


def test_linear_modules_of_another_method_are_named_as_they_are_called():
    model = build("Llama")
    expected = find_layers(model)
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj", "up_proj"]), model)
    assert find_layers(model) == expected


def test_modules_that_are_trained_and_saved_as_a_whole_have_no_places():
    config = LoraConfig(target_modules=["pooler.dense"], modules_to_save=["decoder"])
    model = nn.ModuleDict({"encoder": build("BERT"), "decoder": build("BERT")})
    both = find_layers(model)
    inject_adapter_in_model(config, model)
    assert find_layers(model) == both[:2]


class OldLayer(nn.Module):
    """A layer as ViT's was once: the last of two modules adds the residual, without a norm."""

    def __init__(self, layer):
        super().__init__()
        self.attention, self.norm = layer.attention, layer.layernorm_before
        self.intermediate = nn.Sequential(copy.deepcopy(layer.mlp.fc1), nn.GELU())
        self.output = nn.Sequential(copy.deepcopy(layer.mlp.fc2), nn.Dropout())


def test_the_last_linear_module_is_found_inside_a_child():
    model = build("ViT")
    layers = find_layers(model)
    stack = layers[0].attention.split(".0.")[0]
    modules = model.get_submodule(stack)
    for i, layer in enumerate(modules):
        modules[i] = OldLayer(layer)
    places = find_layers(model)[1]
    assert places.feed_forward == f"{stack}.1.output.0"
    assert places.first_module == f"{stack}.1.intermediate"


def test_norms_and_linear_modules_of_other_ends_do_not_mislead():
    model = build("Llama")
    for layer in model.model.layers:
        # as in BitNet and in Gemma 4
        layer.mlp.inner_norm = nn.LayerNorm(48)
        layer.gate, layer.projection = nn.Linear(32, 8), nn.Linear(8, 32)
    places = find_layers(model)[0]
    assert places.feed_forward == "model.layers.0.mlp"
    assert places.hidden_size == 32
    assert list(places.feed_forward_projections) == list(
        find_layers(build("Llama"))[0].feed_forward_projections
    )


def test_a_layer_that_changes_the_width_is_refused():
    model = build("ViT")
    for layer in model.layers:
        layer.mlp.fc1, layer.mlp.fc2 = nn.Linear(48, 64), nn.Linear(64, 48)
    with pytest.raises(PlacementError, match=r"found {'mlp': 'ViTMLP'}"):
        find_layers(model)


class MaskedAttentionLayer(nn.Module):
    """A layer that is called an attention, as in Mask2Former."""

    def __init__(self, layer):
        super().__init__()
        self.self_attn, self.norm = layer.self_attn, layer.input_layernorm
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 32)


def test_a_layer_may_be_called_an_attention():
    layers = build("Bloom").transformer.h
    for i, layer in enumerate(layers):
        layer.self_attn = layer.self_attention
        layers[i] = MaskedAttentionLayer(layer)
    places = find_layers(nn.ModuleDict({"h": layers}))
    assert [place.feed_forward for place in places] == ["h.0.fc2", "h.1.fc2"]
    assert places[0].attention == "h.0.self_attn"


def test_a_list_of_attentions_is_no_stack():
    model = nn.ModuleList(layer.self_attn for layer in build("Llama").model.layers)
    with pytest.raises(PlacementError, match="found none"):
        find_layers(nn.ModuleDict({"attentions": model}))


def hybrid():
    sizes = {**LLAMA, "num_hidden_layers": 4, "head_dim": 16}
    sizes |= {"num_experts": 4, "num_experts_per_tok": 2}
    sizes |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    sizes |= {f"linear_{side}_head_dim": 8 for side in ("key", "value")}
    sizes |= {f"linear_num_{side}_heads": 2 for side in ("key", "value")}
    return hf.Qwen3NextForCausalLM(hf.Qwen3NextConfig(**sizes)).eval()


def test_layers_without_an_attention_take_all_but_a_prefix():
    model = hybrid()
    layers = find_layers(model)
    mixers = [places.attention.rpartition(".")[2] for places in layers]
    assert mixers == ["linear_attn", "linear_attn", "linear_attn", "self_attn"]
    assert all(places.feed_forward.endswith("mlp") for places in layers)
    assert "linear_attn_out_proj" in layers[0].attention_projections
    with pytest.raises(PlacementError, match="which Qwen3NextGatedDeltaNet does not"):
        get_peft_model(model, AutoPEFTConfig(**EVERYTHING))
    masked = AutoPEFTConfig(
        **EVERYTHING, layers_to_transform={"prefix": [3]}, init_weights=False, activation="gelu"
    )
    ids = torch.arange(5, 14)[None]
    before = model(input_ids=ids).logits
    peft_model = get_peft_model(model, masked)
    labels = [as_labels(places) for places in find_layers(peft_model.base_model.model)]
    assert labels == [as_labels(places) for places in layers]
    logits = peft_model(input_ids=ids).logits
    logits.pow(2).sum().backward()
    assert not torch.equal(logits, before)
    for name, parameter in peft_model.named_parameters():
        if "autopeft_" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    assert torch.equal(peft_model.unload()(input_ids=ids).logits, before)


def test_a_model_without_a_stack_is_refused():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(PlacementError, match="found none in Sequential"):
        find_layers(model)


def test_a_layer_without_a_feed_forward_sub_layer_is_refused():
    model = build("Llama")
    for layer in model.model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(PlacementError, match=r"found {} in model.layers.0 \(LlamaDecoderLayer\)"):
        find_layers(model)
    for layer in model.model.layers:
        layer.mlp, layer.side = nn.Linear(32, 48), nn.Linear(32, 32)
    with pytest.raises(PlacementError, match="'mlp': 'Linear', 'side': 'Linear'"):
        find_layers(model)
