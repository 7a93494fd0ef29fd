"""What transformers and PEFT offer for adapters of any method, used with ours."""

import copy
from functools import partial

import peft
import pytest
import torch
import transformers as hf
from packaging import version
from peft import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForQuestionAnswering,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
    PeftModel,
    get_layer_status,
    get_model_status,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.utils.hotswap import hotswap_adapter
from transformers.integrations.peft import MIN_PEFT_VERSION

from .architectures import ARCHITECTURES
from .configurations import METHODS, REPRESENTATIVE, adapted, output

every_method = pytest.mark.parametrize("method", METHODS)
every_architecture = pytest.mark.parametrize("architecture", REPRESENTATIVE)
needs_newer_peft = pytest.mark.skipif(
    version.parse(peft.__version__) < version.parse(MIN_PEFT_VERSION),
    reason=f"adapter methods of transformers {hf.__version__} want PEFT {MIN_PEFT_VERSION}",
)
# not equal to the bit: weights that stay where a file was mapped are aligned otherwise
assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def run(model, batch):
    with torch.no_grad():
        return output(model.eval(), batch)


def saved(architecture, method, folder, batch):
    """Saves a base model and an adapter below ``folder``; returns what they give together."""
    ARCHITECTURES[architecture].build().save_pretrained(folder / "base")
    base = ARCHITECTURES[architecture].model.from_pretrained(folder / "base")
    model = get_peft_model(base, METHODS[method]())
    model.save_pretrained(folder / "adapter")
    return run(model, batch)


@needs_newer_peft
@every_method
@every_architecture
def test_transformers_adds_switches_and_deletes(architecture, method):
    batch = ARCHITECTURES[architecture].batch()
    model = ARCHITECTURES[architecture].build()
    before = run(model, batch)
    model.add_adapter(METHODS[method](), "first")
    first = run(model, batch)
    assert not torch.equal(first, before)
    model.disable_adapters()
    assert torch.equal(run(model, batch), before)
    model.enable_adapters()
    assert torch.equal(run(model, batch), first)
    model.add_adapter(METHODS[method](), "second")
    assert model.active_adapters() == ["second"]
    assert not torch.equal(run(model, batch), first)
    model.set_adapter("first")
    assert torch.equal(run(model, batch), first)
    model.delete_adapter("second")
    assert torch.equal(run(model, batch), first)
    assert not any("second" in name for name in model.state_dict())


@needs_newer_peft
@every_method
@every_architecture
def test_transformers_saves_and_loads(architecture, method, tmp_path):
    batch = ARCHITECTURES[architecture].batch()
    model = ARCHITECTURES[architecture].build()
    before = run(model, batch)
    model.add_adapter(METHODS[method]())
    expected = run(model, batch)
    model.save_pretrained(tmp_path)
    loaded = ARCHITECTURES[architecture].build()
    loaded.load_adapter(tmp_path, "other")
    assert_close(run(loaded, batch), expected)
    assert not any(p.requires_grad for n, p in loaded.named_parameters() if "autopeft_" in n)
    loaded.load_adapter(tmp_path, "trained", is_trainable=True)
    assert_close(run(loaded, batch), expected)
    assert all(p.requires_grad for n, p in loaded.named_parameters() if ".trained" in n)
    loaded.delete_adapter(["other", "trained"])
    assert torch.equal(run(loaded, batch), before)


@every_method
@every_architecture
def test_an_adapter_folder_stands_for_a_model(architecture, method, tmp_path):
    batch = ARCHITECTURES[architecture].batch()
    expected = saved(architecture, method, tmp_path, batch)
    model = ARCHITECTURES[architecture].model.from_pretrained(tmp_path / "adapter")
    assert_close(run(model, batch), expected)


@every_method
@every_architecture
def test_saved_adapters_load_in_every_way(architecture, method, tmp_path):
    batch = ARCHITECTURES[architecture].batch()
    expected = saved(architecture, method, tmp_path, batch)
    for options in (
        {},
        {"low_cpu_mem_usage": True},
        {"adapter_name": "other"},
        {"adapter_name": "other", "is_trainable": True},
        {"is_trainable": True, "autocast_adapter_dtype": False},
    ):
        base = ARCHITECTURES[architecture].model.from_pretrained(tmp_path / "base")
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter", **options)
        assert_close(run(loaded, batch), expected)
        name = options.get("adapter_name", "default")
        assert loaded.active_adapter == name
        own = [p for n, p in loaded.named_parameters() if f".{name}" in n]
        assert {p.requires_grad for p in own} == {options.get("is_trainable", False)}
        assert not any(p.is_meta for p in loaded.parameters())
    assert_close(run(AutoPeftModel.from_pretrained(tmp_path / "adapter"), batch), expected)


@every_method
@every_architecture
def test_injection_without_a_peft_model(architecture, method):
    batch = ARCHITECTURES[architecture].batch()
    model = adapted(architecture, method)
    expected, state = run(model, batch), get_peft_model_state_dict(model)
    state = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    for options in ({}, {"low_cpu_mem_usage": True}, {"state_dict": state}):
        injected = inject_adapter_in_model(
            METHODS[method](), ARCHITECTURES[architecture].build(), **options
        )
        result = set_peft_model_state_dict(
            injected, copy.deepcopy(state), low_cpu_mem_usage="low_cpu_mem_usage" in options
        )
        assert not result.unexpected_keys
        assert_close(run(injected, batch), expected)
        assert get_peft_model_state_dict(injected).keys() == state.keys()


@every_method
@every_architecture
def test_status_tells_the_state(architecture, method):
    model = adapted(architecture, method)
    own = {n: p for n, p in model.named_parameters() if "autopeft_" in n}
    status = get_model_status(model)
    assert status.peft_types == {"default": model.peft_config["default"].peft_type.value}
    assert status.enabled is True
    assert status.active_adapters == status.available_adapters == ["default"]
    assert status.merged_adapters == []
    assert status.requires_grad == {"default": True}
    assert status.devices == {"default": ["cpu"]}
    assert status.trainable_params == sum(p.numel() for p in own.values())
    layers = get_layer_status(model)
    assert status.num_adapter_layers == len(layers)
    assert {layer.name for layer in layers} == {
        name.removeprefix("base_model.").split(".autopeft_")[0] for name in own
    }
    model.add_adapter("other", METHODS[method]())
    with model.disable_adapter():
        assert get_model_status(model).enabled is False
    status = get_model_status(model)
    assert status.requires_grad == {"default": True, "other": False}
    assert status.trainable_params == sum(p.numel() for p in own.values())


@every_method
def test_a_model_survives_being_saved_whole(method, tmp_path):
    batch = ARCHITECTURES["BERT"].batch()
    model = adapted("BERT", method)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    with torch.no_grad():
        expected = run(model, batch)
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(run(loaded, batch), expected)


HEADS = {
    "sequence": (hf.BertForSequenceClassification, AutoPeftModelForSequenceClassification),
    "token": (hf.BertForTokenClassification, AutoPeftModelForTokenClassification),
    "question": (hf.BertForQuestionAnswering, AutoPeftModelForQuestionAnswering),
    "causal": (hf.LlamaForCausalLM, AutoPeftModelForCausalLM),
    "seq2seq": (hf.T5ForConditionalGeneration, AutoPeftModelForSeq2SeqLM),
    "features": (hf.BertModel, AutoPeftModelForFeatureExtraction),
}
TASK_TYPES = {
    "sequence": "SEQ_CLS",
    "token": "TOKEN_CLS",
    "question": "QUESTION_ANS",
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "features": "FEATURE_EXTRACTION",
}


@every_method
@pytest.mark.parametrize("head", HEADS)
def test_models_with_a_head_are_loaded_by_name(head, method, tmp_path):
    model_class, auto_class = HEADS[head]
    entry = next(e for e in ARCHITECTURES.values() if e.config is model_class.config_class)
    torch.manual_seed(0)
    model_class(entry.config(**entry.sizes)).save_pretrained(tmp_path / "base")
    base = model_class.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, METHODS[method](task_type=TASK_TYPES[head]))
    for name, parameter in model.named_parameters():
        if "modules_to_save.default" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    loaded = auto_class.from_pretrained(tmp_path / "adapter")
    batch = entry.batch()
    assert_close(run(loaded, batch), run(model, batch))


@every_method
def test_hotswapping_is_refused(method, tmp_path):
    model = adapted("BERT", method)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA"):
        hotswap_adapter(model, tmp_path, adapter_name="default")
