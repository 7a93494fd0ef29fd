"""What was pushed comes back through the usual names, in another process, also on a bad line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peft_autoconfig.hub import push

from ..conftest import tiny_bert_classifier
from .hub_server import TOKEN, Fault

REPO = "user/rte-adapter"
READ = """
import json, sys
import torch
import peft_autoconfig
from peft import PeftModel
from peft_autoconfig import AutoPEFTConfig
from transformers import AutoModelForSequenceClassification

repo, base, subfolder = sys.argv[1:4]
config = AutoPEFTConfig.from_search(repo)
smallest = AutoPEFTConfig.from_search(repo, select="params")
model = AutoModelForSequenceClassification.from_pretrained(base)
model = PeftModel.from_pretrained(model, repo)
if subfolder:
    model.load_adapter(repo, "small", subfolder=subfolder)
weights = dict.fromkeys(("default", "small"), 0.0)
for path, parameter in model.named_parameters():
    for name in weights:
        if f".{name}." in path:
            weights[name] += float(parameter.double().abs().sum())
print(json.dumps([config.to_dict(), smallest.to_dict(), weights], default=str))
"""


def run(environment, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_bert_classifier(num_labels=2).save_pretrained(folder)
    return folder


def test_winners_come_back_and_no_token_is_left(found, server, api, environment, base, tmp_path):
    push(found.folder.path, REPO, whole_front=True, api=api)
    members = found.front()
    server.faults = [
        Fault("HEAD", "/resolve/", "503"),
        Fault("GET", "adapter_model.safetensors", "half"),
        Fault("GET", "front.json", "cut"),
    ]
    place = f"adapters/{members[0].number}"
    done = run(environment, "-c", READ, REPO, base, place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not any(fault.times for fault in server.faults)
    best, smallest, weights = json.loads(done.stdout)
    for config, member in ((best, members[-1]), (smallest, members[0])):
        for name in ("serial_bottleneck_size", "prefix_length", "layers_to_transform"):
            assert config[name] == getattr(member.config, name)
    assert min(weights.values()) > 0
    assert weights["default"] != weights["small"]

    # without a line, from the cache; PEFT 0.21 does not find subfolders there
    offline = run(environment | {"HF_HUB_OFFLINE": "1"}, "-c", READ, REPO, base, "")
    assert offline.returncode == 0, offline.stderr[-3000:]
    assert json.loads(offline.stdout)[:2] == [best, smallest]
    assert json.loads(offline.stdout)[2]["default"] == weights["default"]
    _no_token(tmp_path, found.folder.path, done.stdout + done.stderr)


def test_the_command_line_pushes_and_lists(found, server, environment, tmp_path):
    cli = ("-m", "peft_autoconfig_cli")
    done = run(environment, *cli, "push", found.folder.path, REPO, "--select", "params", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    smallest = found.front()[0]
    assert json.loads(done.stdout)["trials"] == [smallest.number]
    listed = run(environment, *cli, "front", REPO, "--json")
    assert listed.returncode == 0, listed.stderr[-3000:]
    assert [m["trial"] for m in json.loads(listed.stdout)["front"]] == [smallest.number]
    missing = run(environment, *cli, "front", "user/nothing")
    assert missing.returncode == 1
    assert "There is no folder user/nothing here" in missing.stderr
    for output in (done, listed, missing):
        assert "Traceback" not in output.stderr
        _no_token(tmp_path, found.folder.path, output.stdout + output.stderr)


def _no_token(home: Path, run_folder: Path, output: str) -> None:
    assert TOKEN not in output
    files = [file for place in (home, run_folder) for file in place.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert TOKEN.encode() not in file.read_bytes(), file
