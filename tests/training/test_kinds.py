"""Every kind of task end to end: trained, scored, saved, and loaded again by PEFT's own classes."""

import itertools
import shutil

import peft
import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError, TaskError, TrainingError
from peft_autoconfig.front.adapter import evaluate_adapter, train_adapter
from peft_autoconfig.front.baselines import untrained
from peft_autoconfig.tasks import KINDS, Metric, Split, Task
from peft_autoconfig.training import Training, TrainingPlan
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE, Pretrained

from ..conftest import tiny_bert

PLAN = TrainingPlan(max_steps=30, num_epochs=100, batch_size=8, max_length=24)
CONFIG = AutoPEFTConfig(serial_bottleneck_size=8, parallel_bottleneck_size=8, prefix_length=1)
WORDS = ["".join(word) for word in itertools.product("xyz", "abcd", "ef")]
ORDERS = {"x": "xyz", "y": "zxy", "z": "yzx"}
ANSWERS = {"x": "pp", "y": "q", "z": "rs"}

# Of each kind: texts and label of a word, whose first letter tells all. What a model is and gives.
ROWS = {
    "classification": lambda word: ((word,), "xyz".index(word[0])),
    "regression": lambda word: ((word,), float("xyz".index(word[0]))),
    "multiple-choice": lambda word: ((word[1:], *ORDERS[word[0]]), ORDERS[word[0]].index("x")),
    "token-classification": lambda word: (
        (word, word[::-1]),
        ("xyz".index(word[0]), "abcdef".index(word[2]) % 3),
    ),
    "language-modelling": lambda word: ((word * 3,), word * 3),
    "completion": lambda word: ((word[::-1],), ANSWERS[word[0]]),
    "seq2seq": lambda word: ((word,), ANSWERS[word[0]]),
}
CASES = [
    ("tiny_folder", "token-classification", "TokenClassification", {"num_labels": 3}),
    ("tiny_decoder", "classification", "SequenceClassification", {"num_labels": 3}),
    ("tiny_decoder", "multiple-choice", "SequenceClassification", {"num_labels": 1}),
    ("tiny_decoder", "token-classification", "TokenClassification", {"num_labels": 3}),
    ("tiny_decoder", "language-modelling", "CausalLM", {}),
    ("tiny_decoder", "completion", "CausalLM", {}),
    ("tiny_seq2seq", "classification", "SequenceClassification", {"num_labels": 3}),
    ("tiny_seq2seq", "seq2seq", "Seq2SeqLM", {}),
]


def task_of(name, **changes):
    kind = KINDS[name](tuple("xyz") if "classif" in name or "choice" in name else ())
    rows = [ROWS[name](word) for word in WORDS]
    texts, labels = map(tuple, zip(*rows, strict=True))
    whole = Split(texts, labels)
    facts = dict(
        name=name,
        source="generated",
        text_columns=tuple(f"column {i}" for i in range(1 if "token" in name else len(texts[0]))),
        kind=kind,
        metric=Metric(kind.default_measures),
        train=whole,
        dev=whole.take(range(0, len(WORDS), 2)),
        test=whole.take(range(1, len(WORDS), 2)),
    )
    return Task(**(facts | changes))


def training_of(request, folder, name, plan=PLAN, **changes):
    return Training(request.getfixturevalue(folder), task_of(name, **changes), plan)


@pytest.mark.parametrize(("folder", "name", "auto_class", "options"), CASES)
def test_a_kind_is_trained_saved_and_loaded(request, tmp_path, folder, name, auto_class, options):
    training = training_of(request, folder, name)
    floor = untrained(training, "dev")[1]
    adapter = tmp_path / "adapter"
    trained = train_adapter(training, CONFIG, adapter, learning_rate=2e-2)
    if folder != "tiny_folder":  # so deep a random BERT learns too slowly for a test
        assert trained.dev.loss < 0.8 * floor.loss
    if folder == "tiny_decoder":
        assert trained.dev.score > floor.score
    assert evaluate_adapter(training, str(adapter)) == trained.test
    reader = getattr(peft, f"AutoPeftModelFor{auto_class}")
    if folder == "tiny_decoder" and options:  # how docs/how-to/decoder-models.md says it
        options = options | {"pad_token_id": training.pretrained.tokenizer.pad_token_id}
    loaded = reader.from_pretrained(adapter, **options)
    assert training.evaluate(loaded, "test") == trained.test


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("tiny_folder", "token-classification"),
        ("tiny_decoder", "completion"),
        ("tiny_seq2seq", "seq2seq"),
        ("tiny_decoder", "multiple-choice"),
    ],
)
def test_micro_batches_leave_the_loss_as_it_is(request, folder, name):
    losses = []
    for size in (None, 3):
        plan = TrainingPlan(max_steps=1, batch_size=8, max_length=24, micro_batch_size=size)
        training = training_of(request, folder, name, plan)
        model = training.pretrained.fresh(CONFIG, seed=0).eval()
        examples = training._trainer.examples("train")
        losses.append(training._trainer.fit().backward(model, examples[:8]).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", ["classification", "token-classification", "completion"])
def test_padding_changes_no_outcome_of_a_decoder(request, tmp_path, name):
    folder = request.getfixturevalue("tiny_decoder")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    # as those of many decoders, which serves generation
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(tmp_path)
    training = Training(str(tmp_path), task_of(name), PLAN)
    words = [tuple("abc"[: 1 + i % 3]) for i in range(6)]
    split = Split(tuple(("".join(word),) for word in words), training.task.train.labels[:6])
    if name == "token-classification":
        split = Split(tuple(words), tuple((0,) * len(word) for word in words))
    kind, tokenizer = training.task.kind, training.pretrained.tokenizer
    examples = kind.tokenize(split, tokenizer, max_length=16)
    model = training.pretrained.fresh(CONFIG, seed=0).eval()
    with torch.inference_mode():
        together = kind.predict(model, kind.collate(examples, tokenizer))
        alone = [kind.predict(model, kind.collate([each], tokenizer))[0] for each in examples]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_a_part_of_long_texts_is_evaluated_too(request):
    plan = TrainingPlan(max_steps=1, max_length=4)
    training = training_of(request, "tiny_decoder", "language-modelling", plan)
    model = training.pretrained.fresh(CONFIG, seed=0)
    num_examples = len(training._trainer.examples("dev"))
    assert num_examples > len(training.task.dev)
    parts = [training.evaluate(model, "dev", rows=rows) for rows in ([0], [num_examples - 1])]
    whole = training.evaluate(model, "dev", rows=range(num_examples))
    assert whole == training.evaluate(model, "dev")
    assert parts[0].loss != parts[1].loss


def test_full_fine_tuning_of_a_decoder_counts_every_weight(request):
    training = training_of(request, "tiny_decoder", "language-modelling")
    model = training.train(FULL_FINE_TUNING, learning_rate=1e-3, seed=0)
    assert training.pretrained.num_params(model) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("tiny_folder", "completion", "for completion, whose tokens do not see later ones"),
        ("tiny_decoder", "seq2seq", "can load for seq2seq"),
        ("tiny_seq2seq", "completion", "can load for completion"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_training(request, folder, name, message):
    with pytest.raises(ConfigError, match=message):
        training_of(request, folder, name).load()


def test_texts_beyond_the_positions_of_a_model_are_refused(request):
    plan = TrainingPlan(max_length=65)
    with pytest.raises(TaskError, match=r"between .* and 64 \(the limit of tokenizer and model\)"):
        training_of(request, "tiny_decoder", "completion", plan).load()


@pytest.fixture
def tiny_roberta(request, tmp_path):
    """A folder with a RoBERTa whose head is of several modules, and for two classes."""
    config = RobertaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, pad_token_id=0)
    config.num_attention_heads, config.intermediate_size, config.max_position_embeddings = 2, 16, 20
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    folder = request.getfixturevalue("tiny_seq2seq")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    return str(tmp_path)


def test_positions_behind_the_padding_token_are_not_counted(tiny_roberta):
    loaded = Pretrained.load(tiny_roberta, task_of("classification"))
    assert loaded.tokenizer.model_max_length == 19
    longest = torch.full((1, 19), 5)
    assert loaded.model(input_ids=longest).logits.shape == (1, 3)
    with pytest.raises((IndexError, RuntimeError)):
        loaded.model(input_ids=torch.full((1, 20), 5))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_that_the_checkpoint_had_is_drawn_anew_and_saved(
    tiny_roberta, tmp_path, num_classes
):
    names = tuple("abc"[:num_classes])
    split = Split((("a",), ("b",)), (0, 1))
    parts = dict.fromkeys(("train", "dev", "test"), split)
    task = task_of("classification", kind=KINDS["classification"](names), **parts)
    training = Training(tiny_roberta, task, TrainingPlan(max_steps=1, max_length=8))
    assert "classifier" in training.pretrained.head
    trained = train_adapter(training, CONFIG, tmp_path / "adapter")
    assert training.pretrained.num_params(training.pretrained.fresh(LINEAR_PROBE, seed=0)) == 0
    assert evaluate_adapter(training, str(tmp_path / "adapter")) == trained.test


def test_a_model_without_any_token_to_pad_is_refused(request, tmp_path):
    folder = request.getfixturevalue("tiny_decoder")
    pretrained = Pretrained.load(folder, task_of("classification"))
    pretrained.model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="no padding token"):
        Training(str(tmp_path), task_of("classification"), PLAN).load()


def test_fewer_examples_than_a_batch_are_one_batch(request):
    few = task_of("classification").train.take([0, 8])
    plan = TrainingPlan(num_epochs=3, batch_size=32, max_length=24)
    training = training_of(request, "tiny_folder", "classification", plan, train=few)
    assert training(CONFIG, learning_rate=1e-3).score >= 0


def test_what_a_model_gives_has_to_be_finite(request, monkeypatch):
    training = training_of(request, "tiny_folder", "classification")
    kind = type(training.task.kind)
    monkeypatch.setattr(kind, "predict", lambda self, model, batch: [[0.0, 1.0, float("nan")]] * 12)
    monkeypatch.setattr(Training, "train", lambda *_, **__: tiny_bert())
    with pytest.raises(TrainingError, match="of no use: some model outputs are not finite"):
        training(CONFIG)
