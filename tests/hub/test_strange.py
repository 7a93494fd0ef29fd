"""Repositories that mean harm, and run folders that would have us upload what is not theirs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peft_autoconfig.errors import RunError
from peft_autoconfig.hub import push
from peft_autoconfig.run.json_file import MAX_JSON_BYTES

from .hub_server import Repository

REPO = "user/rte-adapter"
READ = """
import json, sys
from types import SimpleNamespace
from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.front.adapter import load_adapter
from peft_autoconfig.run.folder import read_front
from tests.conftest import tiny_bert

said = {}
for name in sys.argv[1:]:
    training = SimpleNamespace(
        pretrained=SimpleNamespace(whole=tiny_bert),
        accelerator=SimpleNamespace(device="cpu"),
        model="tiny",
    )
    said[name] = []
    for read in (read_front, lambda name: load_adapter(training, name)):
        try:
            said[name].append(repr(read(name)))
        except AutoConfigError as error:
            said[name].append(f"refused: {error}")
print(json.dumps(said))
"""
HARM = {
    "garbage": b"\x00garbage" * 40,
    "deep": b"[" * 200_000,
    "long": b" " * (MAX_JSON_BYTES + 1),
    "unknown": b'{"format": 1, "front": [{"__class__": "os.system"}], "peft_type": "os.system"}',
    "list": b"[]",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
}


def test_what_a_repository_holds_is_refused(server, environment):
    for name, content in HARM.items():
        files = {"front.json": content, "adapter_config.json": content}
        server.repositories[f"user/{name}"] = Repository(commits=[files])
    done = read(environment, *server.repositories)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, answers in json.loads(done.stdout).items():
        assert len(answers) == 2
        for answer in answers:
            assert answer.startswith("refused: "), (name, answer)
            assert len(answer) < 2000


def read(environment, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ, *names],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


# --- what leaves this machine ---------------------------------------------------------------------


@pytest.fixture
def run_folder(found, tmp_path):
    return shutil.copytree(found.folder.path, tmp_path / "run")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", ""])
def test_a_link_uploads_no_other_file(found, run_folder, server, api, tmp_path, name):
    secret = tmp_path / "secret"
    adapter = run_folder / "adapters" / str(found.front()[-1].number)
    if name:
        secret.write_text('{"token": "s3cret"}')
        (adapter / name).unlink()
    else:
        adapter.rename(secret)
    (adapter / name).symlink_to(secret)
    with pytest.raises(RunError, match="is a symbolic link"):
        push(run_folder, REPO, api=api)
    assert not server.blobs
    assert not any(repository.files for repository in server.repositories.values())


def test_a_configuration_that_is_none_is_not_uploaded(found, run_folder, server, api):
    adapter = run_folder / "adapters" / str(found.front()[-1].number)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(RunError, match="must hold an object"):
        push(run_folder, REPO, api=api)
    assert not any(repository.files for repository in server.repositories.values())
