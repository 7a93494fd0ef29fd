"""Texts to be written: what is learned of them, and that matches are those of greedy decoding."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peft_autoconfig.errors import ConfigError, TaskError
from peft_autoconfig.tasks import Metric, Split, load_files_task
from peft_autoconfig.tasks.token_classification import IGNORED
from peft_autoconfig.tasks.writing import Completion, LanguageModelling, SequenceToSequence

from ..conftest import letter_tokenizer, tiny_bert, tiny_llama

PAIRS = Split((("ab",), ("c",)), (" xy", "z"))
DECODER = letter_tokenizer("<s> $0", bos_token="<s>", pad_token="<pad>")
READER = letter_tokenizer("$0 </s>", pad_token="<pad>")


def pieces(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def test_only_the_completion_and_its_end_are_learned():
    first, second = Completion().tokenize(PAIRS, DECODER, max_length=16)
    assert pieces(DECODER, first["input_ids"]) == "<s>ab xy</s>"
    assert pieces(DECODER, [i for i in first["labels"] if i != IGNORED]) == " xy</s>"
    assert Completion().num_terms([first, second]) == 6
    batch = Completion().collate([first, second], DECODER)
    assert batch["labels"][1].tolist() == [IGNORED, IGNORED, 29, 2] + [IGNORED] * 3


def test_a_long_prompt_loses_its_beginning(caplog):
    first, _ = Completion().tokenize(PAIRS, DECODER, max_length=5)
    assert pieces(DECODER, first["input_ids"]) == "b xy</s>"
    assert "1 of 2 examples have more than 5 tokens and were cut" in caplog.text


def test_a_completion_needs_an_end():
    tokenizer = letter_tokenizer("$0", pad_token="<pad>")
    tokenizer.eos_token = None
    with pytest.raises(TaskError, match="no end token"):
        Completion().tokenize(PAIRS, tokenizer, max_length=16)


def test_long_texts_become_several_examples():
    split = Split((("abcdefg",), ("h",)), ("abcdefg", "h"))
    examples = LanguageModelling().tokenize(split, DECODER, max_length=4)
    texts = [pieces(DECODER, example["input_ids"]) for example in examples]
    assert texts == ["<s>abc", "defg", "<s>h</s>"]
    assert examples[0]["labels"] == examples[0]["input_ids"]
    # nothing predicts the first token of each
    assert LanguageModelling().num_terms(examples) == 3 + 3 + 2


def test_loss_and_log_likelihood_are_those_of_the_model(tiny_decoder):
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    kind = LanguageModelling()
    split = Split((("abc",), ("defghi",)), ("abc", "defghi"))
    batch = kind.collate(kind.tokenize(split, DECODER, max_length=16), DECODER)
    with torch.inference_mode():
        found = kind.evaluate(kind.predict(model, batch), split.labels, Metric(("log_likelihood",)))
        loss = kind.loss(model, batch).item()
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.score == found.measures["log_likelihood"] == -found.loss
    assert found.measures["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_outputs_that_are_not_finite_are_below_all_others():
    for measure, worst in (("log_likelihood", -1000.0), ("exact_match", 0.0)):
        found = Completion().evaluate([[math.nan, 2, 0]], ["a"], Metric((measure,)))
        assert (found.score, found.loss) == (worst, None)
        assert "not finite" in found.reason


def test_completions_match_if_and_only_if_greedy_decoding_writes_them(tiny_decoder):
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    prompts = [[1, 4 + i, 9] for i in range(8)]
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    written = model.generate(torch.tensor(prompts), **options)
    check_matches(Completion(), model, [row.tolist() for row in written], prompt=3)


def test_answers_match_if_and_only_if_greedy_decoding_writes_them(tiny_seq2seq):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_seq2seq).eval()
    sources = torch.tensor([[4 + i, 9, 11, 2] for i in range(8)])
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    written = model.generate(sources, **options)[:, 1:]
    rows = [row.tolist() for row in written]
    check_matches(SequenceToSequence(), model, rows, sources=sources)


def check_matches(kind, model, rows, prompt=0, sources=None):
    for number, row in enumerate(rows):
        if number % 2:  # one token is another than decoding wrote
            row[prompt + number // 2] = row[prompt + number // 2] % 20 + 4
    labels = torch.tensor([[IGNORED] * prompt + row[prompt:] for row in rows])
    inputs = torch.tensor(rows) if sources is None else sources
    batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs), "labels": labels}
    with torch.inference_mode():
        facts = kind.predict(model, batch)
    assert [fact[2] == 0 for fact in facts] == [True, False] * 4
    assert [fact[1] for fact in facts] == [5] * 8


def test_padding_changes_no_outcome(tiny_seq2seq):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_seq2seq).eval()
    kind = SequenceToSequence()
    examples = kind.tokenize(PAIRS, AutoTokenizer.from_pretrained(tiny_seq2seq), max_length=8)
    assert pieces(READER, examples[0]["labels"]) == " xy</s>"
    with torch.inference_mode():
        together = kind.predict(model, kind.collate(examples, READER))
        alone = [kind.predict(model, kind.collate([each], READER))[0] for each in examples]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_models_that_see_later_tokens_are_refused(tiny_seq2seq):
    Completion().check_model(tiny_llama())
    with pytest.raises(ConfigError, match=r"Expected a decoder for completion.*BertLMHeadModel"):
        Completion().check_model(AutoModelForCausalLM.from_config(tiny_bert().config).eval())


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("language-modelling", ("text",)),
        ("completion", ("prompt", "completion")),
        ("seq2seq", ("source", "target")),
    ],
)
def test_files_have_the_usual_columns(tmp_path, kind, columns):
    path = tmp_path / "train.csv"
    rows = [",".join(f"{column} {i}" for column in columns) for i in range(20)]
    path.write_text("\n".join([",".join(columns), *rows]))
    task = load_files_task(path, kind=kind)
    assert task.about()["sizes"] == {"train": 13, "dev": 3, "test": 4}
    (text,), label = task.dev.texts[0], task.dev.labels[0]
    assert (text.split()[0], label.split()[0]) == (columns[0], columns[-1])
    assert text.split()[1] == label.split()[1]
    with pytest.raises(TaskError, match="has no column"):
        load_files_task(path, kind=kind, text_columns=["other"])


def test_a_text_to_be_written_must_be_one(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("prompt,completion\n" + "".join(f"a{i},\n" for i in range(9)))
    with pytest.raises(TaskError, match="expected a text to be written, got ''"):
        load_files_task(path, kind="completion")
