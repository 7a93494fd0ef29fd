"""The run folder refuses what is not its own, and never trusts what it reads."""

import json
import os
import tempfile
import threading
from pathlib import Path

import pytest

from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.run.folder import FORMAT, RunFolder, choose, read_front, select_member
from peft_autoconfig.run.json_file import MAX_JSON_BYTES, write_json
from peft_autoconfig.tuner.config import AutoPEFTConfig

SPACE = {"num_layers": 2, "prefix_lengths": (0, 1)}
ABOUT = {"model": "tiny", "task": {"name": "rte", "rows": 64}}


def member(trial=0, score=0.5, num_params=10, **other):
    config = {"serial_bottleneck_size": 4, "layers_to_transform": [0, 1]}
    values = {"trial": trial, "config": config, "learning_rate": 0.001, "score": score}
    return values | {"loss": None, "num_params": num_params} | other


def claimed(path) -> RunFolder:
    folder = RunFolder.at(path)
    folder.claim(space=SPACE, about=ABOUT, seed=3)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_claim_makes_a_folder_and_opens_it_again(tmp_path):
    folder = claimed(tmp_path / "deep" / "run")
    before = contents(folder.path)
    assert claimed(folder.path).identity() == {
        "format": FORMAT,
        "space": {"num_layers": 2, "prefix_lengths": [0, 1]},
        "about": ABOUT,
        "seed": 3,
    }
    assert contents(folder.path) == before


def test_another_seed_may_go_on(tmp_path, caplog):
    folder = claimed(tmp_path)
    folder.claim(space=SPACE, about=ABOUT, seed=4)
    assert "begun with seed 3" in caplog.text
    assert folder.identity()["seed"] == 3


@pytest.mark.parametrize(
    ("space", "about", "words"),
    [
        (SPACE | {"num_layers": 12}, ABOUT, ["space.num_layers is 2 there and 12 here"]),
        (SPACE, ABOUT | {"model": "big"}, ["about.model is 'tiny' there and 'big' here"]),
        (SPACE, ABOUT | {"task": {"name": "rte", "rows": 9}}, ["about.task.rows is 64", "9 here"]),
        (SPACE, {}, ["about.model", "about.task"]),
        (SPACE, ABOUT | {"head": "new"}, ["about.head is None there and 'new' here"]),
    ],
)
def test_another_search_is_refused_and_nothing_changes(tmp_path, space, about, words):
    folder = claimed(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="Give another folder") as caught:
        folder.claim(space=space, about=about, seed=3)
    assert all(word in str(caught.value) for word in words)
    assert contents(tmp_path) == before


def test_another_format_version_is_refused(tmp_path):
    folder = claimed(tmp_path)
    write_json(folder.identity_file, folder.identity() | {"format": FORMAT + 1})
    with pytest.raises(RunError, match=f"format version {FORMAT + 1}.*reads {FORMAT}"):
        claimed(tmp_path)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        claimed(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_first_start_is_taken_up(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".search.json.tmp").write_text("{")
    assert claimed(tmp_path).identity()["seed"] == 3


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_path_that_is_a_file_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="folder"):
        claimed(tmp_path / path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def as_nobody():
    """Lets a test run without the rights of root, to whom every folder can be written."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.fixture
def others_folder():
    """A folder that everybody may list and only its owner, not nobody, may write."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        yield Path(name)
        os.chmod(name, 0o755)


@pytest.mark.parametrize("below", [".", "run"])
def test_an_unwritable_folder_is_refused(others_folder, as_nobody, below):
    with pytest.raises(RunError, match=r"cannot be used: Permission denied"):
        claimed(others_folder / below)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders that are closed to it")
def test_a_hidden_folder_is_refused(tmp_path, as_nobody):
    with pytest.raises(RunError, match=r"cannot be used: Permission denied"):
        claimed(tmp_path / "run")


def test_facts_must_be_json(tmp_path):
    with pytest.raises(ConfigError, match="JSON-compatible"):
        RunFolder.at(tmp_path / "run").claim(space=SPACE, about={"model": object()}, seed=0)
    assert not (tmp_path / "run").exists()


def test_one_lock_at_a_time(tmp_path):
    folder = claimed(tmp_path)
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(20):
            with RunFolder.at(tmp_path).lock():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    with folder.lock():
        for thread in threads:
            thread.start()
        assert inside == 0
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_failed_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "front.json"
    write_json(file, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"new": float("nan")})
    assert json.loads(file.read_text()) == {"old": 1}


def test_front_is_read_by_size(tmp_path):
    folder = claimed(tmp_path)
    folder.write_front([member(1, 0.9, 100, fraction=0.01), member(0, 0.5, 10)])
    assert [entry["trial"] for entry in read_front(tmp_path)] == [0, 1]
    folder.write_front([])
    with pytest.raises(RunError, match="no trial has finished"):
        select_member(tmp_path)


def test_a_missing_front_says_so(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        read_front(tmp_path)


HOSTILE_MEMBERS = [
    None,
    [],
    member(trial="../../etc"),
    member(trial=-1),
    member(num_params=0),
    member(num_params=True),
    member(score="0.5"),
    member(loss="low"),
    member(learning_rate=-1.0),
    member(config=None),
    member(config={"serial_bottleneck_size": -4}),
    member(config={"serial_bottleneck_size": None}),
    member(config={"layers_to_transform": ["all"]}),
    member(config={"base_model_name_or_path": "elsewhere"}),
]


@pytest.mark.parametrize("hostile", HOSTILE_MEMBERS, ids=str)
def test_hostile_members_are_refused(tmp_path, hostile):
    write_json(tmp_path / "front.json", {"format": FORMAT, "front": [member(), hostile]})
    with pytest.raises(RunError, match="damaged"):
        read_front(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"format": 1, "front": 3}',
        b'{"format": 1, "front": NaN}',
        b'{"format": 1, "front": [' + b"9" * 10_000 + b"]}",
        json.dumps({"format": 1, "front": [member()]}).replace("0.5", "1e999").encode(),
    ],
    ids=range(10),
)
def test_malformed_files_are_refused(tmp_path, text):
    (tmp_path / "front.json").write_bytes(text)
    with pytest.raises(RunError):
        read_front(tmp_path)


def test_only_regular_files_of_sane_size_are_read(tmp_path):
    file = tmp_path / "front.json"
    file.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="not a regular file"):
        read_front(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunError, match="not a regular file"):
        read_front(tmp_path)
    file.unlink()
    file.touch()
    os.truncate(file, MAX_JSON_BYTES + 1)
    with pytest.raises(RunError, match="more than"):
        read_front(tmp_path)


FRONT = [
    member(0, 0.50, 10),
    member(1, 0.90, 100),  # the knee: nine tenths of the gain for a tenth of the parameters
    member(2, 0.91, 1_000),
    member(3, 0.95, 10_000),
]


@pytest.mark.parametrize(
    ("arguments", "trial"),
    [
        ({}, 3),
        ({"select": "score", "max_params": 9_999}, 2),
        ({"select": "knee"}, 1),
        ({"select": "knee", "max_params": 99}, 0),
        ({"select": "params"}, 0),
        ({"max_params": 10}, 0),
    ],
)
def test_choose(arguments, trial):
    assert choose(FRONT, **arguments)["trial"] == trial


def test_ties_go_to_fewer_parameters():
    tied = [member(0, 0.9, 100), member(1, 0.9, 10)]
    assert {choose(tied, select=s)["trial"] for s in ("score", "knee", "params")} == {1}


def test_choose_refuses_what_it_cannot_give():
    with pytest.raises(RunError, match="at most 9 parameters; the smallest has 10"):
        choose(FRONT, max_params=9)
    with pytest.raises(ConfigError, match="'cheapest'"):
        choose(FRONT, select="cheapest")


def test_a_config_comes_from_a_front(tmp_path):
    claimed(tmp_path).write_front(FRONT)
    config = AutoPEFTConfig.from_search(str(tmp_path), max_params=100)
    assert (config.serial_bottleneck_size, config.layers_to_transform) == (4, [0, 1])
