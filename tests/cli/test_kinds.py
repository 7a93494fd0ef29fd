"""A search on completions for a decoder, by the command line alone, from file to loaded adapter."""

import itertools
import json
import random
import shutil

import pytest
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

from ..conftest import shared_folder
from .conftest import run, run_json

ANSWERS = {"x": "pp", "y": "q", "z": "rs"}


@pytest.fixture(scope="module")
def completed(tiny_decoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    rows = [
        {"prompt": f"{a}{b}{c}", "completion": ANSWERS[c]}
        for a in "abcd"
        for b in "abcd"
        for c in "xyz"
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [
        *("--model", tiny_decoder, "--train-file", folder / "train.jsonl", "--kind", "completion"),
        *("--metric", "log_likelihood"),
        *("--max-steps", 25, "--batch-size", 8, "--max-length", 16, "--learning-rates", "2e-2"),
        *("--trials", 2, "--report-seeds", 1, "--front-members", 1),
    ]
    value = run_json("search", *flags, "--output", folder / "run")
    return folder / "run", value


def test_a_decoder_is_searched_and_its_winner_loaded(completed):
    folder, value = completed
    methods = {row["method"]: row["test_scores"] for row in value["table"]}
    # a probe would have nothing to train, and a constant writes nothing
    assert "linear probe" not in methods
    assert "constant predictor" not in methods
    member = value["front"][-1]
    assert member["score"] > methods["untrained model"][0]
    assert max(methods[f"front, trial {member['trial']}"]) < 0
    adapter = folder / "adapters" / str(member["trial"])
    model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    assert model.peft_config["default"].task_type == "CAUSAL_LM"
    evaluated = run_json("evaluate", adapter)
    assert set(evaluated["measures"]) == {"exact_match", "log_likelihood", "perplexity"}
    assert evaluated["score"] == evaluated["measures"]["log_likelihood"]


def test_what_does_not_fit_the_kind_is_refused(completed):
    folder, _ = completed
    train = folder.parent / "train.jsonl"
    for flags, message in (
        (["--kind", "ranking"], "kind must be one of ['classification', 'regression'"),
        (["--kind", "completion", "--metric", "f1"], "metric f1 does not fit a task of completion"),
        (["--kind", "seq2seq"], "has no column 'target'"),
    ):
        refused = run("search", "--train-file", train, *flags, "--output", folder.parent / "other")
        assert refused.exit_code == 1
        assert message in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_a_pretrained_decoder_learns_to_answer_as_decoding_shows(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(shared_folder("PEFT_AUTOCONFIG_MODELS_DIR") / "stories260k-llama", model)
    config = model / "tokenizer_config.json"
    # its end token has the weights of tokens that it never saw; between stories stood this one
    config.write_text(config.read_text().replace('"eos_token": "</s>"', '"eos_token": "<s>"'))
    names = "Tom Lily Tim Sue Ben Mia Max Anna Sam Lucy".split()
    things = "ball cat dog car hat box cake bird book tree".split()
    pairs = [
        (f"{name} had a {colour} {thing}. The {thing} was", f" {colour}.")
        for name, thing in itertools.product(names, things)
        for colour in ("red", "blue", "big", "small", "green")
    ]
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(json.dumps({"prompt": a, "completion": b}) for a, b in pairs))
    flags = ["--model", model, "--train-file", train, "--kind", "completion", "--max-steps", 80]
    flags += ["--batch-size", 16, "--max-length", 32, "--learning-rates", "1e-2"]
    folder = tmp_path / "run"
    run_json("search", *flags, "--trials", 4, "--report-seeds", 0, "--output", folder)
    trained = run_json("train", folder, "--select", "score")
    assert trained["test"]["measures"]["exact_match"] > 0.5

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    prompts, expected = zip(*random.Random(0).sample(pairs, 100), strict=True)
    batch = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    answers = AutoPeftModelForCausalLM.from_pretrained(trained["adapter"]).generate(
        **batch,
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,  # the model's own settings name the other token
    )
    answers = tokenizer.batch_decode(
        answers[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert sum(a.strip() == b.strip() for a, b in zip(answers, expected, strict=True)) > 50
