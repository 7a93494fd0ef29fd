"""A saved adapter's card says which import it needs, and loses nothing else."""

import json

import pytest
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.exchange.model_card import HEADING, IMPORT, add_usage

from ..conftest import tiny_bert


def save(folder, config=None, **options):
    config = config or AutoPEFTConfig(serial_bottleneck_size=2)
    get_peft_model(tiny_bert(), config, **options).save_pretrained(folder)
    return ModelCard.load(folder / "README.md")


def lines_of(card):
    return [line for line in card.text.splitlines() if line.strip()]


def test_the_section_on_getting_started_is_filled(tmp_path):
    before = save(tmp_path)
    assert add_usage(tmp_path) == tmp_path / "README.md"
    after = ModelCard.load(tmp_path / "README.md")
    assert after.data.to_dict() == before.data.to_dict()
    assert after.data.library_name == "peft"
    section = after.text.split(f"{HEADING}\n")[1].split("\n## ")[0]
    assert section.index(IMPORT) < section.index("PeftModel.from_pretrained")
    assert "KeyError: 'AUTOPEFT'" in section
    assert "More Information Needed" not in section
    kept = set(lines_of(before)) - {"Use the code below to get started with the model."}
    assert kept <= set(lines_of(after))


def test_saving_a_model_adds_it(tmp_path):
    assert IMPORT in save(tmp_path / "one").text
    assert IMPORT in save(tmp_path / "two", adapter_name="other").text
    assert IMPORT not in save(tmp_path / "three", LoraConfig()).text


def test_it_is_added_once(tmp_path):
    save(tmp_path)
    add_usage(tmp_path)
    once = (tmp_path / "README.md").read_text(encoding="utf-8")
    add_usage(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == once


def test_what_an_author_wrote_stays(tmp_path):
    save(tmp_path)
    (tmp_path / "README.md").write_text(
        f"---\nlicense: mit\n---\n\n# Mine\n\n{HEADING}\n\nCall me.\n\n## More\n\nEnd.\n",
        encoding="utf-8",
    )
    add_usage(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "peft")
    section, rest = card.text.split(f"{HEADING}\n")[1].split("\n## ")
    assert IMPORT in section
    assert section.rstrip().endswith("Call me.")
    assert rest.split() == ["More", "End."]


def test_a_card_without_that_section_gets_it(tmp_path):
    save(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n", encoding="utf-8")
    add_usage(tmp_path)
    text = ModelCard.load(tmp_path / "README.md").text
    assert text.index("# Mine") < text.index(HEADING) < text.index(IMPORT)


def test_the_card_of_a_named_adapter_is_one_folder_higher(tmp_path):
    save(tmp_path, adapter_name="other")
    assert add_usage(tmp_path / "other") == tmp_path / "README.md"
    assert IMPORT in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_card_of_something_else_is_left_alone(tmp_path):
    save(tmp_path, adapter_name="other")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# A project\n", encoding="utf-8")
    assert add_usage(tmp_path / "other") is None
    assert IMPORT not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_where_there_is_no_card_none_is_made(tmp_path):
    AutoPEFTConfig(serial_bottleneck_size=2).save_pretrained(tmp_path)
    assert add_usage(tmp_path) is None
    assert not (tmp_path / "README.md").exists()


def test_a_card_that_cannot_be_read_is_named(tmp_path):
    save(tmp_path)
    (tmp_path / "README.md").write_text("---\n- of a list\n---\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a model card"):
        add_usage(tmp_path)


def test_a_configuration_too_deep_to_be_read_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[" * 200_000)
    with pytest.raises(ConfigError, match="must be the configuration of a saved PEFT adapter"):
        add_usage(tmp_path)


def test_methods_of_peft_need_no_import(tmp_path):
    before = save(tmp_path, LoraConfig())
    assert add_usage(tmp_path) is None
    assert ModelCard.load(tmp_path / "README.md").text == before.text


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"r": 8})])
def test_a_folder_without_an_adapter_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="saved PEFT adapter"):
        add_usage(tmp_path)
