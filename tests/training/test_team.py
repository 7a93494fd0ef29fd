"""Two real processes that train one trial together: the result of one, and nobody left waiting."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import AutoConfig, AutoModel, AutoTokenizer

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError, WorkerError
from peft_autoconfig.search import Search
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.training import Training, TrainingPlan, checkpoint
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE
from peft_autoconfig_cli.interruption import heed_interruptions

# A server that has imported everything once and forks from there.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["tests.training.test_team"])

# Of eleven rows, every third batch has one, so that one process has nothing to do.
PLAN = TrainingPlan(max_steps=5, num_epochs=100, batch_size=5, max_length=16)
CONFIG = AutoPEFTConfig(serial_bottleneck_size=4, prefix_length=2, layers_to_transform=[1])
METHODS = {"ours": CONFIG, "probe": LINEAR_PROBE, "full": FULL_FINE_TUNING}
RATE = 1e-2
SPACE = SearchSpace(
    num_layers=4,
    hidden_size=32,
    serial_bottleneck_sizes=(0, 2),
    parallel_bottleneck_sizes=(0, 2),
    prefix_lengths=(0, 2),
    learning_rates=(RATE,),
)
SECONDS_TO_END = 300
INTERRUPTED = 130


@pytest.fixture(scope="module")
def still_folder(tiny_folder, tmp_path_factory):
    """The tiny model without dropout, which draws other numbers in two processes."""
    folder = tmp_path_factory.mktemp("still")
    config = AutoConfig.from_pretrained(
        tiny_folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    AutoModel.from_pretrained(tiny_folder, config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def task(tiny_task):
    return replace(tiny_task, train=tiny_task.train.take(range(11)))


def launched(work, *arguments):
    """Runs ``work(rank, *arguments)`` in two processes; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        fresh.Process(target=enter, args=(rank, port, work, arguments)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS_TO_END)
    hanging = [process.name for process in processes if process.is_alive()]
    for process in processes:
        process.kill()
    assert not hanging
    return [process.exitcode for process in processes]


def enter(rank, port, work, arguments):
    """Sets up what `accelerate launch --cpu` does, and what our programs do with signals."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"},
    }
    torch.set_num_threads(1)
    heed_interruptions()
    try:
        work(rank, *arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def at_step(training, wanted, act):
    """Does something in this process once, in the middle of a training step."""
    steps = []

    def hook(module, args):
        steps.append(module.training)
        if module.training and sum(steps) == wanted:
            act()

    training.pretrained.model.register_forward_pre_hook(hook)


def fail_with(error):
    def fail(*_):
        raise error

    return fail


def observe_until(wanted, error):
    def observe(model, step):
        if step == wanted:
            raise error

    return observe


def numbers(result):
    return [result.score, result.loss]


def score(training, out):
    scores = {}
    for name, method in METHODS.items():
        model = training.train(method, learning_rate=RATE, seed=0)
        scores[name] = numbers(training.evaluate(model, "dev"))
        scores[f"{name}, one evaluates"] = numbers(
            training._evaluate(model, "dev", None, training._alone)
        )
    return scores


def search(training, out):
    Search(SPACE, out / "two", about=training.about()).run(training, 2)


def fail(training, out):
    """The other process has an error of its own, then this one, then nobody."""
    with pytest.raises(RuntimeError) as caught:
        training.train(CONFIG, learning_rate=RATE, seed=0)
    with pytest.raises(ArithmeticError):
        training.train(
            CONFIG, learning_rate=RATE, seed=0, observe=observe_until(2, ArithmeticError)
        )
    return [str(caught.value), numbers(training(CONFIG, learning_rate=RATE))]


def run_out_of_memory(training, out):
    return [numbers(training(CONFIG, learning_rate=RATE)), training._micro_batch_size]


def break_off(training, out):
    checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0.0, 1e9
    whole = training(CONFIG, learning_rate=RATE)
    training.checkpoint_folder = out / "checkpoints"
    with pytest.raises(SystemExit):
        training.train(CONFIG, learning_rate=RATE, seed=0, observe=observe_until(4, SystemExit))
    rest = training(CONFIG, learning_rate=RATE)
    return [numbers(whole), numbers(rest), rest.details.get("resumed_step")]


def train_together(rank, still_folder, tiny_folder, task, out):
    """Goes through all cases that a team survives; the leader notes what it saw."""
    seen = {}
    for case in (score, search, fail, run_out_of_memory, break_off):
        folder = tiny_folder if case is break_off else still_folder
        training = Training(folder, task, PLAN, parallel="data")
        if rank == 1 and case is fail:
            at_step(training, 2, fail_with(ValueError("only here")))
        if rank == 1 and case is run_out_of_memory:
            at_step(training, 2, fail_with(RuntimeError("CUDA out of memory.")))
        with training.together() as leads:
            assert leads == (rank == 0)
            if leads:
                seen[case.__name__] = case(training, out)
    if rank == 0:
        (out / "seen.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def out(still_folder, tiny_folder, task, tmp_path_factory):
    out = tmp_path_factory.mktemp("team")
    assert launched(train_together, still_folder, tiny_folder, task, out) == [0, 0]
    return out


@pytest.fixture(scope="module")
def seen(out):
    return json.loads((out / "seen.json").read_text())


@pytest.fixture(scope="module")
def alone(still_folder, task):
    return Training(still_folder, task, PLAN)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_score_as_one_does(name, seen, alone):
    expected = numbers(
        alone.evaluate(alone.train(METHODS[name], learning_rate=RATE, seed=0), "dev")
    )
    assert seen["score"][name] == pytest.approx(expected, abs=1e-4)
    assert seen["score"][f"{name}, one evaluates"] == pytest.approx(expected, abs=1e-4)


def test_the_run_folder_is_that_of_one_process(out, seen, alone):
    Search(SPACE, out / "one", about=alone.about()).run(alone, 2)
    one, two = (Search(SPACE, out / name, about=alone.about()) for name in ("one", "two"))
    files = [
        sorted(str(path.relative_to(run.folder.path)) for path in run.folder.path.rglob("*"))
        for run in (one, two)
    ]
    assert files[0] == files[1]
    for expected, record in zip(one.trials, two.trials, strict=True):
        assert (record.state, record.config) == (expected.state, expected.config)
        assert record.loss == pytest.approx(expected.loss, abs=1e-4)


def test_an_error_in_one_process_is_one_in_all_and_no_more(seen, alone):
    message, after = seen["fail"]
    assert message == "process 1 of 2 failed: ValueError: only here"
    assert after == pytest.approx(numbers(alone(CONFIG, learning_rate=RATE)), abs=1e-4)


def test_memory_that_runs_out_in_one_halves_what_all_take(seen, alone):
    result, size = seen["run_out_of_memory"]
    assert size == 1  # of the three that are its share of five
    assert result == pytest.approx(numbers(alone(CONFIG, learning_rate=RATE)), abs=1e-4)


def test_what_broke_off_goes_on_to_the_same_bits_in_all(seen, out):
    whole, rest, step = seen["break_off"]
    assert step == 3
    assert rest == whole
    assert not list((out / "checkpoints").iterdir())


def search_and_be_struck(rank, folder, task, out, number):
    """The second process gets a signal in the middle of a step."""
    training = Training(folder, task, PLAN, parallel="data")
    if rank == 1:
        at_step(training, 2, lambda: os.kill(os.getpid(), number))
    with training.together() as leads:
        if leads:
            search = Search(SPACE, out / "run", about=training.about())
            try:
                search.run(training, 2)
            except (WorkerError, KeyboardInterrupt) as error:
                states = [record.state for record in search.trials]
                (out / "seen.json").write_text(json.dumps([type(error).__name__, states]))
                raise KeyboardInterrupt from error


@pytest.mark.parametrize(
    ("number", "error", "codes"),
    [
        (signal.SIGTERM, "KeyboardInterrupt", [INTERRUPTED, INTERRUPTED]),
        (signal.SIGKILL, "WorkerError", [INTERRUPTED, -signal.SIGKILL]),
    ],
    ids=["terminated", "killed"],
)
def test_who_is_struck_leaves_nobody_waiting(
    number, error, codes, still_folder, task, tmp_path, request
):
    assert launched(search_and_be_struck, still_folder, task, tmp_path, number) == codes
    assert json.loads((tmp_path / "seen.json").read_text()) == [error, ["FAIL", "WAITING"]]


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_a_launch_that_divides_the_model_is_refused(kind, tiny_folder, task, monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    with pytest.raises(ConfigError, match=f"each process holds the whole model, got {kind.value}"):
        Training(tiny_folder, task, PLAN, parallel="data")


def test_processes_that_do_not_know_each_other_are_refused(tiny_folder, task, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"Expected 2 processes .* set ACCELERATE_USE_CPU=true"):
        Training(tiny_folder, task, PLAN, parallel="data")


def test_an_unknown_way_is_refused(tiny_folder, task):
    with pytest.raises(ConfigError, match="parallel must be 'trials' or 'data', got 'model'"):
        Training(tiny_folder, task, PLAN, parallel="model")


def test_one_process_leads_itself(alone):
    with alone.together() as leads:
        assert leads
