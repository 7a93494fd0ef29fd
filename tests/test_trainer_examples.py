"""The objectives of others: transformers' Trainer and TRL's SFTTrainer, as in the examples."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from peft_autoconfig import Search

from .conftest import tiny_llama

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=cwd,
    )


def test_a_trainer_is_an_objective(tiny_folder, tmp_path):
    file = tmp_path / "letters.csv"
    rows = [(f"{c}{a}{b}", c) for c in "xy" for a in "abcd" for b in "abcdefgh"]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    command = ["--model", tiny_folder, "--train-file", file, "--output", tmp_path / "run"]
    done = run_example("trainer.py", *command, "--trials", 2, "--max-steps", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    front = Search.open(tmp_path / "run").front()
    assert all(member.loss is not None for member in front)
    assert f"{front[-1].num_params}" in done.stdout
    assert done.stderr.count("search 1/2: trial") == 1


@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="trl is not installed")
def test_an_sft_trainer_is_an_objective(tiny_folder, tmp_path):
    model = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    # TRL marks the end of each text
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(model)
    torch.manual_seed(0)
    tiny_llama(eos_token_id=tokenizer.eos_token_id).save_pretrained(model)
    file = tmp_path / "stories.jsonl"
    lines = [json.dumps({"text": f"the {word} cat saw a {word} dog"}) for word in "abcdefghij" * 2]
    file.write_text("\n".join(lines))
    command = ["--model", model, "--train-file", file, "--output", tmp_path / "run"]
    done = run_example("sft.py", *command, "--trials", 2, "--max-steps", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    search = Search.open(tmp_path / "run")
    assert [record.state for record in search.trials] == ["COMPLETE"] * 2
    assert all(record.score == -record.loss for record in search.trials)
    assert f"loss {-search.best().score:.4f}" in done.stdout
