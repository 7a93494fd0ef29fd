import json
import shutil
import signal
import subprocess
import sys

import pytest
from peft import LoraConfig

from peft_autoconfig.errors import RunError
from peft_autoconfig.front.comparison import Comparison
from peft_autoconfig.front.front import train_front
from peft_autoconfig.report.findings import placed_parts, read_findings
from peft_autoconfig.report.repeats import Scores, pooled_deviation
from peft_autoconfig.run.folder import RunFolder
from peft_autoconfig.search import Search
from peft_autoconfig.training import Training, TrainingPlan

from .report_cases import (
    ABOUT,
    FAILURE,
    NUM_TRIALS,
    SPACE,
    evaluations,
    make_run,
)


def copy_of(run, folder):
    return shutil.copytree(run, folder / "copy")


def test_all_of_a_run_is_read(whole_run):
    findings = read_findings(whole_run)
    search = Search(SPACE, whole_run, about=ABOUT, seed=3)
    assert [trial.record for trial in findings.trials] == search.trials
    assert list(findings.front) == search.front()
    assert len(findings.complete) == NUM_TRIALS
    assert len(findings.complete) == len(findings.front) + len(findings.dominated)
    assert findings.records("FAIL")[0].reason == f"ValueError: {FAILURE}"
    assert findings.knee == search.best(select="knee")
    assert (findings.task, findings.model, findings.metric) == ("letters", "some/model", "accuracy")
    assert all(trial.started <= trial.ended for trial in findings.trials)


def test_reading_leaves_every_file_as_it_is(whole_run):
    def state():
        return {
            file: (file.stat().st_mtime_ns, file.read_bytes())
            for file in whole_run.rglob("*")
            if file.is_file()
        }

    before = state()
    read_findings(whole_run)
    assert state() == before


def test_a_search_that_is_still_going_is_read(tmp_path):
    search = make_run(tmp_path / "run", n=3)
    asked = search.ask()
    findings = read_findings(tmp_path / "run")
    assert [record.number for record in findings.records("RUNNING")] == [asked.number]
    assert len(findings.complete) == 3


def test_a_run_whose_process_was_killed_while_it_wrote_is_read(whole_run, tmp_path):
    run = copy_of(whole_run, tmp_path)
    # so many rows that SQLite writes to the file before the end of the transaction
    code = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
for i in range(3000):
    connection.execute(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, ?, ?)",
        (f"key {i}", "x" * 500),
    )
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(run / "study.db")], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {file.name: file.read_bytes() for file in run.glob("study.db*")}
    assert set(before) == {"study.db", "study.db-journal"}
    records = [trial.record for trial in read_findings(run).trials]
    assert records == [trial.record for trial in read_findings(whole_run).trials]
    assert {file.name: file.read_bytes() for file in run.glob("study.db*")} == before


def test_a_run_without_trials_or_study_is_read(tmp_path):
    Search(SPACE, tmp_path / "none", about=ABOUT)
    assert read_findings(tmp_path / "none").trials == ()
    RunFolder.at(tmp_path / "claimed").claim(space=SPACE.to_dict(), about={}, seed=0)
    findings = read_findings(tmp_path / "claimed")
    assert (findings.trials, findings.front, findings.knee) == ((), (), None)
    assert (findings.task, findings.model, findings.metric) == (None, None, "score")


@pytest.mark.parametrize("name", ["a b", "a#b?c=d", "100%25", "{braces}", "quo'te\"s", "ü"])
def test_a_folder_may_have_any_name(whole_run, tmp_path, name):
    shutil.copytree(whole_run, tmp_path / name)
    assert len(read_findings(tmp_path / name).complete) == NUM_TRIALS


def test_other_folders_and_damaged_files_are_refused(whole_run, tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        read_findings(tmp_path)
    run = copy_of(whole_run, tmp_path)
    (run / "study.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(RunError, match=r"study\.db cannot be read"):
        read_findings(run)


@pytest.mark.parametrize("trial", [10**6, "failed"])
def test_a_front_that_the_study_does_not_hold_is_refused(whole_run, tmp_path, trial):
    run = copy_of(whole_run, tmp_path)
    front = json.loads((run / "front.json").read_text())
    failed = read_findings(run).records("FAIL")[0].number
    front["front"][0]["trial"] = failed if trial == "failed" else trial
    (run / "front.json").write_text(json.dumps(front))
    with pytest.raises(RunError, match="is not complete in the study"):
        read_findings(run)


def test_repeats_are_traced_to_trials_and_named(whole_run):
    findings = read_findings(whole_run)
    members = {repeat.trial: repeat for repeat in findings.repeats if repeat.trial is not None}
    assert set(members) == {member.number for member in findings.front}
    first = findings.front[0]
    assert findings.repeat_of(first) == members[first.number]
    assert members[first.number].dev.values == pytest.approx(
        (first.score - 0.01, first.score, first.score + 0.01)
    )
    baselines = [repeat.name for repeat in findings.repeats if repeat.trial is None]
    assert baselines == ["linear probe", "LoRA r = 8", "full fine-tuning"]


def test_a_size_that_older_files_lack_is_none(whole_run, tmp_path):
    run = copy_of(whole_run, tmp_path)
    stored = json.loads((run / "comparison.json").read_text())
    for entry in stored["evaluations"]:
        if "AUTOPEFT" in entry["method"]:
            fields = json.loads(entry["method"])
            entry["method"] = json.dumps({k: v for k, v in fields.items() if v != 0})
    (run / "comparison.json").write_text(json.dumps(stored))
    traced = [repeat.trial for repeat in read_findings(run).repeats]
    assert traced == [repeat.trial for repeat in read_findings(whole_run).repeats]


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"evaluations": 3}', '{"evaluations": [{}]}', '{"evaluations": [3]}', "{"],
)
def test_a_damaged_comparison_is_refused(whole_run, tmp_path, content):
    run = copy_of(whole_run, tmp_path)
    (run / "comparison.json").write_text(content)
    with pytest.raises(RunError, match=r"comparison\.json is damaged"):
        read_findings(run)


@pytest.mark.parametrize("name", ["dev", "test", "learning_rate", "num_params", "method"])
def test_an_evaluation_with_a_wrong_entry_is_refused(whole_run, tmp_path, name):
    run = copy_of(whole_run, tmp_path)
    entries = evaluations("full fine-tuning", 1e-3, 5, [0.5])
    entries[-1][name] = ["high"]
    (run / "comparison.json").write_text(json.dumps({"evaluations": entries}))
    with pytest.raises(RunError, match=r"comparison\.json is damaged"):
        read_findings(run)


def test_what_a_real_comparison_stores_is_understood(tiny_folder, tiny_task, tmp_path):
    plan = TrainingPlan(max_steps=1, batch_size=8, max_length=16)
    training = Training(tiny_folder, tiny_task, plan)
    search = make_run(tmp_path / "run", n=2, about=training.about())
    comparison = Comparison(training, tmp_path / "run" / "comparison.json", seeds=(1, 2))
    rows = train_front(search, comparison, limit=1)
    rows.append(comparison.row("LoRA", LoraConfig(r=2), [1e-3, 1e-2]))
    repeats = {repeat.name: repeat for repeat in read_findings(tmp_path / "run").repeats}
    assert set(repeats) == {f"trial {rows[0].trial}", "LoRA r = 2"}
    for row, name in zip(rows, (f"trial {rows[0].trial}", "LoRA r = 2"), strict=True):
        repeat = repeats[name]
        assert repeat.test.values == row.scores
        assert (repeat.num_params, repeat.learning_rate) == (row.num_params, row.learning_rate)


def test_parts_are_placed_by_layer(findings):
    for record in findings.complete:
        placed = placed_parts(record, 4)
        assert sorted(placed) == (record.config.layers_to_transform or [0, 1, 2, 3])
        expected = {"serial": record.config.serial_bottleneck_size}
        expected |= {"parallel": record.config.parallel_bottleneck_size}
        expected |= {"prefix": record.config.prefix_length}
        wanted = {part: size for part, size in expected.items() if size}
        assert all(parts == wanted for parts in placed.values())


def test_the_pooled_deviation_weighs_by_degrees_of_freedom():
    assert pooled_deviation([Scores((1.0,)), Scores((2.0,))]) is None
    # squares 0.5 with one degree and 2 with two, hence (0.5 + 2) / 3
    pooled = pooled_deviation([Scores((1.0, 2.0)), Scores((0.0, 1.0, 2.0)), Scores((5.0,))])
    assert pooled == pytest.approx((2.5 / 3) ** 0.5)
