"""Tiny models that every test may build; nothing here is downloaded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from peft_autoconfig.tasks import Metric, Split, Task
from peft_autoconfig.tasks.classification import Classification

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are fastest on one thread, and tests may run side by side (`pytest -n`).
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

NUM_LAYERS, HIDDEN_SIZE, VOCAB_SIZE = 4, 32, 99
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def tiny_bert(**changes: object) -> BertModel:
    return BertModel(BertConfig(**{**SIZES, **changes})).eval()


def tiny_bert_classifier(**changes: object) -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**{**SIZES, "num_labels": 3, **changes})).eval()


def tiny_roberta(**changes: object) -> RobertaModel:
    sizes = {**SIZES, "max_position_embeddings": 64, "pad_token_id": 1, **changes}
    return RobertaModel(RobertaConfig(**sizes)).eval()


def tiny_llama(**changes: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 2, **changes})).eval()


BUILDERS: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": tiny_bert,
    "bert-classifier": tiny_bert_classifier,
    "roberta": tiny_roberta,
    "llama": tiny_llama,
}


@pytest.fixture(params=sorted(BUILDERS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny random model of each architecture, the same weights at every call."""
    torch.manual_seed(0)
    return BUILDERS[request.param]()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three sentences of unequal length, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCAB_SIZE, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:], mask[2, 4:] = 0, 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def shared_folder(variable: str) -> Path:
    """Returns the folder that an environment variable names, or skips the test."""
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder; this test needs data that we do not ship")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random BERT and a tokenizer that spells words out."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    # the usual 0.02 is so near to nothing that a frozen random model hides its input
    tiny_bert(initializer_range=0.3).save_pretrained(folder)
    return str(folder)


LETTERS = "abcdefghijklmnopqrstuvwxyz "


def letter_tokenizer(template: str, **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each letter, and special ones as a template says."""
    pieces = ["<pad>", "<s>", "</s>", "<unk>", *LETTERS]
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokens = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", **special
    )


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random Llama whose tokenizer has no padding token, as many have none."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    letter_tokenizer("<s> $0", bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    tiny_llama(initializer_range=0.3, max_position_embeddings=64).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random T5."""
    folder = tmp_path_factory.mktemp("tiny-t5")
    letter_tokenizer("$0 </s>", pad_token="<pad>").save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCAB_SIZE,
        d_model=HIDDEN_SIZE,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=2,
        initializer_factor=3.0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """A task of three classes that a tiny model learns in a few steps: the first letter."""
    rows = [(f"{first}{a}{b}", i) for i, first in enumerate("xyz") for a in "abcd" for b in "abcd"]
    texts = tuple((text,) for text, _ in rows)
    split = Split(texts, tuple(label for _, label in rows))
    parts = [split.take(range(start, len(rows), 3)) for start in range(3)]
    return Task(
        name="first letter",
        source="generated",
        text_columns=("text",),
        kind=Classification(("x", "y", "z")),
        metric=Metric(("accuracy",)),
        train=parts[0],
        dev=parts[1],
        test=parts[2],
    )
