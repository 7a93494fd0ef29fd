"""A configuration that is only low-rank gives the same outputs as PEFT's own LoRA."""

import copy
import json

import pytest
import torch
from peft import (
    AutoPeftModel,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
)
from peft.tuners.lora import LoraLayer, LoraModel
from safetensors.torch import load_file
from torch import nn

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.exchange import save_as_lora
from peft_autoconfig.tuner import LowRankConfig

from ..conftest import tiny_bert, tiny_bert_classifier
from ..tuner.architectures import ARCHITECTURES


def run(model, batch):
    with torch.no_grad():
        output = model(**batch)
    return output.get("logits", output[0])


def drawn(model, **fields):
    """Returns a model with a low-rank adapter that is not the identity."""
    torch.manual_seed(1)
    return get_peft_model(model, AutoPEFTConfig(init_weights=False, **fields)).eval()


def sizes_of(model):
    return {
        name: (layer.r["default"], layer.scaling["default"])
        for name, layer in model.base_model.model.named_modules()
        if isinstance(layer, LoraLayer)
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_the_same_as_lora(name, tmp_path):
    architecture = ARCHITECTURES[name]
    base, batch = architecture.build(), architecture.batch()
    plain = run(base, batch)
    ours = drawn(copy.deepcopy(base), lora_rank=3, lora_scale=2.0)
    expected = run(ours, batch)
    save_as_lora(ours, tmp_path)
    lora = PeftModel.from_pretrained(base, tmp_path)
    assert isinstance(lora.base_model, LoraModel)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(run(lora, batch), expected, rtol=0, atol=1e-6)
    merged = lora.merge_and_unload()
    torch.testing.assert_close(run(merged, batch), expected, rtol=0, atol=1e-4)


def test_ranks_by_layer_become_patterns(batch, tmp_path):
    ours = drawn(tiny_bert(), lora_rank=[4, 0, 2, 4], lora_scale=1.5, lora_modules=["query"])
    expected = run(ours, batch)
    saved = save_as_lora(ours, tmp_path)
    names = {i: f"encoder.layer.{i}.attention.self.query" for i in range(4)}
    assert (saved.r, saved.lora_alpha) == (4, 6)
    assert saved.rank_pattern == {f"^{names[2]}": 2}
    assert saved.alpha_pattern == {f"^{names[2]}": 3}
    assert set(saved.target_modules) == {names[0], names[2], names[3]}
    lora = PeftModel.from_pretrained(base_of(ours), tmp_path)
    assert sizes_of(lora) == {names[0]: (4, 1.5), names[2]: (2, 1.5), names[3]: (4, 1.5)}
    assert torch.equal(run(lora, batch), expected)


def base_of(peft_model):
    """Returns the base model without the adapter."""
    return copy.deepcopy(peft_model).unload().eval()


def test_a_factor_that_is_not_whole_is_kept(batch, tmp_path):
    ours = drawn(tiny_bert(), lora_rank=3, lora_scale=0.3)
    saved = save_as_lora(ours, tmp_path)
    assert saved.lora_alpha / saved.r == pytest.approx(0.3)
    lora = PeftModel.from_pretrained(base_of(ours), tmp_path)
    torch.testing.assert_close(run(lora, batch), run(ours, batch), rtol=0, atol=1e-6)


def test_modules_are_named_as_shortly_as_is_exact(tmp_path):
    assert set(saved_targets(tmp_path / "1", "attention")) == {
        f"encoder.layer.{i}.attention.{name}"
        for i in range(4)
        for name in ("self.query", "self.key", "self.value", "output.dense")
    }
    assert set(saved_targets(tmp_path / "2", ["query", "value"])) == {"query", "value"}


def saved_targets(folder, modules):
    model = drawn(tiny_bert(), lora_rank=2, lora_modules=modules)
    return save_as_lora(model, folder).target_modules


class Twice(nn.Module):
    """Two modules, of which the name of one ends in that of the other."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"lin": nn.Linear(4, 4)})

    def forward(self, x):
        return self.inner["lin"](self.lin(x))


def test_a_name_in_which_another_ends_is_not_mistaken(tmp_path):
    torch.manual_seed(0)
    x, model = torch.randn(5, 4), Twice()
    ours = drawn(copy.deepcopy(model), lora_rank=2, target_modules="lin")
    save_as_lora(ours, tmp_path)
    lora = PeftModel.from_pretrained(model, tmp_path)
    assert list(sizes_of(lora)) == ["lin"]
    torch.testing.assert_close(lora(x), ours(x))


def test_a_head_goes_along_and_nothing_of_ours_is_needed(batch, tmp_path):
    torch.manual_seed(0)
    tiny_bert_classifier().save_pretrained(tmp_path / "base")
    base = tiny_bert_classifier().from_pretrained(tmp_path / "base")
    config = LowRankConfig(rank=2, scale=2.0, init_weights=False, task_type="SEQ_CLS", dropout=0.1)
    ours = get_peft_model(base, config, adapter_name="mine").eval()
    nn.init.normal_(ours.base_model.model.classifier.modules_to_save["mine"].weight)
    expected = run(ours, batch)
    save_as_lora(ours, tmp_path / "lora", adapter_name="mine")
    record = (tmp_path / "lora" / "adapter_config.json").read_text(encoding="utf-8")
    assert "autopeft" not in record.lower()
    assert json.loads(record)["peft_type"] == "LORA"
    assert not [k for k in load_file(tmp_path / "lora/adapter_model.safetensors") if "auto" in k]
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "lora", num_labels=3)
    assert type(loaded.active_peft_config) is LoraConfig
    assert loaded.active_peft_config.lora_dropout == 0.1
    torch.testing.assert_close(run(loaded.eval(), batch), expected, rtol=0, atol=1e-6)
    assert "library_name: peft" in (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")


def test_the_base_model_is_found_without_a_task(batch, tmp_path):
    tiny_bert().save_pretrained(tmp_path / "base")
    ours = drawn(tiny_bert().from_pretrained(tmp_path / "base"), lora_rank=2)
    save_as_lora(ours, tmp_path / "lora")
    loaded = AutoPeftModel.from_pretrained(tmp_path / "lora").eval()
    torch.testing.assert_close(run(loaded, batch), run(ours, batch), rtol=0, atol=1e-6)


def test_the_model_stays_as_it_is(batch, tmp_path):
    ours = drawn(tiny_bert(), lora_rank=2)
    keys, before = list(ours.state_dict()), run(ours, batch)
    save_as_lora(ours, tmp_path)
    assert list(ours.state_dict()) == keys
    assert torch.equal(run(ours, batch), before)
    assert type(ours.active_peft_config) is AutoPEFTConfig


def test_one_of_several_adapters_is_saved(batch, tmp_path):
    ours = drawn(tiny_bert(), lora_rank=2)
    ours.add_adapter("other", AutoPEFTConfig(prefix_length=2))
    expected = run(ours, batch)
    save_as_lora(ours, tmp_path)
    base = base_of(ours)
    torch.testing.assert_close(
        run(PeftModel.from_pretrained(base, tmp_path), batch), expected, rtol=0, atol=1e-6
    )
    with pytest.raises(ConfigError, match="low-rank alone"):
        save_as_lora(ours, tmp_path / "other", adapter_name="other")


@pytest.mark.parametrize(
    "part", [{"serial_bottleneck_size": 2}, {"parallel_bottleneck_size": 2}, {"prefix_length": 2}]
)
def test_other_parts_are_refused_and_nothing_written(part, tmp_path):
    ours = drawn(tiny_bert(), lora_rank=2, **part)
    with pytest.raises(ConfigError, match="low-rank alone"):
        save_as_lora(ours, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_other_methods_and_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be one of peft_autoconfig's, got LoraConfig"):
        save_as_lora(get_peft_model(tiny_bert(), LoraConfig()), tmp_path)
    with pytest.raises(ConfigError, match=r"one of \['default'\], got 'mine'"):
        save_as_lora(drawn(tiny_bert(), lora_rank=2), tmp_path, adapter_name="mine")


def test_strange_files_in_the_way_are_refused_or_replaced(tmp_path):
    ours, file = drawn(tiny_bert(), lora_rank=2), tmp_path / "adapter_config.json"
    file.write_text("[]")
    with pytest.raises(ConfigError, match="an adapter of the method None"):
        save_as_lora(ours, tmp_path)
    file.write_text("[" * 200_000)  # too deep to be read
    save_as_lora(ours, tmp_path)
    assert PeftConfig.from_pretrained(tmp_path).peft_type == "LORA"


def test_our_own_checkpoint_is_not_overwritten(tmp_path):
    ours = drawn(tiny_bert(), lora_rank=2)
    ours.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="name another directory"):
        save_as_lora(ours, tmp_path)
    assert PeftConfig.from_pretrained(tmp_path).peft_type == "AUTOPEFT"
    save_as_lora(ours, tmp_path / "lora")
    assert PeftConfig.from_pretrained(tmp_path / "lora").peft_type == "LORA"
    save_as_lora(ours, tmp_path / "lora")
