"""The counts of a space against adapters that were really built and saved."""

import pytest
from peft import get_peft_model
from safetensors.torch import load_file

from peft_autoconfig import AutoPEFTConfig, SearchSpace

from ..conftest import BUILDERS, NUM_LAYERS


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
