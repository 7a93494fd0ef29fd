"""A search in PostgreSQL: joined from several folders, refused if it is another's, no secrets."""

import json
import logging
import threading

import pytest

from peft_autoconfig.errors import ConfigError, RunError, SearchError
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.report.study import read_trials
from peft_autoconfig.search import Search
from peft_autoconfig.search.patience import FIRST_PAUSE_SECONDS
from peft_autoconfig.search.storage_url import PASSWORD_VARIABLE, public
from tests.search.search_cases import PLAIN, complete, open_search, points, scored

from .postgres import PASSWORD


@pytest.fixture
def folder(tmp_path):
    """A run folder of a name that no other test has."""
    return tmp_path / tmp_path.name


def texts_of(folder):
    return "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_two_folders_of_one_name_are_one_search(server, tmp_path):
    here, there = (tmp_path / side / tmp_path.name for side in ("here", "there"))
    one, other = open_search(here, storage=server.url), open_search(there, storage=server.url)
    one.run(scored, 4)
    assert points(other.trials) == points(one.trials)
    other.run(scored, 6)
    assert len(complete(one)) == 6
    assert not (here / "study.db").exists()
    assert (here / "search.json").read_bytes() == (there / "search.json").read_bytes()
    one.run(pytest.fail, 6)
    assert (here / "front.json").read_bytes() == (there / "front.json").read_bytes()


def test_a_folder_knows_its_data_base(server, folder):
    search = open_search(folder, storage=server.url)
    search.run(scored, 3)
    assert points(Search.open(folder).trials) == points(search.trials)
    open_search(folder).run(pytest.fail, 3)
    assert len(read_trials(search.folder)) == len(search.trials)


def test_another_search_of_that_name_is_refused(server, tmp_path):
    here, there = (tmp_path / side / tmp_path.name for side in ("here", "there"))
    open_search(here, storage=server.url, about={"task": "rte"})
    with pytest.raises(RunError, match=r"about\.task is 'rte' there and 'mrpc' here"):
        open_search(there, storage=server.url, about={"task": "mrpc"})
    with pytest.raises(RunError, match=r"space\.learning_rates"):
        open_search(there, PLAIN, storage=server.url, about={"task": "rte"})


def test_a_search_in_a_folder_does_not_move_to_a_data_base(server, folder):
    open_search(folder).run(scored, 1)
    with pytest.raises(RunError, match="storage is None there"):
        open_search(folder, storage=server.url)


def test_another_format_version_is_refused(server, folder):
    search = open_search(folder, storage=server.url)
    identity = search._store._study.user_attrs["search"]
    search._store._study.set_user_attr("search", identity | {"format": 99})
    with pytest.raises(RunError, match=r"format version 99, this version .* reads 1; use"):
        open_search(folder)


def test_many_begin_at_once(server, tmp_path):
    """In a data base without tables, where each could make them."""
    server.sql("CREATE DATABASE empty", "postgres")
    url = server.url.replace("/search?", "/empty?")
    found, failed = [], []

    def begin(number):
        try:
            search = open_search(tmp_path / str(number) / "run", storage=url)
            found.append(search.ask())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set(points(found))) == 8
    assert server.sql("SELECT count(*) FROM studies", "empty") == "1"


# --- secrets --------------------------------------------------------------------------------------


def test_the_password_is_nowhere(server, folder, caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    search = open_search(folder, storage=server.secret_url)
    search.run(scored, 2)
    recipe = Recipe(storage=server.secret_url)
    recipe.keep(folder)
    assert json.loads((folder / "recipe.json").read_text())["storage"] == public(server.secret_url)
    stored = server.sql("SELECT * FROM study_user_attributes, trial_user_attributes")
    seen = [
        texts_of(folder),
        stored,
        caplog.text,
        repr(recipe),
        repr(vars(search)),
        capfd.readouterr(),
    ]
    wrong = server.secret_url.replace(PASSWORD, f"wrong-{PASSWORD}")
    with pytest.raises(RunError, match="password authentication failed") as refused:
        open_search(folder.with_name("other"), storage=wrong)
    assert not folder.with_name("other").exists(), "a wrong address was kept"
    error = refused.value
    while error is not None:
        seen.append(repr(error))
        error = error.__cause__
    assert PASSWORD not in " ".join(map(str, seen))


def test_the_password_comes_from_the_environment(server, folder, monkeypatch):
    open_search(folder, storage=server.secret_url)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(RunError, match="no password supplied"):
        Search.open(folder)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    assert Search.open(folder).trials == []


@pytest.mark.parametrize(
    ("storage", "bare"),
    [
        ("postgres://u:s3cret@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgresql://u:s3cret@h:5433/d", "postgresql+psycopg2://u@h:5433/d"),
        ("postgresql+psycopg2://u@h/d?password=s3cret&sslmode=require",
         "postgresql+psycopg2://u@h/d?sslmode=require"),
        ("postgresql+psycopg2://u@h/d?sslpassword=s3cret", "postgresql+psycopg2://u@h/d"),
        ("postgresql+psycopg2://u:p%40s3cret@h/d", "postgresql+psycopg2://u@h/d"),
    ],
)  # fmt: skip
def test_what_is_written_down_of_an_address(storage, bare):
    assert public(storage) == bare
    assert Recipe(storage=storage).values()["storage"] == bare


@pytest.mark.parametrize(
    "storage",
    ["", "s3cret", "mysql://u:s3cret@h/d", "sqlite:///s3cret", "postgresql://u:s3cret@h:port/d",
     "://s3cret", "postgresql+nosuch://u:s3cret@h/d"],
)  # fmt: skip
def test_other_addresses_are_refused_without_repeating_them(storage, folder):
    with pytest.raises(ConfigError) as refused:
        open_search(folder, storage=storage)
    assert "s3cret" not in str(refused.value)
    assert not folder.exists()


# --- out of reach ---------------------------------------------------------------------------------


def test_a_data_base_that_does_not_exist(server, folder):
    with pytest.raises(RunError, match=r"does not exist.*See that it runs"):
        open_search(folder, storage=server.url.replace("/search?", "/nosuch?"))
    assert not folder.exists()


def test_a_server_that_stays_away_is_given_up(server, folder, monkeypatch):
    search = open_search(folder, storage=server.url)
    monkeypatch.setattr("peft_autoconfig.search.session.PATIENCE_SECONDS", 3 * FIRST_PAUSE_SECONDS)
    server.stop()
    try:
        with pytest.raises(SearchError, match=r"but it failed for .* run the same command again"):
            search.run(scored, 2)
    finally:
        server.start()
    monkeypatch.undo()
    search.run(scored, 2)
    assert len(complete(search)) == 2


def test_a_restarted_server_is_outlived(server, folder):
    search = open_search(folder, storage=server.url)
    restart = threading.Timer(0.5, server.start)
    stopped = []

    def objective(config, learning_rate):
        if len(complete(search)) == 1 and not stopped:
            stopped.append(True)
            server.stop()
            restart.start()
        return scored(config, learning_rate)

    search.run(objective, 4)
    restart.join()
    done = complete(search)
    assert stopped
    assert len(done) == 4 == len(set(points(done)))
    assert "RUNNING" not in {record.state for record in search.trials}


def test_a_lost_lock_stops_whoever_held_it(server, folder):
    """The connection breaks in the middle of a step: nothing is written without the lock."""
    search = open_search(folder, storage=server.url)
    store, seen = search._store, []

    def work():
        seen.append(len(store.trials()))
        if len(seen) == 1:
            assert server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            ) == "t"  # fmt: skip
        store._study.ask()

    store.step(work)
    assert seen == [0, 0]
    assert len(search.trials) == 1


def test_a_told_result_is_stored_once_if_the_answer_got_lost(server, folder):
    search = open_search(folder, storage=server.url)
    trial = search.ask()
    first = search.tell(trial.number, 0.5)
    again = search.tell(trial.number, 0.5)
    assert again == first
    assert len(search.trials) == 1 + sum(r.state == "PRUNED" for r in search.trials)


def test_no_connection_is_kept_between_steps(server, folder):
    search = open_search(folder, storage=server.url)
    search.ask()
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'search' AND pid <> pg_backend_pid()"
    )
    for _ in range(100):
        if (open_now := server.sql(count)) == "0":
            break
    assert open_now == "0"
