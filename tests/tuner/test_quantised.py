"""Adapters on bases whose linear layers bitsandbytes holds in eight or four bits."""

import copy

import pytest
import torch
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from torch import nn

from .architectures import ARCHITECTURES
from .configurations import METHODS, output, own_gradients

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is missing (extra: integration)")

every_method = pytest.mark.parametrize("method", METHODS)
# sizes that blocks of 64 weights divide
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
BITS = {
    "8 bits": lambda m: bnb.nn.Linear8bitLt(
        m.in_features, m.out_features, m.bias is not None, has_fp16_weights=False
    ),
    "4 bits": lambda m: bnb.nn.Linear4bit(
        m.in_features, m.out_features, m.bias is not None, compute_dtype=torch.float32
    ),
}


def quantised(architecture, bits):
    """Returns a model whose layers, but not its head, are of so many bits, and the float one."""
    whole = ARCHITECTURES[architecture].build(**SIZES)
    model = copy.deepcopy(whole)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and ".layer" in name:
            replacement = BITS[bits](module)
            replacement.load_state_dict(module.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replacement)
    return model.requires_grad_(False).to("cpu"), whole


def settled_output(model, batch):
    """Returns what a model gives once bitsandbytes has packed its weights for inference.

    It does so on the way from training to evaluation, and rounds otherwise from then on.
    """
    with torch.no_grad():
        output(model.train(), batch)
        return output(model.eval(), batch)


@every_method
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("architecture", ["BERT", "Llama"])
def test_quantised_bases_train_save_and_load(architecture, bits, method, tmp_path):
    batch = ARCHITECTURES[architecture].batch()
    base, _ = quantised(architecture, bits)
    before = settled_output(quantised(architecture, bits)[0], batch)
    model = get_peft_model(base, METHODS[method]())
    own = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in own} == {torch.float32}
    model.train()
    optimiser = torch.optim.SGD(own, lr=0.1)
    result = output(model, batch)
    (result * torch.linspace(-1, 1, result.shape[-1])).mean().backward()
    own_gradients(model)
    optimiser.step()
    trained = settled_output(model, batch)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(output(model, batch), before, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(trained, before, atol=1e-3)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(quantised(architecture, bits)[0], tmp_path)
    torch.testing.assert_close(settled_output(loaded, batch), trained, rtol=1e-4, atol=1e-4)


@every_method
def test_eight_bits_give_nearly_the_outputs_of_the_whole_base(method):
    batch = ARCHITECTURES["Llama"].batch()
    base, whole = quantised("Llama", "8 bits")
    model = get_peft_model(base, METHODS[method]())
    reference = get_peft_model(whole, METHODS[method]())
    set_peft_model_state_dict(reference, get_peft_model_state_dict(model))
    with torch.no_grad():
        expected = output(reference, batch)
        error = (output(model, batch) - expected).norm() / expected.norm()
    # seen: 0.011 to 0.016; an adapter with other weights gives 0.4 and more
    assert error < 0.05


@every_method
def test_preparation_for_k_bit_training_reaches_our_parameters(method):
    base, _ = quantised("Llama", "4 bits")
    base.is_loaded_in_4bit = True
    model = get_peft_model(prepare_model_for_kbit_training(base), METHODS[method]()).train()
    output(model, ARCHITECTURES["Llama"].batch()).pow(2).sum().backward()
    own_gradients(model)


@pytest.mark.parametrize("bits", BITS)
def test_merging_into_quantised_weights_is_refused(bits):
    model = get_peft_model(quantised("Llama", bits)[0], METHODS["low-rank"]())
    with pytest.raises(ValueError, match="load the base model in a floating dtype"):
        model.merge_and_unload()
