"""The table of hand-made choices: what a report takes, and that all of them can be trained."""

import pytest
from peft import LoraConfig

from peft_autoconfig.front.baselines import all_baselines, baseline_methods
from peft_autoconfig.training import Training, TrainingPlan

from ..conftest import HIDDEN_SIZE, NUM_LAYERS

BERT_BASE = {baseline.name: baseline.method for baseline in all_baselines(768)}


def test_the_report_takes_few_of_many():
    assert set(baseline_methods(768)) < set(BERT_BASE)
    assert len(baseline_methods(768)) == 6
    assert len(BERT_BASE) == len(all_baselines(768)) == 13


def test_low_rank_comes_in_three_ranks_and_two_places():
    lora = [(n, m) for n, m in BERT_BASE.items() if isinstance(m, LoraConfig)]
    assert [name for name, _ in lora] == [
        *(f"LoRA r={rank}" for rank in (4, 8, 16)),
        *(f"LoRA r={rank}, all linear" for rank in (4, 8, 16)),
    ]
    assert all(method.lora_alpha == 2 * method.r for _, method in lora)


@pytest.fixture(scope="module")
def pretrained(tiny_folder, tiny_task):
    return Training(tiny_folder, tiny_task, TrainingPlan(max_steps=1)).pretrained


@pytest.mark.parametrize("baseline", all_baselines(HIDDEN_SIZE), ids=lambda b: b.name)
def test_each_can_be_put_on_a_model_and_leaves_its_head_alone(baseline, pretrained):
    model = pretrained.fresh(baseline.method, seed=0)
    assert (pretrained.num_params(model) > 0) == (baseline.name != "linear probe")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)
    assert not any("classifier" in name and "lora" in name for name in trained)


def test_all_linear_modules_of_the_layers_are_updated(pretrained):
    methods = {b.name: b.method for b in all_baselines(HIDDEN_SIZE)}
    counts = {
        name: pretrained.num_params(pretrained.fresh(methods[f"LoRA r=4{name}"], seed=0))
        for name in ("", ", all linear")
    }
    attention, feed_forward = 4 * HIDDEN_SIZE * 2, 2 * (HIDDEN_SIZE + 64)
    assert counts[""] == NUM_LAYERS * 4 * 2 * 2 * HIDDEN_SIZE
    assert counts[", all linear"] >= NUM_LAYERS * 4 * (attention + feed_forward)
