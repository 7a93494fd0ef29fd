"""Tiny models with a prefix, and what tests ask of them."""

import torch
from peft import get_peft_model

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.tuner.prefix import AttentionSite

from .architectures import ARCHITECTURES, build

LANGUAGE_MODELS = [
    *("GPT-2", "GPT-NeoX", "OPT", "GPT-J", "Bloom", "Falcon", "Llama", "Mistral", "Qwen3"),
    *("Gemma 2", "Gemma 3", "Phi-3", "Mixtral", "Qwen3-MoE"),
]
TEXT_TO_TEXT = ["T5", "BART", "Whisper"]
# Gemma 2 caps its logits, which transformers' sdpa function does not
IMPLEMENTATIONS = [
    (name, implementation)
    for name in ARCHITECTURES
    for implementation in ("eager", "sdpa")
    if implementation == "eager" or name not in ("Gemma 2", "DeBERTa", "DeBERTa-v2/v3", "Bloom")
]
ON_INTERFACE = [case for case in IMPLEMENTATIONS if not ARCHITECTURES[case[0]].off_interface]


def with_prefix(name, length=3, **changes):
    model = get_peft_model(build(name, **changes), AutoPEFTConfig(prefix_length=length))
    return model.eval()


def output_of(model, batch):
    outputs = model(**batch)
    return next(v for v in outputs.values() if torch.is_tensor(v) and v.is_floating_point())


def run(model, batch):
    with torch.no_grad():
        return output_of(model, batch)


def sites_of(model):
    return [module for module in model.modules() if isinstance(module, AttentionSite)]


def states_of(site, adapter="default"):
    return site.autopeft_prefix_key[adapter], site.autopeft_prefix_value[adapter]


def without_padding(batch):
    return {k: torch.ones_like(v) if k == "attention_mask" else v for k, v in batch.items()}


def real(output, batch):
    """Returns what belongs to tokens that are no padding."""
    mask = batch.get("attention_mask")
    return output if mask is None or output.shape[:2] != mask.shape else output[mask.bool()]


def assert_near(output, expected, atol=1e-5):
    torch.testing.assert_close(output, expected, rtol=0, atol=atol * max(1, expected.abs().max()))


def with_two_prefixes(name, **changes):
    model = with_prefix(name, length=2, **changes)
    model.add_adapter("longer", AutoPEFTConfig(prefix_length=4, prefix_projection_size=3))
    model.add_adapter("none", AutoPEFTConfig(serial_bottleneck_size=2))
    return model.eval()
