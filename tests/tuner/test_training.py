"""Training that must give the gradients of plain training: checkpointing, autocast, half bases."""

import contextlib

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from peft_autoconfig.tuner.site import Site

from .architectures import ARCHITECTURES
from .configurations import METHODS, REPRESENTATIVE, adapted, output, own_gradients

every_method = pytest.mark.parametrize("method", METHODS)
every_architecture = pytest.mark.parametrize("architecture", REPRESENTATIVE)
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
every_half = pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)
# of output and direction of the gradients; the worst seen were 0.017 and 0.002
ROUNDING = {torch.bfloat16: 0.03, torch.float16: 0.005}
# rounding may change which expert a token goes to, unless it goes to all
CHANGES = {"Mixtral": {"num_experts_per_tok": 4}}


def train_step(model, batch, autocast=contextlib.nullcontext):
    """Returns output and gradients of one step with the dropout of a fixed seed."""
    model.train()
    torch.manual_seed(2)
    with autocast():
        result = output(model, batch)
    # a weighted sum, since a plain one of a normalised output is the same for any input
    weights = torch.linspace(-1, 1, result.shape[-1])
    (result.float() * weights).mean().backward()
    gradients = {name: g.clone() for name, g in own_gradients(model).items()}
    model.zero_grad()
    return result.detach(), gradients


def without_dropout(model):
    for module in model.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
    return model


def assert_near(actual, expected, tolerance):
    """Compares output and gradients as wholes: by relative error, and by direction."""
    output_error = (actual[0].float() - expected[0]).norm() / expected[0].norm()
    found, wanted = (
        torch.cat([gradient.float().flatten() for gradient in gradients.values()])
        for gradients in (actual[1], expected[1])
    )
    assert torch.isfinite(found).all()
    cosine = torch.cosine_similarity(found, wanted, dim=0)
    assert output_error < tolerance
    assert 1 - cosine < tolerance


def count_runs(model):
    """Counts how often the last site runs; returns the list to which each run adds an item."""
    runs = []
    site = [module for module in model.modules() if isinstance(module, Site)][-1]
    site.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


@every_method
@every_architecture
def test_checkpointing_changes_no_gradient(architecture, method):
    batch = ARCHITECTURES[architecture].batch()
    model = adapted(architecture, method)
    if not model.supports_gradient_checkpointing:
        pytest.skip(f"transformers has no checkpointing for {architecture}")
    expected = train_step(model, batch)
    runs = count_runs(model)
    for use_reentrant in (True, False):
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.enable_input_require_grads()
        runs.clear()
        actual = train_step(model, batch)
        assert len(runs) == 2, "the layer was not run again for its gradients"
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        model.gradient_checkpointing_disable()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("architecture", ["BERT", "OPT"])
def test_checkpointed_batches_may_be_joined_before_backward(architecture, use_reentrant):
    # the input of a sub-layer that a site remembers must be that of its own batch
    model = without_dropout(adapted(architecture, "all")).train()
    batch = ARCHITECTURES[architecture].batch()
    halves = [{k: v[rows] for k, v in batch.items()} for rows in ([0, 1], [2])]

    def gradients():
        sum(output(model, half).pow(3).sum() for half in halves).backward()
        found = {name: g.clone() for name, g in own_gradients(model).items()}
        model.zero_grad()
        return found

    expected = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-4)


@every_half
@every_method
@every_architecture
def test_autocast_rounds_and_does_no_more(architecture, method, dtype):
    batch = ARCHITECTURES[architecture].batch()
    model = without_dropout(adapted(architecture, method, **CHANGES.get(architecture, {})))
    expected = train_step(model, batch)
    actual = train_step(model, batch, lambda: torch.autocast("cpu", dtype))
    assert {gradient.dtype for gradient in actual[1].values()} == {torch.float32}
    assert not torch.equal(actual[0].float(), expected[0])
    assert_near(actual, expected, ROUNDING[dtype])


@every_half
@every_method
@every_architecture
def test_half_precision_bases_train(architecture, method, dtype):
    batch = ARCHITECTURES[architecture].batch()
    changes = CHANGES.get(architecture, {})
    whole = without_dropout(adapted(architecture, method, **changes))
    expected = train_step(whole, batch)
    batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}
    for autocast_adapter_dtype, own in ((True, torch.float32), (False, dtype)):
        base = ARCHITECTURES[architecture].build(**changes).to(dtype)
        model = get_peft_model(
            base, METHODS[method](), autocast_adapter_dtype=autocast_adapter_dtype
        )
        set_peft_model_state_dict(model, get_peft_model_state_dict(whole))
        actual = train_step(without_dropout(model), batch)
        assert actual[0].dtype == dtype
        assert {gradient.dtype for gradient in actual[1].values()} == {own}
        assert_near(actual, expected, ROUNDING[dtype])


@every_half
@every_method
def test_an_adapted_model_may_be_made_half(method, dtype):
    batch = ARCHITECTURES["Llama"].batch()
    model = without_dropout(adapted("Llama", method))
    expected = train_step(model, batch)
    halved = train_step(model.to(dtype), batch)
    assert halved[0].dtype == dtype
    assert_near(halved, expected, ROUNDING[dtype])
