"""A training that broke off goes on from its checkpoint, to the same bits."""

import json
import logging
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import safetensors.torch
import torch
from peft import LoraConfig

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.training import Training, TrainingPlan, checkpoint
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE

PLAN = TrainingPlan(max_steps=4, num_epochs=100, batch_size=8, max_length=16)
CONFIG = AutoPEFTConfig(
    serial_bottleneck_size=4, parallel_bottleneck_size=2, prefix_length=2, layers_to_transform=[1]
)
RATE = 1e-2


@pytest.fixture(autouse=True)
def _at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "LARGEST_SHARE", 1e9)


def training_in(folder, tiny_folder, tiny_task, plan=PLAN):
    return Training(tiny_folder, tiny_task, plan, checkpoint_folder=folder)


@pytest.fixture(scope="module")
def whole(tiny_folder, tiny_task):
    """The weights after a training that nobody broke off."""
    model = Training(tiny_folder, tiny_task, PLAN).train(CONFIG, learning_rate=RATE, seed=0)
    return model.state_dict()


@pytest.fixture(scope="module")
def kept(tiny_folder, tiny_task, tmp_path_factory):
    """A training that broke off, and the file that it left, with what was in it."""
    training = training_in(tmp_path_factory.mktemp("checkpoints"), tiny_folder, tiny_task)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
        break_off(training)
    [file] = training.checkpoint_folder.iterdir()
    return training, file, file.read_bytes()


def break_off(training, method=CONFIG, after=2, error=KeyboardInterrupt):
    """Trains some steps, the last of which is not kept any more."""

    def observe(model, step):
        if step == after + 1:
            raise error

    with pytest.raises(error):
        training.train(method, learning_rate=RATE, seed=0, observe=observe)


def draw_elsewhere():
    """Leaves the global generators where no training would."""
    torch.rand(17), random.random(), np.random.rand(5)


@pytest.mark.parametrize(
    "method", [CONFIG, LoraConfig(r=2, lora_dropout=0.1), LINEAR_PROBE, FULL_FINE_TUNING],
    ids=["ours", "lora", "probe", "full"],
)  # fmt: skip
def test_what_broke_off_ends_in_the_same_bits(method, tiny_folder, tiny_task, tmp_path):
    first = training_in(tmp_path, tiny_folder, tiny_task)
    whole = first.train(method, learning_rate=RATE, seed=0)
    break_off(first, method)
    [file] = tmp_path.iterdir()
    draw_elsewhere()
    other = training_in(tmp_path, tiny_folder, tiny_task)
    steps = []
    model = other.train(
        method, learning_rate=RATE, seed=0, observe=lambda _, step: steps.append(step)
    )
    assert steps == [3, 4]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert other.evaluate(model, "dev") == other.evaluate(whole, "dev")
    assert not file.exists()


def test_a_trial_says_that_it_went_on(tiny_folder, tiny_task, tmp_path):
    training = training_in(tmp_path, tiny_folder, tiny_task)
    whole = training(CONFIG, learning_rate=RATE)
    assert "resumed_step" not in whole.details
    assert not list(tmp_path.iterdir())
    break_off(training)
    rest = training_in(tmp_path, tiny_folder, tiny_task)(CONFIG, learning_rate=RATE)
    assert rest.details["resumed_step"] == 2
    assert (rest.score, rest.loss) == (whole.score, whole.loss)
    assert not list(tmp_path.iterdir())


def test_a_trial_broken_off_in_its_evaluation_goes_on_too(
    tiny_folder, tiny_task, tmp_path, monkeypatch
):
    training = training_in(tmp_path, tiny_folder, tiny_task)
    with monkeypatch.context() as patched:
        patched.setattr(Training, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            training(CONFIG, learning_rate=RATE)
    assert training(CONFIG, learning_rate=RATE).details["resumed_step"] == PLAN.max_steps


def test_only_a_longer_training_is_kept(tiny_folder, tiny_task, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 60.0)
    break_off(training_in(tmp_path / "new", tiny_folder, tiny_task))
    assert not (tmp_path / "new").exists()


def test_an_error_ends_a_training_for_good(tiny_folder, tiny_task, tmp_path):
    break_off(training_in(tmp_path, tiny_folder, tiny_task), error=ArithmeticError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"method": AutoPEFTConfig(serial_bottleneck_size=4)},
        {"learning_rate": 2 * RATE},
        {"seed": 1},
        {"plan": TrainingPlan(max_steps=3, num_epochs=100, batch_size=8, max_length=16)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_training_does_not_find_it(change, kept, tiny_folder, tiny_task, tmp_path):
    _, file, data = kept
    (tmp_path / file.name).write_bytes(data)
    options = {"method": CONFIG, "learning_rate": RATE, "seed": 0, "plan": PLAN} | change
    other = training_in(tmp_path, tiny_folder, tiny_task, options.pop("plan"))
    steps = []
    other.train(**options, observe=lambda _, step: steps.append(step))
    assert steps[0] == 1
    assert [left.name for left in tmp_path.iterdir()] == [file.name]


def truncated(data):
    return data[: len(data) // 2]


def changed(tensors=None, **facts):
    """Returns what writes a checkpoint anew with other tensors or facts."""

    def change(data):
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        stored = json.loads(header["__metadata__"]["state"]) | facts
        loaded = safetensors.torch.load(data)
        (tensors or (lambda _: None))(loaded)
        return safetensors.torch.save(loaded, {"state": json.dumps(stored)})

    return change


def drop_a_moment(tensors):
    tensors.pop("optimizer.0.exp_avg")


def widen_a_weight(tensors):
    name = min(name for name in tensors if name.startswith("model."))
    tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].dim() - 1))


def halve_a_weight(tensors):
    name = min(name for name in tensors if name.startswith("model."))
    tensors[name] = tensors[name].half()


def spoil_torch(tensors):
    tensors["generator.0.torch"].fill_(255)


def spoil_python(tensors):
    tensors["generator.0.python"].fill_(-1)


def spoil_numpy(tensors):
    tensors["generator.0.numpy"].fill_(torch.inf)


BAD = {
    "cut off": truncated,
    "empty": lambda _: b"",
    "noise": lambda data: random.Random(0).randbytes(len(data)),
    "of another training": changed(training="other"),
    "of another version": changed(format=99),
    "no step": changed(step=-1),
    "a step that is no number": changed(step="3"),
    "of another precision": changed(scaler={"scale": 1.0}),
    "facts that are none": lambda data: safetensors.torch.save({}, {"state": "[]"}),
    "a moment missing": changed(drop_a_moment),
    "a weight of another shape": changed(widen_a_weight),
    "a weight of another type": changed(halve_a_weight),
    "torch's generator": changed(spoil_torch),
    "python's generator": changed(spoil_python),
    "numpy's generator": changed(spoil_numpy),
}


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
def test_what_is_damaged_or_foreign_is_ignored(damage, kept, whole, caplog):
    training, file, data = kept
    file.write_bytes(damage(data))
    with caplog.at_level(logging.WARNING):
        model = training.train(CONFIG, learning_rate=RATE, seed=0)
    assert "is ignored and the training starts afresh" in caplog.text
    for name, tensor in whole.items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_checkpoint_of_absurd_size_is_not_read(kept, caplog):
    training, file, data = kept
    file.write_bytes(data)
    with file.open("r+b") as stream:
        stream.truncate(2**40)  # a sparse file takes no room
    training.train(CONFIG, learning_rate=RATE, seed=0)
    assert "more than" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_warning(tiny_folder, tiny_task, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    training = training_in(tmp_path / "file", tiny_folder, tiny_task)
    training.train(CONFIG, learning_rate=RATE, seed=0)
    assert "the training goes on without" in caplog.text


def test_memory_that_runs_out_begins_afresh(tiny_folder, tiny_task, tmp_path):
    training = training_in(tmp_path, tiny_folder, tiny_task)
    steps = []

    def observe(model, step):
        steps.append(step)
        if step == 2 and len(steps) == 2:
            raise RuntimeError("CUDA out of memory.")

    training.train(CONFIG, learning_rate=RATE, seed=0, observe=observe)
    assert steps == [1, 2, *range(1, PLAN.max_steps + 1)]


def search_until_killed(recipe, run):
    """A worker that is killed in the middle of its third step."""
    checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0.0, 1e9
    training = recipe.training()
    search = recipe.search(training, run)
    steps = []

    def hook(module, args):
        steps.append(module.training)
        if sum(steps) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    training.pretrained.model.register_forward_pre_hook(hook)
    recipe.run(search, training)


def test_the_trial_of_a_killed_worker_goes_on_where_it_was(tiny_folder, tmp_path):
    file = tmp_path / "letters.csv"
    file.write_text("text,label\n" + "".join(f"{a}{b},{a}\n" for a in "xy" for b in "abcdefgh"))
    recipe = Recipe(
        model=tiny_folder, train_file=str(file), max_steps=4, epochs=100, batch_size=4,
        max_length=8, learning_rates=(RATE,), max_params=2000, trials=1,
    )  # fmt: skip
    run = tmp_path / "killed"
    worker = multiprocessing.get_context("forkserver").Process(
        target=search_until_killed, args=(recipe, run)
    )
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    outcomes = []
    for folder in (run, tmp_path / "whole"):
        training = recipe.training()
        search = recipe.search(training, folder)
        recipe.run(search, training)
        [record] = [record for record in search.trials if record.state == "COMPLETE"]
        details = search._store.trial(record.number).user_attrs["details"]
        outcomes.append((record.config, record.score, record.loss, details.pop("resumed_step", 0)))
        assert not list(search.folder.checkpoint_folder.iterdir())
    assert outcomes[0] == (*outcomes[1][:-1], 2)
    assert outcomes[1][-1] == 0
