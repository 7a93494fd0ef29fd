"""Adapters that AdapterHub's library saved give the same outputs here."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaModel,
)

from peft_autoconfig.errors import ConfigError
from peft_autoconfig.exchange import from_adapterhub

from ..conftest import tiny_llama

FIXTURES = Path(__file__).parent / "fixtures"
FACTS = json.loads((FIXTURES / "summary.json").read_text(encoding="utf-8"))
MODELS = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
CASES = sorted(FACTS["largest_effect"])


@pytest.fixture(scope="module")
def tensors():
    return load_file(FIXTURES / "models.safetensors")


@pytest.fixture
def build(tensors):
    """Returns a function that builds the base model of a case anew."""

    def build(case, implementation="sdpa"):
        kind = case.split("-")[0]
        config_class, model_class = MODELS[kind]
        config = config_class(**FACTS["sizes"], attn_implementation=implementation)
        model = model_class(config, add_pooling_layer=False).eval()
        head = f"{kind}.base."
        weights = {key.removeprefix(head): v for key, v in tensors.items() if key.startswith(head)}
        model.load_state_dict(weights)
        return model

    return build


@pytest.fixture
def run(tensors):
    """Returns a function that gives a model's last hidden state on the batch of the fixtures."""

    def run(model):
        batch = {k.removeprefix("batch."): v for k, v in tensors.items() if k.startswith("batch.")}
        with torch.no_grad():
            output = model(**batch).last_hidden_state
        return output * batch["attention_mask"][..., None]

    return run


@pytest.fixture
def expected(tensors):
    mask = tensors["batch.attention_mask"][..., None]
    return lambda case: tensors[f"{case}.output"] * mask


@pytest.fixture
def copy_of(tmp_path):
    """Returns a function that copies a case and lets a test change its JSON and its weights."""

    def copy_of(case, change=lambda record, weights: None):
        folder = tmp_path / "saved"
        shutil.copytree(FIXTURES / case, folder)
        record = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter.safetensors")
        change(record, weights)
        (folder / "adapter_config.json").write_text(json.dumps(record), encoding="utf-8")
        save_file(weights, folder / "adapter.safetensors")
        return folder

    return copy_of


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_those_of_adapterhub(case, implementation, build, run, expected):
    assert FACTS["largest_effect"][case] > 0.1
    model = from_adapterhub(FIXTURES / case, build(case, implementation))
    torch.testing.assert_close(run(model), expected(case), rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_saved_as_an_ordinary_checkpoint(case, build, run, expected, tmp_path):
    from_adapterhub(FIXTURES / case, build(case), adapter_name="hub").save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(case), tmp_path / "hub")
    torch.testing.assert_close(run(loaded), expected(case), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["bert-serial", "roberta-mam"])
def test_weights_of_the_old_format_are_read_too(case, build, run, expected, copy_of):
    folder = copy_of(case)
    file = folder / "adapter.safetensors"
    torch.save(load_file(file), folder / "pytorch_adapter.bin")
    file.unlink()
    model = from_adapterhub(folder, build(case))
    torch.testing.assert_close(run(model), expected(case), rtol=0, atol=1e-5)


def test_names_of_the_first_versions_are_read(build, run, expected, copy_of):
    def rename(record, weights):
        for key in list(weights):
            old = key.replace(".adapters.", ".layer_text_task_adapters.")
            weights[old] = weights.pop(key)
        record["config"]["non_linearity"] = "gelu_orig"
        record["config"]["inv_adapter"] = "nice"
        record["type"] = "text_task"
        del record["version"]

    model = from_adapterhub(copy_of("bert-serial", rename), build("bert"))
    torch.testing.assert_close(run(model), expected("bert-serial"), rtol=0, atol=1e-5)


def test_a_factor_for_each_channel_is_folded(build, run, copy_of):
    def change(record, weights):
        record["config"]["scaling"] = "channel"
        for layer in range(3):
            key = f"encoder.layer.{layer}.output.adapters.mine.scaling"
            weights[key] = torch.full((16,), 4.0)

    by_channel = from_adapterhub(copy_of("bert-parallel", change), build("bert"))
    published = from_adapterhub(FIXTURES / "bert-parallel", build("bert"))
    torch.testing.assert_close(run(by_channel), run(published), rtol=0, atol=1e-5)


def test_it_goes_under_a_head_and_can_be_trained(build, tensors, expected, caplog):
    model = BertForSequenceClassification(BertConfig(**FACTS["sizes"])).eval()
    model.bert.load_state_dict(build("bert").state_dict(), strict=False)
    peft_model = from_adapterhub(FIXTURES / "bert-serial", model, is_trainable=True)
    assert "model_head.safetensors" in caplog.text
    mask = tensors["batch.attention_mask"]
    outputs = peft_model(
        input_ids=tensors["batch.input_ids"], attention_mask=mask, output_hidden_states=True
    )
    last = outputs.hidden_states[-1] * mask[..., None]
    torch.testing.assert_close(last, expected("bert-serial"), rtol=0, atol=1e-5)
    outputs.logits.sum().backward()
    trained = {name for name, p in peft_model.named_parameters() if p.grad is not None}
    assert len(trained) == 2 * 4
    assert all("autopeft_serial" in name for name in trained)


def test_a_learned_factor_stays_one(build, tensors):
    model = from_adapterhub(FIXTURES / "bert-parallel-learned", build("bert"), is_trainable=True)
    assert model.active_peft_config.parallel_scale == "learned"
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scales = [p for name, p in trained.items() if "parallel_scale" in name]
    assert [scale.shape for scale in scales] == [(1,), (1,)]
    saved = load_file(FIXTURES / "bert-parallel-learned" / "adapter.safetensors")
    expected = [saved[key] for key in sorted(saved) if key.endswith("scaling")]
    assert all(torch.equal(*pair) for pair in zip(scales, expected, strict=True))


def test_dropout_is_carried_over_where_it_means_the_same(build, copy_of, caplog):
    def change(record, weights):
        for config in record["config"]["configs"]:
            config["dropout"] = 0.25

    model = from_adapterhub(copy_of("bert-mam", change), build("bert"))
    assert model.active_peft_config.dropout == 0.25
    assert "dropout of the prefix is left out" in caplog.text


def field(name, value):
    return lambda record, weights: record["config"].update({name: value})


def drop_layer(record, weights):
    for key in [key for key in weights if ".layer.0." in key]:
        del weights[key]


def widen(record, weights):
    (key,) = (key for key in weights if "layer.0" in key and key.endswith("adapter_up.weight"))
    weights[key] = torch.zeros(16, 5)


FAULTS = {
    "gating": ("bert-serial", field("use_gating", True), "use_gating"),
    "attention": ("bert-serial", field("mh_adapter", True), "mh_adapter"),
    "no output": ("bert-serial", field("output_adapter", False), "output_adapter"),
    "norm": ("bert-serial", field("ln_before", True), "ln_before"),
    "no norm first": ("bert-serial", field("original_ln_before", False), "original_ln_before"),
    "residual": ("bert-serial", field("residual_before_ln", "post_add"), "residual_before_ln"),
    "invertible": ("bert-serial", field("inv_adapter", "nice"), "inv_adapter"),
    "compacter": ("bert-serial", field("phm_layer", True), "phm_layer"),
    "unknown": ("bert-serial", field("novelty", 3), "novelty"),
    "activation": ("bert-serial", field("non_linearity", "curly"), "non_linearity"),
    "scaling": ("bert-serial", field("scaling", "odd"), "scaling"),
    "leave_out": ("bert-serial", field("leave_out", "1"), "leave_out"),
    "layer too many": ("bert-serial", field("leave_out", [0, 1]), "layers \\[0\\]"),
    "layer too few": ("bert-serial", field("leave_out", []), "Layer 1 must have"),
    "lost layer": ("bert-serial", drop_layer, "Layer 0 must have"),
    "shape": ("bert-serial", widen, "shape \\(16, 4\\)"),
    "factors": ("bert-serial", field("scaling", "learned"), "scaling"),
    "prefix gate": ("bert-prefix", field("use_gating", True), "use_gating"),
    "prefix layers": ("bert-prefix", field("leave_out", []), "control_trans.2"),
    "flat prefix": ("bert-prefix-flat", field("leave_out", [0, 1]), "control_trans must be of"),
    "prefix length": ("bert-prefix", field("prefix_length", 0), "prefix_length"),
    "longer prefix": ("bert-prefix", field("prefix_length", 5), "wte.weight"),
    "not flat": ("bert-prefix-flat", field("flat", False), "wte.weight"),
    "lora": ("bert-serial", field("architecture", "lora"), "architecture"),
    "no fields": ("bert-serial", lambda record, _: record.update(config="pfeiffer"), "'config'"),
    "empty union": (
        "bert-serial",
        lambda record, _: record.update(config={"architecture": "union", "configs": []}),
        "at most one serial",
    ),
    "other model": ("bert-serial", lambda record, _: record.update(model_type="gpt2"), "gpt2"),
    "other size": ("bert-serial", lambda record, _: record.update(hidden_size=768), "768"),
    "other name": ("bert-serial", lambda record, _: record.update(name="yours"), "'yours'"),
    "no name": ("bert-serial", lambda record, _: record.pop("name"), "from_pretrained"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_has_no_equal_is_refused_and_the_model_left_alone(fault, build, copy_of):
    case, change, message = FAULTS[fault]
    model = build("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        from_adapterhub(copy_of(case, change), model)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_kind_of_model_is_refused():
    with pytest.raises(ConfigError, match="'bert' for a model of type 'llama'"):
        from_adapterhub(FIXTURES / "bert-serial", tiny_llama())


class Malice:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_nothing_is_unpickled(build, copy_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copy_of("bert-serial")
    (folder / "adapter.safetensors").unlink()
    torch.save({"encoder": Malice()}, folder / "pytorch_adapter.bin")
    with pytest.raises(ConfigError, match="more than tensors"):
        from_adapterhub(folder, build("bert"))
    assert not Path("was-run").exists()


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_damaged_files_are_named(file, damage, build, copy_of):
    path = copy_of("bert-serial") / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:50] if damage == "cut" else b"\x00garbage" * 9)
    with pytest.raises(ConfigError, match=file):
        from_adapterhub(path.parent, build("bert"))
