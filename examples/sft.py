"""A search for a language model: the objective is TRL's `SFTTrainer`, the score minus its loss.

    pip install trl
    python examples/sft.py --model TinyLlama/TinyLlama_v1.1 --train-file stories.jsonl --trials 20

The file holds one text a line as {"text": ...}; every tenth is held out to compare trials on.
"""

import argparse
import sys

import torch
from datasets import load_dataset
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from peft_autoconfig import AutoPEFTConfig, Outcome, Search, SearchSpace
from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.search.live import LiveView, quieten


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="Hub id or folder")
    parser.add_argument("--train-file", required=True, help="JSON lines, each with a text")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--max-length", type=int, default=512, help="tokens kept of a text")
    parser.add_argument("--max-params", type=int, help="parameters at most")
    parser.add_argument("--output", default="runs/sft", help="run folder")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    quieten()
    texts = load_dataset("json", data_files=args.train_file, split="train")
    parts = texts.train_test_split(test_size=0.1, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def objective(config: AutoPEFTConfig, learning_rate: float) -> Outcome:
        config.task_type = "CAUSAL_LM"
        model = AutoModelForCausalLM.from_pretrained(args.model)
        arguments = SFTConfig(
            learning_rate=learning_rate,
            max_steps=args.max_steps,
            max_length=args.max_length,
            per_device_train_batch_size=8,
            bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = SFTTrainer(
            get_peft_model(model, config),
            arguments,
            train_dataset=parts["train"],
            eval_dataset=parts["test"],
            processing_class=tokenizer,
        )
        trainer.train()
        loss = trainer.evaluate()["eval_loss"]
        return Outcome(score=-loss, loss=loss)

    model = AutoModelForCausalLM.from_pretrained(args.model)
    rates = [1e-3, 5e-3, 1e-2]
    space = SearchSpace.from_model(model, learning_rates=rates, max_params=args.max_params)
    facts = {"model": args.model, "data": args.train_file, "max_steps": args.max_steps}
    search = Search(space, args.output, about=facts)
    with LiveView(search, args.trials) as live:
        search.run(objective, args.trials, callbacks=[live])
    for member in search.front():
        print(f"loss {-member.score:.4f}  {member.num_params:>9,} parameters  {member.config}")


if __name__ == "__main__":
    try:
        main()
    except AutoConfigError as error:
        sys.exit(f"error: {error}")
