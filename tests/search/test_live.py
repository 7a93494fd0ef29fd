"""What people see of a running search: on a terminal, in a log, and in numbers."""

import io
import time
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from peft_autoconfig.search.live import LiveView, describe, duration, render
from peft_autoconfig.search.progress import progress_of
from peft_autoconfig.tuner.config import AutoPEFTConfig

from .search_cases import (
    SPACE,
    complete,
    open_search,
    run_path,  # noqa: F401 (the fixture `folder`)
    scored,
)


def terminal(**options) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, **options)


def written(console: Console) -> str:
    return console.file.getvalue()


def text_of(progress, **options) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    console.print(render(progress))
    return written(console)


def test_progress_counts_what_there_is(folder):
    search = open_search(folder)
    search.run(scored, 3)
    search.fail(search.ask().number, "out of memory")
    running = search.ask()
    search.enqueue(search.space.sample(99), 1e-3)
    progress = progress_of(search, 10)
    assert (progress.complete, progress.failed, progress.waiting) == (3, 1, 1)
    assert [record.number for record in progress.running] == [running.number]
    assert progress.running[0].worker.rpartition(":")[2].isdigit()
    assert [record.reason for record in progress.failures] == ["out of memory"]
    assert progress.front == tuple(search.front())
    assert progress.best == search.front()[-1]


def test_a_pilot_that_needs_more_trials_than_there_are_is_counted(folder):
    search = open_search(folder)
    search.run(scored, 3)
    search.ask()
    assert progress_of(search, 2).num_trials == 4
    assert progress_of(search, 9).num_trials == 9
    assert progress_of(search).num_trials is None


def test_the_time_left_is_shared_by_the_workers(folder):
    search = open_search(folder)
    for _ in range(4):
        search.tell(search.ask().number, scored(search.space.sample(0)), seconds=30.0)
    mean = 30.0
    assert progress_of(search, 10).seconds_left == pytest.approx(6 * mean)
    assert progress_of(search, 4).seconds_left == 0
    assert progress_of(search).seconds_left is None
    assert progress_of(open_search(folder), 10).seconds_per_trial == pytest.approx(mean)
    first, second = search.ask(), search.ask()
    later = first.started + timedelta(seconds=10)
    done = 10 + max(0.0, (later - second.started).total_seconds())
    left = progress_of(search, 10, now=later).seconds_left
    assert left == pytest.approx((6 * mean - done) / 2)
    # whoever takes longer than usual is not done twice
    late = datetime.now() + timedelta(hours=1)
    assert progress_of(search, 10, now=late).seconds_left == pytest.approx(4 * mean / 2)


def test_nothing_is_known_of_a_new_search(folder):
    progress = progress_of(open_search(folder), 5)
    assert (progress.complete, progress.best, progress.seconds_left) == (0, None, None)
    assert "0/5 trials" in text_of(progress)


def test_the_picture_shows_workers_front_and_failures(folder):
    search = open_search(folder)
    search.run(scored, 5)
    search.fail(search.ask().number, "CUDA out of memory [16 GiB]")
    worker = search.ask()
    text = text_of(progress_of(search, 9))
    assert "5/9 trials, 1 failed" in text
    assert f"trial {worker.number} " in text
    assert "CUDA out of memory [16 GiB]" in text
    for member in search.front():
        assert f"{member.score:.4f}" in text
        assert f"{member.num_params:,}" in text
    best = search.front()[-1]
    assert describe(best.config) in text


def test_a_terminal_is_redrawn_while_a_trial_runs(folder):
    """The view must not wait for a trial to end, in the pilot least of all."""
    console = terminal()
    search = open_search(folder)
    seen = []

    def objective(config, learning_rate):
        start = time.monotonic()
        while "trial 0" not in written(console) and time.monotonic() - start < 20:
            time.sleep(0.05)
        seen.append("trial 0" in written(console))
        return scored(config, learning_rate)

    with LiveView(search, 3, title="pilot", console=console) as view:
        search.pilot(objective, -1.0, callbacks=[view])
        view.title = "search"
        search.run(objective, 3, callbacks=[view])
    assert seen[0]
    assert "pilot" in written(console)


def test_a_log_gets_one_line_as_each_trial_ends(folder):
    console = Console(file=io.StringIO())
    search = open_search(folder)

    def objective(config, learning_rate):
        if len(complete(search)) == 2 and not broken:
            broken.append(True)
            raise RuntimeError("[red]boom[/red]")
        return scored(config, learning_rate)

    broken: list[bool] = []
    with LiveView(search, 3, console=console) as view:
        search.pilot(objective, -1.0, callbacks=[view])
        search.run(objective, 3, callbacks=[view])
    lines = written(console).splitlines()
    assert len(lines) == 4 == len(search.trials)
    assert lines[0].startswith("search 1/3: trial 0 ")
    assert f"with {complete(search)[0].num_params:,} parameters" in lines[0]
    assert "trial 2 failed: RuntimeError: [red]boom[/red]" in lines[2]
    assert "\x1b" not in written(console)


@pytest.mark.parametrize("console", [terminal, lambda: Console(file=io.StringIO())])
def test_a_view_that_is_not_enabled_is_silent(folder, console):
    console = console()
    search = open_search(folder)
    with LiveView(search, 2, console=console, enabled=False) as view:
        search.run(scored, 2, callbacks=[view])
    assert written(console) == ""


def test_a_store_that_cannot_be_read_now_leaves_the_last_picture(folder, monkeypatch):
    console = terminal()
    search = open_search(folder)
    search.run(scored, 2)
    with LiveView(search, 3, console=console) as view:
        monkeypatch.setattr(type(search), "trials", property(lambda _: 1 / 0))
        time.sleep(1.5)
        assert "2/3 trials" in str(Console(file=io.StringIO()).render_str(written(console)))
        monkeypatch.undo()
        search.run(scored, 3, callbacks=[view])
    assert len(complete(search)) == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AutoPEFTConfig(serial_bottleneck_size=4), "serial 4; all layers"),
        (
            AutoPEFTConfig(prefix_length=1, layers_to_transform=[0, 2, 3, 4, 7]),
            "prefix 1; layers 0, 2-4, 7",
        ),
        (
            AutoPEFTConfig(lora_rank=8, parallel_bottleneck_size=2, layers_to_transform=[1]),
            "parallel 2, LoRA 8; layers 1",
        ),
        (None, "unknown"),
    ],
)
def test_a_configuration_in_a_few_words(config, words):
    assert describe(config) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min"),
        (3601, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (3600 * 50, "2 d 2 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words


def test_records_name_their_worker(folder):
    search = open_search(folder, SPACE)
    search.run(scored, 1)
    (record,) = search.trials
    host, _, process = record.worker.rpartition(":")
    assert host
    assert process.isdigit()
    assert (datetime.now() - record.started).total_seconds() < 600
