"""A search whose objective is transformers' own `Trainer`: train as you like, return a score.

    python examples/trainer.py --model bert-base-uncased --train-file reviews.csv \
        --text-column text --label-column stars --trials 20
"""

import argparse
import sys

from peft import get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from peft_autoconfig import AutoPEFTConfig, Outcome, Search, SearchSpace
from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.search.live import LiveView, quieten
from peft_autoconfig.tasks import load_files_task


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="Hub id or folder")
    parser.add_argument("--train-file", required=True, help="CSV, JSON or parquet file")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--output", default="runs/trainer", help="run folder")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    quieten()
    task = load_files_task(
        args.train_file, text_columns=[args.text_column], label_column=args.label_column
    )
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    train, dev = task.tokenize(task.train, tokenizer), task.tokenize(task.dev, tokenizer)

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        evaluation = task.evaluate(prediction.predictions, task.dev.labels)
        return {"score": evaluation.score, "nll": evaluation.loss or 0.0}

    def objective(config: AutoPEFTConfig, learning_rate: float) -> Outcome:
        config.task_type = "SEQ_CLS"
        model = AutoModelForSequenceClassification.from_pretrained(
            args.model, **task.kind.model_options
        )
        arguments = TrainingArguments(
            learning_rate=learning_rate,
            max_steps=args.max_steps,
            per_device_train_batch_size=16,
            warmup_steps=args.max_steps // 10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(
            get_peft_model(model, config),
            arguments,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=dev,
            compute_metrics=measure,
        )
        trainer.train()
        results = trainer.evaluate()
        return Outcome(score=results["eval_score"], loss=results["eval_nll"])

    base = AutoModelForSequenceClassification.from_pretrained(args.model)
    space = SearchSpace.from_model(base, learning_rates=[1e-3, 5e-3, 1e-2])
    facts = {"model": args.model, "task": task.about(), "max_steps": args.max_steps}
    search = Search(space, args.output, about=facts)
    with LiveView(search, args.trials) as live:
        search.run(objective, args.trials, callbacks=[live])
    columns = ["score", "num_params", "learning_rate", "layers_to_transform"]
    table = search.to_pandas()
    print(table[table.on_front][columns].to_string())


if __name__ == "__main__":
    try:
        main()
    except AutoConfigError as error:
        sys.exit(f"error: {error}")
