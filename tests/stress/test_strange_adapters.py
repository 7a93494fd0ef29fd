"""Whatever an adapter's folder holds is loaded or refused in our own words, and costs little."""

import json
import os
import shutil
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from transformers import BertConfig, BertModel

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.exchange import from_adapterhub
from peft_autoconfig.front.adapter import load_adapter
from tests.exchange.test_adapterhub import FACTS, FIXTURES

from ..conftest import tiny_bert
from .strange import anything, either_way, fuzzed, near

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
fuzzed = settings(fuzzed, max_examples=60)

# each of them is more than any machine has, or less than nothing
SHAPES = [[2**40, 2**20], [2**31], [-1], [0], [2**63, 2**63], [], [1] * 100]


def training():
    """What `load_adapter` knows of a training."""
    pretrained, accelerator = SimpleNamespace(whole=tiny_bert), SimpleNamespace(device="cpu")
    return SimpleNamespace(pretrained=pretrained, accelerator=accelerator, model="tiny")


def weights_of(entries, data=b"\0" * 64):
    """A file of weights with this header."""
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a good adapter; copied, not changed."""
    folder = tmp_path_factory.mktemp("adapter")
    config = AutoPEFTConfig(serial_bottleneck_size=2, prefix_length=1, lora_rank=1)
    get_peft_model(tiny_bert(), config).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


@pytest.fixture
def foreign(tmp_path):
    """The folder of an adapter of AdapterHub."""
    return shutil.copytree(FIXTURES / "bert-serial", tmp_path / "foreign")


def load_foreign(folder):
    model = BertModel(BertConfig(**FACTS["sizes"]), add_pooling_layer=False)
    return from_adapterhub(folder, model)


# --- ours -----------------------------------------------------------------------------------------


@fuzzed
@given(data=st.data())
def test_values_as_an_adapters_configuration(adapter, saved, data):
    good = json.loads((saved / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(data.draw(st.one_of(anything, near(good)))))
    either_way(lambda: load_adapter(training(), str(adapter)))


@fuzzed
@given(content=st.binary(max_size=300))
def test_bytes_as_an_adapters_configuration(adapter, content):
    (adapter / CONFIG).write_bytes(content)
    either_way(lambda: load_adapter(training(), str(adapter)))


@fuzzed
@given(
    entries=st.one_of(
        anything,
        st.dictionaries(
            st.sampled_from(["__metadata__", "base_model.model.encoder.x", "", "a" * 999]),
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F64", "BF16", "F4", "", 3]),
                    "shape": st.one_of(st.sampled_from(SHAPES), anything),
                    "data_offsets": st.one_of(st.sampled_from([[0, 64], [64, 0], [0, 2**60]])),
                }
            ),
            max_size=3,
        ),
    )
)
def test_headers_of_weights(adapter, foreign, entries):
    content = weights_of(entries)
    (adapter / WEIGHTS).write_bytes(content)
    assert either_way(lambda: load_adapter(training(), str(adapter))) is None
    (foreign / "adapter.safetensors").write_bytes(content)
    assert either_way(lambda: load_foreign(foreign)) is None


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**62, 2**64 - 1])
def test_headers_that_claim_any_length(adapter, length):
    (adapter / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ConfigError, match="adapter"):
        load_adapter(training(), str(adapter))


@pytest.mark.parametrize("name", ["serial_bottleneck_size", "prefix_length", "lora_rank"])
def test_a_declared_size_takes_no_memory(adapter, name):
    """It would take petabytes, and the weights in the file are of another size."""
    record = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(record | {name: 2**48}))
    with pytest.raises(ConfigError):
        load_adapter(training(), str(adapter))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "NaN", "[]"])
def test_deep_and_endless_values(adapter, foreign, text):
    (adapter / CONFIG).write_text(text)
    with pytest.raises((ConfigError, RunError), match=CONFIG):
        load_adapter(training(), str(adapter))
    (foreign / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=CONFIG):
        load_foreign(foreign)


def test_a_pipe_in_the_place_of_a_configuration(adapter, foreign):
    for file in (adapter / CONFIG, foreign / CONFIG):
        file.unlink()
        os.mkfifo(file)
    with pytest.raises((ConfigError, RunError)):
        load_adapter(training(), str(adapter))
    with pytest.raises(ConfigError, match=CONFIG):
        load_foreign(foreign)


# --- AdapterHub's ---------------------------------------------------------------------------------


@fuzzed
@given(data=st.data())
def test_values_as_a_record_of_adapterhub(foreign, data):
    good = json.loads((FIXTURES / "bert-serial" / CONFIG).read_text())
    inner = near(good["config"]).map(lambda config: good | {"config": config})
    value = data.draw(st.one_of(anything, near(good), inner))
    (foreign / CONFIG).write_text(json.dumps(value))
    either_way(lambda: load_foreign(foreign))
