"""What a reader can copy: the command that repeats a search, and the code that uses a winner.

All text of the run folder is quoted for the language that it goes into.

Imports `findings` and `run`; imported by `page`.
"""

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..run.folder import CONFIG_FIELDS
from ..search.trial import TrialRecord
from ..space import SearchSpace
from .findings import Findings

__all__ = [
    "AUTO_CLASSES",
    "config_code",
    "head_options",
    "load_code",
    "search_command",
    "space_code",
    "train_code",
    "train_command",
]

# PEFT's classes that load an adapter with its base model, by the type of its task.
AUTO_CLASSES = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
}

# What of a training plan the command line has a flag for, and the flag's name.
PLAN_FLAGS = {
    "num_epochs": "epochs",
    "max_steps": "max_steps",
    "batch_size": "batch_size",
    "max_length": "max_length",
}


def search_command(findings: Findings) -> str | None:
    """Returns the command that repeats a search; None if the command line cannot say it.

    A run that was started by the command line keeps what it was started with. Of another one that
    has a training's facts and the preset space, all is known but where the data lay.
    """
    values = dict(findings.recipe) or _values_of_facts(findings)
    if not values:
        return None
    values["trials"] = values.get("trials") or max(1, len(findings.complete))
    words = ["peft-autoconfig", "search"]
    precision = findings.about.get("mixed_precision")
    if precision not in (None, "no"):
        words = ["accelerate", "launch", "--mixed_precision", str(precision)]
        words += ["-m", "peft_autoconfig_cli", "search"]
    for name, value in values.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, _flag_value(value)]
    return _wrapped([*words, "--output", "runs/again"])


def _values_of_facts(findings: Findings) -> dict[str, Any]:
    about, space, plan = findings.about, findings.space, findings.about.get("plan")
    if not (findings.model and findings.task and isinstance(plan, dict) and _is_preset(space)):
        return {}
    return {
        "model": findings.model,
        "task": findings.task,
        **{flag: plan.get(name) for name, flag in PLAN_FLAGS.items()},
        "seed": about.get("seed", findings.seed),
        "max_params": space.max_params,
        "learning_rates": space.learning_rates,
    }


def _flag_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_flag_value(entry) for entry in value)
    return repr(value) if isinstance(value, float) else str(value)


def space_code(findings: Findings) -> str:
    """Returns Python code that opens the same search over a space, for any objective."""
    return "\n".join(
        [
            "from peft_autoconfig import Search, SearchSpace",
            "",
            f"space = SearchSpace.from_dict({_dict(findings.space.to_dict())})",
            f'search = Search(space, "runs/again", seed={findings.seed})',
            f"search.run(objective, n_trials={max(1, len(findings.complete))})",
        ]
    )


def train_code(findings: Findings, member: TrialRecord) -> str:
    """Returns Python code that puts a member of the front onto a model, untrained."""
    run = _text(findings.run)
    lines = [
        "from peft import get_peft_model",
        "from peft_autoconfig import AutoPEFTConfig",
        "",
        f"config = AutoPEFTConfig.from_search({run}, max_params={member.num_params})",
    ]
    if member.learning_rate is not None:
        lines.append(f"model = get_peft_model(base_model, config)  # train at {_rate(member)}")
    else:
        lines.append("model = get_peft_model(base_model, config)")
    return "\n".join(lines)


def train_command(findings: Findings, member: TrialRecord) -> str | None:
    """Returns the command that trains and saves a member; None if it would have to be told more."""
    if not findings.recipe:
        return None
    return shlex.join(["peft-autoconfig", "train", findings.run, "--trial", str(member.number)])


def config_code(member: TrialRecord) -> str:
    """Returns Python code that makes a member's configuration without the run folder."""
    assert member.config is not None
    defaults = {field.name: field.default for field in fields(member.config)}
    given = {name: getattr(member.config, name) for name in CONFIG_FIELDS}
    given = {name: value for name, value in given.items() if value != defaults[name]}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    return f"from peft_autoconfig import AutoPEFTConfig\n\nAutoPEFTConfig(\n{arguments})"


def load_code(findings: Findings, member: TrialRecord) -> str | None:
    """Returns Python code that loads a member's trained adapter; None if none was saved."""
    folder = findings.folder.adapter_folder(member.number)
    if not folder.is_dir():
        return None
    path = _text(f"{findings.run.rstrip('/')}/adapters/{member.number}")
    name = AUTO_CLASSES.get(_task_type(folder) or "")
    if name is not None:
        return (
            "import peft_autoconfig  # registers the methods with PEFT\n"
            f"from peft import {name}\n\n"
            f"model = {name}.from_pretrained(\n"
            f"    {path}{head_options(findings)}\n)"
        )
    return (
        "import peft_autoconfig  # registers the methods with PEFT\n"
        "from peft import PeftModel\n\n"
        f"model = PeftModel.from_pretrained(base_model, {path})"
    )


def head_options(findings: Findings) -> str:
    """Returns, as further arguments in Python, how large the head is that the task has added."""
    task: Any = findings.about.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("label_names"), list):
        return ""
    if task.get("kind") == "regression" or task.get("num_choices", 1) != 1:
        return ", num_labels=1"
    return f", num_labels={len(task['label_names'])}" if task["label_names"] else ""


def _task_type(folder: Path) -> str | None:
    try:
        value = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(value["task_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_preset(space: SearchSpace) -> bool:
    """Returns whether a space is the one that the command line makes for its model."""
    varied = {
        "learning_rates": space.learning_rates,
        "max_params": space.max_params,
        "key_value_size": space.key_value_size,
    }
    return space == SearchSpace.paper(space.num_layers, space.hidden_size, **varied)


def _rate(member: TrialRecord) -> str:
    return f"a learning rate of {member.learning_rate:g}"


def _text(value: str) -> str:
    """Returns a string as Python code, in double quotes."""
    return json.dumps(value, ensure_ascii=False)


def _dict(values: dict[str, Any]) -> str:
    entries = "".join(f'    "{k}": {v!r},\n' for k, v in values.items() if v is not None)
    return f"{{\n{entries}}}"


def _wrapped(words: list[str]) -> str:
    """Returns a shell command, broken before its flags where a line would grow long."""
    lines = [""]
    for word in words:
        quoted = shlex.quote(word)
        if word.startswith("--") and len(lines[-1]) + len(quoted) > 72:
            lines.append("   ")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)
