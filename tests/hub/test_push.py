"""Pushing winners: what is uploaded, what the card says, and what a bad line does to it."""

import json

import pytest
from huggingface_hub import HfApi, ModelCard

from peft_autoconfig.errors import ConfigError, HubError, RunError
from peft_autoconfig.hub import push
from peft_autoconfig.hub.push import ATTEMPTS
from peft_autoconfig.run.folder import read_front, select_member

from .conftest import make_run
from .hub_server import TOKEN, Fault

ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
FACTS = ["README.md", "front.json", "search.json"]
REPO = "user/rte-adapter"


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def files_of(server) -> dict[str, bytes]:
    return server.repositories[REPO].files


def test_one_winner_is_a_repository_that_peft_reads(found, server, api):
    member = found.best(select="knee")
    pushed = push(found.folder.path, REPO, select="knee", api=api)
    files = files_of(server)
    assert sorted(files) == sorted([*ADAPTER, *FACTS]) == list(pushed.files)
    assert (pushed.trials, pushed.url) == ((member.number,), f"{server.url}/{REPO}")
    assert pushed.commit == server.repositories[REPO].sha
    weights = found.folder.adapter_folder(member.number) / ADAPTER[1]
    assert files[ADAPTER[1]] == weights.read_bytes()
    assert json.loads(files[ADAPTER[0]])["base_model_name_or_path"] == "google/tiny-bert"
    front = json.loads(files["front.json"])["front"]
    assert [entry["trial"] for entry in front] == [member.number]
    facts = json.loads(files["search.json"])
    assert facts["front"] == read_front(found.folder.path)
    assert facts["trials"]["complete"] == 4
    assert facts["trials"]["failed"] == 1


def test_the_whole_front_has_a_folder_for_each_member(found, server, api):
    pushed = push(found.folder.path, REPO, whole_front=True, api=api)
    members = found.front()
    assert len(members) > 1
    folders = [f"adapters/{member.number}/" for member in members]
    expected = [*FACTS, *(place + name for place in ["", *folders] for name in ADAPTER)]
    assert sorted(files_of(server)) == sorted(expected)
    assert pushed.trials[0] == members[-1].number
    assert set(pushed.trials) == {member.number for member in members}
    front = json.loads(files_of(server)["front.json"])["front"]
    assert front == read_front(found.folder.path)
    assert len(server.blobs) == len(members)


def test_the_card_follows_the_conventions(found, server, api):
    push(found.folder.path, REPO, whole_front=True, api=api)
    card = ModelCard(files_of(server)["README.md"].decode())
    data = card.data
    assert data.library_name == "peft"
    assert data.base_model == "google/tiny-bert"
    assert {"peft", "base_model:adapter:google/tiny-bert"} <= set(data.tags)
    assert data.pipeline_tag == "text-classification"
    assert (data.datasets, data.metrics) == (["nyu-mll/glue"], ["accuracy"])
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_config) == ("nyu-mll/glue", "rte")
    assert (result.dataset_split, result.metric_type) == ("validation", "accuracy")
    assert result.metric_value == pytest.approx(0.725)  # of the two new seeds
    for words in (
        "import peft_autoconfig",
        f'AutoPeftModelForSequenceClassification.from_pretrained("{REPO}", num_labels=2',
        f'AutoPEFTConfig.from_search("{REPO}")',
        'subfolder="adapters/',
        "| LoRA r = 8 | 4,096 | 0.6250 |",
        "4 trials by multi-objective Bayesian optimisation",
        "1 failed",
        "## Limits",
        "0 entailment, 1 not_entailment",
    ):
        assert words in card.text
    for member in found.front():
        assert f"| {member.score:.4f} | {member.num_params:,} |" in card.text


def test_the_card_names_the_budget_that_gives_its_own_winner(found, server, api):
    push(found.folder.path, REPO, select="params", whole_front=True, api=api)
    smallest = found.front()[0]
    text = files_of(server)["README.md"].decode()
    assert f'from_search("{REPO}", max_params={smallest.num_params})' in text
    assert f"| here, `adapters/{smallest.number}` |" in text
    chosen = select_member(found.folder.path, max_params=smallest.num_params)
    assert chosen["trial"] == smallest.number


def test_without_a_table_the_score_is_named_for_what_it_is(tmp_path, server, api):
    search = make_run(tmp_path / "run")
    push(search.folder.path, REPO, api=api)
    (result,) = ModelCard(files_of(server)["README.md"].decode()).data.eval_results
    assert result.dataset_split == "held out of train, seen by the search"
    assert result.metric_value == pytest.approx(search.best().score, abs=1e-6)


def test_neither_paths_nor_the_token_leave_the_machine(found, server, api, tmp_path):
    push(found.folder.path, REPO, whole_front=True, api=api)
    private = str(found.folder.path.parent).encode()
    for name, content in files_of(server).items():
        assert private not in content, name
        assert TOKEN.encode() not in content, name
    for file in found.folder.path.rglob("*"):
        assert file.is_dir() or TOKEN.encode() not in file.read_bytes(), file


FAULTS = [
    Fault("POST", "/api/repos/create", "503"),
    Fault("POST", "/api/repos/create", "cut"),
    Fault("POST", "/api/repos/create", "cut after"),
    Fault("POST", "/api/validate-yaml", "html 503"),
    Fault("POST", "/preupload/", "503"),
    Fault("POST", "/preupload/", "cut"),
    Fault("POST", "/objects/batch", "503"),
    Fault("PUT", "/lfs/", "503"),
    Fault("PUT", "/lfs/", "cut"),
    Fault("PUT", "/lfs/", "cut after", times=6),
    Fault("POST", "/commit/", "503", times=3),
    Fault("POST", "/commit/", "cut"),
    Fault("POST", "/commit/", "cut after"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.method} {f.path} {f.kind} x {f.times}")
def test_a_bad_line_is_outlived(found, server, api, fault):
    server.faults = [Fault(**vars(fault))]
    pushed = push(found.folder.path, REPO, api=api)
    assert server.faults[0].times == 0
    assert sorted(files_of(server)) == list(pushed.files)
    # one commit holds all of it, also when its answer was lost
    assert len(server.repositories[REPO].commits) == 2
    assert pushed.commit == server.repositories[REPO].sha


def test_a_line_that_stays_bad_is_given_up_and_taken_up_again(found, server, api, waits):
    server.faults = [Fault("POST", "/commit/", "503", times=99)]
    with pytest.raises(HubError, match=f"in {ATTEMPTS} attempts") as given_up:
        push(found.folder.path, REPO, api=api)
    assert TOKEN not in str(given_up.value)
    assert server.count("POST", "/commit/") == ATTEMPTS
    assert waits == [1.0, 2.0, 4.0, 8.0]
    server.faults.clear()
    sent = server.count("PUT", "/lfs/")
    push(found.folder.path, REPO, api=api)
    assert server.count("PUT", "/lfs/") == sent == 1


def test_pushing_twice_changes_nothing(found, server, api):
    first = push(found.folder.path, REPO, api=api)
    again = push(found.folder.path, REPO, api=api)
    assert again == first
    assert len(server.repositories[REPO].commits) == 2


def test_a_refusal_is_not_repeated_and_says_what_to_do(found, server, api):
    stranger = HfApi(endpoint=server.url, token="hf_somebodyElse")
    with pytest.raises(HubError, match="hf auth login") as refused:
        push(found.folder.path, REPO, api=stranger)
    assert "hf_somebodyElse" not in str(refused.value)
    assert server.count("POST", "/api/repos/create") == 1
    assert not server.repositories


def test_a_new_repository_is_private_if_wished(found, server, api):
    push(found.folder.path, REPO, private=True, api=api)
    assert server.repositories[REPO].private


@pytest.mark.parametrize("name", ["rte", "a/b/c", "a b/c", "/c", ""])
def test_names_that_are_no_repository_are_refused(found, name, api):
    with pytest.raises(ConfigError, match="user/name"):
        push(found.folder.path, name, api=api)


def test_a_base_model_in_a_folder_wants_its_name_on_the_hub(tmp_path, server, api):
    search = make_run(tmp_path / "run", model=str(tmp_path))
    with pytest.raises(ConfigError, match="--base-model"):
        push(search.folder.path, REPO, api=api)
    assert not server.requests
    push(search.folder.path, REPO, base_model="google/tiny-bert", api=api)
    assert json.loads(files_of(server)["search.json"])["about"]["model"] == "google/tiny-bert"
    assert str(tmp_path).encode() not in b"".join(files_of(server).values())


def test_a_member_without_an_adapter_is_told_how_to_train_it(tmp_path, server, api):
    search = make_run(tmp_path / "run")
    number = search.front()[0].number
    (search.folder.adapter_folder(number) / ADAPTER[1]).unlink()
    with pytest.raises(RunError, match=f"peft-autoconfig train .* --trial {number}"):
        push(search.folder.path, REPO, whole_front=True, api=api)
    assert not server.requests
