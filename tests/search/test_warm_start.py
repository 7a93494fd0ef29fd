"""A search that starts from earlier ones of other tasks, and goes on as it began."""

import json
import logging
import shutil

import pytest

from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.sampler import BayesianSampler, TransferSampler
from peft_autoconfig.search import Search
from peft_autoconfig.space import SearchSpace

from .search_cases import (
    PLAIN,
    SIZES,
    SPACE,
    complete,
    open_search,
    points,
    run_path,  # noqa: F401 (the fixture `folder`)
    scored,
)

ABOUT = {"model": "org/tiny", "num_base_params": 1000, "task": "rte"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search of another task, with trials of every kind."""
    path = tmp_path_factory.mktemp("runs") / "earlier"
    search = open_search(path, about=ABOUT | {"task": "mrpc"})
    search.fail(search.ask().number, "no memory")
    search.tell(search.ask().number, float("nan"))
    search.run(scored, 10)
    search.ask()
    return path


@pytest.fixture(name="earlier")
def earlier_run(searched, folder):
    """That search, in a folder of its own for each test."""
    return shutil.copytree(searched, folder.with_name("earlier"))


@pytest.fixture(scope="module")
def whole(searched, tmp_path_factory):
    """The points of a search that started from it and was never interrupted."""
    search = warm(tmp_path_factory.mktemp("whole") / "run", searched)
    search.run(scored, 14)
    return points(search.trials)


def warm(folder, *earlier, space=SPACE, about=ABOUT, **options):
    return Search(space, folder, seed=3, about=about, warm_start=earlier, **options)


def sampler_of(search):
    return search._store.session.study.sampler


def test_it_proposes_otherwise_than_without_and_keeps_what_was_found(folder, earlier, whole):
    search = warm(folder, earlier)
    (kept,) = json.loads((folder / "search.json").read_text())["earlier"]
    assert kept["run"] == "earlier"
    assert kept["scores"] == [record.score for record in complete(Search.open(earlier))]
    assert isinstance(sampler_of(search), TransferSampler)
    plain = Search(SPACE, folder.with_name("plain"), seed=3, about=ABOUT)
    assert "earlier" not in json.loads((plain.folder.path / "search.json").read_text())
    assert isinstance(sampler_of(plain), BayesianSampler)
    plain.run(scored, 10)
    assert points(plain.trials) != whole[:10]


@pytest.mark.parametrize("again", ["without the option", "with it", "opened"])
def test_whoever_goes_on_proposes_as_it_began(folder, earlier, whole, again):
    warm(folder, earlier).run(scored, 12)
    shutil.rmtree(earlier)  # it may go on meanwhile, or be gone
    search = {
        "without the option": lambda: warm(folder),
        "with it": lambda: warm(folder, earlier),
        "opened": lambda: Search.open(folder),
    }[again]()
    assert isinstance(sampler_of(search), TransferSampler)
    search.run(scored, 14)
    assert points(search.trials) == whole


def test_a_search_that_began_otherwise_is_refused(folder, earlier):
    Search(SPACE, folder, about=ABOUT)
    with pytest.raises(RunError, match=r"warm start is .* there and .*'earlier'.* here"):
        warm(folder, earlier)
    other = folder.with_name("other")
    shutil.copytree(earlier, other)
    warm(folder.with_name("warm"), earlier)
    with pytest.raises(RunError, match="Give another folder"):
        warm(folder.with_name("warm"), other)


@pytest.mark.parametrize(
    ("space", "about", "words"),
    [
        (SearchSpace(num_layers=3, hidden_size=4, learning_rates=(1e-3, 5e-3), **SIZES), ABOUT,
         "num_layers is 2 there and 3 here"),
        (SearchSpace(num_layers=2, hidden_size=8, learning_rates=(1e-3, 5e-3), **SIZES), ABOUT,
         "hidden_size is 4 there and 8 here"),
        (SPACE, ABOUT | {"model": "org/other"}, "model is 'tiny' there and 'other' here"),
        (SPACE, {"num_base_params": 7}, "num_base_params is 1000 there and 7 here"),
    ],
)  # fmt: skip
def test_another_base_model_is_refused_before_anything_is_made(
    folder,
    earlier,
    space,
    about,
    words,
):
    with pytest.raises(ConfigError, match=words) as refused:
        warm(folder, earlier, space=space, about=about)
    assert "of another base model" in str(refused.value)
    assert not folder.exists()


def test_the_same_model_in_another_folder_is_the_same(folder, earlier):
    search = warm(folder, earlier, about=ABOUT | {"model": "/models/tiny"})
    assert isinstance(sampler_of(search), TransferSampler)


def test_it_cannot_start_from_itself_from_nothing_or_with_a_sampler(folder, earlier):
    with pytest.raises(ConfigError, match="cannot start from itself"):
        warm(folder, folder.parent / "." / folder.name)
    with pytest.raises(RunError, match="is no run folder"):
        warm(folder, folder.with_name("nothing"))
    with pytest.raises(ConfigError, match="give it or sampler, not both"):
        warm(folder, earlier, sampler=BayesianSampler(SPACE, 0))
    assert not folder.exists()


def test_of_another_space_what_fits_is_used(folder, earlier, caplog):
    narrow = SearchSpace.from_dict(SPACE.to_dict() | {"prefix_lengths": [0, 1]})
    caplog.set_level(logging.WARNING)
    search = warm(folder, earlier, space=narrow)
    (kept,) = json.loads((folder / "search.json").read_text())["earlier"]
    found = [r for r in complete(Search.open(earlier)) if r.config.prefix_length != 4]
    assert 0 < len(found) < 10
    assert kept["scores"] == [record.score for record in found]
    assert f"Of 10 evaluations of the earlier run earlier, {10 - len(found)} are not" in caplog.text
    assert isinstance(sampler_of(search), TransferSampler)


def test_where_nothing_fits_it_is_a_search_as_any_other(folder, earlier, caplog):
    search = warm(folder, earlier, space=PLAIN)  # learning rates do not vary
    assert "10 are not in this space" in caplog.text
    assert isinstance(sampler_of(search), BayesianSampler)
    warm(folder, earlier, space=PLAIN)


def test_one_finished_trial_is_enough(folder):
    path = folder.with_name("short")
    search = open_search(path, about=ABOUT)
    search.tell(search.ask().number, 0.5)
    assert len(warm(folder, path).run(scored, 2)) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": [1.0]}, "'earlier' must list runs"),
        ({"scores": ["high"] * 10}, "'earlier' must list runs"),
        ({"points": ["9 9 9 9 9 9"] * 10}, "a point outside the space"),
        ({"points": ["0 0 0 0 0 0"] * 10}, "a point outside the space"),
        ({"points": ["1 1"] * 10}, "no such point"),
        ({"points": ["a b"] * 10}, "no such point"),
        ({"points": ["1" * 5000] * 10}, "no such point"),
    ],
)
def test_a_damaged_folder_is_refused(folder, earlier, change, words):
    warm(folder, earlier)
    facts = json.loads((folder / "search.json").read_text())
    facts["earlier"][0] |= change
    (folder / "search.json").write_text(json.dumps(facts))
    (folder / "study.db").unlink()
    with pytest.raises(RunError, match=words):
        Search.open(folder).run(scored, 1)
