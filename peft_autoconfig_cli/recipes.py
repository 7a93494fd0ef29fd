"""Which recipe a command works by: flags, then a file, then the run folder, then the defaults."""

from pathlib import Path

from peft_autoconfig.errors import ConfigError
from peft_autoconfig.recipe import Recipe, read_recipe_file

from .options import Given

__all__ = ["recipe_of", "recipe_told"]


def recipe_of(given: Given, config: Path | None, run: Path | None) -> Recipe:
    """Returns the recipe.

    Args:
        given: Flags that were given.
        config: A configuration file, if one was given.
        run: A run folder that may keep a recipe.

    Raises:
        ConfigError: A value or the file is wrong.
    """
    kept = Recipe.of_run(run) if run is not None else None
    told = (read_recipe_file(config) if config is not None else {}) | given
    values = kept.values() if kept is not None else {}
    if "task" in told:  # and not the file of one's own that the run folder names
        values |= dict.fromkeys(("train_file", "validation_file", "kind", "metric"))
    return Recipe.of(values | told, "a recipe" if config is None else str(config))


def recipe_told(given: Given, config: Path | None, run: Path | None, source: str) -> Recipe:
    """Returns the recipe, if somebody said what to train on.

    Raises:
        ConfigError: Nobody did, or a value or the file is wrong.
    """
    if not given and config is None and (run is None or Recipe.of_run(run) is None):
        raise ConfigError(
            f"Expected --model and --task, or a --config file with them, since {source} does not "
            f"say what it was searched on."
        )
    return recipe_of(given, config, run)
