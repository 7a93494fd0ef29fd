"""Training by transformers' Trainer and TRL's SFTTrainer, which must treat ours as any adapter."""

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from ..conftest import tiny_bert_classifier
from .architectures import ARCHITECTURES
from .configurations import METHODS

every_method = pytest.mark.parametrize("method", METHODS)


def rows():
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(5, 99, (12, 6), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 3} for row in ids]


def arguments(folder, **changes):
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1000,
        "seed": 7,
    }
    return TrainingArguments(**{**options, **changes})


def trainer(model, folder, **changes):
    data = rows()
    return Trainer(model, arguments(folder, **changes), train_dataset=data, eval_dataset=data)


def classifier(method):
    # no dropout: the state of the generator is then all that a resumed run must restore
    torch.manual_seed(0)
    model = tiny_bert_classifier(
        num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(1)
    return get_peft_model(model, METHODS[method](task_type="SEQ_CLS"))


@every_method
def test_a_resumed_run_ends_as_one_that_was_not_broken_off(method, tmp_path):
    whole = classifier(method)
    start = {k: v.clone() for k, v in get_peft_model_state_dict(whole).items()}
    trainer(whole, tmp_path / "whole").train()
    expected = get_peft_model_state_dict(whole)
    assert all(not torch.equal(expected[name], start[name]) for name in start)
    resumed = classifier(method)
    trainer(resumed, tmp_path / "resumed").train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2")
    )
    torch.testing.assert_close(get_peft_model_state_dict(resumed), expected, rtol=1e-5, atol=1e-6)
    base = BertForSequenceClassification(whole.config)
    base.load_state_dict(classifier(method).unload().state_dict())
    loaded = PeftModel.from_pretrained(base.eval(), tmp_path / "whole" / "checkpoint-4")
    batch = {"input_ids": torch.stack([row["input_ids"] for row in rows()])}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, whole.eval()(**batch).logits)


@every_method
def test_the_best_checkpoint_is_loaded_at_the_end(method, tmp_path):
    model = classifier(method)
    # so high that the last weights are not the best
    run = trainer(model, tmp_path, learning_rate=3.0, load_best_model_at_end=True)
    run.train()
    losses = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


@every_method
def test_sft_trainer_takes_our_configuration(method, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed (extra: integration)")
    ids = torch.randint(5, 99, (8, 6), generator=torch.Generator().manual_seed(6)).tolist()
    model = ARCHITECTURES["Llama"].build()
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    run = trl.SFTTrainer(
        model,
        trl.SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            max_steps=2,
            learning_rate=0.05,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
        processing_class=tiny_tokenizer(),
        peft_config=METHODS[method](task_type="CAUSAL_LM"),
    )
    start = {k: v.clone() for k, v in get_peft_model_state_dict(run.model).items()}
    run.train()
    trained = get_peft_model_state_dict(run.model)
    assert all(not torch.equal(trained[name], start[name]) for name in start)
    unloaded = dict(run.model.unload().named_parameters())
    assert all(torch.equal(unloaded[name], p) for name, p in frozen.items())


def tiny_tokenizer():
    words = {f"w{i}": i for i in range(97)} | {"<pad>": 97, "<eos>": 98}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")),
        pad_token="<pad>",
        eos_token="<eos>",
    )
