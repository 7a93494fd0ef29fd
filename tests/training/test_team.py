"""Two real processes that train one trial together: the result of one, and nobody left waiting.

Once each holds the whole model, once a part of it, as a launch with FSDP asks for.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import replace

import optuna
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import LoraConfig
from transformers import AutoConfig, AutoModel, AutoTokenizer

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError, WorkerError
from peft_autoconfig.front.adapter import evaluate_adapter, train_adapter
from peft_autoconfig.front.baselines import untrained
from peft_autoconfig.front.table import num_trainings
from peft_autoconfig.search import Search, rungs
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.tasks import KINDS, Metric, Split
from peft_autoconfig.training import Training, TrainingPlan, checkpoint
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE
from peft_autoconfig.training.team import Team
from peft_autoconfig_cli.interruption import heed_interruptions

# A server that has imported everything once and forks from there.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["tests.training.test_team"])

# Of eleven rows, every third batch has one, so that one process has nothing to do.
PLAN = TrainingPlan(max_steps=5, num_epochs=100, batch_size=5, max_length=16)
CONFIG = AutoPEFTConfig(serial_bottleneck_size=4, prefix_length=2, layers_to_transform=[1])
METHODS = {"ours": CONFIG, "probe": LINEAR_PROBE, "full": FULL_FINE_TUNING}
LORA = LoraConfig(r=2, target_modules="all-linear")
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


@pytest.fixture(scope="module")
def written_task(task):
    """What a decoder writes after the letters of each text."""
    kind = KINDS["completion"]()
    parts = {
        name: Split(part.texts, tuple("pqr"[label] * 2 for label in part.labels))
        for name, part in (("train", task.train), ("dev", task.dev), ("test", task.test))
    }
    return replace(task, kind=kind, metric=Metric(kind.default_measures), **parts)


def launched(work, *arguments, fsdp=False):
    """Runs ``work(rank, *arguments)`` in two processes; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        fresh.Process(target=enter, args=(rank, port, fsdp, work, arguments)) for rank in range(2)
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


def enter(rank, port, fsdp, work, arguments):
    """Sets up what `accelerate launch --cpu` does, and what our programs do with signals."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"},
        **{"ACCELERATE_USE_FSDP": str(fsdp).lower(), "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
    }
    torch.set_num_threads(1)
    heed_interruptions()
    try:
        work(rank, *arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def at_step(training, wanted, act, *, backward=False):
    """Does something in this process once, in the middle of a training step, within a layer."""
    steps = []

    def hook(module, *_):
        steps.append(module.training)
        if module.training and sum(steps) == wanted:
            act()

    layer = training.pretrained.model.bert.encoder.layer[2]
    if backward:
        layer.register_full_backward_hook(hook)
    else:
        layer.register_forward_pre_hook(hook)


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
        if training.divides_model and method == FULL_FINE_TUNING:
            with pytest.raises(ConfigError, match="full fine-tuning needs a launch without FSDP"):
                training.train(method, learning_rate=RATE, seed=0)
            continue
        model = training.train(method, learning_rate=RATE, seed=0)
        scores[name] = numbers(training.evaluate(model, "dev"))
        if not training.divides_model:
            alone = training._trainer.evaluate(model, "dev", None, alone=True)
            scores[f"{name}, one evaluates"] = numbers(alone)
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
    return [numbers(training(CONFIG, learning_rate=RATE)), training._trainer.micro_batch_size]


def break_off(training, out):
    checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0.0, 1e9
    whole = training(CONFIG, learning_rate=RATE)
    training.checkpoint_folder = out / "checkpoints"
    with pytest.raises(SystemExit):
        training.train(CONFIG, learning_rate=RATE, seed=0, observe=observe_until(4, SystemExit))
    rest = training(CONFIG, learning_rate=RATE)
    return [numbers(whole), numbers(rest), rest.details.get("resumed_step")]


def tell_rungs(training, out):
    """A training that tells how it stands; one that is stopped; a search that stops what it can."""
    told = []
    result = training(CONFIG, learning_rate=RATE, report=lambda *rung: told.append(rung))
    with pytest.raises(optuna.TrialPruned):
        training(CONFIG, learning_rate=RATE, report=fail_with(optuna.TrialPruned()))
    rungs.MIN_COMPLETE, rungs.MARGIN = 2, -1.0
    search = Search(SPACE, out / "stopped", about=training.about())
    search.run(training, 5)
    trials = [[r.state, SPACE.num_params(r.config)] for r in search.trials]
    return [numbers(result), told, trials]


def write(training, out):
    floor = untrained(training, "dev")[1]
    trained = train_adapter(training, CONFIG, out / "adapter", learning_rate=RATE)
    lora = training.train(LORA, learning_rate=RATE, seed=0)
    lora_dev = training.evaluate(lora, "dev")
    return [numbers(result) for result in (floor, trained.dev, trained.test, lora_dev)]


def misuse(training, out):
    """What only a team that holds a model together refuses."""
    messages = []
    parts = [p for p in training.pretrained.untrained("cpu").parameters() if not p.requires_grad]
    sizes = [sum(p.numel() for p in parts), sum(p.to_local().numel() for p in parts)]
    first = training.train(CONFIG, learning_rate=RATE, seed=0)
    second = training.train(LINEAR_PROBE, learning_rate=RATE, seed=0)
    batch = training._trainer._batch(training._trainer.examples("dev")[:1])
    for attempt in (
        lambda: training.evaluate(first, "dev"),
        lambda: second(**batch),
        lambda: training.train(CONFIG, seed=0, observe=lambda model, _: model(**batch)),
        lambda: training.train(LoraConfig(modules_to_save=["query"]), seed=0),
        lambda: evaluate_adapter(training, str(out / "adapter")),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt()
        messages.append(str(caught.value))
    search = Search(SPACE, out / "two", about=training.about())
    rates = {"num_seeds": 1, "learning_rates": [RATE], "limit": 1}
    return [messages, num_trainings(search, training, **rates), sizes]


def train_together(rank, folders, tasks, out):
    """Goes through all cases that a team survives; the leader notes what it saw."""
    seen = {}
    for case in (score, search, fail, run_out_of_memory, break_off, tell_rungs, write, misuse):
        task, plan = tasks[case is write], PLAN
        folder = folders.get(case.__name__, folders["still"])
        if case is tell_rungs:
            plan = replace(PLAN, rungs=(0.5, 0.8))
        if case is write:
            plan = replace(PLAN, gradient_checkpointing=True, micro_batch_size=2)
        training = Training(folder, task, plan, parallel="data")
        if case is misuse and not training.divides_model:
            break
        if rank == 1 and case is fail:
            at_step(training, 2, fail_with(ValueError("only here")))
        if rank == 1 and case is run_out_of_memory:
            at_step(training, 2, fail_with(RuntimeError("CUDA out of memory.")), backward=True)
        with training.together() as leads:
            assert leads == (rank == 0)
            if leads:
                seen[case.__name__] = case(training, out)
    if rank == 0:
        (out / "seen.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "divided"])
def fsdp(request):
    return request.param


@pytest.fixture(scope="module")
def out(still_folder, tiny_folder, tiny_decoder, task, written_task, fsdp, tmp_path_factory):
    out = tmp_path_factory.mktemp("team")
    folders = {"still": still_folder, "break_off": tiny_folder, "write": tiny_decoder}
    tasks = (task, written_task)
    assert launched(train_together, folders, tasks, out, fsdp=fsdp) == [0, 0]
    return out


@pytest.fixture(scope="module")
def seen(out):
    return json.loads((out / "seen.json").read_text())


@pytest.fixture(scope="module")
def alone(still_folder, task):
    return Training(still_folder, task, PLAN)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_score_as_one_does(name, seen, fsdp, alone):
    expected = numbers(
        alone.evaluate(alone.train(METHODS[name], learning_rate=RATE, seed=0), "dev")
    )
    scores = [scores for other, scores in seen["score"].items() if other.split(", ")[0] == name]
    assert len(scores) == (2 if not fsdp else 1 if name != "full" else 0)
    for found in scores:
        assert found == pytest.approx(expected, abs=1e-4)


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


def test_a_training_in_all_tells_at_rungs_and_is_stopped_by_the_leader(seen, still_folder, task):
    result, told, trials = seen["tell_rungs"]
    expected = []
    one = Training(still_folder, task, replace(PLAN, rungs=(0.5, 0.8)))
    whole = one(CONFIG, learning_rate=RATE, report=lambda *rung: expected.append(rung))
    assert result == pytest.approx(numbers(whole), abs=1e-4)
    assert [rung[0] for rung in told] == [0.5, 0.8]
    assert [x for rung in told for x in rung] == pytest.approx(
        [x for rung in expected for x in rung], abs=1e-4
    )
    ended = []  # parameters of those trained to the end; the rungs of this search stop all
    for state, num_params in trials:  # but the first two and what is cheaper than any of these
        assert state == ("PRUNED" if len(ended) > 1 and num_params >= min(ended) else "COMPLETE")
        ended += [num_params] if state == "COMPLETE" else []
    assert "PRUNED" in [state for state, _ in trials]


def test_a_decoder_is_trained_saved_and_loaded(seen, out, tiny_decoder, written_task):
    floor, dev, test, lora = seen["write"]
    one = Training(tiny_decoder, written_task, PLAN)
    assert floor == pytest.approx(numbers(untrained(one, "dev")[1]), abs=1e-4)
    for method, expected in ((CONFIG, dev), (LORA, lora)):
        model = one.train(method, learning_rate=RATE, seed=0)
        assert numbers(one.evaluate(model, "dev")) == pytest.approx(expected, abs=1e-4)
    assert numbers(evaluate_adapter(one, str(out / "adapter"))) == pytest.approx(test, abs=1e-4)


def test_what_a_divided_model_cannot_do_is_refused(seen, fsdp, alone, out):
    if not fsdp:
        pytest.skip("each process holds the whole model")
    messages, num, (whole, own) = seen["misuse"]
    assert 0.5 * whole <= own < 0.51 * whole
    assert [message.split(",")[0] for message in messages] == [
        "Expected the model that was trained last",
        "Expected all processes to run the model",
        "Expected all processes to run the model",
        "Expected a method that trains nothing but new parts and heads",
        f"Expected a launch in which each process holds all of {alone.model}",
    ]
    search = Search(SPACE, out / "two", about=alone.about())
    rates = {"num_seeds": 1, "learning_rates": [RATE], "limit": 1}
    # without full fine-tuning
    assert num == num_trainings(search, alone, **rates) - 1


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
    number, error, codes, fsdp, still_folder, task, tmp_path
):
    work = search_and_be_struck
    assert launched(work, still_folder, task, tmp_path, number, fsdp=fsdp) == codes
    assert json.loads((tmp_path / "seen.json").read_text()) == [error, ["FAIL", "WAITING"]]


@pytest.mark.parametrize("kind", [DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_a_launch_that_rebuilds_the_model_is_refused(kind, tiny_folder, task, monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    with pytest.raises(ConfigError, match=f"divides the model by FSDP or not at all.*{kind.value}"):
        Training(tiny_folder, task, PLAN, parallel="data")


@pytest.mark.parametrize(
    ("parallel", "offload", "message"),
    [("trials", "false", "Expected parallel='data'"), ("data", "true", "fsdp_offload_params")],
)
def test_launches_with_fsdp_are_refused(parallel, offload, message, tiny_folder, task, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", offload)
    with pytest.raises(ConfigError, match=message):
        Training(tiny_folder, task, PLAN, parallel=parallel)


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_all_of_a_team_that_divides_a_model_get_as_many_pieces(number, size):
    pieces = []
    for rank in range(3):
        team = Team(rank)
        team.size, team.divides = 3, True
        pieces.append(list(team.pieces(range(number), size)))
    assert len(set(map(len, pieces))) == 1
    counted = [item for own in pieces for piece, counts in own if counts for item in piece]
    assert sorted(counted) == list(range(number))
    assert all(len(piece) <= size for own in pieces for piece, _ in own)
    assert all(list(piece) == [0] for own in pieces for piece, counts in own if not counts)


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
