"""Lower layers are left out where that gives the same bits, and nowhere else."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig
from transformers import BertConfig, BertModel

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.training import Training, TrainingPlan
from peft_autoconfig.training.lower_layers import LowerLayers
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE, Pretrained
from peft_autoconfig.tuner.placement import stacks_of_layers

from ..tuner.architectures import ARCHITECTURES, BERT, text_batch


def layers_from(number):
    """A method that leaves the layers below as they are."""
    chosen = [*range(number, 3)]
    return AutoPEFTConfig(serial_bottleneck_size=2, prefix_length=2, layers_to_transform=chosen)


UPPER = AutoPEFTConfig(serial_bottleneck_size=2, prefix_length=2, layers_to_transform=[1])


def pretrained_of(model, head=(), task_type=""):
    return Pretrained("tiny", model.eval(), None, head, task_type)


@pytest.fixture
def deep():
    """A BERT of three layers."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**(BERT | {"num_hidden_layers": 3})))
    return pretrained_of(model, ("pooler",), "FEATURE_EXTRACTION")


def trained(pretrained, method, seed=0):
    """A model whose own parameters are what a training may make of them."""
    model = pretrained.fresh(method, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return model


class Prediction:
    """Computes the results of a model for a batch, and counts how often its layers run for them.

    Attributes:
        runs: For each layer of the first stack, how often it ran for the last results.
    """

    def __init__(self, model, batch):
        self.model, self.batch = model, batch
        layers = stacks_of_layers(model)[0]
        self.runs = [0] * len(layers)
        for number, layer in enumerate(layers):
            leaf = next(module for module in layer.modules() if not [*module.children()])
            leaf.register_forward_hook(lambda *_, number=number: self._count(number))

    def __call__(self):
        self.runs = [0] * len(self.runs)
        with torch.inference_mode():
            return [self.model(**self.batch)[0].float().numpy()]

    def _count(self, number):
        self.runs[number] += 1


def runs_with(kept, model, name="a batch", batch=None):
    """Which layers ran for the last results with a store, whose bits are those of all layers."""
    prediction = Prediction(model, batch or text_batch())
    whole = prediction()
    assert all(map(np.array_equal, kept.under(model)(name, prediction), whole))
    return prediction.runs


@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"ALBERT", "CLIP"}))
def test_results_have_the_same_bits(name):
    architecture = ARCHITECTURES[name]
    pretrained = pretrained_of(architecture.build())
    kept = LowerLayers(pretrained)
    for seed in range(4):
        runs = runs_with(kept, trained(pretrained, UPPER, seed), batch=architecture.batch())
        # the first learns them, the second is computed both ways and short last
        assert runs[0] == (0 if seed else runs[1])
        assert runs[1] > 0


@pytest.mark.parametrize(
    ("method", "runs"),
    [
        (layers_from(2), [0, 0, 1]),
        (layers_from(1), [0, 1, 1]),
        (layers_from(0), [1, 1, 1]),
        (LoraConfig(r=2, target_modules=["query"], layers_to_transform=[1]), [0, 1, 1]),
        (LoraConfig(r=2, target_modules=["word_embeddings"]), [1, 1, 1]),
        (LoraConfig(r=2, target_modules=["query"], modules_to_save=["LayerNorm"]), [1, 1, 1]),
        (PrefixTuningConfig(num_virtual_tokens=2), [1, 1, 1]),
        (LINEAR_PROBE, [0, 0, 0]),
        (FULL_FINE_TUNING, [1, 1, 1]),
    ],
    ids=lambda value: "" if isinstance(value, list) else getattr(value, "peft_type", value),
)
def test_what_a_method_changes_is_run(deep, method, runs):
    kept = LowerLayers(deep)
    for seed in range(3):
        last = runs_with(kept, trained(deep, method, seed))
    assert last == runs


def test_fewer_known_layers_serve_too(deep):
    kept = LowerLayers(deep)
    for seed in range(2):
        runs_with(kept, trained(deep, layers_from(1), seed))
    assert runs_with(kept, trained(deep, layers_from(2))) == [0, 1, 1]
    runs_with(kept, trained(deep, layers_from(2)))
    assert runs_with(kept, trained(deep, layers_from(2))) == [0, 0, 1]
    assert runs_with(kept, trained(deep, layers_from(2)), name="another batch") == [1, 1, 1]


def test_shared_layers_are_run():
    pretrained = pretrained_of(ARCHITECTURES["ALBERT"].build())
    kept = LowerLayers(pretrained)
    assert [runs_with(kept, trained(pretrained, LINEAR_PROBE)) for _ in range(3)] == [[3]] * 3


class Bypass:
    """Carries what a module inside the first layer gives past that layer to the last one."""

    def __init__(self, model):
        first, *_, last = stacks_of_layers(model)[0]
        self._carried = []
        first.intermediate.register_forward_hook(
            lambda *call: self._carried.append(call[-1].mean())
        )
        last.register_forward_pre_hook(self._add)

    def _add(self, layer, inputs):
        carried = sum(self._carried, start=torch.zeros(()))
        self._carried.clear()
        return (inputs[0] + carried, *inputs[1:])


def test_what_is_carried_past_a_layer_ends_the_shortcut(deep):
    kept = LowerLayers(deep)
    for seed in range(3):
        model = trained(deep, layers_from(2), seed)
        Bypass(model)
        runs = runs_with(kept, model)
    assert runs == [1, 1, 1]
    assert not kept.is_exact


def test_a_model_that_misses_its_layers_ends_the_shortcut(deep):
    kept = LowerLayers(deep)

    def refuse(layer, inputs):
        if not seen:
            raise KeyError("the first layer")
        seen.clear()

    for seed in range(2):
        model, seen = trained(deep, layers_from(2), seed), []
        first, *_, last = stacks_of_layers(model)[0]
        first.intermediate.register_forward_hook(lambda *call, seen=seen: seen.append(call))
        last.register_forward_pre_hook(refuse)
        runs_with(kept, model)
    assert not kept.is_exact


def test_what_changes_in_place_leaves_what_is_kept(deep):
    kept = LowerLayers(deep)
    for seed in range(4):
        model = trained(deep, layers_from(1), seed)
        layer = stacks_of_layers(model)[0][1]
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].mul_(2.0), *inputs[1:]))
        runs = runs_with(kept, model)
    assert runs == [0, 1, 1]


def test_what_is_kept_is_bounded_and_other_depths_make_room(deep):
    size = text_batch()["input_ids"].numel() * BERT["hidden_size"] * 4
    kept = LowerLayers(deep, max_bytes=2 * size)

    def lowest_runs(number, names=("one", "two", "three")):
        models = [trained(deep, layers_from(number)) for _ in names]
        return [runs_with(kept, *pair)[0] for pair in zip(models, names, strict=True)]

    assert [lowest_runs(1) for _ in range(3)][-1] == [0, 0, 1]
    assert [lowest_runs(2) for _ in range(3)][-1] == [0, 0, 1]
    assert lowest_runs(1, ("one",)) == [1]
    kept.forget()
    assert lowest_runs(2, ("one",)) == [1]


def test_a_search_leaves_them_out(tiny_folder, tiny_task, monkeypatch):
    plan = TrainingPlan(max_steps=2, batch_size=8, max_length=16)
    training = Training(tiny_folder, tiny_task, plan)
    top = len(stacks_of_layers(training.pretrained.model)[0]) - 1
    model = training.train(AutoPEFTConfig(prefix_length=2, layers_to_transform=[top]), seed=0)
    lowest = stacks_of_layers(model)[0][0]
    evaluations, runs = [], []
    lowest.attention.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(4):
        evaluations.append(training.evaluate(model, "dev"))
    assert len(runs) == 2  # to learn what it gives, and to see that it can be left out
    fresh = Training(tiny_folder, tiny_task, plan).evaluate(model, "dev")
    assert evaluations == [fresh] * 4
    assert "forward" not in vars(lowest)
