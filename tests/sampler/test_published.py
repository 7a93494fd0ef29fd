"""The published search in a study: as far as few steps of NUTS show it."""

import builtins

import numpy as np
import pytest

from peft_autoconfig.bayes.saas import Inference
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.sampler import PublishedSampler

from .cases import SPACE, finished, new_study, points, random_params, score

SHORT = Inference(warmup_steps=8, num_samples=4, thinning=2, max_tree_depth=3)


def asked(n):
    """Returns the points of ten finished trials and of `n` asked for after them."""
    study = new_study(PublishedSampler(SPACE, 0, n_startup=5, inference=SHORT))
    for params in random_params(10):
        study.add_trial(finished(SPACE, params, values=[score(params), 1.0]))
    for _ in range(n):
        SPACE.suggest(study.ask())
    return points(study)


def test_it_proposes_new_points_deterministically_also_in_batches():
    pytest.importorskip("numpyro")
    before = np.random.get_state()[1].copy()
    found = asked(3)
    assert len(set(found)) == 13
    assert asked(1) == found[:11]
    assert (np.random.get_state()[1] == before).all()


def test_without_numpyro_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_jax(name, *args, **kwargs):
        if name.partition(".")[0] in ("jax", "numpyro"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_jax)
    with pytest.raises(ConfigError, match=r"peft-autoconfig\[saas\]"):
        asked(1)
