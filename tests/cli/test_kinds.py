"""A search on completions for a decoder, by the command line alone, from file to loaded adapter."""

import json

import pytest
from peft import AutoPeftModelForCausalLM

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
