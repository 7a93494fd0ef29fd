"""The commands as people and scripts use them, on one small search."""

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from peft import AutoPeftModelForSequenceClassification

from peft_autoconfig import AutoPEFTConfig, Search
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.run.folder import read_front

from .conftest import run, run_json


def test_a_search_writes_its_front_its_table_and_its_adapters(searched):
    folder, value = searched
    assert value["run"] == str(folder)
    assert value["front"] == read_front(folder)
    methods = {row["method"]: row for row in value["table"]}
    assert {"constant predictor", "linear probe", "LoRA r=8", "full fine-tuning"} <= set(methods)
    for member in value["front"]:
        assert methods[f"front, trial {member['trial']}"]["num_params"] == member["num_params"]
        adapter = folder / "adapters" / str(member["trial"])
        model = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=2)
        assert (
            model.peft_config["default"].layers_to_transform
            == (member["config"]["layers_to_transform"])
        )


def test_the_same_folder_goes_on_without_saying_anything_again(searched):
    folder, value = searched
    again = run_json("search", "--output", folder)
    assert again == value
    other = run("search", "--output", folder, "--batch-size", 4)
    assert other.exit_code == 1
    assert "batch_size is 16 there and 4 here" in other.stderr
    assert run_json("status", folder)["complete"] == 3


def test_text_ends_with_what_to_do_next(searched):
    folder, _ = searched
    result = run("search", "--output", folder)
    assert result.exit_code == 0
    assert f"peft-autoconfig train {folder} --select knee" in result.stdout
    assert "| LoRA r=8 |" in result.stdout


def test_status_tells_how_far_a_search_is(searched):
    folder, value = searched
    status = run_json("status", folder)
    assert (status["num_trials"], status["complete"], status["running"]) == (3, 3, [])
    assert status["seconds_left"] == 0.0
    assert status["front"] == value["front"]
    stored = json.loads((folder / "comparison.json").read_text())
    done = len(stored["evaluations"])
    assert status["table"] == {"trainings": done, "total": done}
    assert f"hand-made choices: {done}/{done} trainings" in run("status", folder).stdout
    watched = run("status", folder, "--watch")
    assert watched.exit_code == 0
    assert "3/3 trials" in watched.stdout


def test_front_lists_members_within_a_budget(searched):
    folder, value = searched
    least = value["front"][0]["num_params"]
    assert run_json("front", folder)["front"] == value["front"]
    assert [
        member["num_params"] for member in run_json("front", folder, "--max-params", least)["front"]
    ] == [least]
    text = run("front", folder).stdout
    assert f"{least:,}" in text
    refused = run("front", folder, "--max-params", least - 1)
    assert refused.exit_code == 1
    assert str(least - 1) in refused.stderr


def test_a_configuration_is_trained_and_evaluated_again(searched, tmp_path):
    folder, value = searched
    member = value["front"][-1]
    output = tmp_path / "adapter"
    trained = run_json("train", folder, "--select", "score", "--output", output)
    assert trained["trial"] == member["trial"]
    assert trained["num_params"] == member["num_params"]
    # the seed of the search, so its score too
    assert trained["dev"]["score"] == pytest.approx(member["score"])

    told = ["--config", folder / "recipe.json"]
    evaluated = run_json("evaluate", output, *told)
    assert evaluated["score"] == pytest.approx(trained["test"]["score"])
    assert evaluated["loss"] == pytest.approx(trained["test"]["loss"], rel=1e-4)
    dev = run_json("evaluate", output, *told, "--split", "dev")
    assert dev["loss"] == pytest.approx(trained["dev"]["loss"], rel=1e-4)

    for arguments, message in (
        (["train", folder, "--output", output], "is there already"),
        (["train", folder, "--trial", 99], "Trial 99 is not on the front"),
        (["evaluate", output], "Expected --model and --task"),
        (["evaluate", tmp_path, *told], "Expected a folder or Hub repository with an adapter"),
        (["evaluate", output, *told, "--split", "tset"], "'tset'"),
    ):
        refused = run(*arguments)
        assert refused.exit_code == 1
        assert message in refused.stderr


def test_the_front_says_what_is_believed_and_any_trial_can_be_trained(searched, tmp_path):
    folder, value = searched
    members = run_json("front", folder)["front"]
    complete = {r.number: r for r in Search.open(folder).trials if r.state == "COMPLETE"}
    for member in members:
        assert member["score"] == complete[member["trial"]].score
        assert 0 <= member["confidence"] <= 1
        assert member["deviation"] >= 0
    text = run("front", folder).stdout
    assert all(f"{member['mean']:.4f}" in text for member in members)
    refused = run("front", folder.parent / "none")
    assert refused.exit_code == 1
    off = min(set(complete) - {member["trial"] for member in value["front"]})
    trained = run_json("train", folder, "--trial", off, "--output", tmp_path / "adapter")
    assert trained["trial"] == off
    assert trained["num_params"] == complete[off].num_params


def test_adapters_of_a_run_know_their_task(searched):
    folder, value = searched
    adapter = folder / "adapters" / str(value["front"][-1]["trial"])
    evaluated = run_json("evaluate", adapter)
    row = next(r for r in value["table"] if r["trial"] == value["front"][-1]["trial"])
    assert evaluated["score"] == pytest.approx(row["test_scores"][0])


def test_a_search_starts_from_one_of_another_task_on_the_same_model(settings, searched, tmp_path):
    folder, _ = searched
    budget = ("--trials", 1, "--report-seeds", 0, "--seed", 1)
    target = tmp_path / "warm"
    run_json("search", *settings, *budget, "--warm-start", folder, "--output", target)
    (kept,) = json.loads((target / "search.json").read_text())["earlier"]
    assert len(kept["scores"]) == 3
    assert Recipe.of_run(target).warm_start == (str(folder),)
    run_json("search", "--output", target)  # goes on without saying it again
    nothing = tmp_path / "nothing"
    refused = run("search", *settings, "--warm-start", nothing, "--output", tmp_path / "cold")
    assert refused.exit_code == 1
    assert "is no run folder" in refused.stderr


def area(run_folder, other) -> float:
    """The area under the front's staircase, from the worst of both runs' trials."""
    records = [r for f in (run_folder, other) for r in Search.open(f).trials if r.score is not None]
    floor, ceiling = min(r.score for r in records), max(r.num_params for r in records)
    front = read_front(run_folder)
    ends = [member["num_params"] for member in front[1:]] + [ceiling]
    return sum(
        (member["mean"] - floor) * math.log10(end / member["num_params"])
        for member, end in zip(front, ends, strict=True)
    )


def test_runs_are_compared_by_one_reference(searched, settings, tmp_path):
    folder, value = searched
    other = tmp_path / "other"
    run_json("search", *settings, "--seed", 1, "--trials", 2, "--report-seeds", 0, "-o", other)
    first, second = run_json("compare", folder, other)["runs"]
    assert (first["complete"], second["complete"]) == (3, 2)
    assert first["best_score"] == value["front"][-1]["mean"]
    assert first["hypervolume"] == pytest.approx(area(folder, other))
    assert second["hypervolume"] == pytest.approx(area(other, folder))
    assert str(other) in run("compare", folder, other).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status", "no-such-run"], 1, "no-such-run"),
        (["compare", "no-such-run"], 1, "no-such-run"),
        (["search", "--task", "rtee"], 1, "did you mean rte"),
        (["search", "--train-file", "missing.csv"], 1, "missing.csv"),
        (["search", "--config", "missing.yaml"], 1, "missing.yaml"),
        (["search", "--learning-rates", "a,b"], 2, "expected numbers with commas"),
        (["search", "--lora-ranks", "2.5"], 2, "expected counts with commas"),
        (["search", "--trials", "0"], 2, "greater than or equal to 1"),
        (["search", "--nonsense"], 2, "nonsense"),
        ([], 2, "Usage"),
    ],
)
def test_wrong_input_has_a_reason_and_a_code(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in " ".join(result.output.split())
    if code == 1:
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_tracker_is_refused_by_name(searched):
    folder, _ = searched
    result = run("search", "--output", folder, "--track", "tensorbord")
    assert result.exit_code == 1
    assert "tensorbord" in result.stderr
    assert "tensorboard" in result.stderr


def test_a_report_is_written_where_it_is_wanted(searched, tmp_path):
    pytest.importorskip("plotly", reason="plotly is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder, _ = searched
    page = tmp_path / "page.html"
    assert run_json("report", folder, "--output", page) == {"report": str(page)}
    assert "letters" in page.read_text()
    refused = run("report", folder, "--output", tmp_path / "page.pdf")
    assert refused.exit_code == 1
    assert "*.html" in refused.stderr


def test_the_table_is_the_work_of_one_process(searched):
    folder, value = searched
    recipe, search = Recipe.of_run(folder), Search.open(folder)
    training, tables = recipe.training(), []
    waiter = threading.Thread(target=lambda: tables.append(recipe.compare(search, training)))
    with FileLock(folder / ".table.lock"):
        waiter.start()
        waiter.join(timeout=1.0)
        assert not tables
    waiter.join(timeout=60)
    assert [row.name for row in tables[0]] == [row["method"] for row in value["table"]]


def test_a_request_to_terminate_hands_the_trial_back(settings, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "peft_autoconfig_cli", "search", *map(str, settings)]
    command += ["--trials", "500", "--output", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as search:
        assert search.stderr is not None
        lines = [search.stderr.readline() for _ in range(2)]
        search.terminate()
        rest = search.stderr.read()
    assert any("trial 0" in line for line in lines), lines
    assert search.returncode == 130, rest
    assert rest.endswith("the same command goes on from there.\n")
    assert "RUNNING" not in {record.state for record in Search.open(folder).trials}


def test_an_interruption_has_its_own_code(searched, monkeypatch):
    folder, _ = searched

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("peft_autoconfig.recipe.Recipe.run", interrupt)
    result = run("search", "--output", folder)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_a_winner_is_used_in_python(searched):
    folder, value = searched
    config = AutoPEFTConfig.from_search(str(folder))
    assert config.serial_bottleneck_size == value["front"][-1]["config"]["serial_bottleneck_size"]


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["status", "--nonsense"]])
def test_help_and_usage_import_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from peft_autoconfig_cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    imported = set(done.stderr.splitlines()[-1].split())
    assert "typer" in imported
    assert not imported & {"torch", "peft", "transformers", "optuna", "peft_autoconfig"}


def test_json_is_all_there_is_on_stdout(searched):
    folder, _ = searched
    for command in ("status", "front"):
        json.loads(run(command, folder, "--json").stdout)
