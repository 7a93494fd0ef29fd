"""The counts of a space against adapters that were really built and saved."""

import pytest
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from peft_autoconfig import AutoPEFTConfig, SearchSpace
from peft_autoconfig.errors import ConfigError

from ..conftest import BUILDERS, NUM_LAYERS
from ..tuner.architectures import ARCHITECTURES, build

# those with a decoder's second attention have other modules in every other layer
TWO_STACKS = ("T5", "BART", "Whisper")


@pytest.mark.parametrize("arch", ["bert", "roberta", "llama"])
@pytest.mark.parametrize("seed", range(5))
def test_count_is_what_the_saved_adapter_holds(arch, seed, tmp_path):
    model = BUILDERS[arch]()
    space = SearchSpace.from_model(model)
    config = space.sample(seed)
    peft_model = get_peft_model(model, config)
    peft_model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trained = sum(p.numel() for p in peft_model.parameters() if p.requires_grad)
    assert space.num_params(config) == sum(tensor.numel() for tensor in saved.values())
    assert space.num_trained_params(config) == trained


def saved_params(model, config):
    state = get_peft_model_state_dict(get_peft_model(model, config))
    return sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("arch", sorted({*ARCHITECTURES} - {"CLIP"}))
def test_structure_and_counts_of_every_architecture(arch):
    modules = "feed_forward" if arch in TWO_STACKS else "all"
    choices = {"lora_ranks": (0, 1, 4), "lora_modules": modules, "prefix_lengths": (0,)}
    model = build(arch)
    space = SearchSpace.from_model(model, **choices)
    assert space.num_layers == ARCHITECTURES[arch].num_layers
    assert SearchSpace.from_model(model.config, **choices) == space
    config = AutoPEFTConfig(
        serial_bottleneck_size=2, parallel_bottleneck_size=3, lora_rank=4, lora_modules=modules
    )
    assert space.num_params(config) == saved_params(model, config)


@pytest.mark.parametrize("arch", ["DistilBERT", "Falcon", "Mistral", "T5", "ViT"])
def test_prefixes_have_the_keys_of_the_attention(arch):
    model = build(arch)
    config = AutoPEFTConfig(prefix_length=3)
    assert SearchSpace.from_model(model).num_params(config) == saved_params(model, config)


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize("modules", ["attention", "feed_forward", ["query", "q_proj"]])
def test_low_rank_updates_of_chosen_modules(arch, modules):
    model = BUILDERS[arch]()
    space = SearchSpace.from_model(model, lora_ranks=(0, 2, 8), lora_modules=modules)
    for seed in range(3):
        config = space.sample(seed)
        assert space.num_params(config) == saved_params(BUILDERS[arch](), config)


def test_parts_that_no_space_varies_are_counted_too():
    config = AutoPEFTConfig(
        parallel_bottleneck_size=2,
        parallel_scale="learned",
        prefix_length=[0, 3, 1, 0],
        prefix_projection_size=5,
    )
    for arch in ("bert", "llama"):
        space = SearchSpace.from_model(BUILDERS[arch]())
        assert space.num_params(config) == saved_params(BUILDERS[arch](), config)


def test_modules_named_one_by_one_are_not_counted():
    space = SearchSpace.from_model(BUILDERS["bert"]())
    config = AutoPEFTConfig(serial_bottleneck_size=2, target_modules=["query"])
    with pytest.raises(ConfigError, match=r"by structure, got target_modules=\{'query'\}"):
        space.num_params(config)


def test_sizes_that_differ_between_layers_are_counted_too(tmp_path):
    model = BUILDERS["llama"]()
    space = SearchSpace.from_model(model)
    config = AutoPEFTConfig(
        serial_bottleneck_size=[1, 0, 3, 2], prefix_length=[0, 2, 2, 1], layers_to_transform=[1, 2]
    )
    get_peft_model(model, config).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(config.layer_sizes(NUM_LAYERS)) == NUM_LAYERS
    assert space.num_params(config) == sum(tensor.numel() for tensor in saved.values())


def test_the_papers_count_leaves_biases_out():
    space = SearchSpace.paper(num_layers=12, hidden_size=768)
    config = AutoPEFTConfig(
        serial_bottleneck_size=12,
        parallel_bottleneck_size=96,
        prefix_length=1,
        layers_to_transform=[3, 4, 8, 9, 10],
    )
    # the configuration that AutoPEFT found on RTE: 0.76 % of BERT's 109,482,240 parameters
    assert round(100 * space.num_paper_params(config) / 109_482_240, 2) == 0.76
    biases = 5 * ((12 + 768) + (96 + 768))
    assert space.num_params(config) == space.num_paper_params(config) + biases
