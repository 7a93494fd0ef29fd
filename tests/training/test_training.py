import contextlib
import dataclasses
import gc
import json
import math
import multiprocessing
import weakref
from concurrent.futures import ProcessPoolExecutor

import optuna
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import FNetConfig, FNetForSequenceClassification

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import ConfigError, PlacementError, TrainingError
from peft_autoconfig.training import Training, TrainingPlan
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE, Pretrained

from ..conftest import HIDDEN_SIZE, NUM_LAYERS

PLAN = TrainingPlan(max_steps=12, num_epochs=100, batch_size=8, max_length=16)
CONFIG = AutoPEFTConfig(
    serial_bottleneck_size=4, parallel_bottleneck_size=2, prefix_length=2, layers_to_transform=[1]
)


@pytest.fixture(scope="module")
def training(tiny_folder, tiny_task):
    return Training(tiny_folder, tiny_task, PLAN)


def test_a_trial_learns_and_says_how_well(training):
    few = training(CONFIG, learning_rate=1e-5)
    plan = TrainingPlan(max_steps=300, num_epochs=400, batch_size=8)
    many = Training(training.pretrained.name, training.task, plan)(
        AutoPEFTConfig(serial_bottleneck_size=16, parallel_bottleneck_size=16), learning_rate=1e-2
    )
    assert many.loss < few.loss
    assert many.score > 0.5
    assert many.seconds > 0
    assert many.details["measures"] == {"accuracy": many.score}


def test_equal_seeds_give_equal_bits_whatever_came_before(training):
    first = training(CONFIG, learning_rate=1e-2)
    training(AutoPEFTConfig(prefix_length=3), learning_rate=5e-2)
    again = training(CONFIG, learning_rate=1e-2)
    assert (first.score, first.loss) == (again.score, again.loss)
    fresh = Training(training.pretrained.name, training.task, PLAN)(CONFIG, learning_rate=1e-2)
    assert (first.score, first.loss) == (fresh.score, fresh.loss)


def outcome_of(folder, task):
    outcome = Training(folder, task, PLAN)(CONFIG, learning_rate=1e-2)
    return outcome.score, outcome.loss


def test_a_long_lived_worker_gives_the_bits_of_a_fresh_process(training):
    for method in (CONFIG, LoraConfig(r=2), LINEAR_PROBE, FULL_FINE_TUNING):
        training(method, learning_rate=1e-2)
    last = training(CONFIG, learning_rate=1e-2)
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as fresh:
        asked = fresh.submit(outcome_of, training.pretrained.name, training.task)
    assert asked.result() == (last.score, last.loss)


def test_seeds_differ(training):
    weights = [
        training.train(CONFIG, learning_rate=1e-2, seed=seed).state_dict() for seed in (1, 2)
    ]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("method", "num_params"),
    [
        (CONFIG, 2 * HIDDEN_SIZE * 6 + 6 + 2 * HIDDEN_SIZE + 2 * 2 * HIDDEN_SIZE),
        (LoraConfig(r=2), NUM_LAYERS * 2 * 2 * 2 * HIDDEN_SIZE),
        (LINEAR_PROBE, 0),
    ],
    ids=["ours", "lora", "probe"],
)
def test_only_the_method_and_the_head_are_trained(training, method, num_params):
    base = training.pretrained.model.state_dict()
    model = training.train(method, learning_rate=1e-2, seed=0)
    assert training.pretrained.num_params(model) == num_params
    for name, tensor in training.pretrained.model.state_dict().items():
        assert torch.equal(tensor, base[name])
    head = [p for n, p in model.named_parameters() if "classifier" in n and p.requires_grad]
    assert sum(p.numel() for p in head) == 3 * HIDDEN_SIZE + 3


def test_full_fine_tuning_trains_every_weight(training):
    model = training.train(FULL_FINE_TUNING, learning_rate=1e-3, seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    expected = sum(p.numel() for p in model.parameters()) - (3 * HIDDEN_SIZE + 3)
    assert training.pretrained.num_params(model) == expected


def test_scores_do_not_depend_on_the_order_of_batches(training):
    model = training.train(CONFIG, learning_rate=1e-2, seed=0).eval()
    evaluation = training.evaluate(model, "test")
    predictions = []
    for text in training.task.test.texts:
        inputs = training.pretrained.tokenizer(*text, return_tensors="pt")
        predictions.append(model(**inputs).logits.argmax().item())
    labels = training.task.test.labels
    expected = sum(p == label for p, label in zip(predictions, labels, strict=True)) / len(labels)
    assert evaluation.score == pytest.approx(expected)


def test_a_trained_model_is_saved_with_its_head(training, tmp_path):
    model = training.train(CONFIG, learning_rate=1e-2, seed=0)
    expected = training.evaluate(model, "test")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(
        Pretrained.load(training.pretrained.name, training.task).model, tmp_path
    )
    assert training.evaluate(loaded, "test") == expected


def test_a_diverging_loss_is_an_error_with_advice(training, monkeypatch):
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda logits, *_, **__: logits.sum() * math.nan
    )
    with pytest.raises(TrainingError, match=r"nan at step 0 with learning rate 0\.01"):
        training(CONFIG, learning_rate=1e-2)


def test_steps_follow_epochs_and_the_limit():
    assert TrainingPlan(num_epochs=2, batch_size=8).num_steps(100) == 25
    assert TrainingPlan(num_epochs=2, batch_size=8, max_steps=7).num_steps(100) == 7
    assert TrainingPlan(num_epochs=0.01).num_steps(10) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"num_epochs": 0},
        {"batch_size": -1},
        {"max_steps": 0},
        {"warmup_fraction": 2.0},
        {"rungs": (0.5, 1.0)},
    ],
)
def test_an_impossible_plan_is_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        TrainingPlan(**fields)


def test_facts_need_no_weights(tiny_folder, tiny_task):
    training = Training(tiny_folder, tiny_task, PLAN)
    about = training.about()
    assert "pretrained" not in vars(training)
    base = training.pretrained.model.base_model
    assert about["num_base_params"] == sum(p.numel() for p in base.parameters())
    json.dumps(about)


def test_an_unknown_model_is_refused(tiny_task):
    with pytest.raises(ConfigError, match="got 'no/such-model'"):
        Training("no/such-model", tiny_task, PLAN).load()


def test_a_model_without_a_supported_layout_is_refused_before_training(
    tiny_folder, tiny_task, tmp_path
):
    # it mixes tokens by a Fourier transform and has no attention
    config = FNetConfig(vocab_size=60, hidden_size=16, intermediate_size=16, num_labels=3)
    FNetForSequenceClassification(config).save_pretrained(tmp_path)
    Pretrained.load(tiny_folder, tiny_task).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(PlacementError, match="stack of layers"):
        Training(str(tmp_path), tiny_task, PLAN).load()


def test_an_observer_sees_every_step_and_changes_nothing(training):
    plain = training.train(CONFIG, seed=3)
    losses = {}

    def observe(model, step):
        losses[step] = training.evaluate(model, "dev").loss

    observed = training.train(CONFIG, seed=3, observe=observe)
    assert list(losses) == list(range(1, len(losses) + 1))
    assert len(set(losses.values())) > 1
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, observed.get_parameter(name)), name


def test_trainings_share_the_frozen_weights_and_change_none(training):
    base = {name: p.clone() for name, p in training.pretrained.model.named_parameters()}
    models = [training.train(method, seed=0) for method in (CONFIG, LINEAR_PROBE, LoraConfig(r=2))]
    full = training.train(FULL_FINE_TUNING, learning_rate=1e-2, seed=0)
    for name, parameter in training.pretrained.model.named_parameters():
        assert torch.equal(parameter, base[name]), name
        if name.startswith("bert.encoder"):
            assert parameter.data_ptr() != full.get_parameter(name).data_ptr()
    shared = {p.data_ptr() for p in training.pretrained.model.bert.parameters()}
    for model in models:
        assert shared <= {parameter.data_ptr() for parameter in model.parameters()}


def test_micro_batches_and_checkpointing_leave_the_result_as_it_is(training):
    for change in ({"micro_batch_size": 3}, {"gradient_checkpointing": True}):
        plan = dataclasses.replace(PLAN, **change)
        # dropout draws other numbers when the batch is divided
        other = Training(training.pretrained.name, training.task, plan)
        for module in (training.pretrained.model, other.pretrained.model):
            for dropout in module.modules():
                if isinstance(dropout, torch.nn.Dropout):
                    dropout.p = 0.0
            module.config.attention_probs_dropout_prob = 0.0
        expected = training(CONFIG, learning_rate=1e-2)
        assert other(CONFIG, learning_rate=1e-2).loss == pytest.approx(expected.loss, abs=1e-4)


def test_rungs_are_reported_and_leave_the_result_as_it_is(training):
    seen = []
    plan = dataclasses.replace(PLAN, rungs=(0.25, 0.5, 0.99))
    other = Training(training.pretrained.name, training.task, plan)
    told = other(CONFIG, learning_rate=1e-2, report=lambda *rung: seen.append(rung))
    whole = Training(training.pretrained.name, training.task, PLAN)(CONFIG, learning_rate=1e-2)
    assert (told.score, told.loss) == (whole.score, whole.loss)
    assert [fraction for fraction, _, _ in seen] == [0.25, 0.5]  # the last one is the end
    assert all(0 <= score <= 1 and loss > 0 for _, score, loss in seen)
    num_seen = math.ceil(PLAN.max_steps * PLAN.batch_size / 16)
    assert all((score * num_seen) % 1 == pytest.approx(0, abs=1e-9) for _, score, _ in seen)
    again = []
    other(CONFIG, learning_rate=1e-2, report=lambda *rung: again.append(rung))
    assert again == seen


def test_a_report_may_end_a_training(training):
    steps = []

    def stop(fraction, score, loss):
        raise InterruptedError(f"at {fraction}")

    other = Training(
        training.pretrained.name, training.task, dataclasses.replace(PLAN, rungs=(0.5,))
    )
    train = other._train
    other._train = lambda *args: train(
        *args[:-1], lambda model, step: (steps.append(step), args[-1](model, step))
    )
    with pytest.raises(InterruptedError, match=r"at 0\.5"):
        other(CONFIG, learning_rate=1e-2, report=stop)
    assert steps == list(range(1, 7))


@pytest.mark.parametrize("error", [optuna.TrialPruned, TrainingError, KeyboardInterrupt])
def test_a_training_that_is_stopped_leaves_nothing_behind(training, error):
    expected = training(CONFIG, learning_rate=1e-2)
    base = {name: p.clone() for name, p in training.pretrained.model.named_parameters()}
    held = []

    def stop(model, step):
        trained = [p for p in model.parameters() if p.requires_grad]
        held.extend(weakref.ref(thing) for thing in (model, *trained))
        raise error

    with contextlib.suppress(error):
        training.train(CONFIG, learning_rate=5e-2, seed=0, observe=stop)
    gc.collect()
    assert len(held) > 5
    assert not [ref() for ref in held if ref() is not None]
    left = dict(training.pretrained.model.named_parameters())
    assert left.keys() == base.keys()
    for name, parameter in left.items():
        assert torch.equal(parameter, base[name]), name
        assert parameter.grad is None, name
    again = training(CONFIG, learning_rate=1e-2)
    assert (again.score, again.loss) == (expected.score, expected.loss)


def test_part_of_a_split_is_evaluated_as_part_of_the_whole(training):
    model = training.train(CONFIG, learning_rate=1e-2, seed=0)
    rows = list(range(len(training.task.dev.labels)))
    whole = training.evaluate(model, "dev")
    assert training.evaluate(model, "dev", rows=rows) == whole
    halves = [training.evaluate(model, "dev", rows=rows[i::2]) for i in (0, 1)]
    sizes = [len(rows[i::2]) for i in (0, 1)]
    mean_loss = sum(h.loss * n for h, n in zip(halves, sizes, strict=True)) / len(rows)
    assert mean_loss == pytest.approx(whole.loss, abs=1e-5)


def test_what_changes_no_result_is_no_fact_of_a_run(tiny_folder, tiny_task):
    plan = dataclasses.replace(PLAN, micro_batch_size=2, gradient_checkpointing=True, rungs=(0.5,))
    assert Training(tiny_folder, tiny_task, plan).about() == (
        Training(tiny_folder, tiny_task, PLAN).about()
    )


def test_running_out_of_memory_halves_what_goes_through_at_once(
    tiny_folder, tiny_task, monkeypatch
):
    training = Training(tiny_folder, tiny_task, PLAN)
    seen, models = [], []

    def forget(module, args, options):
        size = len(options["input_ids"])
        seen.append(size)
        models.append(weakref.ref(module))
        if size > 2:
            raise RuntimeError("CUDA out of memory.")

    def fresh(self, method, **options):
        # what an earlier attempt held is gone before the next one takes more
        assert not [ref() for ref in models if ref() is not None]
        return make(self, method, **options)

    make = Pretrained.fresh
    monkeypatch.setattr(Pretrained, "fresh", fresh)
    training.pretrained.model.register_forward_pre_hook(forget, with_kwargs=True)
    model = training.train(CONFIG, seed=0)
    assert sorted(set(seen)) == [2, 4, 8]
    assert seen[:3] == [8, 4, 2]
    assert model is not None


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_folder, tiny_task):
    training = Training(tiny_folder, tiny_task, PLAN)

    def fail(module, args):
        raise RuntimeError("no such kernel")

    training.pretrained.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no such kernel"):
        training.train(CONFIG, seed=0)
