import json
import shlex
import subprocess

import pytest
from peft import get_peft_model

from peft_autoconfig import AutoPEFTConfig, Search, SearchSpace
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.report import commands
from peft_autoconfig.report.findings import read_findings

from ..conftest import tiny_bert
from .report_cases import ABOUT, SPACE, make_run

PRESET = SearchSpace.paper(2, 16, learning_rates=(1e-3, 5e-4), max_params=900)


def told(command: str, monkeypatch) -> dict:
    """Returns what the command line takes from a command, with the run folder."""
    app = pytest.importorskip("peft_autoconfig_cli.app")
    import peft_autoconfig_cli.searching as searching

    heard: dict = {}

    def search(given, config, *, output, **_):
        heard.update({name: value for name, value in given.items() if value is not None})
        heard["output"] = output

    monkeypatch.setattr(searching, "search", search)
    # by a shell, since a command over several lines is for one
    shell = ["sh", "-c", f"set -- {command}\nprintf '%s\\0' \"$@\""]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split("\0")
    words = words[:-1]
    assert words[:2] == ["peft-autoconfig", "search"]
    app.app(words[1:], standalone_mode=False)
    return heard


def test_a_run_of_the_command_line_is_repeated_to_the_letter(tmp_path, monkeypatch):
    recipe = Recipe(
        model="it's a model",
        train_file=tmp_path / "my data.csv",
        text_columns=("first text", "b"),
        label_column="$stars",
        learning_rates=(1e-3, 2.5e-4),
        max_steps=7,
        epochs=1.5,
        max_params=900,
        seed=4,
    )
    make_run(tmp_path / "run", n=3)
    recipe.keep(tmp_path / "run")
    findings = read_findings(tmp_path / "run")
    heard = told(commands.search_command(findings), monkeypatch)
    assert heard.pop("output") == "runs/again"
    assert heard.pop("trials") == 3
    assert Recipe.of(heard) == recipe


def test_a_run_of_the_preset_is_repeated_from_its_facts(tmp_path, monkeypatch):
    Search(PRESET, tmp_path / "run", about=ABOUT, seed=3)
    heard = told(commands.search_command(read_findings(tmp_path / "run")), monkeypatch)
    assert heard == {
        "model": "some/model",
        "task": "letters",
        "epochs": 2.0,
        "max_steps": 50,
        "batch_size": 8,
        "max_length": 64,
        "seed": 0,
        "max_params": 900,
        "learning_rates": [5e-4, 1e-3],
        "trials": 1,
        "output": "runs/again",
    }


def test_reduced_precision_is_part_of_the_command(tmp_path):
    Search(PRESET, tmp_path / "run", about=ABOUT | {"mixed_precision": "bf16"})
    command = commands.search_command(read_findings(tmp_path / "run"))
    assert command.startswith("accelerate launch --mixed_precision bf16 -m peft_autoconfig_cli sea")


@pytest.mark.parametrize(
    ("space", "about"),
    [(SPACE, ABOUT), (PRESET, {}), (PRESET, ABOUT | {"plan": 3}), (PRESET, ABOUT | {"task": "x"})],
)
def test_another_search_has_no_command(space, about, tmp_path):
    Search(space, tmp_path / "run", about=about)
    assert commands.search_command(read_findings(tmp_path / "run")) is None


def test_the_search_in_python_is_the_same_search(findings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = commands.space_code(findings).replace("n_trials=24", "n_trials=2")
    names = {"objective": lambda config, learning_rate: 0.5}
    exec(code, names)
    assert names["space"] == SPACE
    assert (tmp_path / "runs" / "again" / "study.db").exists()


def test_the_code_of_each_winner_gives_that_winner(findings):
    for member in findings.front:
        names: dict = {"base_model": tiny_bert()}
        exec(commands.train_code(findings, member), names)
        assert findings.space.canonical(names["config"]) == findings.space.canonical(member.config)
        assert "serial" in str(names["model"]) or member.config.serial_bottleneck_size == 0
        head, _, call = commands.config_code(member).rpartition("\n\n")
        exec(head, names)
        assert "lora" not in call  # what is at its default is left out
        assert eval(call, names) == AutoPEFTConfig(
            serial_bottleneck_size=member.config.serial_bottleneck_size,
            parallel_bottleneck_size=member.config.parallel_bottleneck_size,
            prefix_length=member.config.prefix_length,
            layers_to_transform=member.config.layers_to_transform,
        )


def test_code_survives_any_name_of_the_run(hostile_run):
    findings = read_findings(hostile_run)
    member = findings.front[-1]
    names: dict = {"base_model": tiny_bert()}
    exec(commands.train_code(findings, member), names)
    assert findings.space.canonical(names["config"]) == findings.space.canonical(member.config)


def test_an_adapter_that_was_saved_is_loaded(tmp_path):
    make_run(tmp_path / "run", n=2, about={})
    findings = read_findings(tmp_path / "run")
    member = findings.front[-1]
    assert commands.load_code(findings, member) is None
    folder = findings.folder.adapter_folder(member.number)
    get_peft_model(tiny_bert(), member.config).save_pretrained(folder)
    names: dict = {"base_model": tiny_bert()}
    exec(commands.load_code(read_findings(tmp_path / "run"), member), names)
    assert names["model"].peft_config["default"].prefix_length == member.config.prefix_length


def test_a_classifier_is_loaded_with_its_head(findings):
    code = commands.load_code(findings, findings.front[0])
    assert "AutoPeftModelForSequenceClassification" in code
    assert "num_labels=3" in code
    compile(code, "code", "exec")


@pytest.mark.parametrize(
    ("task_type", "facts", "expected"),
    [
        ("TOKEN_CLS", {"label_names": ["B-A", "O"]}, "ForTokenClassification(PATH, num_labels=2)"),
        ("SEQ_CLS", {"num_choices": 2}, "ForSequenceClassification(PATH, num_labels=1)"),
        ("SEQ_CLS", {"kind": "regression"}, "ForSequenceClassification(PATH, num_labels=1)"),
        ("CAUSAL_LM", {"kind": "completion", "label_names": []}, "ForCausalLM(PATH)"),
        ("SEQ_2_SEQ_LM", {"kind": "seq2seq", "label_names": []}, "ForSeq2SeqLM(PATH)"),
    ],
)
def test_each_kind_of_task_is_loaded_by_its_class(tmp_path, task_type, facts, expected):
    make_run(tmp_path / "run", n=2, about={"task": ABOUT["task"] | facts})
    findings = read_findings(tmp_path / "run")
    member = findings.front[-1]
    folder = findings.folder.adapter_folder(member.number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"task_type": task_type}))
    code = commands.load_code(findings, member)
    call = "".join(code.partition("model = ")[2].split()).replace(",num", ", num")
    path = json.dumps(f"{findings.run}/adapters/{member.number}")
    call = call.replace(".from_pretrained", "").replace("".join(path.split()), "PATH")
    assert call == "AutoPeftModel" + expected


def test_the_command_that_trains_a_member_names_run_and_trial(tmp_path):
    make_run(tmp_path / "a run", n=2)
    findings = read_findings(tmp_path / "a run")
    assert commands.train_command(findings, findings.front[0]) is None
    Recipe(task="rte", model="m").keep(tmp_path / "a run")
    findings = read_findings(tmp_path / "a run")
    number = findings.front[0].number
    words = shlex.split(commands.train_command(findings, findings.front[0]))
    run = str(tmp_path / "a run")
    assert words == ["peft-autoconfig", "train", run, "--trial", str(number)]
