"""Whatever a file holds, its reader gives a value or an error of ours, soon and without harm."""

import json
import os
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.recipe import Recipe, read_recipe_file
from peft_autoconfig.report.repeats import read_repeats
from peft_autoconfig.run import hub
from peft_autoconfig.run.folder import CONFIG_FIELDS, FORMAT, RunFolder, read_front, select_member
from peft_autoconfig.run.json_file import MAX_JSON_BYTES, write_json
from peft_autoconfig.search import Search
from peft_autoconfig.tuner.config import AutoPEFTConfig
from tests.search.search_cases import SPACE, open_search, scored

from .strange import anything, either_way, fuzzed, near

# --- the front ------------------------------------------------------------------------------------

MEMBER = {
    "trial": 3,
    "config": {"serial_bottleneck_size": 4, "layers_to_transform": [0, 1]},
    "learning_rate": 0.001,
    "score": 0.5,
    "loss": None,
    "num_params": 10,
}
CONFIG = {name: 4 for name in CONFIG_FIELDS}


def dump(file, value):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value))


@fuzzed
@given(st.binary(max_size=300))
def test_bytes_as_a_front(tmp_path, content):
    (tmp_path / "front.json").write_bytes(content)
    either_way(lambda: read_front(tmp_path))


@fuzzed
@given(st.one_of(anything, near({"format": FORMAT, "front": [MEMBER]})))
def test_values_as_a_front(tmp_path, value):
    dump(tmp_path / "front.json", value)
    either_way(lambda: read_front(tmp_path))


@fuzzed
@given(st.lists(near(MEMBER), min_size=1, max_size=3), st.sampled_from(["score", "knee", "params"]))
def test_members_of_a_front(tmp_path, members, select):
    dump(tmp_path / "front.json", {"format": FORMAT, "front": members})
    member = either_way(lambda: select_member(tmp_path, select=select))
    if member is not None:
        either_way(lambda: AutoPEFTConfig(**member["config"]))
        folder = RunFolder.at(tmp_path).adapter_folder(member["trial"])
        assert folder.parent == tmp_path / "adapters"


@fuzzed
@given(near(CONFIG))
def test_configurations_of_a_front(tmp_path, config):
    dump(tmp_path / "front.json", {"format": FORMAT, "front": [MEMBER | {"config": config}]})
    either_way(lambda: AutoPEFTConfig.from_search(tmp_path))


@pytest.mark.parametrize(
    "entry",
    [
        {"num_params": 10**400},
        {"score": 10**400},
        {"config": {"prefix_length": 2**40}},
        {"config": {"serial_bottleneck_size": [4] * 3 + [2**40]}},
        {"config": {"__class__": "os.system"}},
        {"trial": "../../etc"},
    ],
)
def test_huge_and_foreign_entries_are_refused(tmp_path, entry):
    dump(tmp_path / "front.json", {"format": FORMAT, "front": [MEMBER | entry]})
    with pytest.raises(RunError, match="a member of the front has"):
        read_front(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, '"' + "\\u0000" * 9, "1" * 10_000]
)
@pytest.mark.parametrize("name", ["front.json", "search.json", "recipe.json"])
def test_deep_and_endless_values(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    read = {"front.json": read_front, "search.json": Search.open, "recipe.json": Recipe.of_run}
    with pytest.raises(RunError, match="is damaged"):
        read[name](tmp_path)


# --- the comparison -------------------------------------------------------------------------------

EVALUATION = {
    "method": '{"peft_type": "LORA", "r": 8}',
    "learning_rate": 0.001,
    "seed": 1,
    "num_params": 10,
    "dev": 0.5,
    "loss": None,
    "test": 0.5,
    "seconds": 1.0,
}


@fuzzed
@given(st.one_of(anything, st.lists(near(EVALUATION), max_size=3)))
def test_values_as_a_comparison(tmp_path, evaluations):
    dump(tmp_path / "comparison.json", {"format": 1, "about": {}, "evaluations": evaluations})
    repeats = either_way(lambda: read_repeats(tmp_path / "comparison.json", []))
    for repeat in repeats or ():
        assert repeat.test.mean + (repeat.test.deviation or 0.0) is not None


def test_numbers_beyond_all_scores_are_refused(tmp_path):
    entry = EVALUATION | {"test": 10**400}
    dump(tmp_path / "comparison.json", {"evaluations": [entry]})
    with pytest.raises(RunError, match="lacks its method, counts or scores"):
        read_repeats(tmp_path / "comparison.json", [])


# --- whose search it is ---------------------------------------------------------------------------

IDENTITY = {"format": FORMAT, "space": SPACE.to_dict(), "about": {}, "seed": 0}


@fuzzed
@given(st.one_of(anything, near(IDENTITY)))
def test_values_as_an_identity(tmp_path, value):
    dump(tmp_path / "search.json", value)
    either_way(lambda: RunFolder.at(tmp_path).identity())


@fuzzed
@given(near(SPACE.to_dict()))
def test_spaces(tmp_path_factory, space):
    folder = tmp_path_factory.mktemp("run")
    dump(folder / "search.json", IDENTITY | {"space": space})
    either_way(lambda: Search.open(folder))


@pytest.mark.parametrize(
    "entry",
    [
        {"num_layers": 10**9},
        {"hidden_size": 10**400},
        {"prefix_lengths": [*range(4000)], "serial_bottleneck_sizes": [*range(4000)]},
        {"learning_rates": [[[]]]},
    ],
)
def test_a_space_beyond_all_memory_is_refused(tmp_path, entry):
    dump(tmp_path / "search.json", IDENTITY | {"space": SPACE.to_dict() | entry})
    with pytest.raises(RunError, match="is damaged: the space's"):
        Search.open(tmp_path)


@pytest.mark.parametrize("storage", ["sqlite:////etc/passwd", "file:///etc/passwd", "\x00", 3])
def test_an_address_in_a_strange_folder_leads_nowhere(tmp_path, storage):
    dump(tmp_path / "search.json", IDENTITY | {"storage": storage})
    with pytest.raises((RunError, ConfigError), match="storage"):
        Search.open(tmp_path)


# --- recipes --------------------------------------------------------------------------------------

RECIPE = Recipe(model="m", train_file="f", max_steps=3).values()


@fuzzed
@given(st.binary(max_size=300), st.sampled_from(["yaml", "toml", "json"]))
def test_bytes_as_a_recipe(tmp_path, content, kind):
    file = tmp_path / f"recipe.{kind}"
    file.write_bytes(content)
    either_way(lambda: Recipe.from_file(file))


@fuzzed
@given(st.one_of(anything, near(RECIPE)), st.sampled_from(["yaml", "json"]))
def test_values_as_a_recipe(tmp_path, value, kind):
    file = tmp_path / f"recipe.{kind}"
    file.write_text(json.dumps(value), encoding="utf-8")
    either_way(lambda: Recipe.from_file(file))
    if kind == "json":
        either_way(lambda: Recipe.of_run(tmp_path))


@fuzzed
@given(st.text(alphabet=string.printable, max_size=200))
def test_text_as_yaml(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    either_way(lambda: Recipe.from_file(file))


def test_a_recipe_runs_no_code(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("model: !!python/object/apply:os.system ['touch harmed']")
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.from_file(file)
    assert not (tmp_path / "harmed").exists()


def test_a_recipe_that_unfolds_without_end(tmp_path):
    """The billion laughs: few bytes, references to references to references."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join([*lines, "model: *a11"]))
    assert yaml.safe_load(file.read_text())
    with pytest.raises(ConfigError) as refused:
        Recipe.from_file(file)
    assert len(str(refused.value)) < 5000
    with pytest.raises(ConfigError) as refused:
        Recipe.of({"text_columns": yaml.safe_load(file.read_text())["a11"]})
    assert len(str(refused.value)) < 5000


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.toml", "recipe.json"])
def test_recipes_are_regular_files_of_sane_size(tmp_path, name):
    file = tmp_path / name
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_recipe_file(file)
    file.unlink()
    with file.open("wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(ConfigError, match="more than"):
        read_recipe_file(file)


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".lock", "study.db", ".front.json.tmp"])
def test_a_planted_link_harms_no_other_file(tmp_path, name):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    open_search(folder).run(scored, 1)
    victim.write_text("precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(RunError):
        open_search(folder).run(scored, 2)
    assert victim.read_text() == "precious"


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "front.json").symlink_to(victim)
    write_json(tmp_path / "front.json", {"format": FORMAT, "front": []})
    assert victim.read_text() == "precious"
    assert not (tmp_path / "front.json").is_symlink()


# --- names on the Hub -----------------------------------------------------------------------------


@fuzzed
@given(st.text(alphabet=string.ascii_letters + "./\\@-_~:%\x00\n ", max_size=60))
def test_names_of_repositories(name):
    if hub.is_repository(name):
        repository, _, revision = name.partition("@")
        assert repository.count("/") == 1
        assert not repository.startswith(".")
        assert ".." not in name.split("/")
        assert ".." not in repository
        assert "\n" not in name
        assert ".." not in revision


@pytest.mark.parametrize(
    "name", ["a/..", "a/b@../../c", "a/b@refs/../../x", "../b", "a/b\n", "a/b@", "~/x", "a/.b/../c"]
)
def test_names_that_climb_are_no_repositories(name):
    assert not hub.is_repository(name)
